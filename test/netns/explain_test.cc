// SPDX-License-Identifier: Apache-2.0
/// What `weftctl explain` says of random connections under random policies, compared with what really happens to them.
/// WEFT_EXPLAIN_SEED gives the seed of a run again, WEFT_EXPLAIN_CASES the number of cases.

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>

#include "test/netns/explain_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;

constexpr std::size_t kCasesOfAPolicySet = 10;
constexpr int kExitConnectTimeout = 4;  ///< of weft-testapp

std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// Where the connection ends: at a waypoint, whatever it was asked for.
Endpoint application_of(const json& endpoint) {
  Endpoint at = Endpoint::parse(endpoint.at("target").get<std::string>()).value();
  if (endpoint.contains("waypoint") && endpoint.contains("hbone")) {
    at.address = Endpoint::parse(endpoint.at("hbone").get<std::string>()).value().address;
  }
  return at;
}

/// One of several weighted waypoints, which cannot be found.
bool refused_by_source(const json& endpoint) { return endpoint.contains("waypoint") && !endpoint.contains("hbone"); }

class Explain : public ExplainMesh {
 protected:
  static bool is_said_by_source(const ConnectionCase& c, const std::string& reason) {
    const Node& node = c.source->node();
    const std::vector<std::string> words{"connection complete", "direction=outbound", reason};
    return !log_lines(node.log(), log_before_[node.index() - 1], words).empty();
  }
  void compare(const ConnectionCase& c);
  void compare_allowed(const ConnectionCase& c);
  void compare_refused(const ConnectionCase& c);
  void expect_transport(const ConnectionCase& c, const json& endpoint, const Endpoint& target);

  std::map<std::string, int> tally_;  ///< how often what came up
};

void Explain::expect_transport(const ConnectionCase& c, const json& endpoint, const Endpoint& target) {
  const bool encrypted = endpoint.at("encrypted");
  const bool looked_at = encrypted || endpoint.value("inboundPlaintext", "") == "check";
  const bool stays = c.stays_in_pod(target);
  EXPECT_EQ(seen_in_the_clear(c.name), !encrypted && !stays) << "on a veth of a pod";
  if (looked_at && !stays) {
    EXPECT_TRUE(eventually(milliseconds(5'000), [&] { return is_logged(c, endpoint); })) << "not logged as explained";
  } else if (!c.said.at("captured").get<bool>()) {
    EXPECT_EQ(field(c.really.out, "client"), field(c.really.out, "own")) << "not left alone";
  }
  if (endpoint.contains("waypoint")) ++tally_["through a waypoint"];
  ++tally_[encrypted ? "encrypted" : looked_at ? "plaintext that was checked" : "plaintext that nobody looked at"];
}

void Explain::compare_allowed(const ConnectionCase& c) {
  // The server says at which of its addresses it was reached.
  const auto reached = Endpoint::parse(field(c.really.out, "local"));
  ASSERT_TRUE(reached);
  for (const auto& endpoint : c.said.at("endpoints")) {
    if (application_of(endpoint) != *reached) continue;
    EXPECT_TRUE(endpoint.at("allowed").get<bool>()) << "reached, though refused there";
    const std::string workload = endpoint.value("workload", "");
    if (!workload.empty()) {
      EXPECT_EQ(workload.substr(workload.find('/') + 1), field(c.really.out, "server"));
    }
    if (!c.said.at("captured").get<bool>() && !c.stays_in_pod(*reached)) {
      EXPECT_FALSE(endpoint.at("encrypted").get<bool>());
    }
    expect_transport(c, endpoint, *reached);
    return;
  }
  ADD_FAILURE() << "reached " << reached->to_string() << ", which is not among the endpoints";
}

void Explain::compare_refused(const ConnectionCase& c) {
  EXPECT_FALSE(c.said.at("captured").get<bool>() && seen_in_the_clear(c.name)) << "captured, and seen in the clear";
  if (c.said.contains("refusal")) {
    EXPECT_TRUE(eventually(milliseconds(5'000), [&] { return is_said_by_source(c, c.said.at("refusal")); }))
        << "the source's agent gives another reason";
    ++tally_["refused by the source"];
    return;
  }
  // Where no policy decides (the tunnel's own ports) or no agent sees it (dropped), there is no line to compare with.
  const auto is_dropped = [](const json& endpoint) { return endpoint.value("inboundPlaintext", "") == "drop"; };
  const auto is_silent = [&](const json& endpoint) {
    const std::string reason = endpoint.at("reason");
    return endpoint.at("allowed").get<bool>() || is_dropped(endpoint) ||
           !(reason.starts_with("denied") || reason.starts_with("no allow"));
  };
  const auto& endpoints = c.said.at("endpoints");
  EXPECT_EQ(c.really.status == kExitConnectTimeout, std::ranges::all_of(endpoints, is_dropped))
      << "what is dropped is not answered, and nothing else";
  ++tally_[std::ranges::all_of(endpoints, is_silent) ? "refused without a record" : "refused by a policy"];
  if (std::ranges::all_of(endpoints, is_silent)) return;
  EXPECT_TRUE(eventually(milliseconds(5'000), [&] {
    return std::ranges::any_of(endpoints, [&](const json& e) {
      return refused_by_source(e) ? is_said_by_source(c, e.at("reason")) : !is_silent(e) && is_logged(c, e);
    });
  })) << "the agents give another reason";
}

void Explain::compare(const ConnectionCase& c) {
  SCOPED_TRACE(c.story());
  ++tally_[c.outcome()];
  EXPECT_EQ(c.exit, c.outcome() == "allowed" ? 0 : kExitRefused);
  EXPECT_NE(c.really.ok() ? "refused" : "allowed", c.outcome());
  if (c.really.ok()) {
    compare_allowed(c);
  } else {
    compare_refused(c);
  }
}

TEST_F(Explain, WeftctlShowsTheNodeAndTheMesh) {
  mesh_->set_policies({});
  const auto list = [](const char* name) { return json::parse(weftctl(1, {name, "-o", "json"}).out); };
  const auto all_verified = [](const json& pods) {
    return std::ranges::all_of(
        pods, [](const json& pod) { return pod.contains("verified") && pod.at("verified").at("problems").empty(); });
  };
  EXPECT_TRUE(eventually(milliseconds(20'000), [&] { return all_verified(list("pods")); })) << list("pods").dump(2);
  const json pods = list("pods");
  EXPECT_EQ(pods.size(), 4U);
  for (const auto& pod : pods) {
    EXPECT_EQ(pod.at("captured"), pod.at("name") != "unlisted");
    EXPECT_LT(pod.at("verified").at("ageSeconds").get<double>(), pod.at("ageSeconds").get<double>());
  }
  for (const auto& certificate : list("certificates")) {
    EXPECT_EQ(certificate.at("state"), "valid");
    EXPECT_EQ(certificate.at("roots").size(), 1U);
  }
  const json services = list("services");
  const auto web = std::ranges::find(services, "web", [](const json& s) { return s.at("name"); });
  EXPECT_EQ(web->at("endpointHealth"), json({{"healthy", 2}, {"total", 3}}));
  for (const char* name :
       {"status", "pods", "workloads", "services", "policies", "certificates", "connections", "drops"}) {
    const Finished shown = weftctl(1, {name});
    EXPECT_TRUE(shown.ok()) << ::testing::PrintToString(shown);
  }
  EXPECT_THAT(weftctl(1, {"policies"}).out,
              ::testing::ContainsRegex("bank/ghost .*not received, and named by .*haunted"));
  const Finished explained = weftctl(1, {"explain", "shop/client", "web:80"});
  EXPECT_EQ(explained.status, 0);
  EXPECT_THAT(explained.out, ::testing::HasSubstr("result        allowed"));
  EXPECT_EQ(weftctl(1, {"explain", "shop/client", "db.bank:80"}).status, kExitRefused);
  EXPECT_TRUE(weftctl(1, {"log-level", "info"}).ok());
  EXPECT_EQ(weftctl(1, {"log-level"}).out, "info\n");
  EXPECT_EQ(weftctl(1, {"log-level", "reset"}).out, "debug\n");
}

TEST_F(Explain, AgreesWithWhatReallyHappens) {
  const std::uint64_t seed = number_from_environment("WEFT_EXPLAIN_SEED", std::random_device{}());
  const std::size_t count = number_from_environment("WEFT_EXPLAIN_CASES", 50);
  std::cout << "WEFT_EXPLAIN_SEED=" << seed << " WEFT_EXPLAIN_CASES=" << count << std::endl;
  Dice dice(seed);
  for (std::size_t done = 0; done < count && !HasFailure();) {
    const auto policies = random_policies(dice, pods_);
    mesh_->set_policies(policies);
    std::vector<ConnectionCase> cases;
    for (; cases.size() < kCasesOfAPolicySet && done < count; ++done) cases.push_back(random_case(dice, done));
    run_group(cases);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", policies " + json(policies).dump(2));
    for (const auto& c : cases) compare(c);
    for (const auto& capture : captures_) EXPECT_EQ(capture->lost(), 0U);
  }
  for (const auto& [what, times] : tally_) std::cout << what << ": " << times << "\n";
  // A run in which hardly anything came up would prove little. Fewer cases may miss one by bad luck.
  if (count < 200) return;
  for (const char* what :
       {"allowed", "refused", "mixed", "encrypted", "plaintext that nobody looked at", "refused by the source",
        "refused by a policy", "refused without a record", "through a waypoint"}) {
    EXPECT_GT(tally_[what], 0) << what << " never came up";
  }
}

}  // namespace
}  // namespace weft::test
