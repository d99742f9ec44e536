// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/enrolment_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::kube {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Label = std::optional<std::string>;

struct Case {
  const char* name;
  Label of_pod, of_namespace;
  bool host_network, sidecar;
  const char* phase;
  const char* namespace_name;
  bool enrolled;
  const char* because;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class Rules : public ::testing::TestWithParam<Case> {};

TEST_P(Rules, SayWhoIsEnrolledAndWhy) {
  const Case& c = GetParam();
  Pod pod;
  pod.meta.name = "web";
  pod.meta.dataplane_mode = c.of_pod;
  pod.namespace_name = c.namespace_name;
  pod.host_network = c.host_network;
  pod.sidecar = c.sidecar;
  pod.phase = c.phase;
  Namespace of;
  of.meta.name = c.namespace_name;
  of.meta.dataplane_mode = c.of_namespace;
  const Ruling ruling = rule(pod, of, {"kube-system", "weft-system"});
  EXPECT_EQ(ruling.enrolled, c.enrolled);
  EXPECT_THAT(ruling.reason, HasSubstr(c.because));
}

const Label kNo = std::nullopt, kAmbient = "ambient", kNone = "none", kOther = "sidecar", kEmpty = "";

INSTANTIATE_TEST_SUITE_P(
    All, Rules,
    ::testing::Values(
        Case{"nothing", kNo, kNo, false, false, "Running", "shop", false, "neither the pod nor namespace shop"},
        Case{"namespace", kNo, kAmbient, false, false, "Running", "shop", true, "namespace shop has the label"},
        Case{"pod", kAmbient, kNo, false, false, "Running", "shop", true, "the pod has the label"},
        Case{"both", kAmbient, kAmbient, false, false, "Running", "shop", true, "the pod has the label"},
        Case{"pod_none", kNone, kAmbient, false, false, "Running", "shop", false, "the pod has the label"},
        Case{"pod_none_alone", kNone, kNo, false, false, "Running", "shop", false, "=none"},
        Case{"pod_other", kOther, kAmbient, false, false, "Running", "shop", true, "namespace shop"},
        Case{"pod_empty", kEmpty, kAmbient, false, false, "Running", "shop", true, "namespace shop"},
        Case{"pod_other_alone", kOther, kNo, false, false, "Running", "shop", false, "neither"},
        Case{"namespace_none", kNo, kNone, false, false, "Running", "shop", false, "neither"},
        Case{"namespace_none_pod", kAmbient, kNone, false, false, "Running", "shop", true, "the pod"},
        Case{"namespace_other", kNo, kOther, false, false, "Running", "shop", false, "neither"},
        Case{"pending", kNo, kAmbient, false, false, "Pending", "shop", true, "namespace"},
        Case{"without_phase", kAmbient, kNo, false, false, "", "shop", true, "the pod"},
        Case{"succeeded", kNo, kAmbient, false, false, "Succeeded", "shop", false, "finished (Succeeded)"},
        Case{"failed", kAmbient, kNo, false, false, "Failed", "shop", false, "finished (Failed)"},
        Case{"unknown_phase", kAmbient, kNo, false, false, "Unknown", "shop", true, "the pod"},
        Case{"host_network", kAmbient, kAmbient, true, false, "Running", "shop", false, "host's network"},
        Case{"sidecar", kNo, kAmbient, false, true, "Running", "shop", false, "sidecar"},
        Case{"sidecar_and_label", kAmbient, kNo, false, true, "Running", "shop", false, "sidecar.istio.io/status"},
        Case{"excluded", kNo, kAmbient, false, false, "Running", "kube-system", false, "kube-system is excluded"},
        Case{"excluded_and_label", kAmbient, kAmbient, false, false, "Running", "weft-system", false, "excluded"}),
    [](const auto& tested) { return tested.param.name; });

TEST(UnmetWishes, AreNamed) {
  Pod pod;
  EXPECT_THAT(unmet_wishes(pod), IsEmpty());
  pod.annotations = {{"ambient.istio.io/bypass-inbound-capture", "true"}, {"ambient.istio.io/dns-capture", "false"}};
  EXPECT_THAT(unmet_wishes(pod), IsEmpty());
  pod.annotations = {{"istio.io/reroute-virtual-interfaces", "br0"}, {"ambient.istio.io/dns-capture", "yes"}};
  EXPECT_THAT(unmet_wishes(pod),
              ElementsAre(HasSubstr("istio.io/reroute-virtual-interfaces: not supported"),
                          HasSubstr("ambient.istio.io/dns-capture: \"yes\": expected true or false")));
}

}  // namespace
}  // namespace weft::kube
