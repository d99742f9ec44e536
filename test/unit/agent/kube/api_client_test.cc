// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/api_client.h"

#include <cstdlib>
#include <thread>

#include "test/unit/agent/kube/kube_fixture.h"

namespace weft::kube {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ApiClientTest : public KubeTest {
 protected:
  Result<Json> get(const std::string& path) { return ask({.path = path}); }
  Result<Json> ask(const ApiRequest& request) { return client.ask(request); }
  ApiClient client{config()};
};

TEST_F(ApiClientTest, GetsOneObject) {
  api.set_pod("shop", "web", "node1");
  const auto pod = get("/api/v1/namespaces/shop/pods/web");
  ASSERT_TRUE(pod) << pod.error().message();
  EXPECT_EQ(pod->at("metadata").at("name"), "web");
}

TEST_F(ApiClientTest, SaysWhatWasAskedOfWhomAndWhatTheApiSaid) {
  const auto pod = get("/api/v1/namespaces/shop/pods/web");
  ASSERT_FALSE(pod);
  EXPECT_EQ(pod.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(pod.error().message(),
              AllOf(HasSubstr("GET " + api.url() + "/api/v1/namespaces/shop/pods/web: 404: \"shop/web\" not found")));
}

TEST_F(ApiClientTest, TellsRefusalsApart) {
  const std::string path = "/api/v1/namespaces/shop";
  api.set_namespace("shop");
  for (const auto& [status, code] : {std::pair{401, ErrorCode::kDenied},
                                     {403, ErrorCode::kDenied},
                                     {409, ErrorCode::kInvalid},
                                     {429, ErrorCode::kUnavailable},
                                     {500, ErrorCode::kUnavailable},
                                     {503, ErrorCode::kUnavailable}}) {
    api.fail_next("GET", path, status, 1, 7);
    const ApiRequest request{.path = path};
    const auto response = client.send(request);
    ASSERT_TRUE(response) << response.error().message();
    EXPECT_EQ(response->status, status);
    EXPECT_EQ(response->retry_after, seconds(7));
    const Error error = client.refusal(request, *response);
    EXPECT_EQ(error.code, code) << status;
    EXPECT_THAT(error.message(), AllOf(HasSubstr(std::to_string(status)), HasSubstr("made to fail")));
  }
  EXPECT_TRUE(get(path));
}

TEST_F(ApiClientTest, ReadsTheTokenForEachRequest) {
  api.set_namespace("shop");
  ASSERT_TRUE(get("/api/v1/namespaces/shop"));
  api.rotate_token("second", false);
  const auto refused = get("/api/v1/namespaces/shop");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("401"), HasSubstr("token")));
  api.rotate_token("third", true);
  EXPECT_TRUE(get("/api/v1/namespaces/shop"));
  EXPECT_EQ(api.asked("GET", "/").back().token, "third");
}

TEST_F(ApiClientTest, AMissingOrOddTokenIsNamedAndNothingIsSent) {
  ApiConfig no_token = config();
  no_token.token_file = folder.path() + "/nowhere";
  EXPECT_THAT(ApiClient(no_token).ask({.path = "/api/v1/pods"}).error().message(), HasSubstr("/nowhere"));
  no_token.token_file = folder.write("odd", "one\r\nX-Other: two");
  EXPECT_THAT(ApiClient(no_token).ask({.path = "/api/v1/pods"}).error().message(), HasSubstr("expected one line"));
  EXPECT_TRUE(api.asked("GET", "/").empty());
}

TEST_F(ApiClientTest, TakesNoServerThatDoesNotProveItself) {
  const test::ScratchDir elsewhere;
  const FakeApi other(elsewhere.path());
  ApiConfig wrong = config();
  wrong.root_file = other.root_file();
  const auto refused = ApiClient(wrong).ask({.path = "/api/v1/pods"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kDenied) << refused.error().message();
  EXPECT_THAT(refused.error().message(), HasSubstr("--kube-root"));
  wrong = config();
  wrong.server.replace(wrong.server.find("127.0.0.1"), 9, "localhost");
  EXPECT_EQ(ApiClient(wrong).ask({.path = "/api/v1/pods"}).error().code, ErrorCode::kDenied) << "another name";
  wrong.root_file = folder.path() + "/nowhere";
  EXPECT_FALSE(ApiClient(wrong).ask({.path = "/api/v1/pods"}));
  EXPECT_TRUE(api.asked("GET", "/").empty()) << "the token went to nobody";
}

TEST_F(ApiClientTest, NobodyThereIsSaidSo) {
  api.stop();
  const auto refused = get("/api/v1/pods");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr(api.url()), HasSubstr("is the API server up")));
}

TEST_F(ApiClientTest, PatchesTheStatusOfAPod) {
  api.set_pod("shop", "web", "node1");
  const Json patch = {{"metadata", {{"uid", "uid-shop/web"}, {"annotations", {{kube::escape("a"), "b"}}}}}};
  ApiRequest request{.method = "PATCH",
                     .path = "/api/v1/namespaces/shop/pods/web/status",
                     .body = patch.dump(),
                     .content_type = "application/strategic-merge-patch+json"};
  ASSERT_TRUE(ask(request));
  EXPECT_EQ(api.annotation("shop", "web", "a"), "b");
  EXPECT_EQ(api.asked("PATCH", "/").back().body, patch.dump());
}

TEST_F(ApiClientTest, StopsAtOnceInTheMiddleOfAStream) {
  api.set_namespace("shop");
  std::vector<std::string> lines;
  ApiRequest request{.path = "/api/v1/namespaces?watch=1&resourceVersion=0", .timeout = seconds(60)};
  request.on_line = [&](std::string_view line) {
    lines.emplace_back(line);
    return true;
  };
  Result<ApiResponse> ended;
  std::thread asks([&] { ended = client.send(request); });
  ASSERT_TRUE(eventually(kPatience, [this] { return api.streams() == 1; }));
  const auto before = std::chrono::steady_clock::now();
  client.stop();
  asks.join();
  EXPECT_LT(std::chrono::steady_clock::now() - before, seconds(1));
  ASSERT_FALSE(ended);
  EXPECT_THAT(ended.error().message(), HasSubstr("stops"));
  EXPECT_FALSE(get("/api/v1/namespaces/shop")) << "and for good";
}

TEST_F(ApiClientTest, ALineThatDoesNotEndIsTooLong) {
  ApiRequest request{.path = "/api/v1/namespaces?watch=1&resourceVersion=0", .timeout = seconds(60)};
  request.on_line = [](std::string_view) { return true; };
  Result<ApiResponse> ended;
  std::thread asks([&] { ended = client.send(request); });
  ASSERT_TRUE(eventually(kPatience, [this] { return api.streams() == 1; }));
  api.send_line(std::string(ApiClient::kMaxLine + 1, 'x'));
  asks.join();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, ErrorCode::kOverLimit) << ended.error().message();
}

TEST_F(ApiClientTest, ARequestThatNobodyAnswersTimesOut) {
  // A watch is an answer that does not end.
  const auto ended =
      client.send({.path = "/api/v1/namespaces?watch=1&resourceVersion=0", .timeout = milliseconds(300)});
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, ErrorCode::kTimeout) << ended.error().message();
}

TEST(ApiConfig, IsFoundAsAPodFindsIt) {
  ::setenv("KUBERNETES_SERVICE_HOST", "fd96::1", 1);
  ::setenv("KUBERNETES_SERVICE_PORT", "6443", 1);
  const auto found = complete({});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->server, "https://[fd96::1]:6443");
  EXPECT_EQ(found->token_file, "/var/run/secrets/kubernetes.io/serviceaccount/token");
  EXPECT_EQ(found->root_file, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt");
  const auto given = complete({.server = "https://api.example:6443/", .token_file = "/t", .root_file = "/r"});
  ASSERT_TRUE(given);
  EXPECT_EQ(given->server, "https://api.example:6443");
  EXPECT_EQ(given->token_file, "/t");
  for (const char* bad : {"http://127.0.0.1:8080", "api.example", "https://"}) {
    EXPECT_EQ(complete({.server = bad, .token_file = "", .root_file = ""}).error().code, ErrorCode::kInvalid) << bad;
  }
  ::unsetenv("KUBERNETES_SERVICE_HOST");
  EXPECT_THAT(complete({}).error().message(), HasSubstr("--kube-api"));
}

TEST(Escape, LeavesNothingThatAUrlCouldMisunderstand) {
  EXPECT_EQ(escape("web-0.a_b~"), "web-0.a_b~");
  EXPECT_EQ(escape("../x?y=z&\xff"), "..%2Fx%3Fy%3Dz%26%FF");
}

}  // namespace
}  // namespace weft::kube
