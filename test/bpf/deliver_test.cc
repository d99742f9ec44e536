// SPDX-License-Identifier: Apache-2.0
#include "test/bpf/fixture.h"

namespace weft::test {
namespace {

// bpf_sk_assign works at a real ingress hook only: in a test run "the listener cannot take it" says that one was found.
constexpr const char* kAssigned = "drop: the listener cannot take it";
constexpr const char* kNoListener = "drop: the agent does not listen";

class Deliver : public FamilyTest {
 protected:
  [[nodiscard]] std::string of(const Frame& frame, std::uint32_t mark = 0x1000) const {
    return verdict("deliver", frame, {.mark = mark});
  }
  [[nodiscard]] static Frame with_flags(Frame frame, int flags) {
    frame.flags = static_cast<std::uint8_t>(flags);
    return frame;
  }
};
INSTANTIATE_TEST_SUITE_P(Both, Deliver, ::testing::Values(4, 6), family_name);

TEST_P(Deliver, LeavesUnmarkedTrafficAlone) {
  EXPECT_EQ(of(out(), 0), "uncounted");
  EXPECT_EQ(of(out(), 0xefff), "uncounted");
}

TEST_P(Deliver, SynGoesToTheOutboundListenerOnly) {
  EXPECT_EQ(of(out()), kNoListener);
  listen(bpf::Listener::kInboundHbone);
  listen(bpf::Listener::kInboundPlaintext);
  EXPECT_EQ(of(out()), kNoListener);
  listen(bpf::Listener::kOutbound);
  EXPECT_EQ(of(out()), kAssigned);
  EXPECT_EQ(of(with_flags(out(), kSyn | kFin)), kAssigned);
}

TEST_P(Deliver, CookieAckGoesToTheListener) {
  listen(bpf::Listener::kOutbound);
  EXPECT_EQ(of(with_flags(out(), kAck)), kAssigned);
  EXPECT_EQ(of(with_flags(out(), kPsh | kAck)), kAssigned);
}

TEST_P(Deliver, WithoutListenerTheKernelResetsConnections) {
  EXPECT_EQ(of(with_flags(out(), kAck)), "pass: nothing is here");
  // But an application's listener must not get it: it would take the cookie of ours.
  const Pair pair = connect_on_lo(*netns_, f().pod, f().mesh);
  Frame frame = with_flags(out(), kAck);
  frame.destination_port = pair.server_end.port;
  EXPECT_EQ(of(frame), kNoListener);
  frame.source_port = pair.client_end.port;
  EXPECT_EQ(of(frame), "pass: a connection that exists here");
  EXPECT_EQ(of(with_flags(frame, kSyn)), kNoListener);  // a SYN never belongs to a connection that exists
}

TEST_P(Deliver, OtherTraffic) {
  Frame frame = out();
  frame.protocol = 17;
  EXPECT_EQ(of(frame), "pass: not TCP");
  frame = out();
  frame.source = f().outside;
  EXPECT_EQ(of(frame), "drop: a source that is not the pod's");
  frame.source = *IpAddress::parse(v4() ? "127.0.0.1" : "::1");
  EXPECT_EQ(of(frame), "pass: from the pod to itself");
  frame = out();
  frame.destination = f().pod;
  EXPECT_EQ(of(frame), "pass: from the pod to itself");
  frame = out();
  frame.destination = f().other_pod;
  EXPECT_EQ(of(frame), kNoListener);
  frame.source = f().other_pod;
  EXPECT_EQ(of(frame), "pass: the pod is not enrolled");
}

TEST_P(Deliver, ReleasesWhatIsRemoved) {
  listen(bpf::Listener::kOutbound);
  EXPECT_EQ(of(out()), kAssigned);
  listeners_.clear();
  EXPECT_EQ(of(out()), kNoListener);
  listen(bpf::Listener::kOutbound);
  ASSERT_TRUE(capture_->remove_pod(0));
  ASSERT_TRUE(capture_->set_pod(pod_));
  EXPECT_EQ(of(out()), kNoListener);
}

class DeliverToTwo : public Deliver {
 protected:
  bpf::Settings settings() const override {
    auto s = Deliver::settings();
    s.workers = 2;
    return s;
  }
};
INSTANTIATE_TEST_SUITE_P(Both, DeliverToTwo, ::testing::Values(4, 6), family_name);

TEST_P(DeliverToTwo, WorkersShareTheConnectionsByTuple) {
  listen(bpf::Listener::kOutbound, 1);
  int second = 0;
  for (std::uint16_t port = 40'000; port < 40'200; ++port) {
    Frame frame = out();
    frame.source_port = port;
    const std::string syn = of(frame);
    second += syn == kAssigned;
    // The ACK of a cookie meets the same worker.
    EXPECT_EQ(of(with_flags(frame, kAck)) == kAssigned, syn == kAssigned);
  }
  EXPECT_GT(second, 60);
  EXPECT_LT(second, 140);
  listen(bpf::Listener::kOutbound, 0);
  for (std::uint16_t port = 40'000; port < 40'020; ++port) {
    Frame frame = out();
    frame.source_port = port;
    EXPECT_EQ(of(frame), kAssigned);
  }
}

}  // namespace
}  // namespace weft::test
