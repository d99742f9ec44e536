// SPDX-License-Identifier: Apache-2.0
/// How connections end between a pod of weft and a pod of a real ztunnel.

#include "test/interop/fixture.h"
#include "test/netns/endings.h"

namespace weft::test {
namespace {

using ::testing::AnyOf;

constexpr std::uint16_t kScriptPort = 9292;

class ZtunnelEnds : public ZtunnelTest {
 protected:
  /// What comes through a ztunnel: it passes a reset on as an end, whichever side it meets it on. (A reset before its
  /// tunnel is ready comes as one.) Ends and half-closes, and every byte, are as they were.
  static std::string without_resets(std::string seen) {
    const std::string reset = "|reset";
    for (auto at = seen.find(reset); at != std::string::npos; at = seen.find(reset)) {
      seen.replace(at, reset.size(), "|end");
    }
    return seen;
  }
  static void play_all(const Pod& from, const Pod& to) {
    for (const Ending& ending : endings()) {
      for (const Endpoint& server : {to.v4(kScriptPort), to.v6(kScriptPort)}) {
        EXPECT_THAT(play_ending(ending, from.netns(), to.netns(), server),
                    AnyOf(ending.expected, without_resets(ending.expected)))
            << ending.name << ", " << from.name() << " to " << server.to_string();
      }
    }
  }
};

TEST_F(ZtunnelEnds, FromWeftToZtunnelNoByteAndNoHalfCloseIsLost) { play_all(*client, *zweb); }

TEST_F(ZtunnelEnds, FromZtunnelToWeftNoByteAndNoHalfCloseIsLost) { play_all(*zclient, *web); }

}  // namespace
}  // namespace weft::test
