// SPDX-License-Identifier: Apache-2.0
/// Pods are in the mesh because the Kubernetes API says so: labels, annotations, ADD, and an API that is away.
/// WEFT_FLIP_PODS sets how many pods a label takes in and out at once (default 3); the first three are under load.
#include <mutex>

#include "test/netns/steady_load.h"
#include "test/support/fake_api.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kRedirection = "ambient.istio.io/redirection";
constexpr milliseconds kPatience{15'000};

const json& ambient() {
  static const json labels = {{"istio.io/dataplane-mode", "ambient"}};
  return labels;
}

/// Node 1 has its enrolment from the API; node 2 has the caller, by the local file.
class Kube : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    MeshOptions options;
    options.start_agents = false;
    options.node_arguments = [](const Mesh&, int node) { return node == 1 ? arguments() : std::vector<std::string>(); };
    mesh_ = std::make_unique<Mesh>(options);
    api_ = std::make_unique<FakeApi>(mesh_->folder().path(), &mesh_->node(1).netns());
    api_->set_namespace("shop");
    mesh_->node(1).start_agent();
    mesh_->node(2).start_agent();
    caller_ = &mesh_->add_pod(2, "shop", "caller");
  }
  static void TearDownTestSuite() {
    mesh_.reset();
    api_.reset();
  }
  static std::vector<std::string> arguments() {
    return {"--enrolment",  "kubernetes",       "--kube-api",  api_->url(),
            "--kube-token", api_->token_file(), "--kube-root", api_->root_file()};
  }
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    logs_.mark(*mesh_);
  }
  void TearDown() override {
    if (HasFailure() && mesh_) logs_.tell(*mesh_);
    if (!mesh_) return;
    api_->on_patch({});
    api_->set_namespace("shop");
  }

  /// As the mesh's control plane knows it before it is annotated: a workload without HBONE.
  static PodOptions uncaptured() {
    PodOptions options;
    options.workload = {{"protocol", "TCP"}};
    return options;
  }
  static Pod& plan(const std::string& namespace_name, const std::string& name, PodOptions options = uncaptured(),
                   const json& more = json::object()) {
    Pod& pod = mesh_->plan_pod(1, namespace_name, name, std::move(options));
    json object = {{"metadata", {{"uid", pod.container_id()}}}};
    object.merge_patch(more);
    api_->set_pod(namespace_name, name, "node1", object);
    return pod;
  }
  static Pod& add(const std::string& name, PodOptions options = uncaptured(), const json& more = json::object()) {
    Pod& pod = plan("shop", name, std::move(options), more);
    const Finished added = mesh_->chain("add", pod);
    EXPECT_TRUE(added.ok()) << added.out << added.err;
    return pod;
  }
  static void remove(Pod& pod) {
    api_->delete_pod(pod.namespace_name(), pod.name());
    mesh_->remove_pod(pod);
  }
  /// "" where the agent does not know of the pod.
  static json shown(const std::string& name) {
    const auto body = http_get(mesh_->node(1).netns(), {*IpAddress::parse("127.0.0.1"), 15000}, "/pods");
    if (!body) return json();
    for (const auto& pod : json::parse(*body)) {
      if (pod.at("name") == name) return pod;
    }
    return json();
  }
  static std::string state(const std::string& name) {
    const json pod = shown(name);
    return pod.is_null() ? "" : pod.at("state").get<std::string>();
  }
  static std::string annotation(const Pod& pod) {
    return api_->annotation(pod.namespace_name(), pod.name(), kRedirection);
  }
  static bool becomes(const Pod& pod, const std::string& state_wanted, const std::string& annotation_wanted) {
    return eventually(kPatience,
                      [&] { return state(pod.name()) == state_wanted && annotation(pod) == annotation_wanted; });
  }
  static std::vector<json> events_of(const std::string& pod) {
    auto events = api_->events();
    std::erase_if(events, [&](const json& event) { return event.at("involvedObject").at("name") != pod; });
    return events;
  }
  static double metric(const std::string& line) {
    const std::string all = mesh_->node(1).metrics();
    const auto found = all.find("\n" + line + " ");
    return found == std::string::npos ? -1 : std::stod(all.substr(found + line.size() + 2));
  }

  static std::unique_ptr<Mesh> mesh_;
  static std::unique_ptr<FakeApi> api_;
  static Pod* caller_;

 private:
  AgentLogs logs_;
};

std::unique_ptr<Mesh> Kube::mesh_;
std::unique_ptr<FakeApi> Kube::api_;
Pod* Kube::caller_ = nullptr;

TEST_F(Kube, ALabelOnTheNamespaceTakesRunningPodsInAndOutWithoutAnInterruption) {
  constexpr std::size_t kLoaded = 3;
  std::vector<Pod*> pods;
  for (int i = 0; i < from_environment("WEFT_FLIP_PODS", kLoaded, kLoaded); ++i)
    pods.push_back(&add("web" + std::to_string(i)));
  const std::vector<Pod*> loaded(pods.begin(), pods.begin() + kLoaded);
  for (Pod* pod : loaded) pod->serve();
  for (Pod* pod : pods) EXPECT_EQ(state(pod->name()), "wired");
  // What the agent had done when it said so.
  std::mutex mutex;
  std::vector<std::string> said;
  api_->on_patch([&](const json& patch) {
    const std::string uid = patch.at("metadata").at("uid");
    const bool sets = !patch.at("metadata").at("annotations").at(kRedirection).is_null();
    for (const Pod* pod : loaded) {
      if (pod->container_id() != uid) continue;
      const std::lock_guard lock(mutex);
      said.push_back((sets ? "set while " : "taken away while ") + state(pod->name()));
    }
  });
  SteadyLoad load;
  for (std::size_t i = 0; i < kLoaded; ++i) {
    load.all_kinds(*caller_, loaded[i]->v4());
    load.request(*loaded[i], loaded[(i + 1) % kLoaded]->v4(), false);
  }
  load.expect_all_go_on("before");
  EXPECT_THAT(api_->asked("PATCH", "/"), IsEmpty());

  const auto labelled = std::chrono::steady_clock::now();
  const auto since = [](auto time) {
    return static_cast<long long>(
        std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - time).count());
  };
  api_->set_namespace("shop", ambient());
  EXPECT_TRUE(eventually(milliseconds(60'000), [&] {
    return std::ranges::all_of(pods, [](const Pod* pod) { return annotation(*pod) == "enabled"; });
  }));
  std::printf("  %zu pods captured and annotated in %lld ms\n", pods.size(), since(labelled));
  EXPECT_THAT(said, AllOf(::testing::SizeIs(kLoaded), ::testing::Each("set while enrolled")));
  for (Pod* pod : pods) EXPECT_TRUE(becomes(*pod, "enrolled", "enabled")) << shown(pod->name());
  EXPECT_EQ(shown("web0").at("workloadUid"), "weftt//Pod/shop/web0");
  load.expect_all_go_on("labelled");
  // As istiod does, which has read the annotation.
  mesh_->set_protocol(pods, true, {1, 2});
  load.expect_all_go_on("called by HBONE");
  Process held = caller_->hold(pods[1]->v4());
  const json connections = json::parse(mesh_->node(1).admin("/connections"));
  EXPECT_THAT(connections.dump(), HasSubstr(caller_->identity()));

  said.clear();
  const auto unlabelled = std::chrono::steady_clock::now();
  api_->set_namespace("shop");
  EXPECT_TRUE(eventually(milliseconds(60'000), [&] {
    return std::ranges::all_of(pods, [](const Pod* pod) { return annotation(*pod).empty(); });
  }));
  std::printf("  %zu pods let go in %lld ms\n", pods.size(), since(unlabelled));
  EXPECT_THAT(said, AllOf(::testing::SizeIs(kLoaded), ::testing::Each("taken away while enrolled")));
  for (Pod* pod : pods) EXPECT_TRUE(becomes(*pod, "leaving", "")) << shown(pod->name());
  mesh_->set_protocol(pods, false, {2, 1});
  load.expect_all_go_on("unlabelled");
  EXPECT_TRUE(held.running()) << held.out();
  std::printf("  %zu requests, none failed\n", load.answered());
  load.stop();
  for (Pod* pod : pods) remove(*pod);
}

TEST_F(Kube, TheAnnotationIsTriedAgainAndAPodStaysCapturedUntilItIsAway) {
  Pod& pod = add("web");
  api_->fail_next("PATCH", "/api/v1/namespaces/shop/pods/web/status", 500, 2);
  api_->set_namespace("shop", ambient());
  EXPECT_TRUE(becomes(pod, "enrolled", "enabled"));
  EXPECT_GE(metric(R"(weft_kubernetes_writes_total{kind="annotation",result="failed"})"), 2);

  api_->fail_next("PATCH", "/api/v1/namespaces/shop/pods/web/status", 403, 1'000);
  api_->set_namespace("shop");
  const auto refused = [] { return api_->asked("PATCH", "/api/v1/namespaces/shop/pods/web/status").size(); };
  const std::size_t before = refused();
  ASSERT_TRUE(eventually(kPatience, [&] { return refused() >= before + 3; }));
  EXPECT_EQ(state("web"), "enrolled");
  EXPECT_THAT(shown("web").at("reason").get<std::string>(), Not(IsEmpty()));
  EXPECT_EQ(metric("weft_kubernetes_annotations_due"), 1);
  EXPECT_THAT(mesh_->node(1).log(), HasSubstr("taken away, so the pod stays captured pod=shop/web"));
  api_->fail_no_more();
  EXPECT_TRUE(becomes(pod, "leaving", ""));
  remove(pod);
}

TEST_F(Kube, AddAsksTheApiWhereNoWatchHasToldOfThePod) {
  api_->set_namespace("shop", ambient());
  ASSERT_TRUE(eventually(kPatience, [] { return metric(R"(weft_kubernetes_following{resource="pods"})") == 1; }));
  api_->set_silent(true);
  Pod& pod = add("web", uncaptured(),
                 {{"metadata", {{"annotations", {{"ambient.istio.io/bypass-inbound-capture", "true"}}}}}});
  EXPECT_EQ(api_->asked("GET", "/api/v1/namespaces/shop/pods/web?").size(), 1U);
  EXPECT_EQ(state("web"), "enrolled");
  EXPECT_TRUE(shown("web").at("inboundBypass").get<bool>()) << "its annotations are the API's";
  EXPECT_TRUE(becomes(pod, "enrolled", "enabled"));
  api_->set_silent(false);
  // One that the runtime calls otherwise is not the API's pod.
  Pod& other = plan("shop", "other");
  api_->set_pod("shop", "other", "node1", {{"metadata", {{"uid", "somebody-else"}}}});
  const Finished refused = mesh_->chain("add", other);
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(refused.out, AllOf(HasSubstr("\"code\":11"), HasSubstr("has UID somebody-else")));
  remove(pod);
  remove(other);
}

TEST_F(Kube, AddFailsClosedWhileTheApiIsAwayButNotInExcludedNamespaces) {
  api_->stop();
  Pod& pod = mesh_->plan_pod(1, "shop", "web", uncaptured());
  const Finished refused = mesh_->chain("add", pod);
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(refused.out,
              AllOf(HasSubstr("\"code\":11"), HasSubstr("pod shop/web could be the mesh's"), HasSubstr(api_->url())));
  EXPECT_GE(metric(R"(weft_kubernetes_admissions_total{result="failed"})"), 1);
  // Excluded for the agent and not for the plugin.
  PodOptions excluded;
  excluded.enrolled = false;
  excluded.weft_conf = {{"excludeNamespaces", {"weft-system"}}};
  Pod& dns = mesh_->plan_pod(1, "kube-system", "dns", excluded);
  const Finished let_in = mesh_->chain("add", dns);
  EXPECT_TRUE(let_in.ok()) << let_in.out << let_in.err;
  EXPECT_EQ(state("dns"), "wired");
  // The agent's own pod.
  PodOptions own;
  own.enrolled = false;
  Pod& agent = mesh_->plan_pod(1, "weft-system", "weft-agent", own);
  EXPECT_TRUE(mesh_->chain("add", agent).ok());
  EXPECT_EQ(state("weft-agent"), "");

  api_->set_namespace("shop", ambient());
  api_->set_pod("shop", "web", "node1", {{"metadata", {{"uid", pod.container_id()}}}});
  api_->start();
  // As a runtime does after an ADD that failed.
  EXPECT_TRUE(mesh_->chain("del", pod).ok());
  const Finished again = mesh_->chain("add", pod);
  EXPECT_TRUE(again.ok()) << again.out << again.err;
  EXPECT_TRUE(becomes(pod, "enrolled", "enabled"));
  remove(dns);
  remove(agent);
  remove(pod);
}

TEST_F(Kube, PodsStayWhatTheyAreWhileAnotherAgentTakesOverWithoutTheApi) {
  api_->set_namespace("shop", ambient());
  Pod& in = add("in");
  Pod& out = add("out", uncaptured(), {{"metadata", {{"labels", {{"istio.io/dataplane-mode", "none"}}}}}});
  in.serve();
  EXPECT_TRUE(becomes(in, "enrolled", "enabled"));
  EXPECT_EQ(state("out"), "wired");
  api_->stop();
  mesh_->node(1).hand_over_agent();
  EXPECT_FALSE(http_get(mesh_->node(1).netns(), {*IpAddress::parse("127.0.0.1"), 15021}, "/healthz/ready"));
  EXPECT_EQ(state("in"), "enrolled");
  EXPECT_EQ(state("out"), "wired");
  EXPECT_TRUE(caller_->get(in.v4()).ok());
  api_->start();
  ASSERT_TRUE(eventually(kPatience, [] { return metric(R"(weft_kubernetes_following{resource="pods"})") == 1; }));
  EXPECT_TRUE(becomes(in, "enrolled", "enabled"));
  EXPECT_TRUE(becomes(out, "wired", ""));
  remove(in);
  remove(out);
}

TEST_F(Kube, APodThatTheControlPlaneDoesNotKnowYetIsCapturedAndWaits) {
  api_->set_namespace("shop", ambient());
  PodOptions unknown = uncaptured();
  unknown.enrolled = false;
  Pod& pod = add("web", unknown);
  EXPECT_TRUE(becomes(pod, "pending", "enabled"));
  EXPECT_TRUE(shown("web").at("captured").get<bool>());
  mesh_->set_enrolled(pod, true);
  EXPECT_TRUE(becomes(pod, "enrolled", "enabled"));
  remove(pod);
}

TEST_F(Kube, APodThatWasNeverWiredIsShownInEveryPlace) {
  api_->set_namespace("shop", ambient());
  PodOptions old = uncaptured();
  old.weft_cni = false;
  Pod& pod = add("old", old);
  ASSERT_TRUE(eventually(kPatience, [] { return state("old") == "uncaptured"; }));
  EXPECT_THAT(shown("old").at("reason").get<std::string>(), HasSubstr("without weft-cni"));
  EXPECT_EQ(metric(R"(weft_pods{state="uncaptured"})"), 1);
  ASSERT_TRUE(eventually(kPatience, [] { return events_of("old").size() == 1; }));
  const json event = events_of("old").front();
  EXPECT_EQ(event.at("type"), "Warning");
  EXPECT_THAT(event.at("message").get<std::string>(), HasSubstr("not captured"));
  EXPECT_THAT(mesh_->node(1).log(), HasSubstr("selected for the mesh and not captured pod=shop/old"));
  EXPECT_THAT(
      must_run({program("weftctl"), "pods"}, {.netns = &mesh_->node(1).netns(), .environment = {}, .input = {}}),
      HasSubstr("uncaptured"));
  EXPECT_EQ(annotation(pod), "");
  // It is none of the mesh's any more: nothing is wrong with it.
  api_->set_namespace("shop");
  EXPECT_TRUE(eventually(kPatience, [] { return state("old") == ""; }));
  EXPECT_EQ(events_of("old").size(), 1U);
  remove(pod);
}

}  // namespace
}  // namespace weft::test
