// SPDX-License-Identifier: Apache-2.0
/// How connections end between a pod of weft and a pod of a real ztunnel.

#include "test/interop/fixture.h"
#include "test/netns/endings.h"

namespace weft::test {
namespace {

constexpr std::uint16_t kScriptPort = 9292;
using ZtunnelEnds = ZtunnelTest;

TEST_F(ZtunnelEnds, FromWeftToZtunnel) {
  for (const Ending& ending : endings()) {
    for (const Endpoint& to : {zweb->v4(kScriptPort), zweb->v6(kScriptPort)}) {
      EXPECT_EQ(play_ending(ending, client->netns(), zweb->netns(), to), ending.expected)
          << ending.name << ", " << to.to_string();
    }
  }
}

TEST_F(ZtunnelEnds, FromZtunnelToWeft) {
  for (const Ending& ending : endings()) {
    for (const Endpoint& to : {web->v4(kScriptPort), web->v6(kScriptPort)}) {
      EXPECT_EQ(play_ending(ending, zclient->netns(), web->netns(), to), ending.expected)
          << ending.name << ", " << to.to_string();
    }
  }
}

}  // namespace
}  // namespace weft::test
