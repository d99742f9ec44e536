// SPDX-License-Identifier: Apache-2.0
/// A real agent on a node with a real API server, with the rights of the manifest alone.
#include <csignal>

#include "test/interop/kube_api.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using kube::Json;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr milliseconds kPatience{20'000};
constexpr const char* kRedirection = "ambient.istio.io/redirection";

class RealKubeMesh : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    if (const std::string why = KubeApi::missing(); !why.empty()) GTEST_SKIP() << why;
    std::signal(SIGPIPE, SIG_IGN);
    MeshOptions options;
    options.nodes = 1;
    options.start_agents = false;
    options.node_arguments = [this](const Mesh&, int) {
      const kube::ApiConfig config = api_->config(token_);
      return std::vector<std::string>{"--enrolment",  "kubernetes",      "--kube-api",  config.server,
                                      "--kube-token", config.token_file, "--kube-root", config.root_file};
    };
    mesh_ = std::make_unique<Mesh>(options);
    api_ = std::make_unique<KubeApi>(&mesh_->node(1).netns());
    for (const char* name : {"istio-system", "shop"}) {
      const Json object = {{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", name}}}};
      api_->ask({.method = "POST", .path = "/api/v1/namespaces", .body = object.dump()});
    }
    api_->grant(WEFT_SOURCES "/manifests/weft.yaml");
    token_ = api_->token_of("istio-system", "ztunnel");
    mesh_->node(1).start_agent();
  }
  void TearDown() override {
    if (HasFailure() && mesh_) std::fprintf(stderr, "---- the agent:\n%s\n", mesh_->node(1).log().c_str());
  }

  /// The pod in the API, and planned with the UID that it has there.
  Pod& plan(const std::string& name) {
    const Json object = {{"apiVersion", "v1"},
                         {"kind", "Pod"},
                         {"metadata", {{"name", name}, {"namespace", "shop"}}},
                         {"spec", {{"nodeName", "node1"}, {"containers", {{{"name", "c"}, {"image", "none"}}}}}}};
    const Json made = api_->ask({.method = "POST", .path = "/api/v1/namespaces/shop/pods", .body = object.dump()});
    PodOptions options;
    options.workload = {{"protocol", "TCP"}};
    options.uid = made.at("metadata").at("uid");
    return mesh_->plan_pod(1, "shop", name, options);
  }
  void label(const Json& mode) {
    const Json patch = {{"metadata", {{"labels", {{"istio.io/dataplane-mode", mode}}}}}};
    api_->ask({.method = "PATCH",
               .path = "/api/v1/namespaces/shop",
               .body = patch.dump(),
               .content_type = "application/merge-patch+json"});
  }
  std::string annotation(const std::string& pod) {
    const Json object = api_->ask({.path = "/api/v1/namespaces/shop/pods/" + pod});
    const Json& metadata = object.at("metadata");
    return metadata.contains("annotations") ? metadata.at("annotations").value(kRedirection, "") : "";
  }
  std::string state(const std::string& name) {
    for (const auto& pod : json::parse(mesh_->node(1).admin("/pods"))) {
      if (pod.at("name") == name) return pod.at("state");
    }
    return "";
  }
  bool becomes(const std::string& name, const std::string& wanted, const std::string& annotated) {
    return eventually(kPatience, [&] { return state(name) == wanted && annotation(name) == annotated; });
  }

  std::string token_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<KubeApi> api_;
};

TEST_F(RealKubeMesh, PodsAreInTheMeshAsTheirLabelsSay) {
  Pod& web = plan("web");
  Finished added = mesh_->chain("add", web);
  ASSERT_TRUE(added.ok()) << added.out << added.err;
  EXPECT_EQ(state("web"), "wired");
  const auto before = std::chrono::steady_clock::now();
  label("ambient");
  ASSERT_TRUE(becomes("web", "enrolled", "enabled"));
  const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - before);
  std::printf("  label to capture and annotation: %lld ms\n", static_cast<long long>(took.count()));
  // One that is new, in a namespace that has the label.
  Pod& api = plan("api");
  added = mesh_->chain("add", api);
  ASSERT_TRUE(added.ok()) << added.out << added.err;
  EXPECT_TRUE(becomes("api", "enrolled", "enabled"));
  label(nullptr);
  EXPECT_TRUE(becomes("web", "leaving", ""));
  EXPECT_TRUE(becomes("api", "leaving", ""));

  // Without its rights the agent knows of no new pod; those that it has stay.
  label("ambient");
  EXPECT_TRUE(becomes("web", "enrolled", "enabled"));
  api_->ask({.method = "DELETE", .path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/weft-agent"});
  // The watch that it has goes on, so a pod is told of; another one's UID has to be asked for.
  Pod& late = mesh_->plan_pod(1, "shop", "late");
  added = mesh_->chain("add", late);
  EXPECT_FALSE(added.ok());
  EXPECT_THAT(added.out, AllOf(HasSubstr("\"code\":11"), HasSubstr("403"), HasSubstr("cannot get resource")));
  api_->kill();
  EXPECT_FALSE(mesh_->chain("add", late).ok());
  EXPECT_EQ(state("web"), "enrolled");
  EXPECT_EQ(state("late"), "");
}

}  // namespace
}  // namespace weft::test
