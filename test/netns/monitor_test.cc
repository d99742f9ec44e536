// SPDX-License-Identifier: Apache-2.0
/// What is counted of a pod that speaks to whom the agent never meets, and what `weftctl monitor` tells while it
/// happens.

#include <algorithm>
#include <csignal>
#include <sstream>

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr milliseconds kSoon{20'000};
const std::vector<std::string> kImpatient{"--connect-timeout", "1", "--timeout", "1"};

/// What /metrics says of a pod.
struct Traffic {
  double packets_out = 0, bytes_out = 0, packets_in = 0, bytes_in = 0, drops = 0;
  Traffic operator-(const Traffic& o) const {
    return {packets_out - o.packets_out, bytes_out - o.bytes_out, packets_in - o.packets_in, bytes_in - o.bytes_in,
            drops - o.drops};
  }
};

Traffic traffic_of(const Pod& pod) {
  const std::string metrics = pod.node().metrics();
  const auto sum = [&](const char* name, std::vector<std::string> labels) {
    labels.push_back("namespace=\"" + pod.namespace_name() + "\"");
    labels.push_back("pod=\"" + pod.name() + "\"");
    return metric(metrics, name, labels);
  };
  return {.packets_out = sum("weft_pod_packets_total", {"direction=\"out\""}),
          .bytes_out = sum("weft_pod_bytes_total", {"direction=\"out\""}),
          .packets_in = sum("weft_pod_packets_total", {"direction=\"in\""}),
          .bytes_in = sum("weft_pod_bytes_total", {"direction=\"in\""}),
          .drops = sum("weft_pod_drops_total", {})};
}

/// What the kernel counts at the pod's end of its veth: ARP too, in frames of 42 bytes.
Traffic device_of(const Pod& pod) {
  const std::string devices =
      must_run({"cat", "/proc/net/dev"}, {.netns = &pod.netns(), .environment = {}, .input = {}});
  const auto eth0 = devices.find("eth0:");
  if (eth0 == std::string::npos) throw TestError("no eth0 in /proc/net/dev");
  std::istringstream numbers(devices.substr(eth0 + 5));
  Traffic traffic;
  double ignored = 0;
  numbers >> traffic.bytes_in >> traffic.packets_in;
  for (int i = 0; i < 6; ++i) numbers >> ignored;  // errors and the like
  numbers >> traffic.bytes_out >> traffic.packets_out;
  return traffic;
}

class MeshMonitor : public MeshTest {
 protected:
  static void SetUpTestSuite() {
    MeshTest::SetUpTestSuite();
    if (!mesh_) return;
    meter_ = add_serving_pod(mesh(), 1, "shop", "meter", true);
    // Neighbour discovery of IPv6 would be counted beside what the tests send.
    for (const Pod* pod : {meter_, outside}) pod->netns().sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    node1().netns().sysctl("net/ipv6/conf/" + meter_->host_interface() + "/disable_ipv6", "1");
  }
  static Process monitor(const Node& node, std::vector<std::string> arguments) {
    std::vector<std::string> command{program("weftctl"), "monitor"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return Process::start(command, {.netns = &node.netns(), .environment = {}, .input = {}});
  }
  /// Does it again until the monitor ends; gives what that printed.
  static Finished until_ended(Process& monitor, const std::function<void()>& again) {
    EXPECT_TRUE(eventually(kSoon, [&] {
      again();
      return !monitor.running();
    })) << monitor.err();
    return monitor.finish(kSoon);
  }
  static Pod* meter_;
};
Pod* MeshMonitor::meter_;

Fd udp_socket(const Pod& pod, std::uint16_t port) {
  return run_in(pod.netns(), [&] {
    Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const auto own = pod.v4(port).to_sockaddr();
    if (!fd || ::bind(fd.get(), own.get(), own.length) != 0) throw TestError("bind a UDP socket");
    return fd;
  });
}

void send_datagrams(int fd, const Endpoint& to, int count, std::size_t size) {
  const std::string payload(size, 'x');
  const auto address = to.to_sockaddr();
  for (int i = 0; i < count; ++i) {
    ASSERT_EQ(::sendto(fd, payload.data(), size, 0, address.get(), address.length), static_cast<ssize_t>(size));
  }
}

int receive_all(int fd, int count) {
  int received = 0;
  char buffer[2'000];
  eventually(kSoon, [&] {
    while (::recv(fd, buffer, sizeof buffer, 0) >= 0) ++received;
    return received >= count;
  });
  return received;
}

TEST_F(MeshMonitor, DatagramsAreCountedExactlyAtBothEnds) {
  constexpr int kThere = 60, kBack = 40, kHeaders = 14 + 20 + 8;
  constexpr std::size_t kSize = 1'000, kBackSize = 200;
  const Fd a = udp_socket(*meter_, 7'000), b = udp_socket(*outside, 7'000);
  // Few datagrams may wait until the next hop's address is known.
  send_datagrams(a.get(), outside->v4(7'000), 1, kSize);
  ASSERT_EQ(receive_all(b.get(), 1), 1);
  send_datagrams(b.get(), meter_->v4(7'000), 1, kSize);
  ASSERT_EQ(receive_all(a.get(), 1), 1);
  const Traffic before = traffic_of(*meter_), before_peer = traffic_of(*outside), before_client = traffic_of(*client);
  send_datagrams(a.get(), outside->v4(7'000), kThere, kSize);
  EXPECT_EQ(receive_all(b.get(), kThere), kThere);
  send_datagrams(b.get(), meter_->v4(7'000), kBack, kBackSize);
  EXPECT_EQ(receive_all(a.get(), kBack), kBack);
  const Traffic own = traffic_of(*meter_) - before, peer = traffic_of(*outside) - before_peer;
  EXPECT_EQ(own.packets_out, kThere);
  EXPECT_EQ(own.bytes_out, kThere * (kSize + kHeaders));
  EXPECT_EQ(own.packets_in, kBack);
  EXPECT_EQ(own.bytes_in, kBack * (kBackSize + kHeaders));
  EXPECT_EQ(peer.packets_in, own.packets_out);
  EXPECT_EQ(peer.bytes_in, own.bytes_out);
  EXPECT_EQ(peer.packets_out, own.packets_in);
  EXPECT_EQ(peer.bytes_out, own.bytes_in);
  EXPECT_EQ((traffic_of(*client) - before_client).packets_out, 0);
}

TEST_F(MeshMonitor, PlainTcpIsCountedAsTheDeviceCountsIt) {
  constexpr double kSent = 3'000'000, kReceived = 1'000'000, kArp = 42;
  // Nothing that the kernel sends by itself may fall between the two.
  Traffic before, device_before;
  ASSERT_TRUE(eventually(kSoon, [&] {
    device_before = device_of(*meter_);
    before = traffic_of(*meter_);
    const Traffic meanwhile = device_of(*meter_) - device_before;
    return meanwhile.packets_out == 0 && meanwhile.packets_in == 0;
  }));
  const Finished done = meter_->bulk(outside->v4(), {"--send", "3000000", "--receive", "1000000"});
  ASSERT_TRUE(done.ok()) << ::testing::PrintToString(done);
  // The last segments of the connection may be on their way still.
  Traffic own, device;
  const auto agree = [&] {
    device = device_of(*meter_) - device_before;
    own = traffic_of(*meter_) - before;
    return device.bytes_out - own.bytes_out == kArp * (device.packets_out - own.packets_out) &&
           device.bytes_in - own.bytes_in == kArp * (device.packets_in - own.packets_in);
  };
  EXPECT_TRUE(eventually(kSoon, agree)) << own.bytes_out << " of " << device.bytes_out << " out, " << own.bytes_in
                                        << " of " << device.bytes_in << " in";
  EXPECT_LE(device.packets_out - own.packets_out, 5);
  EXPECT_LE(device.packets_in - own.packets_in, 5);
  EXPECT_GT(own.bytes_out, kSent);
  EXPECT_GT(own.bytes_in, kReceived);
}

TEST_F(MeshMonitor, WhatTheAgentCarriesIsNotTraffic) {
  const Traffic before = traffic_of(*meter_), before_peer = traffic_of(*web1);
  const Finished done = meter_->bulk(web1->v4(), {"--send", "3000000", "--receive", "1000000"});
  ASSERT_TRUE(done.ok()) << ::testing::PrintToString(done);
  for (const Traffic& more : {traffic_of(*meter_) - before, traffic_of(*web1) - before_peer}) {
    EXPECT_LT(more.bytes_out, 2'000);
    EXPECT_LT(more.bytes_in, 2'000);
  }
  const json pods = json::parse(node1().admin("/pods"));
  const auto shown = std::ranges::find_if(pods, [](const json& pod) { return pod.at("name") == "meter"; });
  ASSERT_NE(shown, pods.end());
  EXPECT_GT(shown->at("traffic").at("captured"), 10);
}

TEST_F(MeshMonitor, DropsAreCountedOnTheRightPodAndFollowedLive) {
  mesh().set_policy(deny_policy("bank", "strict", plaintext()));
  const Traffic before = traffic_of(*db), before_other = traffic_of(*web2), before_client = traffic_of(*outside);
  Process follows = monitor(node2(), {"--drops", "--count", "1", "--pod", "bank/db"});
  const Finished told = until_ended(follows, [] { EXPECT_FALSE(outside->get(db->v4(), kImpatient).ok()); });
  EXPECT_TRUE(told.ok()) << told.err;
  EXPECT_THAT(told.out,
              AllOf(HasSubstr(" bank/db "), HasSubstr(" to_pod "), HasSubstr(" drop "),
                    HasSubstr(" " + outside->address_v4().to_string() + ":"),
                    HasSubstr("-> " + db->v4().to_string() + " "), HasSubstr("no plaintext into this pod\n")));
  EXPECT_GE((traffic_of(*db) - before).drops, 1);
  EXPECT_EQ(metric(node2().metrics(), "weft_pod_drops_total", {"pod=\"db\"", "reason=\"no plaintext into this pod\""}),
            traffic_of(*db).drops);
  EXPECT_EQ((traffic_of(*web2) - before_other).drops, 0);
  EXPECT_EQ((traffic_of(*outside) - before_client).drops, 0);
  mesh().remove_policy("bank", "strict");
}

TEST_F(MeshMonitor, ACapturedConnectionIsTold) {
  // The first that is seen may be the tunnel's own SYN, where it begins just then.
  Process follows = monitor(node1(), {"--count", "3", "--pod", "shop/client", "-o", "json"});
  const Finished told = until_ended(follows, [] { EXPECT_TRUE(client->get(db->v6()).ok()); });
  EXPECT_TRUE(told.ok()) << told.err;
  std::istringstream lines(told.out);
  json event = json::object();
  for (std::string line; std::getline(lines, line) && event.value("verdict", "") != "capture";)
    event = json::parse(line);
  ASSERT_EQ(event.value("verdict", ""), "capture") << told.out;
  EXPECT_EQ(event.at("program"), "from_pod");
  EXPECT_EQ(event.at("reason"), "a new connection to the mesh");
  EXPECT_EQ(event.at("destination"), db->v6().to_string());
  EXPECT_EQ(event.at("tcpFlags"), "SYN");
}

TEST_F(MeshMonitor, EndsWhenInterruptedAndWhenTheAgentGoes) {
  const auto told_something = [](const Process& follows) {
    return eventually(kSoon, [&] {
      outside->get(db->v4());
      return !follows.out().empty();
    });
  };
  Process interrupted = monitor(node2(), {}), left = monitor(node2(), {});
  EXPECT_TRUE(told_something(interrupted));
  interrupted.signal(SIGINT);
  EXPECT_EQ(interrupted.finish(kSoon).status, 0);
  EXPECT_TRUE(told_something(left));

  const Traffic before = traffic_of(*outside);
  EXPECT_GT(before.packets_out, 0);
  node2().kill_agent();
  const Finished alone = left.finish(kSoon);
  EXPECT_EQ(alone.status, 3);
  EXPECT_THAT(alone.err, HasSubstr("weftctl: the agent went away: "));
  node2().start_agent();
  Process stopped = monitor(node2(), {});
  EXPECT_TRUE(told_something(stopped));
  node2().stop_agent();
  EXPECT_EQ(stopped.finish(kSoon).status, 3);
  node2().start_agent();
  EXPECT_GE((traffic_of(*outside) - before).packets_out, 0);  // the next agent goes on
  EXPECT_GE((traffic_of(*outside) - before).bytes_in, 0);
}

TEST_F(MeshMonitor, FollowersLeaveTheAdminApiToOthers) {
  std::vector<Process> followers;
  for (int i = 0; i < 4; ++i) followers.push_back(monitor(node1(), {"--drops"}));
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(node1().admin("/status").empty());
    EXPECT_LT(std::chrono::steady_clock::now() - start, stretched(milliseconds(400)));
  }
  for (Process& follower : followers) EXPECT_TRUE(follower.running()) << follower.err();
}

}  // namespace
}  // namespace weft::test
