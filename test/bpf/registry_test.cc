// SPDX-License-Identifier: Apache-2.0
/// Pods that may go to the registry alone, in the programs (bpf/registry.h).
#include <bpf/bpf.h>

#include <ctime>

#include "bpf/map_io.h"
#include "test/bpf/fixture.h"

namespace weft::test {
namespace {

constexpr const char* kRefused = "drop: to where the registry names nothing";
constexpr const char* kClean = "pass: nothing against it";
constexpr const char* kOutside = "pass: a new connection to outside the mesh";
constexpr const char* kToRefuse = "capture: a new connection past the registry";
constexpr std::uint8_t kTcp = 6, kUdp = 17, kSctp = 132, kGre = 47;

IpAddress address(const char* text) { return IpAddress::parse(text).value(); }

class RegistryProgram : public FamilyTest {
 protected:
  [[nodiscard]] bpf::Settings settings() const override {
    bpf::Settings s = FamilyTest::settings();
    s.registry_only = true;
    return s;
  }
  [[nodiscard]] Frame to(const IpAddress& destination, std::uint8_t protocol = kTcp) const {
    return {.source = f().pod, .destination = destination, .protocol = protocol};
  }
  [[nodiscard]] std::string out(const Frame& frame) const { return verdict("from_pod", frame); }
  [[nodiscard]] std::string guard(const Frame& frame) const {
    return verdict("guard", frame, {.ifindex = host_ifindex_});
  }
  /// The frame comes to the pod's host side.
  void arrive(const Frame& frame) const { arrive(frame, host_ifindex_); }
  void arrive(const Frame& frame, std::uint32_t ifindex) const {
    EXPECT_EQ(run("to_pod_host", frame, {.ifindex = ifindex}).action, kNext);
  }
  [[nodiscard]] Frame datagram_in() const {
    return {.source = f().outside, .destination = f().pod, .source_port = 999, .destination_port = 7, .protocol = kUdp};
  }
  static Frame answer(Frame frame) {
    std::swap(frame.source, frame.destination);
    std::swap(frame.source_port, frame.destination_port);
    return frame;
  }
};
INSTANTIATE_TEST_SUITE_P(Both, RegistryProgram, ::testing::Values(4, 6), family_name);

TEST_P(RegistryProgram, UnknownConnectionsGoToTheAgentAndNowhereElse) {
  EXPECT_EQ(out(to(f().outside)), kToRefuse);
  EXPECT_EQ(guard(to(f().outside)), kRefused);
  EXPECT_EQ(out(to(f().mesh)), "capture: a new connection to the mesh");
  EXPECT_EQ(guard(to(f().mesh)), "drop: plaintext into the mesh past the agent");
  Frame hbone = to(f().outside);
  hbone.destination_port = 15008;
  EXPECT_EQ(guard(hbone), kRefused);
  for (const int flags : {kSyn | kAck, kAck + 0, kRst + 0}) {
    Frame frame = to(f().outside);
    frame.flags = static_cast<std::uint8_t>(flags);
    EXPECT_EQ(guard(frame), kClean) << "of a connection to the pod";
  }
}

TEST_P(RegistryProgram, WhatIsNamedIsOpen) {
  ASSERT_TRUE(capture_->set_registry({{&f().outside, 1}, {}}));
  for (const std::uint8_t protocol : {kTcp, kUdp, kSctp, kGre}) EXPECT_EQ(guard(to(f().outside, protocol)), kClean);
  EXPECT_EQ(out(to(f().outside)), kOutside);
  const Cidr all{address(v4() ? "0.0.0.0" : "::"), 0};
  ASSERT_TRUE(capture_->set_registry({{}, {&all, 1}}));
  for (const std::uint8_t protocol : {kTcp, kUdp, kSctp, kGre}) EXPECT_EQ(guard(to(f().outside, protocol)), kClean);
  EXPECT_EQ(out(to(f().outside)), kOutside);
  ASSERT_TRUE(capture_->set_registry({{}, {}}));
  EXPECT_EQ(out(to(f().outside)), kToRefuse);
  EXPECT_EQ(guard(to(f().outside)), kRefused);
}

TEST_P(RegistryProgram, OtherProtocolsAreRefusedToo) {
  for (const std::uint8_t protocol : {kUdp, kSctp, kGre}) {
    EXPECT_EQ(guard(to(f().outside, protocol)), kRefused) << static_cast<int>(protocol);
  }
  EXPECT_EQ(guard(to(f().outside, v4() ? 1 : 58)), kClean) << "ICMP";
  Frame fragment = to(f().outside, kUdp);
  fragment.destination_port = 53;
  EXPECT_EQ(guard(fragment), kClean);
  if (v4()) {
    fragment.fragment = 0x2000;
  } else {
    fragment.with(Frame::extension(44));
  }
  EXPECT_EQ(guard(fragment), kRefused) << "its ports may be another's";
}

TEST_P(RegistryProgram, DnsIsExempt) {
  for (const std::uint8_t protocol : {kTcp, kUdp}) {
    Frame frame = to(f().outside, protocol);
    frame.destination_port = 53;
    EXPECT_EQ(guard(frame), kClean);
  }
  Frame stream = to(f().outside);
  stream.destination_port = 53;
  EXPECT_EQ(out(stream), kOutside);
}

TEST_P(RegistryProgram, WhatStaysOnTheLinkIsExempt) {
  const auto open = v4() ? std::vector{"224.0.0.251", "255.255.255.255"} : std::vector{"ff02::fb", "fe80::1"};
  const auto closed = v4() ? std::vector{"224.0.1.1", "169.254.169.254"} : std::vector{"ff05::2", "ff0e::1"};
  for (const char* text : open) EXPECT_EQ(guard(to(address(text), kUdp)), kClean) << text;
  for (const char* text : closed) EXPECT_EQ(guard(to(address(text), kUdp)), kRefused) << text;
  EXPECT_EQ(out(to(f().link_local)), v4() ? kToRefuse : "pass: link-local is never captured");
  EXPECT_EQ(guard(to(f().link_local)), v4() ? kRefused : kClean);
}

TEST_P(RegistryProgram, PodsOutsideOfTheMeshAreLeftAlone) {
  Frame frame = to(f().outside, kUdp);
  frame.source = f().other_pod;
  EXPECT_EQ(verdict("guard", frame, {.ifindex = other_ifindex_}), "pass: the pod is not enrolled");
  frame.protocol = kTcp;
  EXPECT_EQ(out(frame), "pass: the pod is not enrolled");
  EXPECT_EQ(verdict("guard", frame, {.ifindex = other_ifindex_}), "pass: the pod is not enrolled");
}

TEST_P(RegistryProgram, UdpServersMayAnswer) {
  const Frame in = datagram_in();
  EXPECT_EQ(guard(answer(in)), kRefused);
  arrive(in);
  EXPECT_EQ(guard(answer(in)), kClean);
  EXPECT_EQ(guard(answer(in)), kClean) << "more than once";
  for (auto change :
       {+[](Frame& frame) { frame.source_port = 8; }, +[](Frame& frame) { frame.destination_port = 998; }}) {
    Frame other = answer(in);
    change(other);
    EXPECT_EQ(guard(other), kRefused);
  }
  Frame other = answer(in);
  other.protocol = kTcp;
  EXPECT_EQ(guard(other), kRefused);
}

TEST_P(RegistryProgram, AnswersAreOpenForAWhileOnly) {
  const Frame in = datagram_in();
  arrive(in);
  const weft_tuple key{host_ifindex_, htons(in.source_port), htons(in.destination_port), bpf::to_key(in.source),
                       bpf::to_key(in.destination)};
  std::uint64_t seen = 0;
  ASSERT_EQ(bpf_map_lookup_elem(map("udp_peers").get(), &key, &seen), 0);
  seen -= WEFT_UDP_PEER_LIFETIME_NS;
  ASSERT_EQ(bpf_map_update_elem(map("udp_peers").get(), &key, &seen, BPF_ANY), 0);
  EXPECT_EQ(guard(answer(in)), kRefused);
  arrive(in);
  EXPECT_EQ(guard(answer(in)), kClean) << "it came again";
}

TEST_P(RegistryProgram, OnlyUdpToThisPodIsRecorded) {
  Frame in = datagram_in();
  arrive(in, other_ifindex_);
  EXPECT_EQ(guard(answer(in)), kRefused) << "of another interface";
  in.protocol = kTcp;
  arrive(in);
  in.protocol = kUdp;
  EXPECT_EQ(guard(answer(in)), kRefused);
}

TEST_P(RegistryProgram, MoreThanFitsIsSaid) {
  std::vector<IpAddress> many;
  for (int i = 1; i <= 20; ++i)
    many.push_back(address(((v4() ? "192.0.2." : "2001:db8:7::") + std::to_string(i)).c_str()));
  const auto set = capture_->set_registry({many, {}});
  ASSERT_FALSE(set);
  EXPECT_EQ(set.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(set.error().message().find("20 addresses and 0 ranges: 16 of each fit"), std::string::npos)
      << set.error().message();
  int open = 0;
  for (const auto& one : many) open += guard(to(one, kUdp)) == kClean ? 1 : 0;
  EXPECT_EQ(open, 16);
}

/// The setting is an agent's, and its successor's may be another.
TEST_P(RegistryProgram, TheNextAgentDecidesAnew) {
  ASSERT_TRUE(capture_->set_registry({{&f().outside, 1}, {}}));
  const auto load = [this](bool registry_only) {
    bpf::Settings s = settings();
    s.registry_only = registry_only;
    auto loaded = bpf::Capture::load(s);
    ASSERT_TRUE(loaded) << loaded.error().message();
    capture_ = std::move(*loaded);
  };
  load(true);
  EXPECT_EQ(guard(to(f().outside)), kClean) << "the registry outlives the agent";
  ASSERT_TRUE(capture_->set_registry({{}, {}}));
  EXPECT_EQ(guard(to(f().outside)), kRefused);
  load(false);
  EXPECT_EQ(guard(to(f().outside)), kClean);
  EXPECT_EQ(out(to(f().outside)), kOutside);
  ASSERT_TRUE(capture_->set_registry({{&f().outside, 1}, {}})) << "says nothing to these programs";
  load(true);
  EXPECT_EQ(guard(to(f().outside)), kRefused);
}

}  // namespace
}  // namespace weft::test
