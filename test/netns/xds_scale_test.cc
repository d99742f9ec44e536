// SPDX-License-Identifier: Apache-2.0
/// A mesh of 50,000 workloads and 5,000 services by istiod's word: what it costs an agent to learn of it, and to follow
/// its changes. WEFT_XDS_SCALE_SECONDS sets how long it changes (default 8).

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <sstream>
#include <thread>

#include "test/netns/crowd.h"
#include "test/netns/mesh_fixture.h"
#include "test/support/fake_istiod.h"
#include "workload.pb.h"

namespace weft::test {
namespace {

namespace wire = istio::workload;
using std::chrono::system_clock;

constexpr int kWorkloads = 50'000, kServices = 5'000;
constexpr int kPodsPerNode = 30, kNamespaces = 100;
/// Pods of this node that are there; a change of the mesh is one for each of them.
constexpr int kWired = 10;
constexpr int kBatch = 10;  ///< resources that change at once
constexpr milliseconds kInterval{100};
/// Three times what was measured or more: growth with the square of the mesh, a further copy of it, and work at each
/// change that is in proportion to the mesh, are past these.
constexpr double kSyncSeconds = 10, kSyncCpuSeconds = 4, kPeakMib = 600, kCores = 0.25, kInForceSeconds = 1;
constexpr const char* kAddressUrl = "type.googleapis.com/istio.workload.Address";
constexpr const char* kPolicyUrl = "type.googleapis.com/istio.security.Authorization";

std::string namespace_of(int service) { return "team-" + std::to_string(service % kNamespaces); }
std::string hostname_of(int service) {
  return "service-" + std::to_string(service) + "." + namespace_of(service) + ".svc.cluster.local";
}
std::string bytes(int a, int b, int c, int d) {
  return {static_cast<char>(a), static_cast<char>(b), static_cast<char>(c), static_cast<char>(d)};
}

/// A pod as istiod describes one of a Deployment. Those of the first node have the addresses that the mesh gives them.
wire::Address workload(int index, bool healthy) {
  const int service = index % kServices;
  const int node = 1 + index / kPodsPerNode;
  const std::string app = "service-" + std::to_string(service);
  wire::Address out;
  auto& it = *out.mutable_workload();
  it.set_name(app + "-7d4b9c6f5d-" + std::to_string(index));
  it.set_namespace_(namespace_of(service));
  it.set_uid("Kubernetes//Pod/" + it.namespace_() + "/" + it.name());
  if (node == 1) {
    it.add_addresses(bytes(10, 71, 1, 2 + index));
    it.add_addresses(bytes(0xfd, 0x71, 0, 0) + bytes(0, 0, 0, 1) + bytes(0, 0, 0, 0) + bytes(0, 0, 0, 2 + index));
  } else {
    it.add_addresses(bytes(10, 100 + index / 65'536, index / 256, index));
  }
  it.set_tunnel_protocol(wire::TUNNEL_HBONE);
  it.set_service_account(app);
  it.set_node("node" + std::to_string(node));
  it.set_canonical_name(app);
  it.set_canonical_revision("v1");
  it.set_workload_name(app);
  it.set_status(healthy ? wire::STATUS_HEALTHY : wire::STATUS_UNHEALTHY);
  it.set_cluster_id("Kubernetes");
  it.mutable_locality()->set_region("region-1");
  it.mutable_locality()->set_zone("zone-" + std::to_string(node % 3));
  auto& port = *(*it.mutable_services())[it.namespace_() + "/" + hostname_of(service)].add_ports();
  port.set_service_port(80);
  port.set_target_port(8080);
  return out;
}

wire::Address service(int index) {
  wire::Address out;
  auto& it = *out.mutable_service();
  it.set_name("service-" + std::to_string(index));
  it.set_namespace_(namespace_of(index));
  it.set_hostname(hostname_of(index));
  it.add_addresses()->set_address(bytes(10, 96, index / 256, index));
  auto& port = *it.add_ports();
  port.set_service_port(80);
  port.set_target_port(8080);
  return out;
}

class Batch {
 public:
  Batch(const char* url, int number) {
    response_.set_type_url(url);
    response_.set_nonce(std::to_string(number));
    response_.set_system_version_info("push-" + std::to_string(number));
  }
  void add(const wire::Address& address) {
    auto& resource = *response_.add_resources();
    const auto& its = address.service();
    resource.set_name(address.has_workload() ? address.workload().uid() : its.namespace_() + "/" + its.hostname());
    resource.set_version(response_.nonce());
    resource.mutable_resource()->PackFrom(address);
  }
  [[nodiscard]] const FakeIstiod::Response& response() const { return response_; }

 private:
  FakeIstiod::Response response_;
};

/// When each number of workloads came into force, by the log, whose times are of the same clock as the test's.
std::vector<std::pair<int, system_clock::time_point>> in_force(const std::string& log) {
  const std::string words = "istiod's configuration in force ";
  std::vector<std::pair<int, system_clock::time_point>> out;
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    const auto at = line.find(words);
    std::tm date{};
    const char* fraction = at == std::string::npos ? nullptr : ::strptime(line.c_str(), "%Y-%m-%dT%H:%M:%S", &date);
    if (fraction == nullptr) continue;
    const std::chrono::duration<double> part(std::strtod(fraction, nullptr));
    out.emplace_back(
        std::atoi(line.c_str() + at + words.size()),
        system_clock::from_time_t(::timegm(&date)) + std::chrono::duration_cast<system_clock::duration>(part));
  }
  return out;
}

double seconds_between(system_clock::time_point from, system_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

double mib(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

class XdsScale : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    MeshOptions options;
    options.nodes = 1;
    options.start_agents = false;
    options.local = false;
    options.node_arguments = [this](const Mesh& mesh, int) {
      return std::vector<std::string>{"--xds-address",   istiod_->address(),
                                      "--xds-root",      mesh.folder().write("root.pem", ca_.roots_pem()),
                                      "--xds-token",     mesh.folder().write("token", "token"),
                                      "--pod-name",      "ztunnel-node1",
                                      "--pod-namespace", "istio-system",
                                      "--instance-ip",   "10.70.0.1"};
    };
    mesh_ = std::make_unique<Mesh>(options);
    istiod_ = run_in(node().netns(), [this] { return std::make_unique<FakeIstiod>(ca_); });
    istiod_->on_certificate([this](const FakeIstiod::Asked& asked) {
      LeafOptions leaf;
      leaf.uris = {asked.impersonated};
      return FakeIstiod::Answer{.message = {}, .chain = {ca_.sign_request(asked.csr, leaf), ca_.roots_pem()}};
    });
  }
  void TearDown() override {
    if (HasFailure() && mesh_) std::fputs(node().log().substr(0, 20'000).c_str(), stderr);
    mesh_.reset();
  }

  Node& node() { return mesh_->node(1); }
  /// Everything, as istiod answers a new stream: one response of each type.
  void start_agent() {
    Batch all(kAddressUrl, 1);
    for (int i = 0; i < kServices; ++i) all.add(service(i));
    for (int i = 0; i < kWorkloads; ++i) all.add(workload(i, true));
    std::jthread answering([&] {
      EXPECT_TRUE(istiod_->stream(1));
      asked_ = system_clock::now();
      EXPECT_TRUE(istiod_->next() && istiod_->next());
      EXPECT_TRUE(istiod_->send(all.response()) && istiod_->send(Batch(kPolicyUrl, 2).response()));
    });
    node().start_agent();
    answering.join();
    std::printf("first response: %.1f MiB\n", mib(all.response().ByteSizeLong()));
  }
  /// The agent took `count` responses whole.
  void expect_taken(int count) {
    for (int i = 0; i < count; ++i) {
      const auto reply = istiod_->next();
      ASSERT_TRUE(reply) << "of response " << i;
      EXPECT_FALSE(reply->has_error_detail()) << reply->error_detail().message();
    }
  }
  void report_memory(const char* when) {
    std::printf("%s: peak RSS %.0f MiB, RSS %.0f MiB\n", when, mib(node().agent_peak_memory_bytes()),
                mib(node().agent_memory_bytes()));
  }

  const TestCa ca_;
  std::unique_ptr<FakeIstiod> istiod_;
  std::unique_ptr<Mesh> mesh_;
  system_clock::time_point asked_;
};

TEST_F(XdsScale, FiftyThousandWorkloadsThatChange) {
  start_agent();
  const double synced_cpu = cpu_seconds(node().agent().pid());
  const auto first = in_force(node().log());
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first[0].first, kWorkloads);
  const double sync = seconds_between(asked_, first[0].second);
  std::printf("first sync: in force after %.2f s; %.2f s of CPU with the agent's start\n", sync, synced_cpu);
  report_memory("after it");
  EXPECT_LT(sync, kSyncSeconds);
  EXPECT_LT(synced_cpu, kSyncCpuSeconds);
  expect_taken(2);
  for (int i = 0; i < kWired; ++i) {
    const wire::Address address = workload(i, true);
    const auto& it = address.workload();
    mesh_->add_pod(1, it.namespace_(), it.name(), {.service_account = it.service_account(), .number = 2 + i});
  }

  const int batches = from_environment("WEFT_XDS_SCALE_SECONDS", 8) * 1000 / static_cast<int>(kInterval.count());
  std::vector<system_clock::time_point> sent;
  const double cpu_before = cpu_seconds(node().agent().pid());
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < batches; ++i) {
    std::this_thread::sleep_until(began + i * kInterval);
    Batch batch(kAddressUrl, 3 + i);
    for (int k = 1; k < kBatch; ++k) batch.add(workload((kPodsPerNode + i * 97 + k * 4999) % kWorkloads, i % 2 == 0));
    batch.add(workload(kWorkloads + i, true));
    sent.push_back(system_clock::now());
    ASSERT_TRUE(istiod_->send(batch.response()));
  }
  std::this_thread::sleep_until(began + batches * kInterval);
  const double lasted = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const double share = (cpu_seconds(node().agent().pid()) - cpu_before) / lasted;
  const std::string last = "in force " + std::to_string(kWorkloads + batches) + " workloads";
  ASSERT_TRUE(eventually(milliseconds(10'000), [&] { return node().log().find(last) != std::string::npos; }));
  expect_taken(batches);

  const auto applied = in_force(node().log());
  std::vector<double> times;
  for (int i = 0; i < batches; ++i) {
    const auto with_it = std::ranges::find_if(applied, [&](const auto& one) { return one.first > kWorkloads + i; });
    ASSERT_NE(with_it, applied.end());
    times.push_back(seconds_between(sent[static_cast<std::size_t>(i)], with_it->second));
  }
  std::ranges::sort(times);
  const double p99 = times[times.size() * 99 / 100];
  std::printf("%d batches of %d in %.1f s: %zu snapshots, %.2f of a core; in force after p50 %.2f s, p99 %.2f s\n",
              batches, kBatch, lasted, applied.size() - 1, share, times[times.size() / 2], p99);
  report_memory("after them");
  EXPECT_LT(share, kCores);
  EXPECT_LT(p99, kInForceSeconds);
  EXPECT_LT(mib(node().agent_peak_memory_bytes()), kPeakMib);
}

}  // namespace
}  // namespace weft::test
