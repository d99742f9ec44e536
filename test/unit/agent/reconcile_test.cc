// SPDX-License-Identifier: Apache-2.0
/// What reconciliation reads: libcni's cache and the network configuration lists.
#include <gmock/gmock.h>

#include <fstream>

#include "agent/reconcile/cni_cache.h"
#include "agent/reconcile/cni_networks.h"
#include "test/unit/agent/fakes.h"

namespace weft::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

/// As libcni 1.3 writes it for containerd.
constexpr const char* kEntry =
    R"({"kind":"cniCacheV1","containerId":"c0ffee","config":"e30=","ifName":"eth0","networkName":"pods",)"
    R"("netns":"/run/netns/cni-1","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","web"],)"
    R"(["K8S_POD_UID","7b"]],"capabilityArgs":{"io.kubernetes.cri.pod-annotations":)"
    R"({"istio.io/reroute-virtual-interfaces":"vm0","a":"b"}},)"
    R"("result":{"cniVersion":"1.0.0","interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/cni-old"}],)"
    R"("ips":[{"interface":1,"address":"10.0.0.2/24"}]}})";

cni::Json entry() { return cni::Json::parse(kEntry); }

TEST(CniCache, AnEntryTellsThePodItsNetnsAndItsResult) {
  const auto cached = parse_cached(kEntry);
  ASSERT_TRUE(cached) << cached.error().message();
  EXPECT_EQ(cached->network, "pods");
  EXPECT_EQ(cached->key, (cni::AttachmentKey{"c0ffee", "eth0"}));
  EXPECT_EQ(cached->pod.pod_namespace, "shop");
  EXPECT_EQ(cached->pod.name, "web");
  EXPECT_EQ(cached->pod.uid, "7b");
  EXPECT_EQ(cached->netns, "/run/netns/cni-1");
  EXPECT_EQ(cached->result["ips"][0]["address"], "10.0.0.2/24");
  EXPECT_THAT(cached->annotations, ElementsAre(Pair("istio.io/reroute-virtual-interfaces", "vm0")));
}

TEST(CniCache, OlderEntriesHaveTheNetnsInTheirResult) {
  cni::Json old = entry();
  old.erase("netns");
  EXPECT_EQ(parse_cached(cni::to_text(old))->netns, "/run/netns/cni-old");
  old["result"].erase("interfaces");
  EXPECT_EQ(parse_cached(cni::to_text(old))->netns, "");
}

TEST(CniCache, WhatIsNoEntryIsNamed) {
  const auto complaint = [](const cni::Json& document) {
    const auto parsed = parse_cached(cni::to_text(document));
    return parsed ? std::string("taken") : parsed.error().message();
  };
  for (const auto& [key, value, text] : {std::tuple{"kind", "v9", "kind is not cniCacheV1"},
                                         {"networkName", "", "networkName is missing"},
                                         {"containerId", "../x", "containerId is missing or malformed"},
                                         {"ifName", "a/b", "ifName is missing or malformed"},
                                         {"result", "none", "result is missing or no object"}}) {
    cni::Json bad = entry();
    bad[key] = value;
    EXPECT_THAT(complaint(bad), HasSubstr(text));
  }
  EXPECT_FALSE(parse_cached("{"));
  cni::Json odd = entry();
  odd["cniArgs"] = {{"K8S_POD_NAME", 7}};
  odd["capabilityArgs"] = "none";
  EXPECT_EQ(parse_cached(cni::to_text(odd))->pod.name, "");
}

TEST(CniCache, AFolderIsReadWholeAndWhatIsBadIsTold) {
  const test::TemporaryDirectory folder;
  std::ofstream(folder.path() + "/pods-c0ffee-eth0") << kEntry;
  std::ofstream(folder.path() + "/pods-bad-eth0") << "{";
  std::filesystem::create_directory(folder.path() + "/a-folder");
  const auto cache = read_cni_cache(folder.path());
  ASSERT_TRUE(cache) << cache.error().message();
  ASSERT_EQ(cache->attachments.size(), 1U);
  EXPECT_GT(cache->attachments[0].written_ns, 0);
  EXPECT_THAT(cache->problems, ElementsAre(HasSubstr("pods-bad-eth0")));
  EXPECT_THAT(read_cni_cache(folder.path() + "/none")->attachments, IsEmpty());
}

TEST(CniNetworks, ThoseWithWeftInTheirListsCount) {
  const test::TemporaryDirectory folder;
  const auto write = [&](const char* name, const char* text) { std::ofstream(folder.path() + "/" + name) << text; };
  write("10-main.conflist", R"({"cniVersion":"1.0.0","name":"main","plugins":[{"type":"ptp"},)"
                            R"({"type":"weft-cni","excludeNamespaces":["infra"],"failurePolicy":"open"}]})");
  write("20-other.conflist", R"({"cniVersion":"1.0.0","name":"other","plugins":[{"type":"ptp"}]})");
  write("30-bad.conflist", "{");
  write("40-odd.conflist", R"({"cniVersion":"1.0.0","name":"odd","plugins":{}})");
  write("10-main.conflist.bak", R"({"cniVersion":"1.0.0","name":"bak","plugins":[{"type":"weft-cni"}]})");
  const auto networks = read_cni_networks(folder.path());
  ASSERT_TRUE(networks) << networks.error().message();
  ASSERT_EQ(networks->size(), 1U);
  EXPECT_TRUE(networks->at("main").excludes("infra"));
  EXPECT_FALSE(networks->at("main").excludes("kube-system"));
  EXPECT_THAT(*read_cni_networks(folder.path() + "/none"), IsEmpty());
}

}  // namespace
}  // namespace weft::agent
