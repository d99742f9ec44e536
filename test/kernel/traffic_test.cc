// SPDX-License-Identifier: Apache-2.0
/// Traffic through the real plugin, programs and agents, as far as it depends on the kernel.

#include <cstdio>

#include "test/kernel/kernel_fixture.h"

namespace weft::test {
namespace {

constexpr milliseconds kSoon{10'000};
/// For connections that are expected to fail.
const std::vector<std::string> kImpatient{"--connect-timeout", "1", "--timeout", "1"};

TEST_F(KernelMesh, ConnectionsByIPv4AreMutualTlsOnTheWire) {
  expect_captured(*client, *server, false);
  expect_captured(*server, *client, false);
}

TEST_F(KernelMesh, ConnectionsByIPv6AreMutualTlsOnTheWire) {
  expect_captured(*client, *server, true);
  expect_captured(*server, *client, true);
}

TEST_F(KernelMesh, BulkIsExactBothWays) {
  for (const bool v6 : {false, true}) {
    const Finished bulk = client->bulk(of(*server, v6), {"--send", "1000000", "--receive", "1000000"});
    EXPECT_TRUE(bulk.ok()) << ::testing::PrintToString(bulk);
    EXPECT_EQ(field(bulk.out, "verdict"), "exact");
  }
}

TEST_F(KernelMesh, BothAgentsKnowWhoSpeaks) {
  const std::size_t before = node2().log().size();
  ASSERT_TRUE(client->get(server->v4()).ok());
  const std::vector<std::string> words{"connection complete", "src.identity=" + client->identity(),
                                       "dst.identity=" + server->identity()};
  EXPECT_TRUE(eventually(kSoon, [&] { return !log_lines(node2().log(), before, words).empty(); }));
  EXPECT_GT(metric(node2().metrics(), "istio_tcp_connections_closed_total",
                   {"reporter=\"destination\"", "source_principal=\"" + client->identity() + "\"",
                    "connection_security_policy=\"mutual_tls\""}),
            0);
}

TEST_F(KernelMesh, WhatIsNotOfTheMeshIsUntouched) {
  for (const bool v6 : {false, true}) {
    for (const auto& [from, to] : {std::pair{client, outside}, std::pair{outside, server}}) {
      const Finished answer = from->get(of(*to, v6));
      EXPECT_TRUE(answer.ok()) << ::testing::PrintToString(answer);
      EXPECT_EQ(field(answer.out, "server"), to->name());
      EXPECT_EQ(field(answer.out, "client"), field(answer.out, "own")) << "another socket than the client's own";
    }
  }
}

// The kubelet's probes, and those of a process of the node that has no privileges at all.
TEST_F(KernelMesh, ProbesOfTheNodePassWherePlaintextIsDenied) {
  mesh().set_policy(deny_policy("bank", "mesh-only", plaintext()));
  for (const bool v6 : {false, true}) {
    EXPECT_FALSE(outside->get(of(*server, v6), kImpatient).ok()) << "nothing is denied";
    for (const char* user : {"0", "65534"}) {
      const Finished probe = run({"setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all",
                                  program("weft-testapp"), "get", of(*server, v6).to_string()},
                                 {.netns = &node2().netns(), .environment = {}, .input = {}});
      EXPECT_TRUE(probe.ok()) << "of the user " << user << ": " << ::testing::PrintToString(probe);
      EXPECT_EQ(field(probe.out, "client"), field(probe.out, "own"));
    }
  }
  mesh().remove_policy("bank", "mesh-only");
}

/// TCP connections that the namespace has accepted by a SYN cookie.
unsigned long long cookies_received(const Pod& pod) {
  const std::string text = run_in(pod.netns(), [] { return read_file("/proc/thread-self/net/netstat"); });
  unsigned long long sent = 0, received = 0;
  const auto values = text.find("\nTcpExt: ");
  // Names in the first line, values in the second.
  if (!text.starts_with("TcpExt: SyncookiesSent SyncookiesRecv ") ||
      std::sscanf(text.c_str() + values, "\nTcpExt: %llu %llu", &sent, &received) != 2) {
    throw TestError("netstat of another form");
  }
  return received;
}

// Without a request socket the last ACK of a handshake meets nothing but a listener.
TEST_F(KernelMesh, SynCookiesLeakNothing) {
  PodOptions options;
  options.sysctls = {{"net/ipv4/tcp_syncookies", "2"}, {"net/ipv4/tcp_max_syn_backlog", "1"}};
  Pod& pod = mesh().add_pod(1, "shop", "cookies", options);
  pod.serve();
  for (const bool v6 : {false, true}) {
    const auto before = cookies_received(pod);
    expect_captured(pod, *server, v6);
    EXPECT_GT(cookies_received(pod), before) << "its agent's listener accepted without a cookie";
    const auto between = cookies_received(pod);
    expect_captured(*server, pod, v6);
    EXPECT_GT(cookies_received(pod), between) << "nothing was accepted by a cookie";
  }
  mesh().remove_pod(pod);
}

}  // namespace
}  // namespace weft::test
