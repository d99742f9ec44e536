// SPDX-License-Identifier: Apache-2.0
/// The agent's side of enrolment against a real API server, with the rights that the manifests give and no others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>

#include "agent/kube/enroller.h"
#include "test/interop/kube_api.h"

namespace weft::test {
namespace {

using kube::ApiRequest;
using kube::Json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr milliseconds kPatience{20'000};
constexpr const char* kAccount = "istio-system";
constexpr const char* kManifest = WEFT_SOURCES "/manifests/weft.yaml";

class RealKubeApi : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::signal(SIGPIPE, SIG_IGN);
    if (!KubeApi::missing().empty()) return;
    api_ = std::make_unique<KubeApi>();
    make_namespace(kAccount);
    make_namespace("shop");
  }
  static void TearDownTestSuite() { api_.reset(); }
  void SetUp() override {
    if (const std::string why = KubeApi::missing(); !why.empty()) GTEST_SKIP() << why;
  }

  static void make_namespace(const std::string& name) {
    const Json object = {{"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", name}}}};
    api_->ask({.method = "POST", .path = "/api/v1/namespaces", .body = object.dump()});
  }
  static void label(const std::string& name, const Json& mode) {
    const Json patch = {{"metadata", {{"labels", {{"istio.io/dataplane-mode", mode}}}}}};
    api_->ask({.method = "PATCH",
               .path = "/api/v1/namespaces/" + name,
               .body = patch.dump(),
               .content_type = "application/merge-patch+json"});
  }
  static Json make_pod(const std::string& name, const std::string& node) {
    const Json object = {{"apiVersion", "v1"},
                         {"kind", "Pod"},
                         {"metadata", {{"name", name}, {"namespace", "shop"}}},
                         {"spec", {{"nodeName", node}, {"containers", {{{"name", "c"}, {"image", "none"}}}}}}};
    api_->ask({.method = "POST", .path = "/api/v1/namespaces/shop/pods", .body = object.dump()});
    const Json status = {{"status", {{"phase", "Running"}, {"podIP", "10.0.0.1"}, {"podIPs", {{{"ip", "10.0.0.1"}}}}}}};
    return api_->ask({.method = "PATCH",
                      .path = "/api/v1/namespaces/shop/pods/" + name + "/status",
                      .body = status.dump(),
                      .content_type = "application/merge-patch+json"});
  }
  static std::string annotation(const std::string& pod) {
    const Json object = api_->ask({.path = "/api/v1/namespaces/shop/pods/" + pod});
    const Json& metadata = object.at("metadata");
    return metadata.contains("annotations") ? metadata.at("annotations").value(kube::kRedirection, "") : "";
  }
  /// The rights of the manifests, and the token of the account that has them.
  static std::string granted_token() {
    api_->grant(kManifest);
    return api_->token_of(kAccount, "ztunnel");
  }

  static std::unique_ptr<KubeApi> api_;
};

std::unique_ptr<KubeApi> RealKubeApi::api_;

TEST_F(RealKubeApi, TakesTheManifests) {
  const auto documents = manifest_documents(read_file(kManifest));
  ASSERT_EQ(documents.size(), 5U) << "a kind that this test does not know";
  for (const auto& document : documents) {
    const auto applied = api_->apply(document.path, document.text, true);
    EXPECT_TRUE(applied.ok()) << document.path << ": " << applied.status << " " << applied.body;
  }
  // It does look: a field that there is not is refused.
  const auto& last = documents.back();
  const auto refused = api_->apply(last.path, last.text + "  colour: green\n", true);
  EXPECT_FALSE(refused.ok()) << refused.body;
}

TEST_F(RealKubeApi, TheAccountMayDoWhatTheAgentDoesAndNothingElse) {
  kube::ApiClient agent(api_->config(granted_token()));
  make_pod("rights", "elsewhere");
  const auto asks = [&](const std::string& method, const std::string& path, const Json& body = {}) {
    ApiRequest request{.method = method, .path = path, .body = body.is_null() ? "" : body.dump()};
    if (method == "PATCH") request.content_type = "application/strategic-merge-patch+json";
    const auto answer = agent.send(request);
    return answer ? answer->status : 0;
  };
  const Json nothing = {{"metadata", {{"annotations", {{"weft.test/nothing", "1"}}}}}};
  const std::string pod = "/api/v1/namespaces/shop/pods/rights";
  EXPECT_EQ(asks("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode1"), 200);
  EXPECT_EQ(asks("GET", pod), 200);
  EXPECT_EQ(asks("GET", "/api/v1/namespaces"), 200);
  EXPECT_EQ(asks("PATCH", pod + "/status", nothing), 200);
  for (const auto& [method, path, body] : {std::tuple{"DELETE", pod, Json()},
                                           {"PATCH", pod, nothing},
                                           {"PATCH", std::string("/api/v1/namespaces/shop"), nothing},
                                           {"POST", std::string("/api/v1/namespaces/shop/pods"), nothing},
                                           {"GET", std::string("/api/v1/namespaces/istio-system/secrets"), Json()},
                                           {"GET", std::string("/api/v1/namespaces/istio-system/configmaps"), Json()},
                                           {"GET", std::string("/api/v1/nodes"), Json()},
                                           {"GET", std::string("/api/v1/services"), Json()},
                                           {"GET", std::string("/api/v1/namespaces/shop/events"), Json()},
                                           {"PATCH", std::string("/api/v1/nodes/node1/status"), nothing}}) {
    EXPECT_EQ(asks(method, path, body), 403) << method << " " << path;
  }
  const auto refused = agent.ask({.path = "/api/v1/nodes"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kDenied);
  EXPECT_THAT(refused.error().message(),
              AllOf(HasSubstr("system:serviceaccount:istio-system:ztunnel"), HasSubstr("cannot list resource")));
}

TEST_F(RealKubeApi, AnotherTokenIsRefused) {
  const ScratchDir folder;
  kube::ApiClient nobody(api_->config(folder.write("token", "guessed")));
  const auto refused = nobody.ask({.path = "/api/v1/pods"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kDenied);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("401"), HasSubstr("Unauthorized")));
}

TEST_F(RealKubeApi, PodsAreFollowedAnnotatedAndToldOf) {
  const std::string token = granted_token();
  const Json web = make_pod("web", "node1");
  const std::string uid = web.at("metadata").at("uid");
  make_pod("elsewhere", "node2");
  kube::EnrollerConfig config;
  config.api = api_->config(token);
  config.node = "node1";
  config.grace = milliseconds(0);
  kube::Enroller enroller(config);
  std::atomic<bool> captured{false}, synced{false};
  enroller.start({.synced = [&] { synced = true; },
                  // The agent captures what is selected, and lets go of what is not.
                  .reselect =
                      [&] {
                        using Kind = agent::Selection::Kind;
                        const auto kind = enroller.select("shop", "web", uid).kind;
                        if (kind == Kind::kSelected) captured = true;
                        if (kind == Kind::kNotSelected) captured = false;
                      },
                  .wired =
                      [&] {
                        return std::vector<kube::WiredState>{{.namespace_name = "shop",
                                                              .name = "web",
                                                              .uid = uid,
                                                              .captured = captured,
                                                              .problem = captured ? "" : "not yet"}};
                      },
                  .not_in_place = [](const kube::WiredState&) { return std::string(); },
                  .not_wired = [](const std::string&, const std::string&) { return std::string(); }});
  ASSERT_TRUE(eventually(kPatience, [&] { return synced.load(); })) << enroller.not_synced();
  EXPECT_EQ(annotation("web"), "");
  const auto before = std::chrono::steady_clock::now();
  label("shop", "ambient");
  EXPECT_TRUE(eventually(kPatience, [] { return annotation("web") == "enabled"; }));
  const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - before);
  std::printf("  label to annotation: %lld ms\n", static_cast<long long>(took.count()));
  EXPECT_EQ(annotation("elsewhere"), "");
  // One that was never wired.
  make_pod("old", "node1");
  const auto told = [] {
    const Json list = api_->ask({.path = "/api/v1/namespaces/shop/events?fieldSelector=involvedObject.name%3Dold"});
    return list.at("items").size();
  };
  EXPECT_TRUE(eventually(kPatience, [&] { return told() == 1; })) << enroller.counts().event_errors;
  label("shop", nullptr);
  EXPECT_TRUE(eventually(kPatience, [] { return annotation("web").empty(); }));
  EXPECT_TRUE(eventually(kPatience, [&] { return !captured; }));
  const auto counts = enroller.counts();
  EXPECT_EQ(counts.annotations_written, 2U);
  EXPECT_EQ(counts.annotation_errors, 0U);
  EXPECT_EQ(counts.event_errors, 0U);
  for (const auto& [resource, status] : counts.watches) {
    EXPECT_TRUE(status.following) << resource << ": " << status.error;
    EXPECT_EQ(status.lists, 1U) << resource;
  }
  enroller.stop();
}

TEST_F(RealKubeApi, AnotherPodOfTheNameIsNotWrittenTo) {
  kube::ApiClient agent(api_->config(granted_token()));
  make_pod("again", "node1");
  const Json patch = {{"metadata", {{"uid", "of-the-one-before"}, {"annotations", {{kube::kRedirection, "enabled"}}}}}};
  const auto answer = agent.send({.method = "PATCH",
                                  .path = "/api/v1/namespaces/shop/pods/again/status",
                                  .body = patch.dump(),
                                  .content_type = "application/strategic-merge-patch+json"});
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->status, 422) << answer->body;
  EXPECT_THAT(answer->body, HasSubstr("metadata.uid"));
  EXPECT_EQ(annotation("again"), "");
}

}  // namespace
}  // namespace weft::test
