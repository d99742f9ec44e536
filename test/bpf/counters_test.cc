// SPDX-License-Identifier: Apache-2.0
/// What is counted of each pod, and what whoever listens is told.
#include <gmock/gmock.h>

#include "test/bpf/fixture.h"

namespace weft::test {
namespace {

using bpf::PodTraffic;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint8_t kUdp = 17;

class Counted : public FamilyTest {
 protected:
  void pass(const std::string& program, const Frame& frame, const Context& context = {}) const {
    std::ignore = run(program, frame, context);
  }
};

class PodCounters : public Counted {
 protected:
  [[nodiscard]] PodTraffic of(std::uint32_t slot) const {
    auto traffic = capture_->traffic(slot);
    if (!traffic) throw TestError(traffic.error().message());
    return *traffic;
  }
  [[nodiscard]] static std::uint64_t size(const Frame& frame) { return frame.bytes().size(); }
};
INSTANTIATE_TEST_SUITE_P(Both, PodCounters, ::testing::Values(4, 6), family_name);

TEST_P(PodCounters, WhatPassesIsCountedOnceByDirection) {
  Frame udp{.source = f().pod, .destination = f().outside, .protocol = kUdp, .payload = 700};
  Frame plain{.source = f().pod, .destination = f().outside, .payload = 31};
  for (int i = 0; i < 3; ++i) pass("from_pod", udp);
  pass("from_pod", plain);
  for (const Frame& frame : {udp, plain}) pass("guard", frame, {.ifindex = host_ifindex_});
  EXPECT_EQ(of(0), (PodTraffic{.packets_out = 4, .bytes_out = 3 * size(udp) + size(plain)}));

  Frame open = in(), back = udp;
  open.payload = 5;
  back.source = f().outside;
  back.destination = f().pod;
  for (const Frame& frame : {open, back}) pass("to_pod_host", frame, {.ifindex = host_ifindex_});
  for (const Frame& frame : {open, back, back}) pass("to_pod", frame);
  PodTraffic all = of(0);
  EXPECT_EQ(all.packets_in, 3U);
  EXPECT_EQ(all.bytes_in, size(open) + 2 * size(back));
  EXPECT_EQ(all.packets_out, 4U);
  EXPECT_EQ(of(1), PodTraffic());

  // A pod that is not enrolled has traffic as well.
  udp.source = plain.source = f().other_pod;
  for (const Frame& frame : {udp, plain}) pass("from_pod", frame);
  EXPECT_EQ(of(1), (PodTraffic{.packets_out = 2, .bytes_out = size(udp) + size(plain)}));
}

TEST_P(PodCounters, WhatGoesToTheAgentIsNotWhatPasses) {
  pass("from_pod", out());
  pass("from_pod", out());
  EXPECT_EQ(of(0), (PodTraffic{.captured = 2}));
  pass("deliver", out(), {.ifindex = 0, .mark = 0x1000});
  EXPECT_THAT(of(0).drops, ElementsAre(PodTraffic::Drop{"the agent does not listen", 1}));

  // A connection of the application, then the same one as if it were the agent's.
  const Pair pair = connect_on_lo(*netns_, f().outside, f().pod);
  Frame ack = in();
  ack.flags = kAck;
  ack.source_port = pair.client_end.port;
  ack.destination_port = pair.server_end.port;
  EXPECT_EQ(verdict("to_pod", ack), "pass: a connection that exists here");
  EXPECT_EQ(of(0).packets_in, 1U);
  ASSERT_TRUE(capture_->tag_socket(pair.server.get()));
  EXPECT_EQ(verdict("to_pod", ack), "pass: a socket of the agent");
  EXPECT_EQ(of(0).packets_in, 1U);
}

TEST_P(PodCounters, TheTunnelsPortIsTheAgentsBeforeItAccepts) {
  Frame answer = out();
  answer.flags = kSyn | kAck;
  answer.source_port = 15008;
  EXPECT_EQ(verdict("from_pod", answer), "pass: a connection that is not captured");
  EXPECT_EQ(of(0), PodTraffic());
  answer.source_port = 15009;
  pass("from_pod", answer);
  EXPECT_EQ(of(0).packets_out, 1U);
}

TEST_P(PodCounters, DropsAreCountedOnThePodWhereverTheyHappen) {
  set_inbound(bpf::InboundPlaintext::kDrop);
  pass("to_pod", in());
  pass("to_pod", in());
  pass("guard", out(), {.ifindex = host_ifindex_});
  pass("from_pod", out(), {.ifindex = 0, .mark = 0x1000});
  const Frame link_local{.source = f().link_local, .destination = f().link_local};
  pass("to_pod_host", link_local, {.ifindex = host_ifindex_});
  EXPECT_EQ(of(0), (PodTraffic{.drops = {{"the capture mark, or back from lo", 1},
                                         {"no plaintext into this pod", 2},
                                         {"plaintext into the mesh past the agent", 1},
                                         {"link-local into a checked pod", 1}}}));
  // Who lies about its address is known by its interface, and at its own end by nothing.
  Frame forged = out();
  forged.source = f().pod;
  pass("guard", forged, {.ifindex = other_ifindex_});
  EXPECT_THAT(of(1).drops, ElementsAre(PodTraffic::Drop{"a source that is not the pod's", 1}));
  forged.source = f().outside;
  EXPECT_EQ(verdict("from_pod", forged), "drop: a source that is not the pod's");
  EXPECT_EQ(of(0).packets_out + of(1).packets_out, 0U);
}

TEST_P(PodCounters, ASlotBeginsAtZeroWithEachPod) {
  const Frame udp{.source = f().pod, .destination = f().outside, .protocol = kUdp};
  pass("from_pod", udp);
  set_inbound(bpf::InboundPlaintext::kDrop);  // the same pod
  pass("to_pod", in());
  EXPECT_EQ(of(0).packets_out, 1U);
  ASSERT_TRUE(capture_->set_pod({.slot = 0, .addresses = {f().pod, f().in_range}, .host_ifindex = host_ifindex_}));
  EXPECT_EQ(of(0).packets_out, 1U);
  ASSERT_TRUE(capture_->remove_pod(0));
  ASSERT_TRUE(capture_->set_pod(pod_));
  EXPECT_EQ(of(0), PodTraffic());
  pass("from_pod", udp);
  EXPECT_EQ(of(0).packets_out, 1U);
  EXPECT_FALSE(capture_->traffic(8));
}

class Events : public Counted {
 protected:
  void SetUp() override {
    FamilyTest::SetUp();
    if (IsSkipped()) return;
    auto ring = capture_->open_events();
    if (!ring) throw TestError(ring.error().message());
    ring_ = std::move(*ring);
  }
  void listen_for(milliseconds time) { ASSERT_TRUE(ring_->listen_until(std::chrono::steady_clock::now() + time)); }
  /// "PROGRAM VERDICT: REASON" of each.
  [[nodiscard]] std::vector<std::string> told() {
    std::vector<std::string> all;
    events_.clear();
    const auto read = ring_->read([&](const bpf::Event& e) {
      events_.push_back(e);
      all.push_back(std::string(e.program) + " " + std::string(e.verdict) + ": " + std::string(e.reason));
    });
    EXPECT_TRUE(read);
    return all;
  }
  std::unique_ptr<bpf::EventRing> ring_;
  std::vector<bpf::Event> events_;
};
INSTANTIATE_TEST_SUITE_P(Both, Events, ::testing::Values(4, 6), family_name);

TEST_P(Events, AreWrittenOnlyWhileSomebodyListens) {
  pass("from_pod", out());
  EXPECT_THAT(told(), IsEmpty());
  listen_for(milliseconds(60'000));
  pass("from_pod", out());
  EXPECT_THAT(told(), ElementsAre("from_pod capture: a new connection to the mesh"));
  listen_for(milliseconds(-1));
  pass("from_pod", out());
  EXPECT_THAT(told(), IsEmpty());
  EXPECT_EQ(ring_->lost().value(), 0U);
}

TEST_P(Events, TellWhoAndWhat) {
  listen_for(milliseconds(60'000));
  const auto before = std::chrono::steady_clock::now();
  Frame syn = out();
  syn.flags = kSyn | kPsh;
  pass("from_pod", syn);
  ASSERT_EQ(told().size(), 1U);
  const bpf::Event& e = events_.front();
  EXPECT_EQ(e.slot, 0U);
  EXPECT_EQ(e.source, (Endpoint{f().pod, 40'000}));
  EXPECT_EQ(e.destination, (Endpoint{f().mesh, 80}));
  EXPECT_EQ(e.protocol, 6);
  EXPECT_EQ(e.tcp_flags, kSyn | kPsh);
  EXPECT_GE(e.time, before);
  EXPECT_LE(e.time, std::chrono::steady_clock::now());

  Frame odd = out();
  odd.ethertype = 0x88cc;
  pass("guard", odd, {.ifindex = host_ifindex_});
  EXPECT_THAT(told(), ElementsAre("guard drop: neither ARP nor IP"));
  EXPECT_FALSE(events_.front().source.address.valid());
  EXPECT_EQ(events_.front().ifindex, host_ifindex_);
  Frame forged = out();
  forged.source = f().outside;
  pass("from_pod", forged);
  EXPECT_THAT(told(), ElementsAre("from_pod drop: a source that is not the pod's"));
  EXPECT_EQ(events_.front().slot, std::nullopt);
}

TEST_P(Events, AreOfNewConnectionsAndDropsOnly) {
  listen_for(milliseconds(60'000));
  const Pair pair = connect_on_lo(*netns_, f().pod, f().mesh);
  Frame ack = out(), udp = out();
  ack.flags = kAck;
  ack.source_port = pair.client_end.port;
  ack.destination_port = pair.server_end.port;
  udp.protocol = kUdp;
  for (const Frame& frame : {ack, udp}) {
    pass("from_pod", frame);
    pass("deliver", frame, {.ifindex = 0, .mark = 0x1000});
    pass("guard", frame, {.ifindex = host_ifindex_});
  }
  EXPECT_THAT(told(), IsEmpty());

  // One line for an end of a connection: the node's side speaks up only when it drops.
  Frame outside = out();
  outside.destination = f().outside;
  pass("from_pod", outside);
  pass("guard", outside, {.ifindex = host_ifindex_});
  pass("to_pod_host", in(), {.ifindex = host_ifindex_});
  pass("to_pod", in());
  EXPECT_THAT(told(), ElementsAre("from_pod pass: a new connection to outside the mesh",
                                  "to_pod pass: plaintext that needs no check"));
  set_inbound(bpf::InboundPlaintext::kDrop);
  pass("to_pod", in());
  pass("guard", out(), {.ifindex = host_ifindex_});
  pass("to_pod", {.source = f().outside, .destination = f().pod, .flags = kAck});
  EXPECT_THAT(told(), ElementsAre("to_pod drop: no plaintext into this pod",
                                  "guard drop: plaintext into the mesh past the agent",
                                  "to_pod drop: no plaintext into this pod"));
}

TEST_P(Events, AreReadToAnEndAlsoWhileMoreAreWritten) {
  listen_for(milliseconds(60'000));
  pass("from_pod", out());
  std::size_t taken = 0;
  const auto read = ring_->read([&](const bpf::Event&) {
    ++taken;
    if (taken < 10'000) pass("from_pod", out());
  });
  EXPECT_TRUE(read);
  EXPECT_GT(taken, 3'000U);
  EXPECT_LT(taken, 5'000U);
  EXPECT_EQ(told().size(), 1U);
  EXPECT_EQ(ring_->lost().value(), 0U);
}

TEST_P(Events, ThatFindNoRoomAreCounted) {
  listen_for(milliseconds(60'000));
  constexpr std::size_t kSent = 5'000;
  for (std::size_t i = 0; i < kSent; ++i) pass("from_pod", out());
  const std::size_t kept = told().size();
  EXPECT_GT(kept, 3'000U);
  EXPECT_LT(kept, kSent);
  EXPECT_EQ(ring_->lost().value(), kSent - kept);
  pass("from_pod", out());
  EXPECT_EQ(told().size(), 1U);  // there is room again
}

}  // namespace
}  // namespace weft::test
