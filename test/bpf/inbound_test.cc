// SPDX-License-Identifier: Apache-2.0
#include <bpf/bpf.h>

#include <ctime>

#include "bpf/map_io.h"
#include "test/bpf/fixture.h"

namespace weft::test {
namespace {

constexpr const char* kAssigned = "drop: the listener cannot take it";  // see deliver_test.cc
constexpr const char* kNoListener = "drop: the agent does not listen";
constexpr const char* kOpen = "pass: plaintext that needs no check";
constexpr const char* kRefused = "drop: no plaintext into this pod";

std::uint64_t boot_time_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

class Inbound : public FamilyTest {
 protected:
  [[nodiscard]] std::string of(const Frame& frame) const { return verdict("to_pod", frame); }
  [[nodiscard]] Frame ack() const {
    Frame frame = in();
    frame.flags = kAck;
    return frame;
  }
  [[nodiscard]] weft_tuple probe(const Frame& frame, std::uint32_t ifindex) const {
    return {ifindex, htons(frame.source_port), htons(frame.destination_port), bpf::to_key(frame.source),
            bpf::to_key(frame.destination)};
  }
  void record(const Frame& frame, std::uint32_t ifindex, std::uint64_t seen_ns) const {
    const weft_tuple key = probe(frame, ifindex);
    ASSERT_EQ(bpf_map_update_elem(map("probes").get(), &key, &seen_ns, BPF_ANY), 0);
  }
  [[nodiscard]] bool recorded(const Frame& frame, std::uint32_t ifindex) const {
    const weft_tuple key = probe(frame, ifindex);
    std::uint64_t seen = 0;
    return bpf_map_lookup_elem(map("probes").get(), &key, &seen) == 0;
  }
};
class ToPod : public Inbound {};
class ToPodHost : public Inbound {};
INSTANTIATE_TEST_SUITE_P(Both, ToPod, ::testing::Values(4, 6), family_name);
INSTANTIATE_TEST_SUITE_P(Both, ToPodHost, ::testing::Values(4, 6), family_name);

TEST_P(ToPod, NewPlaintextAsThePodSays) {
  EXPECT_EQ(of(in()), kOpen);
  EXPECT_EQ(of(ack()), kOpen);
  set_inbound(bpf::InboundPlaintext::kDrop);
  EXPECT_EQ(of(in()), kRefused);
  EXPECT_EQ(of(ack()), kRefused);
  set_inbound(bpf::InboundPlaintext::kCheck);
  EXPECT_EQ(of(in()), kNoListener);
  listen(bpf::Listener::kOutbound);
  listen(bpf::Listener::kInboundHbone);
  EXPECT_EQ(of(in()), kNoListener);
  listen(bpf::Listener::kInboundPlaintext);
  EXPECT_EQ(of(in()), kAssigned);
  EXPECT_EQ(of(ack()), kAssigned);  // the ACK of a SYN cookie
}

TEST_P(ToPod, HbonePortGoesToTheHboneListener) {
  for (const auto inbound :
       {bpf::InboundPlaintext::kPass, bpf::InboundPlaintext::kCheck, bpf::InboundPlaintext::kDrop}) {
    set_inbound(inbound);
    Frame frame = in();
    frame.destination_port = 15008;
    listeners_.clear();
    listen(bpf::Listener::kInboundPlaintext);
    EXPECT_EQ(of(frame), kNoListener);
    listen(bpf::Listener::kInboundHbone);
    EXPECT_EQ(of(frame), kAssigned);
    frame.flags = kAck;
    EXPECT_EQ(of(frame), kAssigned);
  }
}

TEST_P(ToPod, ConnectionsThatExistPass) {
  set_inbound(bpf::InboundPlaintext::kDrop);
  const Pair pair = connect_on_lo(*netns_, f().outside, f().pod);
  Frame frame = ack();
  frame.source_port = pair.client_end.port;
  frame.destination_port = pair.server_end.port;
  EXPECT_EQ(of(frame), "pass: a connection that exists here");
  frame.source_port = static_cast<std::uint16_t>(frame.source_port ^ 1);
  EXPECT_EQ(of(frame), kRefused);  // only a listener
}

TEST_P(ToPod, TupleOfAnAgentSocketIsHeld) {
  // The agent speaks to the application from the client's address: a SYN of the client from that port must not come in.
  const Pair pair = connect_on_lo(*netns_, f().outside, f().pod);
  Frame frame = in();
  frame.source_port = pair.client_end.port;
  frame.destination_port = pair.server_end.port;
  for (const auto inbound :
       {bpf::InboundPlaintext::kPass, bpf::InboundPlaintext::kCheck, bpf::InboundPlaintext::kDrop}) {
    set_inbound(inbound);
    EXPECT_EQ(of(frame), "drop: the agent uses the same tuple");
  }
}

TEST_P(ToPod, ProbesPassOnceWithinASecond) {
  for (const auto inbound : {bpf::InboundPlaintext::kCheck, bpf::InboundPlaintext::kDrop}) {
    set_inbound(inbound);
    const std::string otherwise = inbound == bpf::InboundPlaintext::kDrop ? kRefused : kNoListener;
    record(in(), host_ifindex_, boot_time_ns());
    Frame other = in();
    other.source_port = 40'001;
    EXPECT_EQ(of(other), otherwise);
    EXPECT_EQ(of(in()), "pass: a connection from the node itself");
    EXPECT_EQ(of(in()), otherwise);
    record(in(), host_ifindex_, boot_time_ns() - 1'100'000'000);
    EXPECT_EQ(of(in()), otherwise);
    EXPECT_FALSE(recorded(in(), host_ifindex_));
    record(in(), other_ifindex_, boot_time_ns());  // another pod's
    EXPECT_EQ(of(in()), otherwise);
  }
}

TEST_P(ToPod, OthersPass) {
  Frame frame = in();
  frame.destination = f().other_pod;
  EXPECT_EQ(of(frame), "pass: the pod is not enrolled");
  frame.destination = f().outside;
  EXPECT_EQ(of(frame), "pass: the pod is not enrolled");
  frame = in();
  frame.protocol = 17;
  EXPECT_EQ(of(frame), "pass: not TCP");
  frame.ethertype = 0x0806;
  EXPECT_EQ(of(frame), "pass: not TCP");
}

TEST_P(ToPod, APodThatLeavesIsReachedByHboneAlone) {
  listen(bpf::Listener::kInboundHbone);
  set_inbound(bpf::InboundPlaintext::kDrop);
  Frame hbone = in();
  hbone.destination_port = WEFT_HBONE_PORT;
  EXPECT_EQ(of(in()), kRefused);
  pod_.enrolled = false;
  pod_.leaving = true;
  ASSERT_TRUE(capture_->set_pod(pod_));
  EXPECT_EQ(of(in()), "pass: the pod is not enrolled");
  EXPECT_EQ(of(hbone), kAssigned);
  EXPECT_EQ(capture_->pods().value().front(), pod_);
  pod_.leaving = false;
  ASSERT_TRUE(capture_->set_pod(pod_));
  EXPECT_EQ(of(hbone), "pass: the pod is not enrolled");
}

TEST_P(ToPodHost, OnlyTheNodeIsRecorded) {
  const auto of_host = [&](const Frame& frame) { return verdict("to_pod_host", frame, {.ifindex = host_ifindex_}); };
  // The socket of a test run is nobody's: another one than the node's sends the tuple.
  record(in(), host_ifindex_, boot_time_ns());
  EXPECT_EQ(of_host(in()), "pass: a connection from elsewhere than the node");
  EXPECT_FALSE(recorded(in(), host_ifindex_));

  record(in(), host_ifindex_, boot_time_ns());
  EXPECT_EQ(of_host(ack()), "pass: not a new connection");
  EXPECT_TRUE(recorded(in(), host_ifindex_));
  Frame frame = in();
  frame.destination = f().other_pod;
  EXPECT_EQ(of_host(frame), "pass: the pod is not enrolled");
  frame = in();
  EXPECT_EQ(verdict("to_pod_host", frame, {.ifindex = other_ifindex_}), "pass: the pod is not enrolled");
  frame.protocol = 17;
  EXPECT_EQ(of_host(frame), "pass: not TCP");
}

TEST_P(ToPodHost, LinkLocalIsNoWayAroundTheCheck) {
  const auto of_host = [&](const Frame& frame, std::uint32_t ifindex) {
    return verdict("to_pod_host", frame, {.ifindex = ifindex});
  };
  Frame frame{.source = f().link_local, .destination = f().link_local};
  EXPECT_EQ(of_host(frame, host_ifindex_), "pass: link-local is never captured");
  for (const auto inbound : {bpf::InboundPlaintext::kCheck, bpf::InboundPlaintext::kDrop}) {
    set_inbound(inbound);
    EXPECT_EQ(of_host(frame, host_ifindex_), "drop: link-local into a checked pod");
    EXPECT_EQ(of_host(frame, other_ifindex_), "pass: link-local is never captured");
    Frame fragment = frame;
    fragment.fragment = 0x2000;
    if (v4()) {
      EXPECT_EQ(of_host(fragment, host_ifindex_), "drop: link-local into a checked pod");
    }
  }
}

}  // namespace
}  // namespace weft::test
