// SPDX-License-Identifier: Apache-2.0
/// DNS while agents come and go, and what is not DNS at all.

#include <array>
#include <cerrno>

#include "test/netns/dns_fixture.h"
#include "test/netns/raw_tcp.h"

namespace weft::test {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr milliseconds kSoon{15'000};

class DnsLife : public DnsTest {
 protected:
  static Process ask_steadily(const Endpoint& server, const char* name, double rate, double seconds) {
    Process asking = client_->start({program("weft-testapp"), "dns", server.to_string(), "--name", name, "--rate",
                                     std::to_string(rate), "--for", std::to_string(seconds)});
    if (!asking.wait_for_output("asking", kSoon)) throw TestError("weft-testapp does not ask");
    return asking;
  }
  static int number(const Finished& finished, const char* key) { return std::stoi("0" + field(finished.out, key)); }
};

TEST_F(DnsLife, HandoversLoseNothing) {
  Process known4 = ask_steadily({server_v4(), 53}, "web.shop.svc.cluster.local", 200, 8);
  Process known6 = ask_steadily({server_v6(), 53}, "pods", 200, 8);
  Process forwarded = ask_steadily({server_v4(), 53}, "real.ext.test", 100, 8);
  for (int i = 0; i < 2; ++i) {
    node1().hand_over_agent();
    EXPECT_TRUE(known4.running()) << "the load must outlast the handovers";
  }
  for (Process* asking : {&known4, &known6, &forwarded}) {
    const Finished finished = asking->finish(milliseconds(60'000));
    EXPECT_TRUE(finished.ok()) << finished.out << finished.err;
    EXPECT_EQ(number(finished, "answered"), number(finished, "sent")) << finished.out;
    std::printf("  %s\n", finished.out.substr(finished.out.find("dns ")).c_str());
  }
  EXPECT_TRUE(eventually(kSoon, [] {
    bool all = true;
    for (auto& agent : node1().retired_agents()) all = all && agent->wait(milliseconds(0)) == 0;
    return all;
  })) << "an agent without questions under way has no reason to live on";
}

TEST_F(DnsLife, AForwardedQuestionOutlivesItsAgent) {
  const Fd late = run_in(node1().netns(), [] {
    Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto at = Endpoint{IpAddress::parse(kNobody).value(), 53}.to_sockaddr();
    const timeval limit{10, 0};
    if (!fd || ::bind(fd.get(), at.get(), at.length) < 0 ||
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0) {
      throw TestError("make a late server");
    }
    return fd;
  });
  Process asking =
      client_->start({"dig", "-r", std::string("@") + kNobody, "late.ext.test", "A", "+short", "+time=15", "+tries=1"});
  std::array<unsigned char, 512> question{};
  sockaddr_storage from{};
  socklen_t length = sizeof from;
  const ssize_t n =
      ::recvfrom(late.get(), question.data(), question.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
  ASSERT_GT(n, 12) << errno;
  EXPECT_EQ(Endpoint::from_sockaddr(from).address, client_->address_v4()) << "it comes from the pod";
  node1().hand_over_agent();
  // An answer without records.
  question[2] |= 0x80;
  ASSERT_EQ(::sendto(late.get(), question.data(), static_cast<std::size_t>(n), 0,
                     reinterpret_cast<const sockaddr*>(&from), length),
            n);
  const Finished finished = asking.finish(milliseconds(20'000));
  EXPECT_EQ(finished.status, 0) << ::testing::PrintToString(finished);
}

TEST_F(DnsLife, WithoutAnAgentQuestionsWait) {
  node1().kill_agent();
  for (const char* way : {"+notcp", "+tcp"}) {
    EXPECT_EQ(dig(*client_, server_v4(), "web", "A", {way, "+time=1"}).status, 9) << way;
    EXPECT_EQ(dig(*client_, server_v4(), "real.ext.test", "A", {way, "+time=1"}).status, 9) << way;
    EXPECT_THAT(dig(*plain_, server_v4(), "real.ext.test", "A", {way}).data(), ElementsAre("198.51.100.80")) << way;
  }
  Process asking = client_->start({"dig", "-r", "@" + server_v4().to_string(), "web.shop.svc.cluster.local", "A",
                                   "+short", "+time=1", "+tries=60"});
  node1().start_agent();
  const Finished finished = asking.finish(milliseconds(70'000));
  EXPECT_THAT(finished.out, EndsWith(vips_["web"].front().to_string() + "\n")) << ::testing::PrintToString(finished);
  for (const char* way : {"+notcp", "+tcp"}) {
    EXPECT_EQ(dig(*client_, server_v6(), "web", "AAAA", {way}).data(), texts(vips_["web"], false)) << way;
  }
}

TEST_F(DnsLife, APodThatLeavesTheMeshHasItsOwnDnsAgain) {
  const auto asked = [] { return dig(*client_, server_v4(), "web.shop.svc.cluster.local", "A").data(); };
  EXPECT_EQ(asked(), texts(vips_["web"], true));
  mesh_->set_enrolled(*client_, false);
  EXPECT_TRUE(eventually(kSoon, [&] { return asked() == std::vector<std::string>{"198.51.100.9"}; }));
  EXPECT_EQ(dig(*client_, server_v4(), "web.shop.svc.cluster.local", "A", {"+tcp"}).data(),
            std::vector<std::string>{"198.51.100.9"});
  mesh_->set_enrolled(*client_, true);
  EXPECT_TRUE(eventually(kSoon, [&] { return asked() == texts(vips_["web"], true); }));
  EXPECT_EQ(dig(*client_, server_v4(), "web.shop.svc.cluster.local", "A", {"+tcp"}).data(), texts(vips_["web"], true));
}

TEST_F(DnsLife, AServerOfThePodKeepsItsPort) {
  // On all addresses, while the agent answers from addresses that are not the pod's.
  const Dnsmasq own(client_->netns(), {}, {"--local=/test/", "--host-record=own.ext.test,198.51.100.30"});
  EXPECT_THAT(dig(*client_, client_->address_v4(), "own.ext.test", "A").data(), ElementsAre("198.51.100.30"));
  EXPECT_EQ(dig(*client_, server_v4(), "web", "A").data(), texts(vips_["web"], true));
  EXPECT_THAT(dig(*client_, server_v4(), "real.ext.test", "A").data(), ElementsAre("198.51.100.80"));
}

TEST_F(DnsLife, AResolverInTheMeshIsAskedByTcpThroughATunnel) {
  const Dnsmasq resolver(web2_->netns(), {}, {"--local=/test/", "--host-record=inside.ext.test,198.51.100.40"});
  const auto tunnelled = [] {
    return metric(node1().metrics(), "istio_tcp_connections_opened_total",
                  {"reporter=\"source\"", "source_workload=\"client\"", "destination_workload=\"web2\"",
                   "connection_security_policy=\"mutual_tls\""});
  };
  const double before = tunnelled();
  for (const auto& server : {web2_->address_v4(), web2_->address_v6()}) {
    for (const char* way : {"+notcp", "+tcp"}) {
      EXPECT_EQ(dig(*client_, server, "web", "A", {way}).data(), texts(vips_["web"], true)) << way;
      EXPECT_THAT(dig(*client_, server, "inside.ext.test", "A", {way}).data(), ElementsAre("198.51.100.40")) << way;
    }
  }
  EXPECT_EQ(tunnelled(), before + 2) << "the two that were forwarded by TCP";
}

/// Sends one datagram from the pod and gives what comes back within `wait`.
std::string exchange(const Pod& pod, const Endpoint& server, const std::string& message, milliseconds wait) {
  return run_in(pod.netns(), [&] {
    Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto at = server.to_sockaddr();
    const timeval limit{wait.count() / 1000, static_cast<suseconds_t>(wait.count() % 1000) * 1000};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (::connect(fd.get(), at.get(), at.length) < 0 ||
        ::send(fd.get(), message.data(), message.size(), 0) != static_cast<ssize_t>(message.size())) {
      throw TestError("send a datagram");
    }
    std::string answer(2'000, '\0');
    const ssize_t n = ::recv(fd.get(), answer.data(), answer.size(), 0);
    answer.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return answer;
  });
}

TEST_F(DnsLife, Garbage) {
  using namespace std::string_literals;
  const Endpoint server{server_v4(), 53};
  const std::string header = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"s;
  const std::string good = header + "\3web\0\0\1\0\1"s;
  EXPECT_THAT(exchange(*client_, server, good, kSoon), StartsWith("\x12\x34\x85\x80\x00\x01\x00\x01"s));
  // FORMERR: no question, cut off, a name that points to itself, a label that is too long, two questions.
  for (const auto& message :
       {"\x12\x34\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"s, good.substr(0, good.size() - 1),
        header + "\xc0\x0c\0\1\0\1"s, header + "\x7fweb\0\0\1\0\1"s,
        "\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00"s + "\3web\0\0\1\0\1\3web\0\0\1\0\1"s}) {
    EXPECT_EQ(exchange(*client_, server, message, kSoon), "\x12\x34\x81\x81\x00\x00\x00\x00\x00\x00\x00\x00"s);
  }
  // Nothing: an answer, and what is less than a header.
  for (const auto& message :
       {"\x12\x34\x81\x00\x00\x01\x00\x00\x00\x00\x00\x00"s + "\3web\0\0\1\0\1"s, "\x12\x34"s, ""s}) {
    EXPECT_EQ(exchange(*client_, server, message, milliseconds(300)), "");
  }
  EXPECT_EQ(dig(*client_, server_v4(), "web", "A").data(), texts(vips_["web"], true));
}

TEST_F(DnsLife, ManyQuestionsInOneConnection) {
  using namespace std::string_literals;
  const auto question = [](char id, const std::string& name) {
    const std::string message = "\0"s + id + "\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"s + name + "\0\0\1\0\1"s;
    return "\0"s + static_cast<char>(message.size()) + message;
  };
  const std::string web = "\3web"s, real = "\4real\3ext\4test"s, none = "\4none\3ext\4test"s;
  Dialled dialled = dial_in(client_->netns(), {server_v4(), 53});
  ASSERT_TRUE(dialled.fd) << dialled.error;
  std::string all;
  for (char i = 0; i < 60; ++i) all += question(i, i % 3 == 0 ? web : i % 3 == 1 ? real : none);
  // In two pieces, the cut inside of a message.
  send_all(dialled.fd, all.substr(0, 500));
  send_all(dialled.fd, all.substr(500));
  std::vector<int> rcodes(60, -1);
  for (int i = 0; i < 60; ++i) {
    const std::string length = read_some(dialled.fd, 2);
    const std::string message = read_some(
        dialled.fd,
        static_cast<std::size_t>(static_cast<unsigned char>(length[0]) << 8 | static_cast<unsigned char>(length[1])));
    ASSERT_GE(message.size(), 12U);
    const auto id = static_cast<std::size_t>(message[1]);
    ASSERT_LT(id, rcodes.size());
    EXPECT_EQ(rcodes[id], -1) << "one answer each";
    rcodes[id] = message[3] & 0xf;
  }
  for (std::size_t i = 0; i < rcodes.size(); ++i) EXPECT_EQ(rcodes[i], i % 3 == 2 ? 3 : 0) << i;
  // The end of questions is the end of the connection, after the last answer.
  send_all(dialled.fd, question(61, real));
  shut_write(dialled.fd);
  EXPECT_THAT(read_to_end(dialled.fd), HasSubstr("|end"));

  // What is no DNS.
  Dialled other = dial_in(client_->netns(), {server_v4(), 53});
  ASSERT_TRUE(other.fd) << other.error;
  send_all(other.fd, "\0\4abcd"s);
  EXPECT_THAT(read_to_end(other.fd), testing::AnyOf("|reset", "|end"));
}

}  // namespace
}  // namespace weft::test
