// SPDX-License-Identifier: Apache-2.0
#include "test/bpf/fixture.h"

namespace weft::test {
namespace {

/// The parser, as seen through the programs that use it: what from_pod says of a frame of an enrolled pod, and that the
/// others drop what it drops, for the same reason.
class Parser : public FamilyTest {
 protected:
  [[nodiscard]] std::string of(const Frame& frame) const {
    const std::string said = verdict("from_pod", frame);
    const bool dropped = said.starts_with("drop");
    EXPECT_EQ(verdict("guard", frame, {.ifindex = host_ifindex_}),
              dropped ? said : "drop: plaintext into the mesh past the agent");
    EXPECT_EQ(verdict("deliver", frame, {.mark = 0x1000}), dropped ? said : "drop: the agent does not listen");
    Frame inbound = frame;
    std::swap(inbound.source, inbound.destination);
    EXPECT_EQ(verdict("to_pod", inbound), dropped ? said : "pass: plaintext that needs no check");
    // A pod that is not enrolled is left alone.
    Frame other = frame;
    other.source = f().other_pod;
    EXPECT_EQ(verdict("from_pod", other), "pass: the pod is not enrolled");
    EXPECT_EQ(verdict("guard", other, {.ifindex = other_ifindex_}), "pass: the pod is not enrolled");
    return said;
  }
  static constexpr const char* kCaptured = "capture: a new connection to the mesh";
  static constexpr const char* kFragment = "drop: a fragment of TCP, or one that may be";
  static constexpr const char* kMalformed = "drop: headers that cannot be parsed";
  static constexpr const char* kTooDeep = "drop: too many VLAN tags or IPv6 extension headers";
  static constexpr const char* kSourceRoute = "drop: source routed, or options that may hide it";
};
class Ipv4Parser : public Parser {};
class Ipv6Parser : public Parser {};
INSTANTIATE_TEST_SUITE_P(Both, Parser, ::testing::Values(4, 6), family_name);
INSTANTIATE_TEST_SUITE_P(Only, Ipv4Parser, ::testing::Values(4), family_name);
INSTANTIATE_TEST_SUITE_P(Only, Ipv6Parser, ::testing::Values(6), family_name);

TEST_P(Parser, VlanTags) {
  Frame frame = out();
  for (const auto& tags :
       std::vector<std::vector<std::uint16_t>>{{0x8100}, {0x88a8}, {0x88a8, 0x8100}, {0x8100, 0x8100}}) {
    frame.vlan_tags = tags;
    EXPECT_EQ(of(frame), "drop: a VLAN tag") << tags.size();
  }
  // Three are not followed to the addresses, so it cannot be known whose they are: from_pod drops all, and the guard
  // knows the interface.
  frame.vlan_tags = {0x8100, 0x8100, 0x8100};
  EXPECT_EQ(verdict("from_pod", frame), kTooDeep);
  EXPECT_EQ(verdict("guard", frame, {.ifindex = host_ifindex_}), kTooDeep);
  EXPECT_EQ(verdict("guard", frame, {.ifindex = other_ifindex_}), "pass: the pod is not enrolled");
  EXPECT_EQ(verdict("deliver", frame, {.mark = 0x1000}), kTooDeep);
}

TEST_P(Parser, Truncated) {
  Frame frame = out();
  frame.cut = 1;  // in the TCP header
  EXPECT_EQ(of(frame), kMalformed);
  frame.cut = 20;
  EXPECT_EQ(of(frame), kMalformed);
  // In the IP header: whose it is cannot be known. Behind a tag, since a test run refuses such a frame without one.
  frame.vlan_tags = {0x8100};
  frame.cut = 25;
  EXPECT_EQ(verdict("from_pod", frame), kMalformed);
  EXPECT_EQ(verdict("guard", frame, {.ifindex = host_ifindex_}), kMalformed);
  EXPECT_EQ(verdict("deliver", frame, {.mark = 0x1000}), kMalformed);
  EXPECT_EQ(verdict("to_pod", frame), "pass: the pod is not enrolled");  // the kernel drops it
}

TEST_P(Ipv4Parser, Options) {
  Frame frame = out();
  frame.options = {1, 1, 1, 0};
  EXPECT_EQ(of(frame), kCaptured);
  frame.options = {148, 4, 0, 0};  // router alert
  EXPECT_EQ(of(frame), kCaptured);
  frame.options = std::vector<std::uint8_t>(16, 1);
  EXPECT_EQ(of(frame), kCaptured);
  frame.options = std::vector<std::uint8_t>(20, 1);  // nobody pads like this; where it ends is not looked at
  EXPECT_EQ(of(frame), kSourceRoute);
  frame.options = {7, 39, 4};  // record route, over all there is
  frame.options.resize(40);
  EXPECT_EQ(of(frame), kCaptured);
  for (const std::uint8_t type : std::initializer_list<std::uint8_t>{131, 137}) {
    frame.options = {type, 7, 4, 198, 51, 100, 1};
    EXPECT_EQ(of(frame), kSourceRoute);
    frame.options.insert(frame.options.begin(), {1, 148, 4, 0, 0});
    EXPECT_EQ(of(frame), kSourceRoute);
  }
  frame.options = {148, 1, 0, 0};  // a length that leads nowhere
  EXPECT_EQ(of(frame), kSourceRoute);
}

TEST_P(Ipv4Parser, Fragments) {
  Frame frame = out();
  frame.fragment = 0x2000;  // the first
  EXPECT_EQ(of(frame), kFragment);
  frame.fragment = 0x2000 | 64;
  EXPECT_EQ(of(frame), kFragment);
  frame.fragment = 64;  // the last
  EXPECT_EQ(of(frame), kFragment);
  frame.fragment = 0x2000;
  frame.cut = 12;  // eight bytes: ports, no flags
  EXPECT_EQ(of(frame), kFragment);
  frame.fragment = 1;  // the flags
  EXPECT_EQ(of(frame), kFragment);
  frame = out();
  frame.fragment = 0x4000;  // don't fragment
  EXPECT_EQ(of(frame), kCaptured);
  frame.fragment = 0x2000;
  frame.protocol = 17;
  EXPECT_EQ(verdict("from_pod", frame), "pass: not TCP");
  EXPECT_EQ(verdict("guard", frame, {.ifindex = host_ifindex_}), "pass: nothing against it");
}

TEST_P(Ipv6Parser, EachExtensionHeader) {
  for (const std::uint8_t type : std::initializer_list<std::uint8_t>{0, 43, 60, 135, 139, 140}) {
    Frame frame = out();
    frame.with(Frame::extension(type));
    if (type == 43) frame.extensions[0].second = {0, 4, 0, 0, 0, 0, 0};  // no segments left
    EXPECT_EQ(of(frame), kCaptured) << int{type};
    frame.protocol = 17;
    EXPECT_EQ(verdict("from_pod", frame), "pass: not TCP") << int{type};
  }
  Frame frame = out();
  frame.with({51, std::vector<std::uint8_t>(15)});  // authentication: its length counts words
  frame.extensions[0].second[0] = 2;
  EXPECT_EQ(of(frame), kCaptured);
  frame = out();
  frame.with({60, std::vector<std::uint8_t>(23)});
  frame.extensions[0].second[0] = 2;
  EXPECT_EQ(of(frame), kCaptured);
}

TEST_P(Ipv6Parser, SixExtensionHeadersButNotSeven) {
  Frame frame = out();
  for (int i = 0; i < 6; ++i) frame.with(Frame::extension(60));
  EXPECT_EQ(of(frame), kCaptured);
  frame.with(Frame::extension(60));
  EXPECT_EQ(of(frame), kTooDeep);
  frame.protocol = 17;  // nobody can know
  EXPECT_EQ(of(frame), kTooDeep);
}

TEST_P(Ipv6Parser, SegmentsLeft) {
  for (const std::uint8_t type : std::initializer_list<std::uint8_t>{0, 2, 4}) {
    Frame frame = out();
    frame.with({43, std::vector<std::uint8_t>(23)});
    frame.extensions[0].second[0] = 2;
    frame.extensions[0].second[1] = type;
    frame.extensions[0].second[2] = 1;
    EXPECT_EQ(of(frame), kSourceRoute) << int{type};
  }
}

TEST_P(Ipv6Parser, Fragments) {
  const auto header = [](int offset_and_more) {
    return std::pair<std::uint8_t, std::vector<std::uint8_t>>{
        44,
        {0, static_cast<std::uint8_t>(offset_and_more >> 8), static_cast<std::uint8_t>(offset_and_more), 0, 0, 0, 1}};
  };
  for (const int where : {1, 0, 8 | 1, 64}) {  // first, "atomic", middle, last
    Frame frame = out();
    frame.with(header(where));
    EXPECT_EQ(of(frame), kFragment) << where;
    frame.cut = 12;
    EXPECT_EQ(of(frame), kFragment) << where;
    Frame behind = out();
    behind.with(Frame::extension(0)).with(header(where)).with(Frame::extension(60));
    EXPECT_EQ(of(behind), kFragment) << where;
    frame.cut = 0;
    frame.protocol = 17;
    EXPECT_EQ(verdict("from_pod", frame), "pass: not TCP") << where;
  }
  // A later fragment that begins with destination options may hide TCP, whatever it says.
  Frame frame = out();
  frame.with(header(64)).with(Frame::extension(60));
  frame.protocol = 17;
  EXPECT_EQ(of(frame), kFragment);
}

TEST_P(Ipv6Parser, TruncatedExtension) {
  Frame frame = out();
  frame.with(Frame::extension(60));
  frame.cut = 20 + 5;
  EXPECT_EQ(of(frame), kMalformed);
  frame.cut = 0;
  frame.extensions[0].second[0] = 200;  // longer than the packet
  EXPECT_EQ(of(frame), kMalformed);
}

}  // namespace
}  // namespace weft::test
