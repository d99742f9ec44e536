// SPDX-License-Identifier: Apache-2.0
/// DNS of pods that opted in, in the programs (bpf/dns.h).
#include "test/bpf/fixture.h"
#include "tunnel/base/sys.h"

namespace weft::test {
namespace {

constexpr const char* kCaptured = "capture: a captured connection";
constexpr const char* kCapturedNew = "capture: a new connection to the mesh";
constexpr const char* kUntouched = "pass: not TCP";
constexpr std::uint8_t kUdp = 17;
constexpr std::uint32_t kMark = 0x1000, kAnswerMark = 0x5000;

class DnsProgram : public FamilyTest {
 protected:
  void SetUp() override {
    FamilyTest::SetUp();
    if (!IsSkipped()) set_dns(true);
  }
  void set_dns(bool dns) {
    pod_.dns = dns;
    ASSERT_TRUE(capture_->set_pod(pod_));
  }
  /// A question from the pod to a server outside of the mesh.
  [[nodiscard]] Frame question() const {
    return {.source = f().pod, .destination = f().outside, .destination_port = 53, .protocol = kUdp};
  }
  [[nodiscard]] Frame stream() const { return {.source = f().pod, .destination = f().outside, .destination_port = 53}; }
  [[nodiscard]] std::string out(const Frame& frame, const Context& context = {}) const {
    return verdict("from_pod", frame, context);
  }
  [[nodiscard]] std::string deliver(const Frame& frame, std::uint32_t mark = kMark) const {
    return verdict("deliver", frame, {.mark = mark});
  }
  void listen_udp(bpf::IpFamily family, std::uint32_t worker = 0) {
    const bool v6 = family == bpf::IpFamily::kV6;
    auto fd = sys::socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM);
    ASSERT_TRUE(fd) << fd.error().message();
    const Endpoint at{IpAddress::parse(v6 ? "::1" : "127.0.0.1").value(), 0};
    ASSERT_TRUE(sys::bind(fd->get(), at.to_sockaddr()));
    const auto set = capture_->set_dns_socket(0, family, worker, fd->get());
    ASSERT_TRUE(set) << set.error().message();
    listeners_.push_back(std::move(*fd));
  }
};
INSTANTIATE_TEST_SUITE_P(Both, DnsProgram, ::testing::Values(4, 6), family_name);

TEST_P(DnsProgram, QuestionsOfPodsThatOptedInAreCaptured) {
  EXPECT_EQ(out(question()), kCaptured);
  for (const auto& server : {f().link_local, f().mesh, f().other_pod}) {
    Frame frame = question();
    frame.destination = server;
    EXPECT_EQ(out(frame), kCaptured) << server.to_string();
  }
  for (const std::uint16_t port : std::initializer_list<std::uint16_t>{52, 54, 5353, 853}) {
    Frame frame = question();
    frame.destination_port = port;
    EXPECT_EQ(out(frame), kUntouched) << port;
  }
  Frame other = question();
  other.protocol = 132;
  EXPECT_EQ(out(other), kUntouched) << "SCTP has its ports in the same place";
  Frame answer = question();
  std::swap(answer.source_port, answer.destination_port);
  EXPECT_EQ(out(answer), kUntouched) << "of a server in the pod";
}

TEST_P(DnsProgram, OthersAreLeftAlone) {
  Frame other = question();
  other.source = f().other_pod;
  EXPECT_EQ(out(other), kUntouched) << "not enrolled";
  ASSERT_TRUE(
      capture_->set_pod({.slot = 1, .addresses = {f().other_pod}, .host_ifindex = other_ifindex_, .enrolled = true}));
  EXPECT_EQ(out(other), kUntouched) << "enrolled";
  Frame foreign = question();
  foreign.source = f().outside;
  EXPECT_EQ(out(foreign), kUntouched) << "guard's";
  set_dns(false);
  EXPECT_EQ(out(question()), kUntouched);
  set_dns(true);
  pod_.enrolled = false;
  pod_.leaving = true;
  ASSERT_TRUE(capture_->set_pod(pod_));
  EXPECT_EQ(out(question()), kUntouched) << "it leaves the mesh";
}

TEST_P(DnsProgram, FlagsGoWithThePod) {
  EXPECT_TRUE(capture_->pods().value().at(0).dns);
  EXPECT_FALSE(capture_->pods().value().at(1).dns);
  ASSERT_TRUE(capture_->remove_pod(0));
  pod_.dns = false;
  ASSERT_TRUE(capture_->set_pod(pod_));
  EXPECT_FALSE(capture_->pods().value().at(0).dns);
  EXPECT_EQ(out(question()), kUntouched);
}

TEST_P(DnsProgram, FragmentsAndWhatCannotBeReadGoOn) {
  Frame cut = question();
  cut.cut = cut.bytes().size() - (v4() ? 14 + 20 + 2 : 14 + 40 + 2);
  EXPECT_EQ(out(cut), kUntouched) << "no ports";
  Frame fragment = question();
  if (v4()) {
    for (const std::uint16_t bits : std::initializer_list<std::uint16_t>{0x2000, 0x0001}) {
      fragment.fragment = bits;
      EXPECT_EQ(out(fragment), kUntouched) << bits;
    }
    Frame with_options = question();
    with_options.options = {1, 1, 1, 1};
    EXPECT_EQ(out(with_options), kCaptured) << "the ports are behind them";
  } else {
    fragment.with(Frame::extension(44));
    EXPECT_EQ(out(fragment), kUntouched);
    Frame with_extension = question();
    with_extension.with(Frame::extension(60));
    EXPECT_EQ(out(with_extension), kCaptured) << "the ports are behind it";
  }
  Frame vlan = question();
  vlan.vlan_tags = {0x8100};
  EXPECT_EQ(out(vlan), kUntouched);
}

TEST_P(DnsProgram, NothingGoesRound) {
  EXPECT_EQ(out(question(), {.mark = kMark}), "drop: the capture mark, or back from lo");
  EXPECT_EQ(out(question(), {.ingress_ifindex = 1}), "drop: the capture mark, or back from lo");
}

TEST_P(DnsProgram, QuestionsGoToTheSocketOfTheirFamily) {
  EXPECT_EQ(deliver(question()), "drop: the agent does not listen");
  listen_udp(v4() ? bpf::IpFamily::kV6 : bpf::IpFamily::kV4);
  EXPECT_EQ(deliver(question()), "drop: the agent does not listen") << "the other family's";
  listen_udp(v4() ? bpf::IpFamily::kV4 : bpf::IpFamily::kV6);
  // bpf_sk_assign works at a real ingress hook only.
  EXPECT_EQ(deliver(question()), "drop: the listener cannot take it");
  EXPECT_EQ(deliver(question(), 0), "uncounted");
  set_dns(false);
  EXPECT_EQ(deliver(question()), kUntouched);
  set_dns(true);
  ASSERT_TRUE(capture_->remove_pod(0));
  ASSERT_TRUE(capture_->set_pod(pod_));
  EXPECT_EQ(deliver(question()), "drop: the agent does not listen") << "a slot's sockets go with its pod";
}

TEST_P(DnsProgram, AnswersGetTheirPort) {
  // What the agent's socket sends: the server's address and a port of its own.
  const Frame answer{.source = f().outside, .destination = f().pod, .source_port = 33'333, .protocol = kUdp};
  EXPECT_EQ(deliver(answer, kAnswerMark), "pass: a socket of the agent");
  Frame of_neighbour = answer;
  of_neighbour.source = f().other_pod;
  of_neighbour.destination_port = 53;
  EXPECT_EQ(deliver(of_neighbour, kAnswerMark), "pass: a socket of the agent") << "a server that is a pod of this node";
  EXPECT_EQ(deliver(answer), kUntouched) << "somebody else's";
  Frame to_another = answer;
  to_another.destination = f().other_pod;
  EXPECT_EQ(deliver(to_another, kAnswerMark), kUntouched);
  Frame stream = answer;
  stream.protocol = 6;
  EXPECT_EQ(deliver(stream, kAnswerMark), "drop: a source that is not the pod's");
}

TEST_P(DnsProgram, ConnectionsToServersAreCaptured) {
  Frame frame = stream();
  EXPECT_EQ(out(frame), kCapturedNew);
  frame.destination = f().link_local;
  EXPECT_EQ(out(frame), kCapturedNew);
  frame.destination_port = 80;
  EXPECT_EQ(out(frame), "pass: link-local is never captured");
  frame = stream();
  frame.destination_port = 54;
  EXPECT_EQ(out(frame), "pass: a new connection to outside the mesh");
  frame = stream();
  frame.source = f().other_pod;
  EXPECT_EQ(out(frame), "pass: the pod is not enrolled");
  set_dns(false);
  EXPECT_EQ(out(stream()), "pass: a new connection to outside the mesh");
  ASSERT_TRUE(capture_->set_capture_all(true));
  frame = stream();
  frame.destination = f().link_local;
  EXPECT_EQ(out(frame), "pass: link-local is never captured");
}

TEST_P(DnsProgram, SocketsThatOthersCouldJoinAreRefused) {
  auto fd = sys::socket(AF_INET, SOCK_DGRAM);
  ASSERT_TRUE(sys::set_option(fd->get(), SOL_SOCKET, SO_REUSEPORT, 1));
  EXPECT_FALSE(capture_->set_dns_socket(0, bpf::IpFamily::kV4, 0, fd->get()));
  EXPECT_FALSE(capture_->set_dns_socket(8, bpf::IpFamily::kV4, 0, fd->get()));
}

}  // namespace
}  // namespace weft::test
