// SPDX-License-Identifier: Apache-2.0
/// What the agent finds out by itself: pods that are older than Weft, damage, leftovers, and further interfaces of
/// pods.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>

#include "bpf/attach.h"
#include "test/netns/attack_cases.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

constexpr milliseconds kSoon{15'000};

/// One node whose agent looks five times a second, at a folder of network configurations and a libcni cache of the
/// test's own.
class Reconcile : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    fs::create_directory(conf_dir());
    fs::create_directory(cache_dir());
    MeshOptions options;
    options.nodes = 1;
    options.agent_arguments = {"--cni-conf-dir",          conf_dir(), "--cni-cache-dir", cache_dir(),
                               "--reconcile-interval-ms", "200"};
    mesh_ = std::make_unique<Mesh>(options);
    web_ = &mesh_->add_pod(1, "shop", "web");
    web_->serve();
  }
  void TearDown() override {
    if (HasFailure() && mesh_) std::fprintf(stderr, "the agent's log:\n%s\n", node().log().c_str());
    if (!HasFailure() && !IsSkipped()) tell_cases_of(*::testing::UnitTest::GetInstance()->current_test_info());
  }

  [[nodiscard]] std::string conf_dir() const { return folder_.path() + "/net.d"; }
  [[nodiscard]] std::string cache_dir() const { return folder_.path() + "/results"; }
  Node& node() { return mesh_->node(1); }
  [[nodiscard]] std::string file_of(const Pod& pod) const {
    return mesh_->folder().path() + "/node1/" + pod.container_id() + ".conflist";
  }
  [[nodiscard]] json list_of(const Pod& pod) const { return json::parse(read_file(file_of(pod))); }

  /// Runs a chain in the way of Mesh::chain, but any list for any interface.
  Finished chain(const std::string& verb, const Pod& pod, const json& list, const std::string& if_name,
                 const json& capabilities = json::object(), const Netns* netns = nullptr) {
    const std::string path = folder_.write("list-" + std::to_string(++lists_) + ".conflist", list.dump());
    return run({program("weft-chain"), "--cache", folder_.path() + "/chain", verb, path,
                (netns == nullptr ? pod.netns() : *netns).path(), pod.container_id(), if_name},
               {.netns = &node().netns(),
                .environment = {"CNI_PATH=" + program("") + ":/usr/lib/cni:/opt/cni/bin",
                                "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + pod.namespace_name() +
                                    ";K8S_POD_NAME=" + pod.name(),
                                "CAP_ARGS=" + capabilities.dump()},
                .input = {}});
  }

  /// A pod as it stands when Weft is not yet in the list. Gives the chain's result.
  json add_older(Pod& pod) {
    json list = list_of(pod);
    list["plugins"].erase(list["plugins"].size() - 1);
    const Finished added = chain("add", pod, list, "eth0");
    if (!added.ok()) throw TestError("ADD without weft-cni: " + added.out + added.err);
    return json::parse(added.out);
  }
  /// Puts Weft into the list, and what libcni remembers of the pod into its cache.
  void remember(const Pod& pod, const json& result, const std::string& netns) const {
    const json list = list_of(pod);
    std::ofstream(conf_dir() + "/10-main.conflist") << list.dump();
    const std::string network = list.at("name");
    json entry = {{"kind", "cniCacheV1"}, {"containerId", pod.container_id()},
                  {"ifName", "eth0"},     {"networkName", network},
                  {"netns", netns},       {"result", result}};
    entry["cniArgs"] = json::array(
        {json::array({"K8S_POD_NAMESPACE", pod.namespace_name()}), json::array({"K8S_POD_NAME", pod.name()})});
    std::ofstream(cache_dir() + "/" + network + "-" + pod.container_id() + "-eth0") << entry.dump();
  }

  json pod_json(const std::string& name, const std::string& if_name = "eth0") {
    for (const json& pod : json::parse(node().admin("/pods"))) {
      if (pod.at("name") == name && pod.at("ifName") == if_name) return pod;
    }
    return {};
  }
  bool becomes(const std::string& name, const std::string& state, const std::string& if_name = "eth0") {
    return eventually(kSoon, [&] {
      const json pod = pod_json(name, if_name);
      return !pod.is_null() && pod.at("state") == state;
    });
  }
  double done(const std::string& action) {
    return metric(node().metrics(), "weft_reconcile_actions_total", {"action=\"" + action + "\""});
  }
  std::vector<std::string> pins() const {
    auto names = bpf::attachments(mesh_->node(1).bpf_root());
    return names ? *names : std::vector<std::string>();
  }

  ScratchDir folder_;
  std::unique_ptr<Mesh> mesh_;
  Pod* web_ = nullptr;
  int lists_ = 0;
};

TEST_F(Reconcile, APodOlderThanWeftIsTakenUpAndItsConnectionsLive) {
  PodOptions unlisted;
  unlisted.enrolled = false;
  Pod& old = mesh_->plan_pod(1, "shop", "old", unlisted);
  const json result = add_older(old);
  old.serve();
  Process out = old.hold(web_->v4());
  Process in = web_->hold(old.v6());
  EXPECT_TRUE(pod_json("old").is_null());

  remember(old, result, old.netns().path());
  ASSERT_TRUE(becomes("old", "wired"));
  mesh_->set_enrolled(old, true);
  ASSERT_TRUE(becomes("old", "enrolled"));
  EXPECT_TRUE(eventually(kSoon, [&] { return done("adopted") == 1; }));

  // New connections are the mesh's, in both directions.
  const std::size_t before = node().log().size();
  EXPECT_THAT(old.get(web_->v4()), IsAnswer("web", old.address_v4()));
  EXPECT_THAT(web_->get(old.v6()), IsAnswer("old", web_->address_v6()));
  for (const auto& [from, to] : {std::pair{&old, web_}, {web_, &old}}) {
    const std::vector<std::string> words{"connection complete", "src.identity=" + from->identity(),
                                         "dst.identity=" + to->identity(), "dst.workload=" + to->name()};
    EXPECT_TRUE(eventually(kSoon, [&, f = words] { return !log_lines(node().log(), before, f).empty(); }));
  }
  // Those from before carry on as they are: another heartbeat is answered.
  for (Process* held : {&out, &in}) {
    const auto beats = held->out().size();
    EXPECT_TRUE(eventually(kSoon, [&] { return held->out().size() > beats; })) << held->out() << held->err();
    EXPECT_TRUE(held->running());
  }
  // Nothing is done twice.
  const double mended = done("mended");
  ASSERT_TRUE(eventually(kSoon, [&] { return log_lines(node().log(), before, {"pod taken up"}).size() <= 1; }));
  EXPECT_EQ(done("adopted"), 1);
  EXPECT_EQ(done("mended"), mended);
}

TEST_F(Reconcile, AReusedNetnsPathGivesNobodyAnIdentity) {
  Pod& gone = mesh_->plan_pod(1, "shop", "gone");
  Pod& now = mesh_->plan_pod(1, "shop", "now");
  const json was = add_older(gone);
  add_older(now);
  remember(gone, was, now.netns().path());
  ASSERT_TRUE(becomes("gone", "uncaptured"));
  EXPECT_THAT(pod_json("gone").at("reason").get<std::string>(), HasSubstr("other addresses"));
  EXPECT_EQ(metric(node().metrics(), "weft_pods", {"state=\"uncaptured\""}), 1);
  EXPECT_EQ(done("adopted"), 0);
}

/// ADD puts filters on, since links are slow to make; they follow before the pod's containers run.
TEST_F(Reconcile, FiltersOfAddBecomeLinksWhereTheKernelHasThem) {
  const std::string pin = node().bpf_root() + "/links/" + pins().at(0) + "/from_pod";
  if (!kernel_has_tcx()) GTEST_SKIP() << "the kernel has no TCX";
  EXPECT_TRUE(eventually(kSoon, [&] { return !fs::is_symlink(pin) && fs::exists(pin); }));
  EXPECT_TRUE(mesh_->chain("check", *web_).ok());
  EXPECT_EQ(done("mended"), 0);
}

TEST_F(Reconcile, WhatIsDamagedIsMended) {
  const auto ip = [&](const char* arguments) { return [&, arguments] { web_->netns().ip(arguments); }; };
  const auto sysctl = [&](const char* path, const char* value) {
    return [&, path, value] { web_->netns().sysctl(path, value); };
  };
  const auto toggle_v6 = [&] {
    // What is between the two would be another damage.
    node().agent().signal(SIGSTOP);
    for (const char* value : {"1", "0"}) web_->netns().sysctl("net/ipv6/conf/lo/disable_ipv6", value);
    node().agent().signal(SIGCONT);
  };
  const auto unpin_guard = [&] {
    ASSERT_EQ(::unlink((node().bpf_root() + "/links/" + pins().at(0) + "/guard").c_str()), 0);
  };
  const std::vector<std::pair<std::function<void()>, const char*>> damages{
      {ip("rule del pref 1"), "the IPv4 rule for the capture mark is missing"},
      {ip("-6 rule del pref 1"), "the IPv6 rule for the capture mark is missing"},
      {unpin_guard, "guard on ifindex"},
      {ip("route flush table 1500"), "the IPv4 local default route of table 1500 is missing"},
      {ip("-6 route flush table 1500"), "the IPv6 local default route of table 1500 is missing"},
      {ip("link set lo down"), "lo is down"},
      {sysctl("net/ipv4/conf/lo/accept_local", "0"), "net.ipv4.conf.lo.accept_local is not 1"},
      {sysctl("net/ipv6/conf/lo/disable_ipv6", "1"), "lo has no IPv6"},
      {toggle_v6, "the IPv6 local default route of table 1500 is missing"},
  };
  for (const auto& [damage, found] : damages) {
    SCOPED_TRACE(found);
    const double before = done("mended");
    const std::size_t logged = node().log().size();
    damage();
    EXPECT_TRUE(eventually(kSoon, [&] { return done("mended") > before && mesh_->chain("check", *web_).ok(); }));
    EXPECT_FALSE(log_lines(node().log(), logged, {"pod mended pod=shop/web", found}).empty()) << node().log();
    EXPECT_THAT(pod_json("web").at("problems"), IsEmpty());
  }
}

TEST_F(Reconcile, WhatCannotBeMendedIsShown) {
  web_->netns().ip("rule add pref 0 to 10.0.0.0/8 lookup main");
  ASSERT_TRUE(eventually(kSoon, [&] { return !pod_json("web").at("problems").empty(); }));
  EXPECT_EQ(metric(node().metrics(), "weft_pod_problems", {}), 1);
  EXPECT_GE(done("failed"), 1);
  web_->netns().ip("rule del pref 0 to 10.0.0.0/8 lookup main");
  EXPECT_TRUE(eventually(kSoon, [&] { return pod_json("web").at("problems").empty(); }));

  if (!run({"ip", "-n", web_->netns().name(), "link", "set", "eth0", "name", "other0"}).ok()) {
    GTEST_SKIP() << "the rest: this kernel renames no interface that is up";
  }
  EXPECT_TRUE(eventually(kSoon, [&] { return metric(node().metrics(), "weft_pod_problems", {}) == 1; }));
  EXPECT_THAT(pod_json("web").at("problems").dump(), HasSubstr("eth0"));
  web_->netns().ip("link set other0 name eth0");
  EXPECT_TRUE(eventually(kSoon, [&] { return pod_json("web").at("problems").empty(); }));
}

TEST_F(Reconcile, LeftoversOfPodsThatWentWhileTheAgentWasAwayAreCollected) {
  const Pod& second = mesh_->plan_pod(1, "shop", "second");
  auto netns = std::make_unique<Netns>("second");
  const Finished added = chain("add", second, list_of(second), "eth0", json::object(), netns.get());
  ASSERT_TRUE(added.ok()) << added.out << added.err;
  EXPECT_EQ(pins().size(), 2U);
  node().kill_agent();
  // The node restarts its runtime: the pod's netns is gone, and no DEL ever comes.
  netns.reset();
  node().start_agent();
  EXPECT_TRUE(becomes("web", "enrolled"));
  EXPECT_TRUE(eventually(kSoon, [&] { return pins().size() == 1; }));
  EXPECT_TRUE(pod_json("second").is_null());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return std::distance(fs::directory_iterator(node().bpf_root() + "/records"), fs::directory_iterator()) == 1;
  }));
  EXPECT_EQ(done("pins_removed"), 1);
}

TEST_F(Reconcile, ACorruptRecordIsHealedFromTheCacheAndCutsThePodOffUntilThen) {
  Pod& other = mesh_->add_pod(1, "shop", "other");
  node().kill_agent();
  for (const auto& entry : fs::directory_iterator(mesh_->folder().path() + "/node1/run/registrations")) {
    if (entry.path().filename().string().starts_with(other.container_id())) std::ofstream(entry.path()) << "{";
  }
  node().start_agent();
  EXPECT_TRUE(becomes("web", "enrolled"));
  EXPECT_TRUE(eventually(kSoon, [&] { return metric(node().metrics(), "weft_unknown_attachments", {}) == 1; }));
  EXPECT_FALSE(other.get(web_->v4(), {"--connect-timeout", "1", "--timeout", "1"}).ok());

  const json list = list_of(other);
  json result = {{"cniVersion", "1.0.0"},
                 {"interfaces", {{{"name", "eth0"}, {"sandbox", other.netns().path()}}}},
                 {"ips",
                  {{{"address", other.address_v4().to_string() + "/24"}, {"interface", 0}},
                   {{"address", other.address_v6().to_string() + "/64"}, {"interface", 0}}}}};
  remember(other, result, other.netns().path());
  ASSERT_TRUE(becomes("other", "enrolled"));
  EXPECT_THAT(other.get(web_->v4()), IsAnswer("web", other.address_v4()));
  EXPECT_TRUE(mesh_->chain("check", other).ok());
  EXPECT_EQ(metric(node().metrics(), "weft_unknown_attachments", {}), 0);
}

/// Further interfaces of a pod, as Multus makes them.
class Interfaces : public Reconcile {
 protected:
  /// The chain of a second network, with weft-cni at its end.
  json second_network(const Pod& pod) const {
    json list = list_of(pod);
    list["name"] = "weftt-second";
    json& ptp = list["plugins"][0];
    ptp.erase("args");
    ptp["ipam"] = {
        {"type", "host-local"}, {"dataDir", folder_.path() + "/ipam2"}, {"ranges", {{{{"subnet", "10.72.1.0/24"}}}}}};
    return list;
  }
};

TEST_F(Interfaces, EachIsItsOwnAttachmentAndTheyShareThePodsIdentity) {
  Pod& client = mesh_->add_pod(1, "shop", "client");
  const json network = second_network(client);
  const Finished added = chain("add", client, network, "net1");
  ASSERT_TRUE(added.ok()) << added.out << added.err << node().log();
  EXPECT_EQ(pod_json("client", "net1").at("state"), "enrolled");
  EXPECT_EQ(pod_json("client", "net1").at("secondary"), true);
  EXPECT_TRUE(chain("check", client, network, "net1").ok());
  EXPECT_TRUE(mesh_->chain("check", client).ok());
  EXPECT_EQ(pins().size(), 3U);

  // By net1 into the mesh: captured as well, in the pod's own name.
  const std::string own = json::parse(added.out).at("ips").at(0).at("address").get<std::string>();
  const auto address = IpAddress::parse(own.substr(0, own.find('/'))).value();
  client.netns().ip("route add " + web_->address_v4().to_string() + " via 10.72.1.1 dev net1 src " +
                    address.to_string());
  const std::size_t before = node().log().size();
  EXPECT_THAT(client.get(web_->v4()), IsAnswer("web", address));
  const std::vector<std::string> words{"connection complete", "src.identity=" + client.identity(),
                                       "src.addr=" + address.to_string() + ":"};
  EXPECT_TRUE(eventually(kSoon, [&] { return !log_lines(node().log(), before, words).empty(); }));
  // By eth0 as before.
  EXPECT_THAT(client.get(web_->v6()), IsAnswer("web", client.address_v6()));

  const Finished removed = chain("del", client, network, "net1");
  EXPECT_TRUE(removed.ok()) << removed.out << removed.err;
  EXPECT_TRUE(pod_json("client", "net1").is_null());
  EXPECT_EQ(pins().size(), 2U);
  EXPECT_TRUE(mesh_->chain("check", client).ok());
  EXPECT_THAT(client.get(web_->v4()), IsAnswer("web", client.address_v4()));
}

TEST_F(Interfaces, SurviveARestartOfTheAgent) {
  Pod& client = mesh_->add_pod(1, "shop", "client");
  const json network = second_network(client);
  ASSERT_TRUE(chain("add", client, network, "net1").ok());
  node().kill_agent();
  node().start_agent();
  EXPECT_TRUE(becomes("client", "enrolled"));
  EXPECT_TRUE(becomes("client", "enrolled", "net1"));
  EXPECT_EQ(pod_json("client", "net1").at("secondary"), true);
  EXPECT_TRUE(chain("check", client, network, "net1").ok());
  EXPECT_TRUE(mesh_->chain("check", client).ok());
}

TEST_F(Interfaces, ThoseThatAreNotWiredAreShown) {
  Pod& pod = mesh_->plan_pod(1, "shop", "many");
  json list = list_of(pod);
  list["plugins"].back()["capabilities"] = {{"io.kubernetes.cri.pod-annotations", true}};
  const json annotations = {
      {"io.kubernetes.cri.pod-annotations", {{"istio.io/reroute-virtual-interfaces", "vm0, vm1"}, {"other", "x"}}}};
  ASSERT_TRUE(chain("add", pod, list, "eth0", annotations).ok());
  for (const char* name : {"net1", "vm0", "bare0"})
    connect_veth(node().netns(), std::string("x") + name, pod.netns(), name);
  pod.netns().ip("addr add 10.73.0.2/24 dev net1");
  pod.netns().ip("addr add 10.74.0.2/24 dev vm0");
  ASSERT_TRUE(eventually(kSoon, [&] { return !pod_json("many").at("reroutedInterfaces").empty(); }));
  const json shown = pod_json("many");
  EXPECT_THAT(shown.at("uncapturedInterfaces").get<std::vector<std::string>>(), ElementsAre("net1"));
  EXPECT_THAT(shown.at("reroutedInterfaces").get<std::vector<std::string>>(), ElementsAre("vm0"));
  EXPECT_EQ(metric(node().metrics(), "weft_uncaptured_interfaces", {}), 1);
  pod.netns().ip("link del net1");
  EXPECT_TRUE(eventually(kSoon, [&] { return pod_json("many").at("uncapturedInterfaces").empty(); }));
}

/// As KubeVirt's masquerade binding does it: the machine's connections leave the pod with the pod's address. The ones
/// into the mesh do not get there: the kernel's connection tracking meets them a second time on lo, under the
/// translated addresses. What matters is that none leaves in the clear.
TEST_F(Interfaces, AVirtualMachineInThePodReachesOthersAndLeaksNothingIntoTheMesh) {
  PodOptions unlisted;
  unlisted.enrolled = false;
  Pod& other = mesh_->add_pod(1, "shop", "other", unlisted);
  other.serve();
  Pod& pod = mesh_->add_pod(1, "shop", "launcher");
  const Netns machine("vm");
  connect_veth(pod.netns(), "vm0", machine, "eth0");
  pod.netns().ip("addr add 10.0.2.1/24 dev vm0");
  pod.netns().sysctl("net/ipv4/ip_forward", "1");
  machine.ip("addr add 10.0.2.2/24 dev eth0");
  machine.ip("route add default via 10.0.2.1");
  must_run({"nft",
            "add table ip vm; add chain ip vm post { type nat hook postrouting priority 100; }; "
            "add rule ip vm post oifname eth0 ip saddr 10.0.2.2 masquerade"},
           {.netns = &pod.netns(), .environment = {}, .input = {}});
  const Capture veth(node().netns(), pod.host_interface());
  const auto get = [&](const Endpoint& to) {
    return run({program("weft-testapp"), "get", to.to_string(), "--connect-timeout", "1", "--timeout", "1", "--marker",
                "secret-vm"},
               {.netns = &machine, .environment = {}, .input = {}});
  };
  EXPECT_FALSE(get(web_->v4()).ok());
  EXPECT_FALSE(veth.contains("secret-vm"));
  EXPECT_TRUE(veth.segments([&](const Segment& s) { return s.destination == web_->v4(); }).empty());
  EXPECT_THAT(get(other.v4()), IsAnswer("other", pod.address_v4()));
  EXPECT_TRUE(veth.contains("secret-vm")) << "the capture would have seen it";
}

}  // namespace
}  // namespace weft::test
