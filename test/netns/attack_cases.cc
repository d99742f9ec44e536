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
    AttackCase{7, "clsact deleted by a root process of the pod (kernels before 6.6)",
               "`guard`: plaintext into the mesh; CHECK names it, reconciliation puts it back",
               "KernelMesh.APodThatDeletesItsQdiscIsFoundAndStaysGuarded"},
    AttackCase{8, "the qdisc deleted, BPF_PROG_DETACH, links looked up by id, as root of the pod",
               "TCX links, which only their descriptor takes off, and CAP_SYS_ADMIN, which the pod lacks",
               "DeviceAttack.ProgramsTakenOff"},
    AttackCase{8, "eth0 renamed", "the programs, which are on the device: captured; CHECK names it",
               "DeviceAttack.InterfaceRenamed"},
    AttackCase{8, "eth0 moved to another namespace, with rules and packet filters there",
               "the programs, which go along: captured packets meet no agent and cannot leave; CHECK names it",
               "DeviceAttack.InterfaceMovedAway"},
    AttackCase{8, "a masqueraded veth, a macvlan on eth0 with the pod's addresses, a bridge over eth0",
               "`from_pod`, since all of it leaves by eth0", "DeviceAttack.InterfacesOfItsOwn"},
    AttackCase{9, "rules, routes, lo, accept_local and lo's IPv6 taken away, a rule put ahead, forwarding switched on",
               "captured packets, which have no other way: closed; CHECK names it", "RoutingAttack.PiecesTakenAway"},
    AttackCase{9, "the same pieces taken away", "reconciliation: logged and put back",
               "Reconcile.WhatIsDamagedIsMended"},
    AttackCase{
        9,
        "the mark taken off by the pod's packet filter, the rest of a connection forwarded after its agent was killed",
        "`from_pod`: back from lo", "RoutingAttack.MarkTakenOffAndForwarded"},
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
    AttackCase{11,
               "the agent's tunnel turned by the pod's DNAT: out of the mesh, to a neighbour, to a process of its own",
               "`from_pod`: a socket of the agent sent elsewhere; the certificate that the other end lacks",
               "NatAttack.TheAgentsTunnelTurnedElsewhere"},
    AttackCase{11, "a connection to elsewhere turned into the mesh", "`from_pod`, which goes by the packet: captured",
               "NatAttack.AConnectionToElsewhereTurnedIntoTheMesh"},
    AttackCase{11, "a captured connection turned on lo", "`deliver`: under another tuple there is no connection, reset",
               "NatAttack.ACapturedConnectionTurnedOnItsWayToTheAgent"},
    AttackCase{11, "the agent's connection to the application turned out of the pod",
               "`from_pod`: a socket of the agent sent elsewhere, a foreign source",
               "NatAttack.TheAgentsConnectionToTheApplicationTurnedElsewhere"},
    AttackCase{12, "2,000 connects to the agent's listeners, by each of their ports and addresses",
               "the agent: what was not captured is closed, descriptors stay flat",
               "SocketAttack.ListenersCalledByName"},
    AttackCase{12, "the agent's admin address, by the node's own addresses",
               "its socket, which is on the node's loopback", "SocketAttack.TheAgentsAddressesOnTheNode"},
    AttackCase{13, "SO_REUSEPORT joined to each listener, its port taken on other addresses",
               "listeners without SO_REUSEPORT, reached by `bpf_sk_assign` alone", "SquatAttack.ListenersJoined"},
    AttackCase{13, "15001, 15006, 15008 and the listeners' ports taken while the agent is away",
               "`to_pod`: the agent does not listen; its next listeners have other ports",
               "SquatAttack.PortsTakenWhileTheAgentIsAway"},
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
    AttackCase{16,
               "plaintext of bridge neighbours with br_netfilter off, of an unknown pod, of somebody masqueraded as "
               "the node, of another node",
               "`to_pod_host`, since their sockets are not the node's; `to_pod`: no plaintext",
               "NodeAttack.NeighboursAreNotTheNode"},
    AttackCase{16, "plaintext of processes of the node: root, nobody, one in a cgroup of its own",
               "nothing: they pass as probes, as documented", "NodeAttack.ProcessesOfTheNodePass"},
    AttackCase{17, "the tuple of a probe forged: before, during and after it, and one that was recorded and lost",
               "`to_pod_host`: another SYN takes the record away; `to_pod`: no plaintext",
               "NodeAttack.TheTupleOfAProbeForged"},
    AttackCase{18, "sources of mesh pods, of others and of a node forged on the wire",
               "`to_pod`: no plaintext, whoever it is from", "NodeAttack.SourcesForgedOnTheWire"},
    AttackCase{18, "inner sources of VXLAN forged: the node, mesh pods",
               "`to_pod_host` and `to_pod`: no socket of the node, no plaintext",
               "NodeAttack.InnerSourcesOfVxlanForged"},
    AttackCase{19, "1,500 connections of one pod", "nothing: others are served beside them, all descriptors come back",
               "QuotaAttack.ManyConnectionsOfOnePod"},
    AttackCase{19, "connections beyond what an agent with few descriptors has",
               "its share: the others are reset at once and counted, neighbours get new ones",
               "QuotaAttack.AnAgentWithFewDescriptors"},
    AttackCase{19, "connections beyond what an agent with little memory has",
               "while memory is short who has the most gets nothing new", "Limits.OfMemoryShedInsteadOfBeingKilled"},
    AttackCase{19, "tunnels to 700 destinations that do not answer",
               "its budget of handshakes: others are served beside them", "Limits.OfHandshakesLetOthersThrough"},
    AttackCase{
        20, "addresses that a new workload has from a former one with connections, tunnels, permissions and policies",
        "DEL, which ends all of it; tunnels and policies go by workload", "ReuseAttack.ANewWorkloadInheritsNothing"},
    AttackCase{
        20, "a pod outside the mesh at addresses that the mesh still believes to be the former's, listening on 15008",
        "the certificate, which it lacks: no byte of the application",
        "ReuseAttack.AnAddressThatTheMeshBelievesToBeTheFormers"},
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
