// SPDX-License-Identifier: Apache-2.0
#include "agent/control/xds_source.h"

#include <gmock/gmock.h>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "test/support/fake_istiod.h"
#include "test/unit/agent/control/xds_fixture.h"

namespace weft::control {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
using namespace test;
using weft::test::FakeIstiod;

constexpr auto kPatience = 10s;

class XdsSourceTest : public ::testing::Test {
 protected:
  using Snapshot = std::shared_ptr<const state::State>;

  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "weft-xds-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
    write("root.pem", ca_.roots_pem());
    write("token", "token-1\n");
  }
  void TearDown() override {
    source_.reset();
    std::filesystem::remove_all(dir_);
  }
  void write(const std::string& name, const std::string& text) const { std::ofstream(dir_ / name) << text; }

  XdsOptions options() const {
    return {.istiod = {.address = istiod_->address(),
                       .root_file = dir_ / "root.pem",
                       .token_file = dir_ / "token",
                       .cluster_id = "c1"},
            .node = {.pod_name = "weft-1",
                     .pod_namespace = "istio-system",
                     .instance_ip = "10.1.2.3",
                     .node_name = "node-1",
                     .metadata = {{"LABELS", "x"}}},
            .backoff_max = 100ms};
  }
  void start() { start(options()); }
  void start(XdsOptions options) {
    source_ = std::make_unique<XdsSource>(std::move(options), std::make_shared<XdsMetrics>(registry_));
    ASSERT_TRUE(source_->start([this](Result<Snapshot> snapshot) {
      ASSERT_TRUE(snapshot) << snapshot.error().message();
      std::unique_lock lock(mutex_);
      ++delivered_;
      latest_ = *snapshot;
      changed_.notify_all();
      changed_.wait_for(lock, kPatience, [this] { return !hold_; });
    }));
  }
  /// The stream's two requests.
  std::vector<FakeIstiod::Request> first_requests() {
    std::vector<FakeIstiod::Request> out;
    for (int i = 0; i < 2; ++i) {
      auto request = istiod_->next();
      if (!request) ADD_FAILURE() << "no request: " << source_->status();
      out.push_back(request.value_or(FakeIstiod::Request()));
    }
    return out;
  }
  /// Sends and gives the answer.
  FakeIstiod::Request exchange(const XdsCache::Response& response) {
    EXPECT_TRUE(istiod_->send(response));
    auto reply = istiod_->next();
    EXPECT_TRUE(reply) << source_->status();
    return reply.value_or(FakeIstiod::Request());
  }
  /// Sends; gives the names that are asked for beside the answer, before or after it.
  std::vector<std::string> exchange_and_ask(const XdsCache::Response& response) {
    std::vector<std::string> out;
    EXPECT_TRUE(istiod_->send(response));
    for (int i = 0; i < 2; ++i) {
      const auto request = istiod_->next();
      EXPECT_TRUE(request) << source_->status();
      if (!request) continue;
      for (const auto& name : request->resource_names_subscribe()) out.push_back(name);
    }
    return out;
  }
  /// A source that has web-1 and is in force.
  void start_with_a_pod() {
    start();
    ASSERT_TRUE(istiod_->stream(1)) << source_->status();
    first_requests();
    exchange(addresses("1").add(wire_pod("web-1", 1), "v-web-1"));
    exchange(policies("2"));
    ASSERT_TRUE(snapshot_of(1));
  }
  /// Waits for a snapshot with `workloads`.
  Snapshot snapshot_of(std::size_t workloads) {
    std::unique_lock lock(mutex_);
    const bool came =
        changed_.wait_for(lock, kPatience, [&] { return latest_ && latest_->workloads().size() == workloads; });
    return came ? latest_ : nullptr;
  }
  /// The first one after `count` of them.
  Snapshot snapshot_after(std::size_t count) {
    std::unique_lock lock(mutex_);
    const bool came = changed_.wait_for(lock, kPatience, [&] { return delivered_ > count; });
    return came ? latest_ : nullptr;
  }
  std::size_t delivered() {
    const std::lock_guard lock(mutex_);
    return delivered_;
  }
  /// Waits until the status says `text`.
  void expect_status(const std::string& text) const {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (source_->status().find(text) == std::string::npos && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(5ms);
    EXPECT_THAT(source_->status(), HasSubstr(text));
  }
  double counter(const std::string& name, const std::string& label) const {
    for (const auto& family : registry_->Collect()) {
      if (family.name != name) continue;
      for (const auto& metric : family.metric) {
        if (metric.label.at(0).value == label) return metric.counter.value;
      }
    }
    return 0;
  }

  weft::test::TestCa ca_;
  std::filesystem::path dir_;
  std::unique_ptr<FakeIstiod> istiod_ = std::make_unique<FakeIstiod>(ca_);
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t delivered_ = 0;
  Snapshot latest_;
  bool hold_ = false;  ///< a delivery does not return
  std::unique_ptr<XdsSource> source_;
};

TEST_F(XdsSourceTest, SaysWhoItIs) {
  start();
  const auto stream = istiod_->stream(1);
  ASSERT_TRUE(stream) << source_->status();
  EXPECT_EQ(stream->token, "Bearer token-1");
  EXPECT_EQ(stream->cluster_id, "c1");
  const auto requests = first_requests();
  EXPECT_EQ(requests[0].node().id(), "ztunnel~10.1.2.3~weft-1.istio-system~istio-system.svc.cluster.local");
  const auto& metadata = requests[0].node().metadata().fields();
  for (const auto& [key, value] : std::map<std::string, std::string>{{"NAME", "weft-1"},
                                                                     {"NAMESPACE", "istio-system"},
                                                                     {"INSTANCE_IPS", "10.1.2.3"},
                                                                     {"NODE_NAME", "node-1"},
                                                                     {"CLUSTER_ID", "c1"},
                                                                     {"LABELS", "x"}}) {
    ASSERT_TRUE(metadata.contains(key)) << key;
    EXPECT_EQ(metadata.at(key).string_value(), value);
  }
}

TEST_F(XdsSourceTest, DeliversOnceBothTypesWereAnswered) {
  start();
  ASSERT_TRUE(istiod_->stream(1)) << source_->status();
  first_requests();
  EXPECT_THAT(source_->status(), HasSubstr("nothing in force"));
  const auto ack = exchange(addresses("n1").add(wire_pod("web-1", 1)));
  EXPECT_EQ(ack.response_nonce(), "n1");
  EXPECT_EQ(ack.type_url(), XdsCache::kAddressUrl);
  EXPECT_FALSE(ack.has_error_detail());
  EXPECT_EQ(delivered(), 0U);
  exchange(policies("n2").add(wire_policy("name: 'p' namespace: 'shop'")));
  const auto snapshot = snapshot_of(1);
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->policies().size(), 1U);
  exchange(addresses("n3").add(wire_pod("web-2", 2)));
  ASSERT_TRUE(snapshot_of(2));
  expect_status("connected; 2 workloads, 0 services, 1 policies in force, version push-n3; 3 responses");
  EXPECT_EQ(counter("istio_xds_message_total", std::string(XdsCache::kAddressUrl)), 2);
  EXPECT_GT(counter("istio_xds_message_bytes_total", std::string(XdsCache::kAddressUrl)), 100);
}

TEST_F(XdsSourceTest, RefusesTheBadAndTakesTheGood) {
  start_with_a_pod();
  const auto nack = exchange(addresses("3").add(wire_pod("good", 2)).add(wire_pod("bad", 3, "status: 9")));
  EXPECT_EQ(nack.response_nonce(), "3");
  EXPECT_THAT(nack.error_detail().message(), HasSubstr("Kubernetes//Pod/shop/bad: status: 9"));
  ASSERT_TRUE(snapshot_of(2));
  expect_status("1 resources refused: Kubernetes//Pod/shop/bad: status: 9");
}

TEST_F(XdsSourceTest, OneOddResourceDoesNotHoldUpTheMesh) {
  start_with_a_pod();
  exchange(addresses("3").add(wire_pod("twin", 1)).add(wire_pod("web-2", 2)));
  const auto snapshot = snapshot_of(3);
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(snapshot->conflicts().size(), 1U);
}

TEST_F(XdsSourceTest, AWorkloadWaitsForItsNewPolicy) {
  auto patient = options();
  patient.policy_wait = kPatience;
  start(patient);
  ASSERT_TRUE(istiod_->stream(1)) << source_->status();
  first_requests();
  exchange(addresses("1").add(wire_pod("web-1", 1)));
  exchange(policies("2"));
  ASSERT_TRUE(snapshot_of(1));
  const auto before = delivered();
  exchange(addresses("3").add(wire_pod("web-1", 1, "authorization_policies: 'shop/p'")).add(wire_pod("web-2", 2)));
  EXPECT_EQ(delivered(), before);
  exchange(policies("4").add(wire_policy("name: 'p' namespace: 'shop' scope: SCOPE_WORKLOAD_SELECTOR")));
  const auto both = snapshot_of(2);
  ASSERT_TRUE(both);
  EXPECT_TRUE(both->policy_by_key("shop/p"));
  EXPECT_EQ(delivered(), before + 1);
}

TEST_F(XdsSourceTest, APolicyThatDoesNotComeHoldsNothingUpForLong) {
  auto impatient = options();
  impatient.policy_wait = 50ms;
  start(impatient);
  ASSERT_TRUE(istiod_->stream(1)) << source_->status();
  first_requests();
  exchange(policies("1"));
  exchange(addresses("2").add(wire_pod("web-1", 1, "authorization_policies: 'shop/p'")));
  const auto snapshot = snapshot_of(1);
  ASSERT_TRUE(snapshot);
  EXPECT_FALSE(state::evaluate(*snapshot, *snapshot->workloads().at(0), {}).allowed);
}

TEST_F(XdsSourceTest, ComesBackWithWhatItHas) {
  start_with_a_pod();
  const auto before = delivered();
  write("token", "token-2");
  istiod_->end_stream();
  const auto stream = istiod_->stream(2);
  ASSERT_TRUE(stream) << source_->status();
  EXPECT_EQ(stream->token, "Bearer token-2");
  const auto requests = first_requests();
  ASSERT_EQ(requests[0].initial_resource_versions().size(), 1);
  EXPECT_EQ(requests[0].initial_resource_versions().at("Kubernetes//Pod/shop/web-1"), "v-web-1");
  exchange(addresses("1"));
  exchange(policies("2"));
  expect_status("connected; 1 workloads");
  EXPECT_EQ(delivered(), before) << "nothing was new";
  exchange(addresses("3").remove("Kubernetes//Pod/shop/web-1"));
  EXPECT_TRUE(snapshot_of(0));
  EXPECT_EQ(counter("istio_xds_connection_terminations_total", "Error"), 1);
}

TEST_F(XdsSourceTest, GoesOnWithWhatItHasWhileIstiodIsAway) {
  start_with_a_pod();
  const int port = istiod_->port();
  istiod_.reset();
  expect_status("not connected: UNAVAILABLE");
  EXPECT_THAT(source_->status(), HasSubstr("1 workloads, 0 services, 0 policies in force"));
  istiod_ = std::make_unique<FakeIstiod>(ca_, port);
  ASSERT_TRUE(istiod_->stream(1)) << source_->status();
  EXPECT_EQ(first_requests()[0].initial_resource_versions().size(), 1);
  EXPECT_GE(counter("istio_xds_connection_terminations_total", "ConnectionError"), 1);
}

TEST_F(XdsSourceTest, AsksForWhatIsDemanded) {
  const auto demand = std::make_shared<Demand>(Demand::Options(), Clock::real());
  auto given = options();
  given.demand = demand;
  const std::vector<std::string> names{"/10.0.0.7", "/10.0.0.8"};
  EXPECT_FALSE(demand->is_told(names, 0)) << "before there is an istiod";
  start(given);
  ASSERT_TRUE(istiod_->stream(1)) << source_->status();
  EXPECT_THAT(first_requests()[0].resource_names_unsubscribe(), ElementsAre("*"));
  EXPECT_THAT(exchange_and_ask(policies("1")), UnorderedElementsAre("/10.0.0.7", "/10.0.0.8"));
  XdsCache::Response found = addresses("2").add(wire_pod("web-1", 7)).remove("/10.0.0.8");
  found.mutable_resources(0)->add_aliases("/10.0.0.7");
  exchange(found);
  auto snapshot = snapshot_of(1);
  ASSERT_TRUE(snapshot);
  EXPECT_TRUE(demand->is_told(names, snapshot->told()));

  // Nothing changes of the mesh, and whoever waits is told of it all the same.
  EXPECT_FALSE(demand->is_told({"/10.0.0.9"}, snapshot->told()));
  ASSERT_TRUE(istiod_->next());
  const auto before = delivered();
  exchange(addresses("3").remove("/10.0.0.9"));
  snapshot = snapshot_after(before);
  ASSERT_TRUE(snapshot);
  EXPECT_TRUE(demand->is_told({"/10.0.0.9"}, snapshot->told()));
}

TEST_F(XdsSourceTest, AsksTheNextIstiodWhatTheLastOneDidNotAnswer) {
  const auto demand = std::make_shared<Demand>(Demand::Options(), Clock::real());
  auto given = options();
  given.demand = demand;
  start(given);
  ASSERT_TRUE(istiod_->stream(1)) << source_->status();
  first_requests();
  exchange(addresses("1"));
  exchange(policies("2"));
  EXPECT_FALSE(demand->is_told({"/10.0.0.7"}, 0));
  ASSERT_TRUE(istiod_->next());
  istiod_->end_stream();
  ASSERT_TRUE(istiod_->stream(2)) << source_->status();
  first_requests();
  EXPECT_THAT(exchange_and_ask(addresses("1")), ElementsAre("/10.0.0.7"));
}

TEST_F(XdsSourceTest, TellsOnceForEachStreamThatIstiodAnswers) {
  std::atomic<int> told = 0;
  auto given = options();
  given.connected = [&] { ++told; };
  start(given);
  for (int count = 1; count <= 2; ++count) {
    ASSERT_TRUE(istiod_->stream(static_cast<std::size_t>(count))) << source_->status();
    first_requests();
    EXPECT_EQ(told, count - 1);
    exchange(addresses("1"));
    exchange(policies("2"));
    EXPECT_EQ(told, count);
    istiod_->end_stream();
  }
  source_->stop();
}

TEST_F(XdsSourceTest, WaitsLongerAndLonger) {
  auto given = options();
  given.backoff_min = 20ms;
  given.backoff_max = 160ms;
  start(given);
  // Streams that end before they are answered are failures: the waits are half to all of 20, 40, 80, 160, 160 ms.
  const auto began = std::chrono::steady_clock::now();
  for (std::size_t count = 1; count <= 6; ++count) {
    ASSERT_TRUE(istiod_->stream(count)) << source_->status();
    istiod_->end_stream();
  }
  EXPECT_GE(std::chrono::steady_clock::now() - began, 230ms);
}

TEST_F(XdsSourceTest, ManyResponsesAreFewSnapshots) {
  start_with_a_pod();
  {
    const std::lock_guard lock(mutex_);
    hold_ = true;
  }
  exchange(addresses("3").add(wire_pod("first", 2)));
  ASSERT_TRUE(snapshot_of(2));
  const auto before = delivered();
  for (char i = 0; i < 50; ++i)
    exchange(addresses("more").add(wire_pod("p" + std::to_string(i), static_cast<char>(i + 10))));
  EXPECT_EQ(delivered(), before);
  {
    const std::lock_guard lock(mutex_);
    hold_ = false;
  }
  changed_.notify_all();
  ASSERT_TRUE(snapshot_of(52));
  EXPECT_EQ(delivered(), before + 1);
}

TEST_F(XdsSourceTest, AResponseThatIsTooLargeIsNamed) {
  auto given = options();
  given.message_max = 10'000;
  start(given);
  ASSERT_TRUE(istiod_->stream(1)) << source_->status();
  istiod_->send(addresses("1").add(wire_pod("big", 1, "node: '" + std::string(20'000, 'n') + "'")));
  expect_status("RESOURCE_EXHAUSTED");
}

TEST_F(XdsSourceTest, TakesAResponseOfManyMegabytes) {
  start();
  ASSERT_TRUE(istiod_->stream(1)) << source_->status();
  first_requests();
  auto response = addresses("1");
  for (int i = 0; i < 100; ++i)
    response.add(wire_pod("p" + std::to_string(i), static_cast<char>(i), "node: '" + std::string(100'000, 'n') + "'"));
  exchange(response);
  exchange(policies("2"));
  EXPECT_TRUE(snapshot_of(100));
}

TEST_F(XdsSourceTest, AnotherNameIsNotIstiod) {
  auto given = options();
  given.istiod.server_name = "istiod.elsewhere.svc";
  start(given);
  expect_status("not connected: UNAVAILABLE");
  EXPECT_EQ(istiod_->streams(), 0U);
}

TEST_F(XdsSourceTest, AnotherRootIsNotTrusted) {
  write("root.pem", weft::test::TestCa("other").roots_pem());
  start();
  expect_status("not connected: UNAVAILABLE");
  EXPECT_EQ(istiod_->streams(), 0U);
  // Read again for each attempt.
  write("root.pem", ca_.roots_pem());
  EXPECT_TRUE(istiod_->stream(1)) << source_->status();
}

TEST_F(XdsSourceTest, SaysWhichFileIsMissing) {
  std::filesystem::remove(dir_ / "token");
  start();
  expect_status("not connected: open " + (dir_ / "token").string());
  write("token", "  \n");
  expect_status("it is empty (is it the projected service account token");
  write("root.pem", "no certificate");
  expect_status("there is no certificate in it");
  EXPECT_EQ(istiod_->streams(), 0U);
  write("root.pem", ca_.roots_pem());
  write("token", "t");
  EXPECT_TRUE(istiod_->stream(1)) << source_->status();
}

TEST_F(XdsSourceTest, StopsWhileItConnects) {
  // A listener that never accepts: the handshake hangs.
  const int silent = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  ASSERT_EQ(::bind(silent, reinterpret_cast<sockaddr*>(&at), size), 0);
  ASSERT_EQ(::listen(silent, 1), 0);
  ASSERT_EQ(::getsockname(silent, reinterpret_cast<sockaddr*>(&at), &size), 0);
  auto given = options();
  given.istiod.address = "127.0.0.1:" + std::to_string(ntohs(at.sin_port));
  start(given);
  pollfd waiting{silent, POLLIN, 0};
  ASSERT_EQ(::poll(&waiting, 1, 10'000), 1) << "it connects";
  const auto began = std::chrono::steady_clock::now();
  source_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 1s);
  ::close(silent);
}

TEST_F(XdsSourceTest, StopsOnAQuietStreamAndDeliversNothingMore) {
  start_with_a_pod();
  const auto began = std::chrono::steady_clock::now();
  source_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 1s);
  const auto before = delivered();
  istiod_->send(addresses("3").add(wire_pod("late", 2)));
  EXPECT_EQ(delivered(), before);
  source_->stop();
}

}  // namespace
}  // namespace weft::control
