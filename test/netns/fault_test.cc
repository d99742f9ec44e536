// SPDX-License-Identifier: Apache-2.0
/// Things that go wrong in the middle: the plugin or the agent is killed, the pod's netns goes, the agent hangs. After
/// the runtime's DEL, or one reconciliation, nothing is left, and nothing was ever decided wrongly.

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <sstream>

#include "test/netns/leftovers.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AnyOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr milliseconds kSoon{15'000};

/// Every point of ADD, in order, and what its error says when the step fails.
struct Point {
  const char* name;
  const char* text;
};
constexpr Point kAddPoints[] = {{"prepare", "prepare the pod's network namespace"},
                                {"register", "register the pod"},
                                {"record", "record the attachment"},
                                {"attach", "attach the capture programs"},
                                {"deliver", "attach deliver"},
                                {"to_pod", "attach to_pod"},
                                {"from_pod", "attach from_pod"},
                                {"to_pod_host", "attach to_pod_host"},
                                {"guard", "attach guard"},
                                {"result", "write the result"}};

class Faults : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    fs::create_directory(conf_dir());
    MeshOptions options;
    options.nodes = 1;
    options.agent_arguments = {"--cni-conf-dir", conf_dir(), "--reconcile-interval-ms", "200"};
    mesh_ = std::make_unique<Mesh>(options);
    web_ = &mesh_->add_pod(1, "shop", "web");
    web_->serve();
    client_ = &mesh_->add_pod(1, "shop", "client");
    before_ = left();
  }
  void TearDown() override {
    if (!mesh_) return;
    // The pods that are meant to be there were never touched.
    EXPECT_THAT(client_->get(web_->v4()), IsAnswer("web", client_->address_v4()));
    EXPECT_THAT(client_->get(web_->v6()), IsAnswer("web", client_->address_v6()));
    if (HasFailure()) std::fprintf(stderr, "the agent's log:\n%s\n", node().log().c_str());
  }

  [[nodiscard]] std::string conf_dir() const { return folder_.path() + "/net.d"; }
  Node& node() { return mesh_->node(1); }
  [[nodiscard]] Leftovers left() {
    return leftovers(node().netns(), node().bpf_root(), mesh_->folder().path() + "/node1/run",
                     node().has_agent() ? node().agent().pid() : 0);
  }
  /// Nothing more than before the test; the kernel takes links away with their netns some time after it.
  bool nothing_left() {
    return eventually(kSoon, [this] { return left().same_as(before_); });
  }

  /// What is in a pod's netns of ours.
  static std::string inside(const Netns& netns) {
    std::string ours;
    for (const char* family : {"-4", "-6"}) {
      std::istringstream routes(netns.ip(std::string(family) + " route show table all"));
      for (std::string line; std::getline(routes, line);) {
        if (line.find("table 1500") != std::string::npos) ours += line + "\n";
      }
      ours += netns.ip(std::string(family) + " rule show pref 1");
    }
    return ours;
  }

  /// The pod's list, with the plugin that can be made to fail in the place of weft-cni, and other keys for it.
  std::string faulty_list(const Pod& pod, const json& keys = json::object()) const {
    json list = json::parse(read_file(mesh_->folder().path() + "/node1/" + pod.container_id() + ".conflist"));
    list["plugins"].back()["type"] = "weft-cni-faults";
    list["plugins"].back().update(keys);
    return folder_.write(pod.container_id() + ".conflist", list.dump());
  }
  [[nodiscard]] SpawnOptions runtime(const Pod& pod, const std::string& fault) const {
    return {.netns = &mesh_->node(1).netns(),
            .environment = {"CNI_PATH=" + program("") + ":/usr/lib/cni:/opt/cni/bin",
                            "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + pod.namespace_name() +
                                ";K8S_POD_NAME=" + pod.name(),
                            "WEFT_FAULT=" + fault},
            .input = {}};
  }
  [[nodiscard]] std::vector<std::string> chain_of(const std::string& verb, const Pod& pod, const std::string& list,
                                                  const std::string& netns) const {
    return {program("weft-chain"), "--cache", folder_.path() + "/chain", verb, list, netns, pod.container_id(), "eth0"};
  }
  /// Runs the chain as a runtime does: a failed ADD is followed by DEL.
  Finished chain(const std::string& verb, const Pod& pod, const std::string& fault, const json& keys = json::object()) {
    return run(chain_of(verb, pod, faulty_list(pod, keys), pod.netns().path()), runtime(pod, fault));
  }

  /// Kills the plugin that a chain waits for, and with it the chain where `runtime_too`.
  static void kill_plugin(Process& chain, bool runtime_too) {
    const std::string id = std::to_string(chain.pid());
    const std::string plugin = read_file("/proc/" + id + "/task/" + id + "/children");
    if (runtime_too) chain.kill();
    const pid_t pid = static_cast<pid_t>(std::strtol(plugin.c_str(), nullptr, 10));
    if (pid > 0) ::kill(pid, SIGKILL);
  }

  ScratchDir folder_;
  std::unique_ptr<Mesh> mesh_;
  Pod *web_ = nullptr, *client_ = nullptr;
  Leftovers before_;
};

TEST_F(Faults, ThePluginKilledAtAnyStepOfAddLeavesNothingAfterDel) {
  for (const Point& point : kAddPoints) {
    SCOPED_TRACE(point.name);
    Pod& pod = mesh_->plan_pod(1, "shop", std::string("kill-") + std::to_string(&point - kAddPoints));
    const std::string clean = inside(pod.netns());
    const Finished added = chain("add", pod, std::string(point.name) + ":kill");
    EXPECT_FALSE(added.ok()) << "the fault was not met";
    EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left())
                                << "\nbefore: " << ::testing::PrintToString(before_);
    EXPECT_EQ(inside(pod.netns()), clean);
    // And the next attempt works.
    const Finished again = chain("add", pod, "");
    EXPECT_TRUE(again.ok()) << again.out << again.err;
    EXPECT_THAT(pod.get(web_->v4()), IsAnswer("web", pod.address_v4()));
    EXPECT_TRUE(chain("del", pod, "").ok());
    EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left())
                                << "\nbefore: " << ::testing::PrintToString(before_);
    EXPECT_EQ(inside(pod.netns()), clean);
  }
}

TEST_F(Faults, AFailedStepOfAddIsUndoneByAddItself) {
  Pod& pod = mesh_->plan_pod(1, "shop", "undone");
  // The pod's interface stands, as the primary plugin left it: only weft-cni is called from here on.
  json list = json::parse(read_file(mesh_->folder().path() + "/node1/" + pod.container_id() + ".conflist"));
  json weft = list["plugins"].back();
  list["plugins"].erase(list["plugins"].size() - 1);
  const Finished made =
      run(chain_of("add", pod, folder_.write("primary.conflist", list.dump()), pod.netns().path()), runtime(pod, ""));
  ASSERT_TRUE(made.ok()) << made.out;
  weft["cniVersion"] = list["cniVersion"];
  weft["name"] = list["name"];
  weft["prevResult"] = json::parse(made.out);
  const Leftovers standing = left();
  const std::string clean = inside(pod.netns());
  for (const Point& point : kAddPoints) {
    SCOPED_TRACE(point.name);
    SpawnOptions options = runtime(pod, std::string(point.name) + ":fail");
    for (const auto& variable : {std::string("CNI_COMMAND=ADD"), "CNI_CONTAINERID=" + pod.container_id(),
                                 "CNI_NETNS=" + pod.netns().path(), std::string("CNI_IFNAME=eth0")}) {
      options.environment.push_back(variable);
    }
    options.input = weft.dump();
    const Finished added = run({program("weft-cni-faults")}, options);
    EXPECT_FALSE(added.ok());
    EXPECT_THAT(added.out, HasSubstr(point.text));
    if (std::string(point.name) == "result") continue;  // behind the last step: a success whose word got lost
    EXPECT_TRUE(eventually(kSoon, [&] { return left().same_as(standing); }))
        << ::testing::PrintToString(left()) << "\nbefore: " << ::testing::PrintToString(before_);
    EXPECT_EQ(inside(pod.netns()), clean);
  }
  EXPECT_TRUE(chain("del", pod, "").ok());
}

TEST_F(Faults, ThePluginKilledInDelLeavesNothingAfterTheNextOne) {
  for (const char* point : {"unregistered", "detached"}) {
    SCOPED_TRACE(point);
    Pod& pod = mesh_->plan_pod(1, "shop", std::string("del-") + point);
    const std::string clean = inside(pod.netns());
    ASSERT_TRUE(chain("add", pod, "").ok());
    EXPECT_FALSE(chain("del", pod, std::string(point) + ":kill").ok());
    EXPECT_TRUE(chain("del", pod, "").ok());
    EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left())
                                << "\nbefore: " << ::testing::PrintToString(before_);
    EXPECT_EQ(inside(pod.netns()), clean);
  }
}

TEST_F(Faults, WithoutADelTheNextReconciliationCollects) {
  for (const char* point : {"record", "from_pod", "result"}) {
    SCOPED_TRACE(point);
    const Pod& pod = mesh_->plan_pod(1, "shop", std::string("none-") + point);
    auto netns = std::make_unique<Netns>("gone");
    // The whole runtime dies with the plugin: the chain hangs there and is killed.
    Process dying = Process::start(chain_of("add", pod, faulty_list(pod), netns->path()),
                                   runtime(pod, std::string(point) + ":hang"));
    ASSERT_TRUE(eventually(kSoon, [&] { return left().registrations == before_.registrations + 1; }));
    kill_plugin(dying, true);
    netns.reset();
    EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left())
                                << "\nbefore: " << ::testing::PrintToString(before_);
  }
}

TEST_F(Faults, TheNetnsGoesInTheMiddleOfAddAndDel) {
  struct Case {
    const char *verb, *point;
    std::function<bool(const Netns&)> reached;
  };
  const Case cases[] = {
      {"add", "register", [](const Netns& netns) { return !netns.ip("rule show pref 1").empty(); }},
      {"add", "from_pod", [this](const Netns&) { return left().pins > before_.pins; }},
      {"del", "unregistered", [this](const Netns&) { return left().registrations == before_.registrations; }},
  };
  for (const auto& [verb, point, reached] : cases) {
    SCOPED_TRACE(std::string(verb) + " at " + point);
    const Pod& pod = mesh_->plan_pod(1, "shop", std::string(verb) + "-" + point);
    auto netns = std::make_unique<Netns>("going");
    const std::string list = faulty_list(pod), path = netns->path();
    const bool del = std::string(verb) == "del";
    if (del) {
      ASSERT_TRUE(run(chain_of("add", pod, list, path), runtime(pod, "")).ok());
    }
    Process caught = Process::start(chain_of(verb, pod, list, path), runtime(pod, std::string(point) + ":hang"));
    ASSERT_TRUE(eventually(kSoon, [&, &there = reached] { return there(*netns); }));
    netns.reset();
    kill_plugin(caught, false);
    EXPECT_NE(caught.finish(kSoon).status, 0);
    EXPECT_TRUE(run(chain_of("del", pod, list, path), runtime(pod, "")).ok());
    EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left())
                                << "\nbefore: " << ::testing::PrintToString(before_);
  }
}

TEST_F(Faults, AHungAgentHoldsAddForItsTimeAndTakesBackWhatItDidTooLate) {
  Pod& pod = mesh_->plan_pod(1, "shop", "hung");
  node().agent().signal(SIGSTOP);
  const auto start = std::chrono::steady_clock::now();
  const Finished added = run(chain_of("add", pod, faulty_list(pod), pod.netns().path()), runtime(pod, ""));
  const auto took = std::chrono::steady_clock::now() - start;
  node().agent().signal(SIGCONT);
  EXPECT_FALSE(added.ok());
  EXPECT_THAT(added.out, HasSubstr("\"code\":11"));
  EXPECT_THAT(added.out, HasSubstr("5000 ms"));
  EXPECT_GE(took, milliseconds(5000));
  EXPECT_LT(took, milliseconds(13'000)) << "ADD and the DEL that follows it wait once each";
  EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left()) << "\nbefore: " << ::testing::PrintToString(before_);
}

TEST_F(Faults, ARefusingSocketAndAMissingRootSayWhatIsMissing) {
  Pod& pod = mesh_->plan_pod(1, "shop", "missing");
  const std::string nowhere = folder_.write("not-a-socket", "");
  const Finished refused = chain("add", pod, "", {{"agentSocket", nowhere}});
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(refused.out, HasSubstr("\"code\":11"));
  EXPECT_THAT(refused.out, HasSubstr(nowhere));
  EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left()) << "\nbefore: " << ::testing::PrintToString(before_);
  const Finished rootless = chain("add", pod, "", {{"bpfRoot", folder_.path() + "/none"}});
  EXPECT_FALSE(rootless.ok());
  EXPECT_THAT(rootless.out, HasSubstr("\"code\":102"));
  EXPECT_THAT(rootless.out, HasSubstr(folder_.path() + "/none"));
  EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left()) << "\nbefore: " << ::testing::PrintToString(before_);
}

TEST_F(Faults, TheAgentKilledDuringFiftyAdds) {
  constexpr int kPods = 50;
  std::vector<Pod*> pods;
  for (int i = 0; i < kPods; ++i) {
    PodOptions options;
    options.enrolled = i % 5 == 0;
    pods.push_back(&mesh_->plan_pod(1, "shop", "many-" + std::to_string(i), options));
  }
  std::vector<Process> adds;
  for (Pod* pod : pods) {
    adds.push_back(
        Process::start(chain_of("add", *pod, faulty_list(*pod, {{"registrationTimeoutMs", 3000}}), pod->netns().path()),
                       runtime(*pod, "")));
  }
  ASSERT_TRUE(eventually(kSoon, [&] { return left().registrations >= before_.registrations + 5; }));
  node().kill_agent();
  std::vector<bool> added;
  int turned_away = 0;
  for (auto& add : adds) {
    const Finished finished = add.finish(milliseconds(60'000));
    added.push_back(finished.ok());
    if (finished.ok()) continue;
    // Fifty at once, ptp may ask for an IPv6 route before the kernel has its new address: the runtime tries again.
    EXPECT_THAT(finished.out, AnyOf(HasSubstr("\"code\":11"), HasSubstr("failed to add route")));
    if (finished.out.find("\"code\":11") != std::string::npos) ++turned_away;
  }
  EXPECT_GT(std::count(added.begin(), added.end(), true), 0);
  EXPECT_GT(turned_away, 0);
  node().start_agent();
  for (int i = 0; i < kPods; ++i) {
    Pod& pod = *pods[static_cast<std::size_t>(i)];
    if (!added[static_cast<std::size_t>(i)]) {
      const Finished again = chain("add", pod, "");
      ASSERT_TRUE(again.ok()) << again.out << again.err;
    }
    if (i % 5 == 0) {
      EXPECT_THAT(pod.get(web_->v4()), IsAnswer("web", pod.address_v4())) << pod.name();
    }
  }
  EXPECT_EQ(json::parse(node().admin("/pods")).size(), kPods + 2U);
  for (Pod* pod : pods) EXPECT_TRUE(chain("del", *pod, "").ok());
  before_.descriptors = left().descriptors;  // of another agent
  EXPECT_TRUE(nothing_left()) << ::testing::PrintToString(left()) << "\nbefore: " << ::testing::PrintToString(before_);
}

}  // namespace
}  // namespace weft::test
