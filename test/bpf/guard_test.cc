// SPDX-License-Identifier: Apache-2.0
#include "test/bpf/fixture.h"

namespace weft::test {
namespace {

constexpr const char* kClean = "pass: nothing against it";
constexpr const char* kForeign = "drop: a source that is not the pod's";
constexpr const char* kBypass = "drop: plaintext into the mesh past the agent";

class Guard : public FamilyTest {
 protected:
  [[nodiscard]] std::string of(const Frame& frame) const { return verdict("guard", frame, {.ifindex = host_ifindex_}); }
  [[nodiscard]] std::string of_other(const Frame& frame) const {
    return verdict("guard", frame, {.ifindex = other_ifindex_});
  }
};
INSTANTIATE_TEST_SUITE_P(Both, Guard, ::testing::Values(4, 6), family_name);

TEST_P(Guard, NoPlaintextIntoTheMesh) {
  Frame frame = out();
  for (const int more : {0, kFin + 0, kRst + 0, kPsh + 0}) {
    frame.flags = static_cast<std::uint8_t>(kSyn | more);
    EXPECT_EQ(of(frame), kBypass);
  }
  frame.destination = f().in_range;
  EXPECT_EQ(of(frame), kBypass);
  frame.destination_port = 15008;
  EXPECT_EQ(of(frame), kClean);
  frame.destination_port = 80;
  frame.destination = f().outside;
  EXPECT_EQ(of(frame), kClean);
  // What the pod says as a server.
  frame = out();
  for (const int flags : {kSyn | kAck, kAck + 0, kRst | kAck, kPsh | kAck}) {
    frame.flags = static_cast<std::uint8_t>(flags);
    EXPECT_EQ(of(frame), kClean);
  }
}

TEST_P(Guard, UnknownDestinationsStayOpenWhileAllIsCaptured) {
  // The agent itself dials to outside the mesh while it captures everything.
  ASSERT_TRUE(capture_->set_capture_all(true));
  Frame frame = out();
  EXPECT_EQ(of(frame), kBypass);
  frame.destination = f().outside;
  EXPECT_EQ(of(frame), kClean);
}

TEST_P(Guard, OnlyThePodsOwnSource) {
  Frame frame = out();
  frame.destination = f().outside;
  for (const int protocol : {6, 17, 1, 58, 132}) {
    frame.protocol = static_cast<std::uint8_t>(protocol);
    frame.source = f().pod;
    EXPECT_EQ(of(frame), kClean) << protocol;
    EXPECT_EQ(of_other(frame), kForeign) << protocol;
    frame.source = f().other_pod;
    EXPECT_EQ(of(frame), kForeign) << protocol;
    EXPECT_EQ(of_other(frame), "pass: the pod is not enrolled") << protocol;
    frame.source = f().outside;
    EXPECT_EQ(of(frame), kForeign) << protocol;
    EXPECT_EQ(of_other(frame), kForeign) << protocol;
  }
}

TEST_P(Guard, AnInterfaceThatNobodyKnowsSendsNothing) {
  ASSERT_TRUE(capture_->remove_pod(0));
  EXPECT_EQ(of(out()), kForeign);
  Frame frame = out();
  frame.ethertype = 0x0806;
  EXPECT_EQ(of(frame), kClean);
}

TEST_P(Guard, LinkLocal) {
  Frame frame{.source = f().link_local, .destination = f().link_local};
  EXPECT_EQ(of(frame), v4() ? kForeign : kClean);
  frame.destination = f().outside;
  EXPECT_EQ(of(frame), kForeign);
  frame.protocol = 58;
  EXPECT_EQ(of(frame), v4() ? kForeign : kClean);
  frame.source = *IpAddress::parse(v4() ? "0.0.0.0" : "::");
  EXPECT_EQ(of(frame), v4() ? kForeign : kClean);  // duplicate address detection
  frame.protocol = 17;
  EXPECT_EQ(of(frame), kForeign);
  frame.protocol = 6;
  EXPECT_EQ(of(frame), kForeign);
}

TEST_P(Guard, OnlyArpAndIp) {
  Frame frame = out();
  frame.ethertype = 0x0806;
  EXPECT_EQ(of(frame), kClean);
  for (const int type : {0x8847, 0x9100, 0x88cc, 0x8863, 0x0100}) {
    frame.ethertype = static_cast<std::uint16_t>(type);
    EXPECT_EQ(of(frame), "drop: neither ARP nor IP") << type;
    EXPECT_EQ(of_other(frame), kClean) << type;
  }
  frame.ethertype = 0x0806;
  frame.vlan_tags = {0x8100};
  EXPECT_EQ(of(frame), "drop: a VLAN tag");
}

}  // namespace
}  // namespace weft::test
