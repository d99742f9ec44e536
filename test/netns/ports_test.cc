// SPDX-License-Identifier: Apache-2.0
/// The ports from which applications are dialled in their clients' names: how far they go, and what happens behind.
/// WEFT_RATE_SECONDS sets how long connections are made at a rate (default 2).

#include <algorithm>
#include <cstdlib>

#include "agent/identity/self_signed.h"
#include "test/netns/mesh_fixture.h"
#include "test/netns/rate_client.h"
#include "test/netns/raw_tcp.h"

namespace weft::test {
namespace {

using ::testing::HasSubstr;

class MeshPorts : public MeshTest {
 protected:
  /// A pod whose netns leaves only some ports to the agent.
  static Pod& add_server(const char* name, const char* reserved) {
    PodOptions options;
    options.service_account = name;
    if (reserved != nullptr) options.sysctls = {{"net/ipv4/ip_local_reserved_ports", reserved}};
    Pod& pod = mesh().add_pod(2, "bank", name, options);
    pod.serve();
    return pod;
  }
  /// Asks on a connection that stays open; the answer, or how it ended.
  static std::string ask(const Fd& fd) {
    send_all(fd, "GET /kept HTTP/1.1\r\n\r\n");
    std::string answer;
    try {
      while (!answer.ends_with("path=/kept\n")) answer += read_some(fd, 1);
    } catch (const TestError& error) {
      return answer + "|" + error.what();
    }
    return answer;
  }
  static Fd open(const Endpoint& to) {
    Dialled dialled = dial_in(client->netns(), to);
    EXPECT_TRUE(dialled.fd) << ::strerror(dialled.error);
    return std::move(dialled.fd);
  }
  static std::size_t refusals(std::size_t offset) {
    return log_lines(node2().log(), offset, {"no source port is free of the 100"}).size();
  }

  static milliseconds rate_duration() {
    const char* text = std::getenv("WEFT_RATE_SECONDS");
    return seconds(text == nullptr ? 2 : std::max(std::atoi(text), 1));
  }
  /// No connection fails, and the rate was held as far as the machine allows.
  static std::uint64_t expect_rate(const Pod& server, RateOptions options) {
    const auto ca = agent::SelfSignedCa::load(mesh().ca_dir());
    if (!ca) throw TestError(ca.error().message());
    const auto bundle = (*ca)->issue({"cluster.local", "shop", "peer"});
    if (!bundle) throw TestError(bundle.error().message());
    options.gateway = {options.application.address, 15008};
    const auto result = run_at_rate(outside->netns(), *bundle, server.identity(), options);
    std::printf("%llu connections in %.1f s, %.0f a second, %s\n", static_cast<unsigned long long>(result.answered),
                result.seconds, static_cast<double>(result.answered) / result.seconds,
                options.client_closes_first ? "the client closes first" : "the server closes first");
    EXPECT_EQ(result.failed, 0U) << result.first_failure;
    return result.answered;
  }
};

TEST_F(MeshPorts, TwoApplicationPortsShareThemAndTheFirstTooManyIsNamed) {
  Pod& few = add_server("few", "1024-32667");
  few.serve(8081);
  for (const bool v6 : {false, true}) {
    const auto to = [&](std::uint16_t port) { return v6 ? few.v6(port) : few.v4(port); };
    const IpAddress& own = v6 ? client->address_v6() : client->address_v4();
    const std::size_t offset = node2().log().size();
    std::vector<Fd> kept;
    for (int i = 0; i < 160; ++i) {
      kept.push_back(open(to(i % 2 == 0 ? 8080 : 8081)));
      const std::string answer = ask(kept.back());
      const auto seen = Endpoint::parse(field(answer, "client"));
      ASSERT_TRUE(seen) << i << ": " << answer;
      EXPECT_EQ(seen->address, own);
      EXPECT_GE(seen->port, 32668);
      EXPECT_LE(seen->port, 32767);
    }
    for (int i = 80; i < 100; ++i) {
      kept.push_back(open(to(8080)));
      ASSERT_THAT(ask(kept.back()), HasSubstr("server=few")) << i;
    }
    EXPECT_EQ(refusals(offset), 0U);
    const auto started = std::chrono::steady_clock::now();
    const Fd too_many = open(to(8080));
    EXPECT_EQ(read_to_end(too_many), "|reset");
    EXPECT_LT(std::chrono::steady_clock::now() - started, milliseconds(1000));
    EXPECT_TRUE(eventually(milliseconds(5000), [&] { return refusals(offset) == 1; }));
    // To the other port there is room, and all that were open still are.
    kept.push_back(open(to(8081)));
    EXPECT_THAT(ask(kept.back()), HasSubstr("server=few"));
    for (const Fd& fd : kept) ASSERT_THAT(ask(fd), HasSubstr("server=few"));
    kept.erase(kept.begin());
    EXPECT_TRUE(eventually(milliseconds(10'000), [&] { return ask(open(to(8080))).ends_with("path=/kept\n"); }))
        << "the port that became free is used again";
  }
}

TEST_F(MeshPorts, ManyNewConnectionsFromOneAddressWhereTheServerClosesFirst) {
  for (const Endpoint& to : {db->v4(), db->v6()}) {
    EXPECT_GT(expect_rate(*db, {.gateway = {}, .application = to, .duration = rate_duration()}), 500U);
  }
}

/// The agent's side is left in TIME_WAIT, for 60 s each: more connections than ports are made in that time.
TEST_F(MeshPorts, ManyNewConnectionsFromOneAddressWhereTheClientClosesFirst) {
  const bool all_ports = rate_duration() > seconds(20);
  Pod& busy = add_server("busy", all_ports ? nullptr : "1024-31967");
  const std::uint64_t ports = all_ports ? 31'744 : 800;
  RateOptions options{.gateway = {}, .application = busy.v4(), .per_second = all_ports ? 3000 : 350};
  options.duration = std::max<milliseconds>(rate_duration(), seconds(3));
  options.client_closes_first = true;
  EXPECT_GT(expect_rate(busy, options), ports);
}

}  // namespace
}  // namespace weft::test
