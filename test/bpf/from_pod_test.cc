// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "test/bpf/fixture.h"

namespace weft::test {
namespace {

class FromPod : public FamilyTest {
 protected:
  [[nodiscard]] std::string of(const Frame& frame, std::uint32_t mark = 0) const {
    return verdict("from_pod", frame, {.mark = mark});
  }
  static constexpr const char* kCapturedNew = "capture: a new connection to the mesh";
  static constexpr const char* kNotMesh = "pass: a new connection to outside the mesh";
  static constexpr const char* kUncaptured = "pass: a connection that is not captured";
};
INSTANTIATE_TEST_SUITE_P(Both, FromPod, ::testing::Values(4, 6), family_name);

TEST_P(FromPod, CapturesNewConnectionsToTheMesh) {
  Frame frame = out();
  EXPECT_EQ(of(frame), kCapturedNew);
  frame.destination = f().in_range;
  EXPECT_EQ(of(frame), kCapturedNew);
  frame.destination_port = 15008;
  EXPECT_EQ(of(frame), kCapturedNew);
  frame.destination = f().outside;
  EXPECT_EQ(of(frame), kNotMesh);
}

TEST_P(FromPod, SynIsWhatHasNoAck) {
  Frame frame = out();
  for (const int more : {0, kFin + 0, kPsh + 0, kRst + 0, kFin | kPsh | kRst | 0xe0}) {
    frame.flags = static_cast<std::uint8_t>(kSyn | more);
    EXPECT_EQ(of(frame), kCapturedNew) << int{frame.flags};
  }
  for (const int flags : {kSyn | kAck, kAck + 0, kRst + 0, kFin | kAck, kPsh | kAck, 0}) {
    frame.flags = static_cast<std::uint8_t>(flags);
    EXPECT_EQ(of(frame), kUncaptured) << flags;
  }
}

TEST_P(FromPod, PacketsThatMeetAnAgentSocketAreCaptured) {
  // A socket of this netns that has the peer's address: what an agent's transparent socket is.
  const Pair pair = connect_on_lo(*netns_, f().pod, f().mesh);
  Frame frame{.source = f().pod,
              .destination = f().mesh,
              .source_port = pair.client_end.port,
              .destination_port = pair.server_end.port,
              .flags = kAck};
  EXPECT_EQ(of(frame), "capture: a captured connection");
  frame.flags = kSyn | kAck;
  EXPECT_EQ(of(frame), "capture: a captured connection");
  frame.source_port = static_cast<std::uint16_t>(frame.source_port ^ 1);  // only the listener has this one
  EXPECT_EQ(of(frame), kUncaptured);

  // While the pod leaves the agent still speaks to its servers; what the pod begins is not captured.
  pod_.enrolled = false;
  pod_.leaving = true;
  ASSERT_TRUE(capture_->set_pod(pod_));
  frame.source_port = pair.client_end.port;
  EXPECT_EQ(of(frame), "capture: a captured connection");
  frame.flags = kSyn;
  EXPECT_EQ(of(frame), "pass: the pod is not enrolled");
  frame.flags = kAck;
  frame.source_port = static_cast<std::uint16_t>(frame.source_port ^ 1);
  EXPECT_EQ(of(frame), kUncaptured);
  pod_.leaving = false;
  ASSERT_TRUE(capture_->set_pod(pod_));
  frame.source_port = pair.client_end.port;
  EXPECT_EQ(of(frame), "pass: the pod is not enrolled");
}

TEST_P(FromPod, CaptureAllAndOverflowCaptureEverything) {
  Frame frame = out();
  frame.destination = f().outside;
  ASSERT_TRUE(capture_->set_capture_all(true));
  EXPECT_EQ(of(frame), kCapturedNew);
  frame.destination = f().link_local;
  EXPECT_EQ(of(frame), "pass: link-local is never captured");
  frame.destination = f().outside;
  ASSERT_TRUE(capture_->set_capture_all(false));
  EXPECT_EQ(of(frame), kNotMesh);

  const std::vector<IpAddress> too_many = [&] {
    std::vector<IpAddress> all;
    for (int i = 1; i <= 17; ++i) {
      all.push_back(*IpAddress::parse((v4() ? "10.9.0." : "fd09::") + std::to_string(i)));
    }
    return all;
  }();
  const auto result = capture_->set_destinations({too_many, {}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(result.error().context.find("17 mesh addresses"), std::string::npos) << result.error().context;
  EXPECT_NE(result.error().context.find("16 of each fit"), std::string::npos) << result.error().context;
  EXPECT_EQ(of(frame), kCapturedNew);
  ASSERT_TRUE(capture_->set_destinations({{&f().mesh, 1}, {}}));
  EXPECT_EQ(of(frame), kNotMesh);
}

TEST_P(FromPod, DestinationsAreReplaced) {
  Frame frame = out();
  frame.destination = f().outside;
  ASSERT_TRUE(capture_->set_destinations({{&f().outside, 1}, {}}));
  EXPECT_EQ(of(frame), kCapturedNew);
  frame.destination = f().mesh;
  EXPECT_EQ(of(frame), kNotMesh);
  frame.destination = f().in_range;
  EXPECT_EQ(of(frame), kNotMesh);
  const Cidr all = Cidr::of(f().pod, 0);
  ASSERT_TRUE(capture_->set_destinations({{}, {&all, 1}}));
  EXPECT_EQ(of(frame), kCapturedNew);
  frame = {.source = f().pod, .destination = f().outside};
  EXPECT_EQ(of(frame), kCapturedNew);
}

TEST_P(FromPod, DestinationsChangeByADifference) {
  std::vector<IpAddress> before{f().mesh, f().pod}, after{f().outside, f().pod};
  std::ranges::sort(before);
  std::ranges::sort(after);
  const Cidr all = Cidr::of(f().pod, 0);
  ASSERT_TRUE(capture_->set_destinations({before, {}}));
  ASSERT_TRUE(capture_->set_destinations({before, {}}, {after, {}}));
  Frame to_mesh = out(), to_outside = out();
  to_outside.destination = f().outside;
  EXPECT_EQ(of(to_outside), kCapturedNew);
  EXPECT_EQ(of(to_mesh), kNotMesh);
  ASSERT_TRUE(capture_->set_destinations({after, {}}, {{}, {&all, 1}}));
  EXPECT_EQ(of(to_mesh), kCapturedNew);
  ASSERT_TRUE(capture_->set_destinations({{}, {&all, 1}}, {before, {}}));
  EXPECT_EQ(of(to_outside), kNotMesh);

  std::vector<IpAddress> too_many = before;
  for (int i = 1; i <= 15; ++i)
    too_many.push_back(*IpAddress::parse((v4() ? "10.9.0." : "fd09::") + std::to_string(i)));
  std::ranges::sort(too_many);
  const auto result = capture_->set_destinations({before, {}}, {too_many, {}});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(of(to_outside), kCapturedNew);
}

TEST_P(FromPod, OtherProtocolsPass) {
  Frame frame = out();
  for (const int protocol : {17, 132, 1, 58, 50, 4, 41, 59}) {
    frame.protocol = static_cast<std::uint8_t>(protocol);
    EXPECT_EQ(of(frame), "pass: not TCP") << protocol;
  }
  frame.ethertype = 0x0806;
  EXPECT_EQ(of(frame), "pass: not TCP");
}

TEST_P(FromPod, ForeignSourcesAreDropped) {
  Frame frame = out();
  frame.source = f().outside;
  EXPECT_EQ(of(frame), "drop: a source that is not the pod's");
  frame.flags = kAck;
  EXPECT_EQ(of(frame), "drop: a source that is not the pod's");
  frame.source = f().link_local;
  EXPECT_EQ(of(frame), "drop: a source that is not the pod's");
  frame.destination = f().link_local;
  EXPECT_EQ(of(frame), "pass: link-local is never captured");
}

TEST_P(FromPod, PodsThatAreNotEnrolledPassAndNeverMix) {
  Frame frame{.source = f().other_pod, .destination = f().mesh};
  EXPECT_EQ(of(frame), "pass: the pod is not enrolled");
  frame.vlan_tags = {0x8100};
  EXPECT_EQ(of(frame), "pass: the pod is not enrolled");
  EXPECT_EQ(of(out()), kCapturedNew);
  ASSERT_TRUE(
      capture_->set_pod({.slot = 1, .addresses = {f().other_pod}, .host_ifindex = other_ifindex_, .enrolled = true}));
  EXPECT_EQ(of({.source = f().other_pod, .destination = f().mesh}), kCapturedNew);
  ASSERT_TRUE(capture_->remove_pod(1));
  EXPECT_EQ(of({.source = f().other_pod, .destination = f().mesh}), "drop: a source that is not the pod's");
}

TEST_P(FromPod, TheMarkMustNotComeBack) {
  EXPECT_EQ(of(out(), 0x1000), "drop: the capture mark, or back from lo");
  EXPECT_EQ(of(out(), 0xffff), "drop: the capture mark, or back from lo");
  EXPECT_EQ(of(out(), 0x0539), kCapturedNew);  // Istio's mark helps nobody
  EXPECT_EQ(of({.source = f().other_pod, .destination = f().mesh}, 0x1000), "pass: the pod is not enrolled");
}

// A packet filter of the pod's own takes the mark away, and the pod forwards.
TEST_P(FromPod, NothingComesBackFromLo) {
  Frame data = out();
  data.flags = kAck;
  for (const Frame& frame : {out(), data}) {
    const Context from_lo{.ingress_ifindex = 1}, from_elsewhere{.ingress_ifindex = 2};
    EXPECT_EQ(verdict("from_pod", frame, from_lo), "drop: the capture mark, or back from lo");
    EXPECT_NE(verdict("from_pod", frame, from_elsewhere), "drop: the capture mark, or back from lo");
  }
  const Frame elsewhere{.source = f().other_pod, .destination = f().mesh};
  EXPECT_EQ(verdict("from_pod", elsewhere, {.ingress_ifindex = 1}), "pass: the pod is not enrolled");
}

}  // namespace
}  // namespace weft::test
