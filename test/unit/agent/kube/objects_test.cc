// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/objects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/kube/directory.h"

namespace weft::kube {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

Json pod_json(const char* name, const char* uid, const char* version) {
  return {{"metadata", {{"name", name}, {"namespace", "shop"}, {"uid", uid}, {"resourceVersion", version}}}};
}

TEST(Objects, APodIsWhatEnrolmentNeeds) {
  Json json = pod_json("web", "u1", "7");
  json["metadata"]["labels"] = {{"app", "web"}, {"istio.io/dataplane-mode", "ambient"}};
  json["metadata"]["annotations"] = {{"ambient.istio.io/redirection", "enabled"},
                                     {"sidecar.istio.io/status", "{}"},
                                     {"kubernetes.io/config.hash", "h1"},
                                     {"ambient.istio.io/dns-capture", "true"},
                                     {"example.com/other", "x"}};
  json["spec"] = {{"hostNetwork", true}, {"nodeName", "n"}};
  json["status"] = {{"phase", "Running"}, {"podIP", "10.0.0.1"}};
  const auto pod = parse_pod(json);
  ASSERT_TRUE(pod) << pod.error().message();
  EXPECT_EQ(pod->key(), "shop/web");
  EXPECT_EQ(pod->meta.uid, "u1");
  EXPECT_EQ(pod->meta.version, "7");
  EXPECT_EQ(pod->meta.dataplane_mode, "ambient");
  EXPECT_TRUE(pod->redirected() && pod->sidecar && pod->host_network && pod->has_address);
  EXPECT_FALSE(pod->finished());
  EXPECT_THAT(pod->annotations, ElementsAre(Pair("ambient.istio.io/dns-capture", "true")));
  EXPECT_TRUE(pod->is("u1") && pod->is("h1") && pod->is(""));
  EXPECT_FALSE(pod->is("u2"));
}

TEST(Objects, WhatIsOddIsNotThere) {
  Json json = pod_json("web", "u1", "7");
  json["metadata"]["labels"] = {{"istio.io/dataplane-mode", 1}};
  json["metadata"]["annotations"] = "none";
  json["spec"] = {{"hostNetwork", "yes"}};
  json["status"] = Json::array();
  const auto pod = parse_pod(json);
  ASSERT_TRUE(pod) << pod.error().message();
  EXPECT_EQ(pod->meta.dataplane_mode, std::nullopt);
  EXPECT_FALSE(pod->redirected() || pod->sidecar || pod->host_network || pod->has_address);
}

TEST(Objects, AnObjectWithoutANameIsRefused) {
  EXPECT_THAT(parse_pod(Json::object()).error().message(), HasSubstr("metadata is missing"));
  EXPECT_THAT(parse_pod({{"metadata", {{"name", "web"}}}}).error().message(), HasSubstr("metadata.namespace"));
  EXPECT_THAT(parse_namespace({{"metadata", Json::object()}}).error().message(), HasSubstr("metadata.name"));
  EXPECT_FALSE(parse_namespace(Json("shop")));
}

TEST(Objects, VersionsAreOlderByTheirNumber) {
  EXPECT_TRUE(is_older("9", "10"));
  EXPECT_TRUE(is_older("10", "11"));
  EXPECT_FALSE(is_older("11", "11"));
  EXPECT_FALSE(is_older("12", "11"));
  EXPECT_FALSE(is_older("a", "11"));
  EXPECT_FALSE(is_older("", "11"));
}

TEST(Directory, KeepsTheNewestOfAnObject) {
  int changes = 0;
  Directory directory({}, [&changes] { ++changes; });
  Pod asked = *parse_pod(pod_json("web", "u1", "10"));
  asked.meta.dataplane_mode = "ambient";
  directory.put(asked);
  EXPECT_EQ(changes, 1);
  // The watch comes to what is older.
  directory.pods_receiver().changed(pod_json("web", "u1", "9"));
  EXPECT_EQ(changes, 1);
  EXPECT_EQ(directory.pod("shop", "web")->meta.version, "10");
  // Another pod of that name, and the late news of the end of the first.
  directory.pods_receiver().changed(pod_json("web", "u2", "11"));
  directory.pods_receiver().deleted(pod_json("web", "u1", "12"));
  EXPECT_EQ(directory.pod("shop", "web")->meta.uid, "u2");
  directory.pods_receiver().deleted(pod_json("web", "u2", "13"));
  EXPECT_FALSE(directory.pod("shop", "web"));
}

TEST(Directory, AListReplacesAllOnceItIsWhole) {
  Directory directory({"kube-system"}, [] {});
  directory.put(*parse_pod(pod_json("old", "u1", "1")));
  WatchReceiver& pods = directory.pods_receiver();
  pods.list_begins();
  pods.listed(pod_json("lost", "u0", "2"));
  // It broke off, and is begun again.
  pods.list_begins();
  pods.listed(pod_json("new", "u2", "2"));
  pods.listed(Json("no pod"));
  EXPECT_TRUE(directory.pod("shop", "old"));
  pods.list_ends();
  EXPECT_FALSE(directory.pod("shop", "old"));
  ASSERT_EQ(directory.pods().size(), 1U);
  EXPECT_EQ(directory.pods().front().meta.name, "new");
  EXPECT_FALSE(directory.ruling(directory.pods().front())) << "its namespace is not known";
  directory.put(Namespace{{.name = "shop", .uid = "", .version = "", .dataplane_mode = "ambient"}});
  EXPECT_TRUE(directory.ruling(directory.pods().front())->enrolled);
}

}  // namespace
}  // namespace weft::kube
