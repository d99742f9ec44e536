// SPDX-License-Identifier: Apache-2.0
/// When the bytes of live connections are counted, and decisions.
#include "tunnel/proxy/connections.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include "tunnel/base/log.h"
#include "tunnel/proxy/context.h"

namespace weft::proxy {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

struct NoNode final : Node {
  Result<void> tag_socket(int /*fd*/) override { return {}; }
  void want_certificate(const state::Identity& /*identity*/) override {}
  state::NameAnswer resolve(const std::string& /*hostname*/) override { return {}; }
  bool is_told(const std::vector<std::string>& /*names*/, const state::State& /*snapshot*/) override { return true; }
  void ask_ahead(const std::vector<std::string>& /*names*/) override {}
};

/// A connection that carries what the test says.
class Scripted final : public Connection {
 public:
  explicit Scripted(WorkerContext& worker) : Connection(worker, std::make_shared<PodContext>()) {}
  void on_snapshot() override {}
  void cut(telemetry::ResponseFlag flag, const std::string& why) override { finish(flag, why); }
  void open() { opened(); }
  void decide(bool allowed, const char* rule) {
    result_.decision = {.allowed = allowed, .rule = rule, .dry_run_hits = {}};
  }
  std::uint64_t sent = 0, received = 0;

 private:
  [[nodiscard]] Bytes bytes() const override { return {sent, received}; }
  [[nodiscard]] const char* direction() const override { return "inbound"; }
};

class ConnectionsTest : public ::testing::Test {
 protected:
  Scripted& add() { return static_cast<Scripted&>(context_.connections.add(std::make_unique<Scripted>(context_))); }
  [[nodiscard]] double total(const std::string& name) const {
    double sum = 0;
    for (const auto& family : registry_->Collect()) {
      if (family.name != name) continue;
      for (const auto& metric : family.metric) sum += metric.counter.value;
    }
    return sum;
  }
  /// The decisions by rule.
  [[nodiscard]] std::map<std::string, double> decisions() const {
    std::map<std::string, double> out;
    for (const auto& family : registry_->Collect()) {
      if (family.name != "weft_policy_decisions_total") continue;
      for (const auto& metric : family.metric) {
        for (const auto& label : metric.label) {
          if (label.name == "policy") out[label.value] += metric.counter.value;
        }
      }
    }
    return out;
  }
  void pass(milliseconds time) {
    clock_.advance(time);
    loop_->run_once(milliseconds(0));
  }
  /// Whether a turn sleeps as long as it may, in real time: no timer is due.
  bool sleeps() {
    const auto start = std::chrono::steady_clock::now();
    loop_->run_once(milliseconds(50));
    return std::chrono::steady_clock::now() - start >= milliseconds(50);
  }

  FakeClock clock_;
  std::unique_ptr<loop::EventLoop> loop_ = loop::EventLoop::create(clock_).value();
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  telemetry::ConnectionMetrics metrics_{registry_};
  NoNode node_;
  hbone::CertStore certificates_;
  WorkerContext context_{WorkerConfig(), node_, certificates_, metrics_, *loop_};
};

TEST_F(ConnectionsTest, BytesOfLiveConnectionsAreCountedAtEachIntervalAndExactlyInTheEnd) {
  Scripted& connection = add();
  connection.open();
  connection.sent = 10;
  connection.received = 1000;
  pass(Connections::kCountInterval - milliseconds(1));
  EXPECT_EQ(total("istio_tcp_received_bytes_total"), 0);
  pass(milliseconds(1));
  EXPECT_EQ(total("istio_tcp_received_bytes_total"), 10);
  EXPECT_EQ(total("istio_tcp_sent_bytes_total"), 1000);
  connection.sent = 25;
  pass(Connections::kCountInterval);
  EXPECT_EQ(total("istio_tcp_received_bytes_total"), 25);
  connection.sent = 26;
  connection.received = 1001;
  connection.cut(telemetry::ResponseFlag::kNone, "");
  EXPECT_EQ(total("istio_tcp_received_bytes_total"), 26);
  EXPECT_EQ(total("istio_tcp_sent_bytes_total"), 1001);
}

TEST_F(ConnectionsTest, WithoutConnectionsTheWorkerSleeps) {
  EXPECT_TRUE(sleeps());
  Scripted& connection = add();
  connection.open();
  clock_.advance(Connections::kCountInterval);
  EXPECT_FALSE(sleeps()) << "the interval has passed";
  connection.cut(telemetry::ResponseFlag::kNone, "");
  pass(Connections::kCountInterval);  // once more, for what has gone meanwhile
  clock_.advance(10 * Connections::kCountInterval);
  EXPECT_TRUE(sleeps());
  // And again for the next.
  add().open();
  clock_.advance(Connections::kCountInterval);
  EXPECT_FALSE(sleeps());
}

TEST_F(ConnectionsTest, ADecisionIsCountedOnceAndAgainWhereALaterOneCutsIt) {
  Scripted& connection = add();
  connection.decide(true, "ns/first");
  connection.decide(true, "ns/allow");  // after the connect to the application
  connection.open();
  connection.decide(true, "ns/other");  // a new snapshot
  EXPECT_THAT(decisions(), ElementsAre(Pair("ns/allow", 1)));
  connection.decide(false, "ns/deny");
  connection.cut(telemetry::ResponseFlag::kDeny, "denied");
  EXPECT_THAT(decisions(), ElementsAre(Pair("ns/allow", 1), Pair("ns/deny", 1)));
}

TEST_F(ConnectionsTest, ADecisionOfAConnectionThatNeverOpensCounts) {
  Scripted& refused = add();
  refused.decide(false, "no_allow_matched");
  refused.cut(telemetry::ResponseFlag::kDeny, "denied");
  Scripted& failed = add();
  failed.decide(true, "none");
  failed.cut(telemetry::ResponseFlag::kConnect, "refused");
  Scripted& outbound = add();
  outbound.open();
  outbound.cut(telemetry::ResponseFlag::kNone, "");
  EXPECT_THAT(decisions(), ElementsAre(Pair("no_allow_matched", 1), Pair("none", 1)));
}

}  // namespace
}  // namespace weft::proxy
