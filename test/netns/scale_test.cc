// SPDX-License-Identifier: Apache-2.0
/// Many pods on one node: added, checked and deleted, twenty at a time, by the real chain and agent.

#include <algorithm>

#include "test/netns/leftovers.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;

#ifdef WEFT_SANITIZED
constexpr int kPods = 60;  // an instrumented plugin takes ten times as long
#else
constexpr int kPods = 500;
#endif
constexpr int kAtOnce = 20;
constexpr milliseconds kSoon{30'000};

struct ScalePod {
  std::string id, address, list;
  std::unique_ptr<Netns> netns;
};

/// A node with an agent whose configuration knows every other pod as a workload.
class Scale : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    bpf_root_ = folder_.mount_bpffs() + "/weft";
    node_ = std::make_unique<Netns>("scale");
    for (const char* which : {"all", "default"}) {
      node_->sysctl(std::string("net/ipv6/conf/") + which + "/accept_dad", "0");
    }
    must_run({program("weftctl"), "ca", "init", folder_.path() + "/ca"});
    folder_.write("mesh.yaml", configuration().dump());
    agent_ = std::make_unique<Process>(Process::start({program("weft-agent"),
                                                       "--local-config",
                                                       folder_.path() + "/mesh.yaml",
                                                       "--node",
                                                       "node1",
                                                       "--socket",
                                                       folder_.path() + "/agent.sock",
                                                       "--bpf-root",
                                                       bpf_root_,
                                                       "--run-dir",
                                                       folder_.path() + "/run",
                                                       "--ca-dir",
                                                       folder_.path() + "/ca",
                                                       "--cni-conf-dir",
                                                       folder_.path(),
                                                       "--cni-cache-dir",
                                                       folder_.path() + "/none",
                                                       "--max-pods",
                                                       std::to_string(kPods),
                                                       "--log-level",
                                                       "warn"},
                                                      {.netns = node_.get(), .environment = {}, .input = {}}));
    ASSERT_TRUE(eventually(kSoon, [this] { return get("/healthz/ready").has_value(); })) << agent_->err();
  }

  static std::string address_of(int index) {
    return "10.80." + std::to_string(1 + index / 250) + "." + std::to_string(1 + index % 250);
  }
  static std::string name_of(int index) { return "pod-" + std::to_string(index); }

  static json configuration() {
    json workloads = json::array();
    for (int i = 0; i < kPods; i += 2) {
      workloads.push_back({{"uid", "weftt//Pod/shop/" + name_of(i)},
                           {"name", name_of(i)},
                           {"namespace", "shop"},
                           {"serviceAccount", "default"},
                           {"trustDomain", "cluster.local"},
                           {"workloadIps", {address_of(i)}},
                           {"protocol", "HBONE"},
                           {"node", "node1"},
                           {"network", ""}});
    }
    return {{"workloads", workloads}, {"services", json::array()}, {"policies", json::array()}};
  }

  std::optional<std::string> get(const std::string& path) {
    return http_get(*node_, {IpAddress::parse("127.0.0.1").value(), 15000}, path);
  }

  ScalePod make_pod(int index) {
    ScalePod pod{"scale" + std::to_string(index), address_of(index), {}, nullptr};
    pod.netns = std::make_unique<Netns>(pod.id);
    const json ipam = {{"type", "host-local"},
                       {"dataDir", folder_.path() + "/ipam"},
                       {"ranges", {{{{"subnet", "10.80.0.0/16"}}}}},
                       {"routes", {{{"dst", "0.0.0.0/0"}}}}};
    const json args = {{"cni", {{"ips", {pod.address}}}}};
    const json list = {
        {"cniVersion", "1.0.0"},
        {"name", "weftt-scale"},
        {"plugins",
         {{{"type", "ptp"}, {"ipMasq", false}, {"ipam", ipam}, {"args", args}},
          {{"type", "weft-cni"}, {"agentSocket", folder_.path() + "/agent.sock"}, {"bpfRoot", bpf_root_}}}}};
    pod.list = folder_.write(pod.id + ".list", list.dump());
    return pod;
  }

  /// Runs a verb for pods [first, first + kAtOnce) at the same time; gives how many failed.
  int run_verb(const std::string& verb, std::vector<ScalePod>& pods, std::size_t first) {
    std::vector<Process> running;
    for (std::size_t i = first; i < std::min(first + kAtOnce, pods.size()); ++i) {
      running.push_back(
          Process::start({program("weft-chain"), "--cache", folder_.path() + "/chain", verb, pods[i].list,
                          pods[i].netns->path(), pods[i].id, "eth0"},
                         {.netns = node_.get(),
                          .environment = {"CNI_PATH=" + program("") + ":/usr/lib/cni:/opt/cni/bin",
                                          "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=" +
                                              name_of(static_cast<int>(i))},
                          .input = {}}));
    }
    int failed = 0;
    for (auto& process : running) {
      const Finished finished = process.finish(milliseconds(120'000));
      if (finished.ok()) continue;
      ++failed;
      ADD_FAILURE() << verb << ": " << finished.out << finished.err.substr(0, 2000);
    }
    return failed;
  }
  void run_verb_on_all(const std::string& verb, std::vector<ScalePod>& pods) {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t first = 0; first < pods.size(); first += kAtOnce) {
      ASSERT_EQ(run_verb(verb, pods, first), 0);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("%s of %zu pods, %d at a time: %.1f s\n", verb.c_str(), pods.size(), kAtOnce, took.count());
  }

  Leftovers left() { return leftovers(*node_, bpf_root_, folder_.path() + "/run", agent_->pid()); }
  std::size_t enrolled() {
    const auto pods = json::parse(get("/pods").value_or("[]"));
    return static_cast<std::size_t>(
        std::count_if(pods.begin(), pods.end(), [](const json& pod) { return pod.at("state") == "enrolled"; }));
  }

  ScratchDir folder_;
  std::string bpf_root_;
  std::unique_ptr<Netns> node_;
  std::unique_ptr<Process> agent_;
};

TEST_F(Scale, ManyPodsComeAndGo) {
  const auto before = left();
  std::vector<ScalePod> pods;
  for (int i = 0; i < kPods; ++i) pods.push_back(make_pod(i));
  run_verb_on_all("add", pods);
  EXPECT_EQ(enrolled(), kPods / 2U);
  EXPECT_EQ(left().pins, kPods);
  EXPECT_EQ(left().addresses, kPods);
  run_verb_on_all("check", pods);
  run_verb_on_all("del", pods);
  pods.clear();
  EXPECT_TRUE(eventually(kSoon, [&] { return left().same_as(before); }))
      << ::testing::PrintToString(before) << " became " << ::testing::PrintToString(left());
  EXPECT_EQ(agent_->err().find("error"), std::string::npos) << agent_->err();
}

}  // namespace
}  // namespace weft::test
