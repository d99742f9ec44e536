// SPDX-License-Identifier: Apache-2.0
#include "test/netns/attack_cases.h"

#include <array>
#include <cstdio>

namespace weft::test {
namespace {

constexpr std::array kCases{
    AttackCase{1, "IP options on a socket of user 1000: padding, record route, time stamp",
               "the parser, which steps over them: captured", "SocketAttack.IpOptionsOfAnOrdinaryUser"},
    AttackCase{1, "a loose and a strict source route on a socket", "`from_pod`: source routed",
               "SocketAttack.IpOptionsOfAnOrdinaryUser"},
    AttackCase{2, "a SYN in two fragments, the first of 8 bytes, in both orders",
               "`from_pod` and `guard`: a fragment of TCP", "FrameAttack.TinyFragmentsInBothOrders"},
    AttackCase{3, "VLAN 0 once to four times, 802.1ad, VLAN 5, behind a routed veth",
               "`from_pod` and `guard`: a VLAN tag, or too many", "FrameAttack.VlanTagsOnTheRoutedVeth"},
    AttackCase{3, "VLAN 0 and 5, 802.1Q and 802.1ad, on a bridge", "`from_pod` and `guard`: a VLAN tag",
               "FrameAttack.VlanTagsOnABridge"},
    AttackCase{4, "plaintext SYNs past the queueing discipline, odd flags, a neighbour's source, an unknown ethertype",
               "`guard`: plaintext into the mesh, a foreign source, neither ARP nor IP",
               "FrameAttack.PastTheQueueingDiscipline"},
    AttackCase{4, "segments with data of no connection, through the queueing discipline and past it",
               "nothing on their way; the victim's kernel resets them, no application hears of them",
               "FrameAttack.SegmentsOfNoConnection"},
    AttackCase{5, "a plaintext SYN by an AF_XDP socket", "`guard`: plaintext into the mesh", "FrameAttack.ByXdpSocket"},
    AttackCase{6, "IPv6 plain, hop and destination options, up to nine headers, atomic fragments, segment routing",
               "`from_pod` and `guard`: captured or dropped, what cannot be followed is dropped",
               "FrameAttack.Ipv6Headers"},
    AttackCase{6, "segment routing into the mesh by way of an address outside", "`from_pod` and `guard`: source routed",
               "FrameAttack.Ipv6SegmentRoutingByWayOfAnAddressOutside"},
    AttackCase{10, "a neighbour's source by IP_TRANSPARENT, with and without the mark",
               "`deliver`: the listener is another namespace's; `from_pod` and `guard`: a foreign source",
               "SocketAttack.ForeignSources"},
    AttackCase{10, "marked frames put into lo, under the pod's own and foreign sources",
               "`deliver`: the pod's own are captured, the others dropped", "SocketAttack.FramesIntoLoopback"},
    AttackCase{10, "Weft's and Istio's marks on ordinary sockets", "nothing goes by a mark: captured",
               "SocketAttack.MarksExemptNobody"},
    AttackCase{10, "the mark on a socket bound to eth0", "`from_pod`: the capture mark",
               "SocketAttack.MarkedAndBoundToTheInterface"},
    AttackCase{10, "resets of the kernel for SYNs that no socket sent", "verdicts, which only stream sockets keep",
               "SocketAttack.ResetsOfOneConnectionDoNotCaptureThoseOfAnother"},
    AttackCase{12, "2,000 connects to the agent's listeners, by each of their ports and addresses",
               "the agent: what was not captured is closed, descriptors stay flat",
               "SocketAttack.ListenersCalledByName"},
    AttackCase{12, "the agent's admin address, by the node's own addresses",
               "its socket, which is on the node's loopback", "SocketAttack.TheAgentsAddressesOnTheNode"},
    AttackCase{14, "agent and application that accept by SYN cookies alone",
               "`deliver` and `to_pod`: the last ACK goes where its SYN went",
               "CookieAttack.TransfersCompleteAndNothingLeaks"},
    AttackCase{14, "3,000 SYNs into the pod's own agent, with a backlog of one",
               "SYN cookies: neighbours are served, nobody is reset", "CookieAttack.FloodFromAMeshPod"},
    AttackCase{14, "3,000 SYNs from outside the mesh to the tunnel's port and to the application",
               "SYN cookies: the mesh is served, no resets", "CookieAttack.FloodOfTheVictim"},
    AttackCase{15, "SIGKILL of the client's agent in mid-transfer",
               "the verdict in the application's socket: no byte on the wire", "CutAttack.TheClientsAgentIsKilled"},
    AttackCase{15, "SIGKILL of the server's agent in mid-transfer",
               "the verdict in the application's socket: no byte on the wire", "CutAttack.TheServersAgentIsKilled"},
    AttackCase{15, "`ss -K` of each of the four sockets in mid-transfer",
               "the verdict in the application's socket: no byte on the wire", "CutAttack.SocketsAreDestroyed"},
    AttackCase{15, "`ss -K` of the agent's socket while lo is down",
               "the verdict in the application's socket: no byte on the wire", "CutAttack.SocketsAreDestroyedUnheard"},
};

std::string name_of(const ::testing::TestInfo& test) { return std::string(test.test_suite_name()) + "." + test.name(); }

}  // namespace

std::span<const AttackCase> attack_cases() { return kCases; }

void tell_cases_of(const ::testing::TestInfo& test) {
  for (const auto& one : kCases) {
    if (name_of(test) != one.test) continue;
    std::printf("case %d: tried %s; stopped by %s\n", one.number, one.tried, one.stopped_by);
  }
}

std::string row_of(const AttackCase& one) {
  return "| " + std::to_string(one.number) + " | " + one.tried + " | " + one.stopped_by + " | `" + one.test + "` |";
}

}  // namespace weft::test
