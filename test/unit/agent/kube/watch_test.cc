// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/watch.h"

#include <set>

#include "agent/kube/directory.h"
#include "test/unit/agent/kube/kube_fixture.h"

namespace weft::kube {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class WatchTest : public KubeTest {
 protected:
  WatchTest() {
    api.set_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
    api.set_pod("shop", "web", "node1");
    api.set_pod("shop", "elsewhere", "node2");
  }
  void start() {
    watch.start();
    ASSERT_TRUE(eventually(kPatience, [this] { return api.streams() == 1; })) << watch.status().error;
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& pod : directory.pods()) all.push_back(pod.meta.name);
    return all;
  }
  [[nodiscard]] bool become(const std::vector<std::string>& wanted) {
    return eventually(kPatience, [&] { return names() == wanted; });
  }
  [[nodiscard]] std::size_t lists() const { return api.asked("GET", "/api/v1/pods?fieldSelector").size() - watches(); }
  [[nodiscard]] std::size_t watches() const {
    return api.asked("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode1&watch=1").size();
  }

  Directory directory{{}, [] {}};
  Watch watch{config(),
              {.name = "pods", .path = "/api/v1/pods", .selector = "fieldSelector=spec.nodeName%3Dnode1"},
              directory.pods_receiver(),
              {.first_retry = milliseconds(10), .longest_retry = milliseconds(100)}};
};

TEST_F(WatchTest, ListsAndFollows) {
  start();
  EXPECT_THAT(names(), ElementsAre("web"));
  EXPECT_TRUE(watch.status().synced && watch.status().following);
  api.set_pod("shop", "api", "node1");
  EXPECT_TRUE(become({"api", "web"}));
  api.set_pod("shop", "web", "node1", {{"metadata", {{"labels", {{"istio.io/dataplane-mode", "none"}}}}}});
  EXPECT_TRUE(eventually(kPatience, [this] { return directory.pod("shop", "web")->meta.dataplane_mode == "none"; }));
  api.delete_pod("shop", "web");
  EXPECT_TRUE(become({"api"}));
  EXPECT_EQ(lists(), 1U);
  EXPECT_EQ(watches(), 1U);
  EXPECT_THAT(watch.status().error, IsEmpty());
}

TEST_F(WatchTest, ListsInPages) {
  for (int i = 0; i < 7; ++i) api.set_pod("shop", "pod" + std::to_string(i), "node1");
  api.set_page(3);
  start();
  EXPECT_THAT(names(), SizeIs(8));
  EXPECT_EQ(lists(), 3U);
}

TEST_F(WatchTest, ResumesWhereAStreamWasCut) {
  start();
  api.set_pod("shop", "api", "node1");
  ASSERT_TRUE(become({"api", "web"}));
  const std::string version = directory.pod("shop", "api")->meta.version;
  api.cut_streams();
  ASSERT_TRUE(eventually(kPatience, [this] { return api.streams() == 2; }));
  EXPECT_THAT(api.asked("GET", "/api/v1/pods").back().query, HasSubstr("resourceVersion=" + version));
  api.delete_pod("shop", "web");
  EXPECT_TRUE(become({"api"}));
  EXPECT_EQ(lists(), 1U) << "what came meanwhile was told by the watch";
}

TEST_F(WatchTest, ABookmarkIsWhereItResumes) {
  start();
  // Changes that are not this node's, and are forgotten then.
  for (int i = 0; i < 3; ++i) api.set_pod("shop", "elsewhere", "node2");
  api.compact();
  api.send_bookmarks();
  ASSERT_TRUE(eventually(kPatience, [this] { return watch.status().events >= 1; }));
  api.cut_streams();
  ASSERT_TRUE(eventually(kPatience, [this] { return api.streams() == 2; }));
  EXPECT_EQ(lists(), 1U);
}

TEST_F(WatchTest, ListsAgainWhereItsPlaceIsForgotten) {
  start();
  api.stop();
  api.set_pod("shop", "api", "node1");
  api.delete_pod("shop", "web");
  api.compact();
  api.start();
  EXPECT_TRUE(become({"api"})) << watch.status().error;
  EXPECT_EQ(lists(), 2U);
}

TEST_F(WatchTest, ListsAgainOnAnErrorOrWhatIsNoEvent) {
  start();
  std::size_t expected = 1;
  for (const char* line : {R"({"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}})",
                           R"({"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is away"}})",
                           R"({"type":"ADDED"})", "this is no JSON", R"({"type":"ADDED","object":)"}) {
    api.send_line(line);
    ++expected;
    ASSERT_TRUE(eventually(kPatience, [&] { return lists() == expected && api.streams() == expected; })) << line;
  }
  api.delete_pod("shop", "web");
  EXPECT_TRUE(become({}));
}

TEST_F(WatchTest, AHugeLineIsNotKeptAndEndsInAList) {
  start();
  api.send_line(R"({"type":"ADDED","object":")" + std::string(ApiClient::kMaxLine, 'x') + "\"}");
  ASSERT_TRUE(eventually(kPatience, [this] { return lists() == 2 && api.streams() == 2; })) << watch.status().error;
  EXPECT_THAT(names(), ElementsAre("web"));
}

TEST_F(WatchTest, AnObjectThatIsNoneIsLeftOut) {
  start();
  api.send_line(R"({"type":"ADDED","object":{"metadata":{}}})");
  api.send_line(R"({"type":"PAINTED","object":{"metadata":{"name":"x","namespace":"shop"}}})");
  api.set_pod("shop", "api", "node1");
  EXPECT_TRUE(become({"api", "web"}));
  EXPECT_EQ(lists(), 1U);
}

TEST_F(WatchTest, TakesTheNewTokenAfterItWasRefused) {
  api.rotate_token("second", false);
  watch.start();
  ASSERT_TRUE(eventually(kPatience, [this] { return watch.status().errors >= 3; }));
  EXPECT_THAT(watch.status().error, HasSubstr("401"));
  EXPECT_FALSE(watch.status().synced);
  api.rotate_token("second", true);
  EXPECT_TRUE(become({"web"}));
  ASSERT_TRUE(eventually(kPatience, [this] { return watch.status().error.empty(); }));
}

TEST_F(WatchTest, WaitsLongerEachTimeAndAsLongAsItIsAsked) {
  api.fail_next("GET", "/api/v1/pods", 500, 4);
  auto before = std::chrono::steady_clock::now();
  start();
  // Half of 10 + 20 + 40 + 80 ms at least.
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(75));
  EXPECT_EQ(watch.status().errors, 4U);
  api.fail_next("GET", "/api/v1/pods", 429, 1, 1);
  before = std::chrono::steady_clock::now();
  api.cut_streams();
  ASSERT_TRUE(eventually(kPatience, [this] { return api.streams() == 2; }));
  EXPECT_GE(std::chrono::steady_clock::now() - before, seconds(1));
  EXPECT_EQ(lists(), 5U) << "it goes on where it was";
}

TEST_F(WatchTest, StopsAtOnceWhateverItWaitsFor) {
  const auto stop_in_time = [](Watch& stopped) {
    const auto before = std::chrono::steady_clock::now();
    stopped.stop();
    EXPECT_LT(std::chrono::steady_clock::now() - before, seconds(1));
  };
  start();
  stop_in_time(watch);
  ApiConfig nobody = config();
  api.stop();
  Watch waiting(nobody, {.name = "pods", .path = "/api/v1/pods"}, directory.pods_receiver(),
                {.first_retry = seconds(60), .longest_retry = seconds(60)});
  waiting.start();
  ASSERT_TRUE(eventually(kPatience, [&] { return waiting.status().errors == 1; }));
  stop_in_time(waiting);
}

TEST_F(WatchTest, NamespacesAreAskedForTheirMetadataAlone) {
  Watch namespaces(config(),
                   {.name = "namespaces", .path = "/api/v1/namespaces", .selector = {}, .metadata_only = true},
                   directory.namespaces_receiver());
  namespaces.start();
  ASSERT_TRUE(eventually(kPatience, [&] { return directory.namespace_named("shop").has_value(); }));
  EXPECT_EQ(directory.namespace_named("shop")->meta.dataplane_mode, "ambient");
  ASSERT_TRUE(eventually(kPatience, [this] { return api.streams() == 1; }));
  api.set_namespace("shop");
  EXPECT_TRUE(
      eventually(kPatience, [&] { return !directory.namespace_named("shop")->meta.dataplane_mode.has_value(); }));
}

}  // namespace
}  // namespace weft::kube
