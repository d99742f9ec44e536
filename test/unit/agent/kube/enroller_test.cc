// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/enroller.h"

#include <atomic>

#include "test/unit/agent/kube/kube_fixture.h"

namespace weft::kube {
namespace {

using agent::Selection;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Kind = Selection::Kind;

/// The agent is a list of pods that are wired.
class EnrollerTest : public KubeTest {
 protected:
  EnrollerTest() {
    api.set_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
    api.set_pod("shop", "web", "node1");
  }
  EnrollerConfig quick() {
    EnrollerConfig made;
    made.api = config();
    made.node = "node1";
    made.watch = {.first_retry = milliseconds(10), .longest_retry = milliseconds(50)};
    made.admission_timeout = milliseconds(1'000);
    made.first_retry = milliseconds(10);
    made.longest_retry = milliseconds(50);
    made.place_interval = milliseconds(5);
    made.look_interval = milliseconds(50);
    made.grace = milliseconds(0);
    return made;
  }
  void start() {
    enroller.start({.synced = [this] { synced = true; },
                    .reselect = [this] { ++reselected; },
                    .wired =
                        [this] {
                          const std::lock_guard lock(mutex);
                          return wired;
                        },
                    .not_in_place = [this](const WiredState&) -> std::string { return in_place ? "" : "no programs"; },
                    .not_wired = [](const std::string&, const std::string&) { return std::string("no interface"); }});
    ASSERT_TRUE(eventually(kPatience, [this] { return synced.load(); })) << enroller.not_synced();
  }
  void wire(const std::string& name, bool captured, const std::string& problem = "") {
    const std::lock_guard lock(mutex);
    std::erase_if(wired, [&](const WiredState& state) { return state.name == name; });
    wired.push_back(
        {.namespace_name = "shop", .name = name, .uid = "uid-shop/" + name, .captured = captured, .problem = problem});
  }
  [[nodiscard]] std::string annotation(const std::string& pod) const {
    return api.annotation("shop", pod, kRedirection);
  }
  [[nodiscard]] Kind selected(const std::string& pod) const {
    return enroller.select("shop", pod, "uid-shop/" + pod).kind;
  }
  static cni::Request add_of(const std::string& namespace_name, const std::string& pod, const std::string& uid) {
    cni::Request request;
    request.pod_namespace = namespace_name;
    request.pod_name = pod;
    request.pod_uid = uid;
    return request;
  }

  std::mutex mutex;
  std::vector<WiredState> wired;
  std::atomic<bool> synced{false}, in_place{true};
  std::atomic<int> reselected{0};
  Enroller enroller{quick()};
};

TEST_F(EnrollerTest, SaysWhatTheApiSays) {
  EXPECT_EQ(selected("web"), Kind::kUnsaid);
  EXPECT_THAT(enroller.not_synced(), AllOf(HasSubstr("pods"), HasSubstr("namespaces")));
  EXPECT_EQ(enroller.select("kube-system", "dns", "").kind, Kind::kNotSelected) << "nobody need be asked";
  start();
  EXPECT_EQ(selected("web"), Kind::kSelected);
  EXPECT_EQ(enroller.select("shop", "web", "another").kind, Kind::kUnsaid);
  api.set_pod("shop", "web", "node1", {{"metadata", {{"labels", {{"istio.io/dataplane-mode", "none"}}}}}});
  EXPECT_TRUE(eventually(kPatience, [this] { return selected("web") == Kind::kNotSelected; }));
  EXPECT_GE(reselected, 1);
}

TEST_F(EnrollerTest, TheAnnotationComesAfterCaptureAndItsPrograms) {
  in_place = false;
  start();
  wire("web", false, "no listeners");
  ASSERT_TRUE(eventually(kPatience, [this] {
    const auto found = enroller.uncaptured();
    return found.size() == 1 && found.front().reason == "no listeners";
  }));
  wire("web", true);
  ASSERT_TRUE(eventually(kPatience, [this] { return enroller.counts().annotations_due == 1; }));
  EXPECT_THAT(api.asked("PATCH", "/"), IsEmpty());
  in_place = true;
  EXPECT_TRUE(eventually(kPatience, [this] { return annotation("web") == "enabled"; }));
  EXPECT_TRUE(eventually(kPatience, [this] { return enroller.uncaptured().empty(); }));
}

TEST_F(EnrollerTest, APodLeavesOnceItsAnnotationIsAway) {
  wire("web", true);
  start();
  ASSERT_TRUE(eventually(kPatience, [this] { return annotation("web") == "enabled"; }));
  api.fail_next("PATCH", "/api/v1/namespaces/shop/pods/web/status", 503, 3);
  api.set_namespace("shop");
  ASSERT_TRUE(eventually(kPatience, [this] { return enroller.counts().annotation_errors >= 1; }));
  EXPECT_EQ(selected("web"), Kind::kLeaving);
  EXPECT_TRUE(eventually(kPatience, [this] { return selected("web") == Kind::kNotSelected; }));
  EXPECT_EQ(annotation("web"), "");
  EXPECT_EQ(enroller.counts().annotation_errors, 3U);
}

TEST_F(EnrollerTest, WhatIsNotWiredHereKeepsItsAnnotation) {
  api.set_pod("shop", "web", "node1", {{"metadata", {{"annotations", {{kRedirection, "enabled"}}}}}});
  api.set_namespace("shop");
  start();
  api.set_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
  ASSERT_TRUE(eventually(kPatience, [this] { return enroller.uncaptured().size() == 1; }));
  EXPECT_EQ(enroller.uncaptured().front().reason, "no interface");
  ASSERT_TRUE(eventually(kPatience, [this] { return !api.events().empty(); }));
  EXPECT_THAT(api.events().front().dump(), HasSubstr("no interface"));
  EXPECT_THAT(api.asked("PATCH", "/"), IsEmpty());
}

TEST_F(EnrollerTest, AnEventThatWasNotTakenIsCountedAndOneIsEnough) {
  api.fail_next("POST", "/api/v1/namespaces/shop/events", 403, 1);
  start();
  ASSERT_TRUE(eventually(kPatience, [this] { return enroller.counts().event_errors == 1; }));
  EXPECT_THAT(api.events(), IsEmpty());
  api.set_pod("shop", "other", "node1");
  ASSERT_TRUE(eventually(kPatience, [this] { return api.events().size() == 1; }));
  const auto looked = enroller.counts();
  EXPECT_EQ(looked.events_written, 1U);
}

TEST_F(EnrollerTest, APodThatIsGoneIsForgotten) {
  start();
  api.set_silent(true);
  api.delete_pod("shop", "web");
  wire("web", true);
  // Nobody has told that it is gone but the answer to the patch.
  EXPECT_TRUE(eventually(kPatience, [this] { return selected("web") == Kind::kUnsaid; }));
  EXPECT_THAT(api.asked("PATCH", "/"), SizeIs(1));
}

TEST_F(EnrollerTest, AdmitsByWhatIsKnownOrAsks) {
  start();
  auto known = add_of("shop", "web", "uid-shop/web");
  ASSERT_TRUE(enroller.admit(known));
  EXPECT_EQ(enroller.counts().admissions_asked, 0U);
  api.set_silent(true);
  api.set_namespace("new", {{"istio.io/dataplane-mode", "ambient"}});
  api.set_pod("new", "api", "node1",
              {{"metadata", {{"annotations", {{"ambient.istio.io/dns-capture", "true"}, {"other", "x"}}}}}});
  auto fresh = add_of("new", "api", "uid-new/api");
  fresh.annotations = {{"ambient.istio.io/dns-capture", "false"}};
  const auto admitted = enroller.admit(fresh);
  ASSERT_TRUE(admitted) << admitted.error().message();
  EXPECT_THAT(fresh.annotations, ::testing::ElementsAre(::testing::Pair("ambient.istio.io/dns-capture", "true")));
  EXPECT_EQ(enroller.select("new", "api", "uid-new/api").kind, Kind::kSelected);
  EXPECT_EQ(enroller.counts().admissions_asked, 1U);
}

TEST_F(EnrollerTest, FailsClosedWhereTheApiDoesNotAnswer) {
  api.stop();
  auto request = add_of("shop", "web", "uid-shop/web");
  const auto refused = enroller.admit(request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("pod shop/web could be the mesh's"), HasSubstr(api.url())));
  auto excluded = add_of("kube-system", "dns", "u");
  EXPECT_TRUE(enroller.admit(excluded));
  EXPECT_EQ(enroller.counts().admissions_failed, 1U);
}

TEST_F(EnrollerTest, RefusesAPodThatTheApiDoesNotHaveOrHasOtherwise) {
  auto unknown = add_of("shop", "nobody", "u");
  EXPECT_THAT(enroller.admit(unknown).error().message(), HasSubstr("404"));
  auto before = add_of("shop", "web", "of-the-one-before");
  EXPECT_THAT(enroller.admit(before).error().message(), HasSubstr("the API's pod of that name has UID uid-shop/web"));
  // A static pod is known to its kubelet by another UID.
  api.set_pod("shop", "web", "node1", {{"metadata", {{"annotations", {{"kubernetes.io/config.hash", "static"}}}}}});
  auto fixed = add_of("shop", "web", "static");
  EXPECT_TRUE(enroller.admit(fixed));
}

}  // namespace
}  // namespace weft::kube
