// SPDX-License-Identifier: Apache-2.0
#include "tunnel/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <thread>

#include "test/unit/telemetry/fixture.h"

namespace weft::telemetry::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;
using Labels = std::map<std::string, std::string>;

class MetricsTest : public ::testing::Test {
 protected:
  /// All series of one metric.
  [[nodiscard]] std::vector<std::pair<Labels, double>> series(const std::string& name) const {
    std::vector<std::pair<Labels, double>> out;
    for (const auto& family : registry_->Collect()) {
      if (family.name != name) continue;
      for (const auto& metric : family.metric) {
        Labels labels;
        for (const auto& label : metric.label) labels[label.name] = label.value;
        out.emplace_back(labels, metric.counter.value);
      }
    }
    return out;
  }
  /// {response_flags: value} of one metric.
  [[nodiscard]] std::map<std::string, double> by_flag(const std::string& name) const {
    std::map<std::string, double> out;
    for (const auto& [labels, value] : series(name)) out[labels.at("response_flags")] += value;
    return out;
  }

  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  ConnectionMetrics metrics_{registry_};
};

TEST_F(MetricsTest, LabelsAreIstios) {
  (void)metrics_.opened(sample());
  const auto opened = series("istio_tcp_connections_opened_total");
  ASSERT_EQ(opened.size(), 1U);
  EXPECT_EQ(opened[0].second, 1);
  EXPECT_EQ(opened[0].first, (Labels{{"reporter", "source"},
                                     {"source_workload", "web"},
                                     {"source_workload_namespace", "shop"},
                                     {"source_canonical_service", "web-app"},
                                     {"source_canonical_revision", "v1"},
                                     {"source_app", "web-app"},
                                     {"source_version", "v1"},
                                     {"source_cluster", "Kubernetes"},
                                     {"source_region", "eu"},
                                     {"source_zone", "eu-1"},
                                     {"source_principal", "spiffe://cluster.local/ns/shop/sa/web"},
                                     {"destination_workload", "db"},
                                     {"destination_workload_namespace", "shop"},
                                     {"destination_canonical_service", "db-app"},
                                     {"destination_canonical_revision", "v2"},
                                     {"destination_app", "db-app"},
                                     {"destination_version", "v2"},
                                     {"destination_cluster", "Kubernetes"},
                                     {"destination_region", "unknown"},
                                     {"destination_zone", "unknown"},
                                     {"destination_principal", "spiffe://cluster.local/ns/shop/sa/db"},
                                     {"destination_service", "db.shop.svc.cluster.local"},
                                     {"destination_service_name", "db"},
                                     {"destination_service_namespace", "shop"},
                                     {"request_protocol", "tcp"},
                                     {"response_flags", "-"},
                                     {"connection_security_policy", "mutual_tls"}}));
}

/// The source's principal is what TLS proved; the destination's is that of its workload, proven or not.
TEST_F(MetricsTest, PrincipalsAreIstios) {
  auto plain = sample();
  plain.source.identity.reset();
  plain.destination.identity.reset();
  (void)metrics_.opened(plain);
  const auto opened = series("istio_tcp_connections_opened_total");
  ASSERT_EQ(opened.size(), 1U);
  EXPECT_EQ(opened[0].first.at("source_principal"), "unknown");
  EXPECT_EQ(opened[0].first.at("source_workload_namespace"), "shop");
  EXPECT_EQ(opened[0].first.at("destination_principal"), plain.destination.workload->identity().to_uri());
}

TEST_F(MetricsTest, WhatTheRegistryDoesNotNameIsABlackHole) {
  ConnectionResult refused;
  refused.reporter = Reporter::kSource;
  refused.flag = ResponseFlag::kUnregistered;
  metrics_.closed(nullptr, refused);
  const auto closed = series("istio_tcp_connections_closed_total");
  ASSERT_EQ(closed.size(), 1U);
  EXPECT_EQ(closed[0].first.at("destination_service"), "BlackHoleCluster");
  EXPECT_EQ(closed[0].first.at("destination_service_name"), "BlackHoleCluster");
  EXPECT_EQ(closed[0].first.at("response_flags"), "UH");
}

TEST_F(MetricsTest, WhatIsNotKnownIsUnknown) {
  ConnectionResult bare;
  bare.reporter = Reporter::kDestination;
  (void)metrics_.opened(bare);
  const auto opened = series("istio_tcp_connections_opened_total");
  ASSERT_EQ(opened.size(), 1U);
  for (const auto& [name, value] : opened[0].first) {
    if (name == "reporter") {
      EXPECT_EQ(value, "destination");
    } else if (name == "request_protocol") {
      EXPECT_EQ(value, "tcp");
    } else if (name == "response_flags") {
      EXPECT_EQ(value, "-");
    } else {
      EXPECT_EQ(value, "unknown") << name;
    }
  }
}

TEST_F(MetricsTest, AConnectionIsCountedOpenedAndClosedOnce) {
  const auto result = sample();
  const auto handle = metrics_.opened(result);
  EXPECT_THAT(by_flag("istio_tcp_connections_closed_total"), ElementsAre());
  metrics_.closed(handle, result);
  EXPECT_THAT(by_flag("istio_tcp_connections_opened_total"), ElementsAre(Pair("-", 1)));
  EXPECT_THAT(by_flag("istio_tcp_connections_closed_total"), ElementsAre(Pair("-", 1)));
}

TEST_F(MetricsTest, TheEndIsCountedUnderItsFlag) {
  auto result = sample();
  const auto handle = metrics_.opened(result);
  result.flag = ResponseFlag::kConnect;
  metrics_.closed(handle, result);
  EXPECT_THAT(by_flag("istio_tcp_connections_opened_total"), ElementsAre(Pair("-", 1)));
  EXPECT_THAT(by_flag("istio_tcp_connections_closed_total"), ElementsAre(Pair("CONNECT", 1)));
}

TEST_F(MetricsTest, WhatEndsWithAFlagFailed) {
  auto result = sample();
  metrics_.closed(metrics_.opened(result), result);
  EXPECT_THAT(by_flag("istio_tcp_connections_failed_total"), ::testing::IsEmpty());
  result.flag = ResponseFlag::kDeny;
  metrics_.closed(metrics_.opened(result), result);
  metrics_.closed(nullptr, result);
  EXPECT_THAT(by_flag("istio_tcp_connections_failed_total"), ElementsAre(Pair("DENY", 2)));
}

TEST_F(MetricsTest, DecisionsAreCountedByTheRuleAndDryRunsByWhatTheyWouldHaveDone) {
  metrics_.decided({.allowed = true, .rule = "none", .dry_run_hits = {"ns/dry", "ns/drier"}});
  metrics_.decided({.allowed = false, .rule = "ns/deny", .dry_run_hits = {}});
  metrics_.decided({.allowed = false, .rule = "no_allow_matched", .dry_run_hits = {"ns/dry"}});
  metrics_.decided({.allowed = false, .rule = "ns/deny", .dry_run_hits = {}});
  const auto of = [](const char* policy, const char* action, const char* mode) {
    return Labels{{"policy", policy}, {"action", action}, {"mode", mode}};
  };
  EXPECT_THAT(series("weft_policy_decisions_total"),
              UnorderedElementsAre(
                  Pair(of("none", "allow", "enforced"), 1), Pair(of("ns/dry", "deny", "dry_run"), 1),
                  Pair(of("ns/drier", "deny", "dry_run"), 1), Pair(of("ns/deny", "deny", "enforced"), 2),
                  Pair(of("no_allow_matched", "deny", "enforced"), 1), Pair(of("ns/dry", "allow", "dry_run"), 1)));
}

TEST_F(MetricsTest, OpenSocketsAreThoseThatLive) {
  const auto open = [this] {
    std::map<std::string, double> out;
    for (const auto& family : registry_->Collect()) {
      if (family.name != "istio_tcp_sockets_open") continue;
      for (const auto& metric : family.metric) out[metric.label.at(0).value] = metric.gauge.value;
    }
    return out;
  };
  EXPECT_THAT(open(), ElementsAre(Pair("destination", 0), Pair("source", 0)));
  {
    OpenSocket first = metrics_.socket(Reporter::kSource);
    const OpenSocket moved = std::move(first);
    const OpenSocket other = metrics_.socket(Reporter::kDestination);
    EXPECT_THAT(open(), ElementsAre(Pair("destination", 1), Pair("source", 1)));
  }
  EXPECT_THAT(open(), ElementsAre(Pair("destination", 0), Pair("source", 0)));
}

TEST_F(MetricsTest, AConnectionThatNeverOpenedIsCountedAsBoth) {
  auto result = sample();
  result.flag = ResponseFlag::kDeny;
  metrics_.closed(nullptr, result);
  EXPECT_THAT(by_flag("istio_tcp_connections_opened_total"), ElementsAre(Pair("-", 1)));
  EXPECT_THAT(by_flag("istio_tcp_connections_closed_total"), ElementsAre(Pair("DENY", 1)));
}

TEST_F(MetricsTest, BytesAreTheDestinationsViewWhoeverReports) {
  for (const auto reporter : {Reporter::kSource, Reporter::kDestination}) {
    auto result = sample();
    result.reporter = reporter;
    const auto handle = metrics_.opened(result);
    ConnectionMetrics::bytes(*handle, 60, 0);
    ConnectionMetrics::bytes(*handle, 40, 2000);
  }
  for (const auto& [labels, value] : series("istio_tcp_received_bytes_total"))
    EXPECT_EQ(value, 100) << labels.at("reporter");
  for (const auto& [labels, value] : series("istio_tcp_sent_bytes_total"))
    EXPECT_EQ(value, 2000) << labels.at("reporter");
  EXPECT_EQ(series("istio_tcp_sent_bytes_total").size(), 2U);
}

TEST_F(MetricsTest, EqualLabelsShareACounterAndOthersDoNot) {
  (void)metrics_.opened(sample());
  (void)metrics_.opened(sample());  // other objects with the same values, as after a new snapshot
  auto other = sample();
  other.service = nullptr;
  (void)metrics_.opened(other);
  const auto opened = series("istio_tcp_connections_opened_total");
  ASSERT_EQ(opened.size(), 2U);
  EXPECT_THAT((std::vector{opened[0].second, opened[1].second}), UnorderedElementsAre(1, 2));
}

/// Values that only differ in where one ends must not share a key.
TEST_F(MetricsTest, ValuesCannotRunIntoEachOther) {
  auto a = sample(), b = sample();
  auto first = std::make_shared<state::Workload>(*a.source.workload),
       second = std::make_shared<state::Workload>(*a.source.workload);
  first->canonical_name = "x\x1fy";
  first->canonical_revision = "z";
  second->canonical_name = "x";
  second->canonical_revision = "y\x1fz";
  a.source.workload = first;
  b.source.workload = second;
  (void)metrics_.opened(a);
  (void)metrics_.opened(b);
  const auto opened = series("istio_tcp_connections_opened_total");
  ASSERT_EQ(opened.size(), 2U);
  EXPECT_NE(opened[0].first.at("source_canonical_service"), opened[1].first.at("source_canonical_service"));
  EXPECT_EQ(opened[0].first.at("destination_workload"), "db");
}

TEST_F(MetricsTest, ManyThreads) {
  constexpr int kThreads = 4, kConnections = 500;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < kConnections; ++i) {
        auto result = sample();
        result.mutual_tls = (i + t) % 2 == 0;
        const auto handle = metrics_.opened(result);
        ConnectionMetrics::bytes(*handle, 1, 2);
        result.flag = i % 2 == 0 ? ResponseFlag::kNone : ResponseFlag::kConnect;
        metrics_.closed(handle, result);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(by_flag("istio_tcp_connections_opened_total"), ElementsAre(Pair("-", kThreads * kConnections)));
  EXPECT_THAT(
      by_flag("istio_tcp_connections_closed_total"),
      UnorderedElementsAre(Pair("-", kThreads * kConnections / 2), Pair("CONNECT", kThreads * kConnections / 2)));
  EXPECT_THAT(by_flag("istio_tcp_received_bytes_total"), ElementsAre(Pair("-", kThreads * kConnections)));
  EXPECT_THAT(by_flag("istio_tcp_sent_bytes_total"), ElementsAre(Pair("-", 2 * kThreads * kConnections)));
}

TEST_F(MetricsTest, TheTextHasTheNamesThatDashboardsAskFor) {
  const auto handle = metrics_.opened(sample());
  metrics_.closed(handle, sample());
  const std::string text = prometheus::TextSerializer().Serialize(registry_->Collect());
  for (const char* name : {"istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total",
                           "istio_tcp_received_bytes_total", "istio_tcp_sent_bytes_total"}) {
    EXPECT_THAT(text, HasSubstr(std::string("# TYPE ") + name + " counter\n"));
    EXPECT_THAT(text, HasSubstr(std::string(name) + "{"));
  }
}

}  // namespace
}  // namespace weft::telemetry::test
