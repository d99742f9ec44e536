// SPDX-License-Identifier: Apache-2.0
/// What changes under running pods: policies, the configuration, enrolment, the agent, the pods themselves.

#include <csignal>
#include <filesystem>
#include <regex>

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using MeshPolicy = MeshTest;
using MeshLife = MeshTest;

constexpr milliseconds kSoon{10'000};
/// For connections that are expected to fail.
const std::vector<std::string> kImpatient{"--connect-timeout", "1", "--timeout", "1"};

TEST_F(MeshPolicy, ADenyPolicyCutsLiveConnectionsRefusesNewOnesAndHeals) {
  Process held = client->hold(db->v4());
  Process held6 = client->hold(db->v6());
  Process other = web1->hold(db->v4());
  mesh().set_policy(deny_policy("bank", "no-client", principal(*client)));
  for (Process* cut : {&held, &held6}) EXPECT_TRUE(cut->wait_for_output("ended how=reset", kSoon)) << cut->out();

  const std::size_t before = node2().log().size();
  EXPECT_FALSE(client->get(db->v4()).ok());
  EXPECT_FALSE(client->get(db->v6()).ok());
  const std::vector<std::string> denied{"policy=bank/no-client", "src.identity=" + client->identity()};
  EXPECT_TRUE(eventually(kSoon, [&] { return log_lines(node2().log(), before, denied).size() == 2; }));
  // One node's other pod is somebody else.
  EXPECT_THAT(web1->get(db->v4()), IsAnswer("db", web1->address_v4()));
  EXPECT_TRUE(other.running()) << other.out();

  mesh().remove_policy("bank", "no-client");
  EXPECT_THAT(client->get(db->v4()), IsAnswer("db", client->address_v4()));
  EXPECT_THAT(client->get(db->v6()), IsAnswer("db", client->address_v6()));
}

TEST_F(MeshPolicy, AMeshOnlyPolicyRefusesPlaintextButNotTheNodesOwnProbe) {
  mesh().set_policy(deny_policy("bank", "mesh-only", plaintext()));
  for (const auto& to : {db->v4(), db->v6()}) {
    EXPECT_FALSE(outside->get(to, kImpatient).ok()) << to.to_string();
    const Finished probe = get_from_node(node2(), to);
    EXPECT_TRUE(probe.ok()) << ::testing::PrintToString(probe);
    EXPECT_EQ(field(probe.out, "client"), field(probe.out, "own"));
    EXPECT_FALSE(get_from_node(node1(), to, kImpatient).ok()) << "from the other node: " << to.to_string();
  }
  // The enrolled neighbour of the pod outside is let in: the two are never taken for each other.
  EXPECT_THAT(web2->get(db->v4()), IsAnswer("db", web2->address_v4()));
  EXPECT_THAT(web2->get(db->v6()), IsAnswer("db", web2->address_v6()));
  EXPECT_FALSE(outside->get(db->v4(), kImpatient).ok());
  mesh().remove_policy("bank", "mesh-only");
  EXPECT_THAT(outside->get(db->v4()), IsAnswer("db", outside->address_v4()));
}

TEST_F(MeshPolicy, IdentitiesOfOneNodeDoNotMix) {
  json allow = deny_policy("bank", "web1-only", principal(*web1));
  allow["action"] = "Allow";
  mesh().set_policy(allow);
  for (int round = 0; round < 3; ++round) {
    EXPECT_FALSE(client->get(db->v4()).ok());
    EXPECT_THAT(web1->get(db->v4()), IsAnswer("db", web1->address_v4()));
    EXPECT_FALSE(web2->get(db->v6()).ok());
    EXPECT_THAT(web1->get(db->v6()), IsAnswer("db", web1->address_v6()));
  }
  mesh().remove_policy("bank", "web1-only");
}

TEST_F(MeshLife, ABadVersionOfTheFileIsRefusedWholeAndTheOldOneStays) {
  mesh().set_policy(deny_policy("bank", "no-client", principal(*client)));
  const std::size_t before = node2().log().size();
  json bad = json::parse(read_file(mesh().config_path(2)));
  // Good in its first part: without the policy the client would be let in.
  bad["policies"] = json::array();
  bad["workloads"][0]["workloadIps"][0] = "10.71.1.999";
  mesh().folder().write("mesh2.yaml", bad.dump(2));
  const std::vector<std::string> refused{"mesh2.yaml", "10.71.1.999"};
  EXPECT_TRUE(eventually(kSoon, [&] { return !log_lines(node2().log(), before, refused).empty(); }));
  EXPECT_FALSE(client->get(db->v4()).ok()) << "a part of the bad version is in force";
  EXPECT_THAT(web1->get(db->v4()), IsAnswer("db", web1->address_v4()));
  mesh().remove_policy("bank", "no-client");
  EXPECT_THAT(client->get(db->v4()), IsAnswer("db", client->address_v4()));
}

TEST_F(MeshLife, APodIsEnrolledAndTakenOutByTheFileAlone) {
  const Capture veth(node2().netns(), outside->host_interface());
  Process live = outside->hold(web1->v4());
  mesh().set_policy(deny_policy("bank", "mesh-only", plaintext()));
  EXPECT_FALSE(outside->get(db->v4(), kImpatient).ok());

  mesh().set_enrolled(*outside, true);
  const auto captured = [&] { return outside->get(db->v4(), {"--marker", "secret-enrolled"}).ok(); };
  EXPECT_TRUE(eventually(kSoon, captured)) << "not captured after enrolment";
  EXPECT_TRUE(outside->get(db->v6(), {"--marker", "secret-enrolled"}).ok());
  EXPECT_THAT(client->get(outside->v4(), {"--marker", "secret-enrolled"}), IsAnswer("outside", client->address_v4()));
  EXPECT_FALSE(veth.contains("secret-enrolled"));
  EXPECT_EQ(veth.lost(), 0U);
  // What lived before keeps its path.
  EXPECT_TRUE(live.running()) << live.out();

  mesh().set_enrolled(*outside, false);
  EXPECT_TRUE(eventually(kSoon, [&] { return !outside->get(db->v4(), kImpatient).ok(); })) << "still captured";
  const Finished answer = outside->get(web1->v4());
  EXPECT_TRUE(answer.ok()) << ::testing::PrintToString(answer);
  EXPECT_EQ(field(answer.out, "client"), field(answer.out, "own"));
  EXPECT_THAT(client->get(outside->v4()), IsAnswer("outside", client->address_v4()));
  mesh().remove_policy("bank", "mesh-only");
}

/// Waits until the kernel has sent the first SYN of a connection of the pod again `times` times.
bool syn_was_sent_again(const Pod& pod, int times) {
  const std::regex timer("timer:\\(on,[^,]*,([0-9]+)\\)");
  return eventually(milliseconds(20'000), [&] {
    const Finished sockets =
        run({"ss", "-Htno", "state", "syn-sent"}, {.netns = &pod.netns(), .environment = {}, .input = {}});
    std::smatch found;
    return std::regex_search(sockets.out, found, timer) && std::stoi(found[1]) >= times;
  });
}

TEST_F(MeshLife, WithItsAgentKilledAPodWaitsAndLeaksNothing) {
  ASSERT_TRUE(client->get(db->v4()).ok());
  const Capture veth(node1().netns(), client->host_interface());
  Process held = client->hold(db->v4());
  node1().kill_agent();
  EXPECT_TRUE(held.wait(kSoon).has_value()) << "the connection of the killed agent lives on";

  Process waiting = client->start({program("weft-testapp"), "get", db->v4().to_string(), "--marker", "secret-waiting",
                                   "--connect-timeout", "40", "--timeout", "40"});
  EXPECT_TRUE(syn_was_sent_again(*client, 2));
  EXPECT_TRUE(waiting.running()) << waiting.out();
  const Finished away = client->get(outside->v4());
  EXPECT_TRUE(away.ok()) << "non-mesh traffic noticed: " << ::testing::PrintToString(away);
  EXPECT_EQ(field(away.out, "client"), field(away.out, "own"));
  const auto to_db = veth.segments(
      [](const Segment& s) { return s.destination.address == db->address_v4() && s.destination.port != 15008; });
  EXPECT_TRUE(to_db.empty()) << to_db.size() << " segments in the clear";

  node1().start_agent();
  const Finished answer = waiting.finish(milliseconds(40'000));
  EXPECT_THAT(answer, IsAnswer("db", client->address_v4()));
  EXPECT_THAT(client->get(db->v6()), IsAnswer("db", client->address_v6()));
  EXPECT_THAT(db->get(client->v4()), IsAnswer("client", db->address_v4()));
  EXPECT_FALSE(veth.contains("secret-waiting"));
  EXPECT_EQ(veth.lost(), 0U);
}

TEST_F(MeshLife, AnAgentEndsWellOnSigtermAndTheNextTakesOver) {
  Process held = client->hold(db->v4());
  node2().stop_agent();  // throws on anything but exit status 0
  EXPECT_TRUE(held.wait(kSoon).has_value());
  EXPECT_FALSE(client->get(db->v4(), kImpatient).ok());
  node2().start_agent();
  EXPECT_TRUE(eventually(kSoon, [&] { return client->get(db->v4()).ok(); }));
  EXPECT_THAT(client->get(web2->v6()), IsAnswer("web2", client->address_v6()));
}

TEST_F(MeshLife, AddFailsWhereTheConfigurationHasOtherAddresses) {
  Pod& pod = mesh().plan_pod(1, "shop", "moved");
  json file = json::parse(read_file(mesh().config_path()));
  for (auto& workload : file["workloads"]) {
    if (workload["name"] == "moved") workload["workloadIps"] = {"10.71.1.200", "fd71:0:0:1::200"};
  }
  mesh().folder().write("mesh1.yaml", file.dump(2));
  ASSERT_TRUE(
      eventually(kSoon, [&] { return node1().admin("/config_dump").find("10.71.1.200") != std::string::npos; }));
  const Finished added = mesh().chain("add", pod);
  EXPECT_FALSE(added.ok());
  EXPECT_THAT(added.out, AllOf(HasSubstr(pod.address_v4().to_string()), HasSubstr("10.71.1.200"),
                               HasSubstr(pod.address_v6().to_string()), HasSubstr("fd71:0:0:1::200")));
  mesh().remove_pod(pod);
}

TEST_F(MeshLife, ExcludedNamespacesNeedNoAgentAndOthersWaitForIt) {
  node1().kill_agent();
  PodOptions plain;
  plain.enrolled = false;
  Pod& dns = mesh().add_pod(1, "kube-system", "dns", plain);
  dns.serve();
  EXPECT_EQ(field(dns.get(outside->v4()).out, "server"), "outside");
  EXPECT_THAT(outside->get(dns.v4()), IsAnswer("dns", outside->address_v4()));
  Pod& early = mesh().plan_pod(1, "shop", "early", plain);
  const Finished added = mesh().chain("add", early);
  EXPECT_FALSE(added.ok());
  EXPECT_EQ(json::parse(added.out).at("code"), 11) << added.out;
  node1().start_agent();
  EXPECT_TRUE(mesh().chain("add", early).ok());
  mesh().remove_pod(early);
  mesh().remove_pod(dns);
}

/// Pins, registrations and map entries of the node, one a line.
std::string traces(Mesh& mesh, Node& node) {
  std::string found;
  const std::string run = mesh.folder().path() + "/" + node.name() + "/run";
  for (const auto& folder : {node.bpf_root() + "/links", run}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (!entry.is_directory() || folder != run) found += entry.path().string() + "\n";
    }
  }
  for (const char* map : {"pods", "interfaces"}) {
    found += must_run({"bpftool", "-j", "map", "dump", "pinned", node.bpf_root() + "/maps/" + map}) + "\n";
  }
  return found + node.netns().ip("-br link show type veth");
}

TEST_F(MeshLife, DelLeavesNothing) {
  const std::string before = traces(mesh(), node1());
  Pod& pod = mesh().add_pod(1, "shop", "brief");
  pod.serve();
  EXPECT_THAT(client->get(pod.v4()), IsAnswer("brief", client->address_v4()));
  EXPECT_THAT(pod.get(db->v6()), IsAnswer("db", pod.address_v6()));
  Process held = client->hold(pod.v4());
  EXPECT_NE(traces(mesh(), node1()), before);
  mesh().remove_pod(pod);
  EXPECT_TRUE(held.wait(kSoon).has_value()) << "a connection to the deleted pod lives on";
  EXPECT_EQ(traces(mesh(), node1()), before);
  EXPECT_THAT(node1().admin("/config_dump"), Not(HasSubstr("brief")));
}

TEST_F(MeshLife, TheFirstConnectionAfterAddIsNotLost) {
  for (const bool v6 : {false, true}) {
    Pod& pod = mesh().add_pod(1, "shop", v6 ? "fresh6" : "fresh4");
    const Finished answer = pod.get(v6 ? db->v6() : db->v4());
    ASSERT_TRUE(answer.ok()) << ::testing::PrintToString(answer);
    // A lost SYN or neighbour solicitation costs a second.
    EXPECT_LT(std::stod(field(answer.out, "ms")), 900) << answer.out << node1().metrics();
    mesh().remove_pod(pod);
  }
}

}  // namespace
}  // namespace weft::test
