// SPDX-License-Identifier: Apache-2.0
/// A workload goes, and another one gets its addresses.

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "test/netns/attack_fixture.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;

constexpr milliseconds kDeadline{10'000};
constexpr int kNumber = 77;
const std::vector<std::string> kImpatient{"--connect-timeout", "1", "--timeout", "1"};

class ReuseAttack : public SharedAttackTest<ReuseAttack> {
 protected:
  Pod& add(const char* namespace_name, const char* name, bool enrolled) {
    PodOptions options;
    options.service_account = name;
    options.enrolled = enrolled;
    options.number = kNumber;
    Pod& pod = mesh().add_pod(1, namespace_name, name, options);
    pod.serve();
    return pod;
  }
  /// A map of the node, as bpftool shows it.
  json entries(const char* map) {
    return json::parse(must_run({"bpftool", "-j", "map", "dump", "pinned", node(1).bpf_root() + "/maps/" + map}));
  }
  /// Whether the agent of a node logs a line with all of these words, from there on.
  bool logged(int at, std::size_t from, const std::vector<std::string>& words) {
    return eventually(kDeadline, [&] { return !log_lines(node(at).log(), from, words).empty(); });
  }
};

TEST_F(ReuseAttack, ANewWorkloadInheritsNothing) {
  // The former may call the victim, by its identity, and nobody else may; into the former itself comes no plaintext.
  Pod& former = add("old", "former", true);
  const std::string former_identity = former.identity(), former_interface = former.host_interface();
  json allow = deny_policy("bank", "former-only", principal(former));
  allow["action"] = "Allow";
  mesh().set_policy(allow);
  mesh().set_policy(deny_policy("old", "mesh-only", plaintext()));
  std::vector<Process> held;
  for (const bool v6 : {false, true}) {
    EXPECT_FALSE(neighbour().get(of(victim(), v6), kImpatient).ok());
    EXPECT_FALSE(outside().get(of(former, v6), kImpatient).ok());
    held.push_back(former.hold(of(victim(), v6)));
    held.push_back(victim().hold(of(former, v6)));
  }
  const auto former_entries = entries("interfaces");
  std::size_t before = node(2).log().size();
  mesh().remove_pod(former);
  for (auto& one : held) EXPECT_TRUE(one.wait(kDeadline).has_value()) << "it lives on: " << one.out();

  Pod& heir = add("new", "heir", true);
  const auto heir_entries = entries("interfaces");
  EXPECT_EQ(heir_entries.size(), former_entries.size()) << heir_entries.dump();
  EXPECT_NE(heir_entries, former_entries);
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    EXPECT_FALSE(heir.get(of(victim(), v6), kImpatient).ok()) << "it has the former's permission";
    EXPECT_TRUE(logged(2, before, {"src.identity=" + heir.identity(), "response_flags=DENY"})) << node(2).log();
    EXPECT_TRUE(outside().get(of(heir, v6)).ok()) << "it has the former's policy";
    const std::size_t now = node(2).log().size();
    EXPECT_NE(victim().get(of(heir, v6)).out.find("server=heir"), std::string::npos);
    EXPECT_TRUE(logged(2, now, {"connection complete", "dst.identity=" + heir.identity()})) << node(2).log();
  }
  EXPECT_TRUE(log_lines(node(1).log(), 0, {"src.identity=" + former_identity, "dst.workload=heir"}).empty());
  mesh().remove_policy("bank", "former-only");
  mesh().remove_policy("old", "mesh-only");
  mesh().remove_pod(heir);
}

// The control plane is late: for it the former is still there. What has its addresses now cannot prove to be it.
TEST_F(ReuseAttack, AnAddressThatTheMeshBelievesToBeTheFormers) {
  Pod& former = add("old", "former", true);
  std::string marker = new_marker();
  for (const bool v6 : {false, true}) EXPECT_TRUE(attacker().get(of(former, v6), {"--marker", marker}).ok());
  const Finished removed = mesh().chain("del", former);
  ASSERT_TRUE(removed.ok()) << removed.out << removed.err;
  Pod& heir = add("new", "heir", false);
  const Process tunnel_squatter = squat(heir, 15008);
  const Capture heir_veth(node(1).netns(), heir.host_interface());
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    // From outside the mesh it is a pod like any other.
    EXPECT_NE(outside().get(of(heir, v6)).out.find("server=heir"), std::string::npos);
    EXPECT_NE(outside().get(of(heir, v6, 15008)).out.find("server=squatter"), std::string::npos);
    for (const Pod* client : {&attacker(), &victim()}) {
      const std::size_t before = node(client->node().index()).log().size();
      const Finished got = client->get(of(heir, v6), {"--marker", marker, "--connect-timeout", "2", "--timeout", "3"});
      EXPECT_FALSE(got.ok()) << got.out;
      EXPECT_TRUE(logged(client->node().index(), before, {"response_flags=TLS_FAILURE"})) << node(1).log();
    }
  }
  EXPECT_FALSE(heir_veth.contains(marker));
  EXPECT_EQ(tunnel_squatter.out().find(marker), std::string::npos);
  EXPECT_GE(connections_of(tunnel_squatter), 4U) << "the tunnels did not go there: this shows nothing";
  mesh().remove_pod(heir);
  mesh().remove_pod(former);
}

}  // namespace
}  // namespace weft::test
