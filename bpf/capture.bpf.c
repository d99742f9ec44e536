/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Capture inside the pod's network namespace, and the guard outside of it. The agent loads and pins these programs once;
 * the CNI plugin attaches the pins. A pod is found by its own address, since ifindexes repeat between namespaces; on the
 * host side by ifindex. "Drop", "go on" and the rest are counted by reason (shared.h). Captured are TCP, and the DNS of
 * pods that opted in (dns.h). A program's function gives the reason, and the slot of the pod once it knows it; finish()
 * does what follows from them.
 *
 * Life of a packet, each rule where it is applied:
 *
 * from_pod, egress of the pod's eth0
 *   1. Not TCP, or link-local to link-local: goes on. But UDP to port 53 of an enrolled pod whose DNS is the agent's is
 *      captured, wherever it goes: 4 (its second part) and 5 apply to it, the rest does not.
 *   2. A source that is no wired pod's address: drop.
 *   3. The pod is not enrolled: goes on, unless the socket's verdict is "captured": that outlives enrolment. While it
 *      leaves, 8 is asked, since the agent may still speak to its servers.
 *   4. Cannot be parsed, fragment, source route, VLAN: drop. Carries the capture mark, or came in by lo: it comes back because
 *      the pod's rule or route is gone, or its own packet filter took the mark away, or the application set the mark and
 *      bound itself to eth0: drop instead of a loop. Without its socket the verdict of its connection is not known.
 *   5. A tagged socket, the agent's: goes on if the packet goes where the socket is connected to, otherwise the pod rewrote
 *      it (DNAT): drop.
 *   6. To a link-local address: goes on, unless it is to port 53 and the pod's DNS is the agent's (caches on a node listen
 *      on such addresses), or it is IPv4 and only the registry is allowed.
 *   7. SYN: captured if the destination is in the mesh, if it is to port 53 and the pod's DNS is the agent's, or if the
 *      registry does not name the destination and only that is allowed (registry.h): the agent refuses it. The verdict is
 *      written to the application's socket, each time: a socket may connect again. No memory for the verdict "captured": drop.
 *   8. Everything else: the verdict of the socket decides alone. Without one (a socket that accepted, is older than
 *      enrolment, or none at all) it is captured if a connection with the ends the other way round lives in this netns: an
 *      agent's transparent socket that speaks for the peer. The verdict is then kept, but never on a listener, which is
 *      the sender of nobody's data. Otherwise it goes on: SYN-ACKs and ACKs of the agent's listeners, servers, old connections.
 *   Captured means: mark, and redirect to lo.
 *
 * deliver, ingress of the pod's lo
 *   1. Without the mark: goes on, uncounted. With it: becomes PACKET_HOST, since its MAC address is not lo's.
 *   2. Not TCP: goes on, but a DNS question to the agent's socket, without which it waits (drop), and the agent's answer gets
 *      its source port, 53. A source that is no wired pod's: drop, but a loopback address goes on (the application set the mark
 *      and talks to itself), as does the pod to its own address. Not enrolled: goes on. Both stay in the netns.
 *   3. Cannot be parsed: drop.
 *   4. Not a SYN, and a connection holds the tuple: goes on, the kernel finds it.
 *   5. A SYN, or what finds no connection (the last ACK of a SYN cookie): to the outbound listener. Without a listener a SYN
 *      waits (drop), and so does what only an application's listener would take. The rest goes on and ends in the pod: with
 *      a RST in IPv6, in silence in IPv4, whose RST must not have a foreign source; the next agent's listener sends it.
 *
 * to_pod, ingress of the pod's eth0
 *   1. Not TCP, or the destination is no enrolled pod's: goes on after one look-up. A pod that left the mesh lately is
 *      still reached on port 15008, by peers that do not know yet.
 *   2. Cannot be parsed, fragment, source route, VLAN: drop.
 *   3. Not a SYN, and a connection holds the tuple: goes on, counted apart where it is the agent's.
 *   4. A SYN, or what finds no connection: if the agent speaks to the application from the same tuple: drop, the client tries
 *      again. To port 15008: to the HBONE listener. From the node itself (recorded by to_pod_host): goes on. Otherwise as
 *      the pod's entry says: goes on, to the plaintext listener, or drop. Without a listener: drop.
 *
 * to_pod_host, egress of the host side
 *   0. UDP to an enrolled pod, where only the registry is allowed: its sender is recorded, so that guard lets the pod answer.
 *   1. A SYN to an enrolled pod, sent by a socket of the host's netns: its tuple is recorded for to_pod, for one second and
 *      one use. Any other SYN of the tuple takes the record away. skb->sk alone would not do: it survives a bridge.
 *   2. TCP to a link-local address of a pod that checks or refuses plaintext: drop. to_pod cannot tell whose the address is.
 *
 * guard, ingress of the host side. It sees each frame that leaves the pod and has no state
 *   1. IP from a source that is not the pod's: drop, enrolled or not. ICMPv6 from :: and what is not TCP from a link-local
 *      address go on, as does TCP between link-local addresses.
 *   2. The pod is not enrolled: goes on.
 *   3. Neither ARP nor IP, tagged, cannot be parsed, fragment, source route: drop.
 *   4. A SYN into the mesh to another port than 15008: drop. So the agent never dials plaintext to an address in the map.
 *   5. Where only the registry is allowed: a SYN that is not the agent's, or what is not TCP, to where the registry names
 *      nothing: drop.
 */
#include "dns.h"
#include "finish.h"
#include "maps.h"
#include "node.h"
#include "parse.h"
#include "redirect.h"
#include "registry.h"

#define SOCK_STREAM 1

/*
 * A connected TCP socket of this packet, or a listener; not a request or time-wait socket, nor a raw one. Raw is also the
 * kernel's own socket that sends the RSTs of all of a netns: a verdict would stick to it and meet the RSTs of others.
 */
static __always_inline struct bpf_sock *tcp_sender(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_TCP || sk->type != SOCK_STREAM)
		return NULL;
	return sk;
}

static __always_inline int in_mesh(const struct weft_addr *dst)
{
	return is_listed(&destinations, &destination_cidrs, dst);
}

static __always_inline int captures_all(void)
{
	__u32 zero = 0;
	struct weft_settings *s = bpf_map_lookup_elem(&settings, &zero);

	return !s || s->capture_all || s->overflow;
}

/* Of a connected socket. The reads are volatile: the verifier takes no computed pointer into a socket. */
static __always_inline int is_destination_of(struct bpf_sock *sk, const struct packet *p)
{
	const volatile struct bpf_sock *s = sk;

	if (s->dst_port != p->dport)
		return 0;
	if (p->dst.family == 4)
		return s->dst_ip4 == p->dst.addr[0];
	return !((s->dst_ip6[0] ^ p->dst.addr[0]) | (s->dst_ip6[1] ^ p->dst.addr[1]) |
		 (s->dst_ip6[2] ^ p->dst.addr[2]) | (s->dst_ip6[3] ^ p->dst.addr[3]));
}

/* False if the verdict could not be kept. */
static __always_inline int keep_verdict(struct bpf_sock *sk, enum weft_verdict verdict)
{
	enum weft_verdict *kept;

	if (!sk || sk->state == BPF_TCP_LISTEN)
		return 1;
	kept = bpf_sk_storage_get(&app_sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return 0;
	*kept = verdict;
	return 1;
}

/* TCP to a DNS server, of a pod whose DNS is the agent's. */
static __always_inline int is_dns_stream(const struct packet *p, const struct weft_pod *pod)
{
	return p->dport == bpf_htons(WEFT_DNS_PORT) && captures_dns(pod);
}

static __always_inline __u32 new_connection_out(struct bpf_sock *sk, const struct packet *p, const struct weft_pod *pod)
{
	__u32 reason = WEFT_CAPTURED_NEW;

	if (!in_mesh(&p->dst) && !captures_all() && !is_dns_stream(p, pod)) {
		if (!registry_only || !is_refused_by_registry(p)) {
			keep_verdict(sk, WEFT_VERDICT_PASS); /* spares later packets the look-up; may fail */
			return WEFT_NOT_MESH;
		}
		reason = WEFT_UNREGISTERED_NEW;
	}
	return keep_verdict(sk, WEFT_VERDICT_CAPTURED) ? reason : WEFT_NO_STORAGE;
}

static __always_inline __u32 old_connection_out(struct __sk_buff *skb, struct bpf_sock *sk, __u32 verdict,
						const struct packet *p)
{
	__u32 rcv_nxt;

	if (verdict == WEFT_VERDICT_PASS)
		return WEFT_UNCAPTURED;
	if (verdict != WEFT_VERDICT_CAPTURED) {
		if (!is_held(receiver_of(skb, p, &rcv_nxt)))
			return WEFT_UNCAPTURED;
		if (!keep_verdict(sk, WEFT_VERDICT_CAPTURED))
			return WEFT_NO_STORAGE;
	}
	return WEFT_CAPTURED;
}

/* ingress_ifindex is 0 for what a socket of the pod sends. */
static __always_inline int is_looped(struct __sk_buff *skb)
{
	return skb->mark & WEFT_MARK_MASK || skb->ingress_ifindex == WEFT_LO_IFINDEX;
}

/* The socket of the agent that sent this packet, where one did. */
static __always_inline struct bpf_sock *sending_agent(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	return sk && bpf_sk_storage_get(&agent_sockets, sk, NULL, 0) ? sk : NULL;
}

static __always_inline __u32 question_out(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *agent;

	if (is_looped(skb))
		return WEFT_LOOPED;
	agent = sending_agent(skb);
	if (agent)
		return is_destination_of(agent, p) ? WEFT_AGENT : WEFT_TAG_MISUSED;
	return WEFT_CAPTURED;
}

static __always_inline __u32 from_pod_reason(struct __sk_buff *skb, struct packet *p, __u32 *slot)
{
	enum weft_verdict *kept = NULL;
	struct weft_pod *pod;
	struct bpf_sock *sk;
	__u32 verdict = 0;

	parse(skb, p);
	if (p->kind == PACKET_NOT_IP)
		return WEFT_NOT_TCP;
	pod = pod_of(&p->src);
	if (pod)
		*slot = pod->slot;
	if (p->kind == PACKET_OTHER)
		return is_captured_question(skb, p, pod) ? question_out(skb, p) : WEFT_NOT_TCP;
	if (p->kind == PACKET_TCP && is_link_local(&p->src) && is_link_local(&p->dst))
		return WEFT_LINK_LOCAL;
	if (!pod)
		return p->kind == PACKET_UNPARSED ? p->problem : WEFT_FOREIGN_SOURCE;

	sk = tcp_sender(skb);
	if (sk)
		kept = bpf_sk_storage_get(&app_sockets, sk, NULL, 0);
	if (kept)
		verdict = *kept;
	if (!is_enrolled(pod) && (p->syn || verdict != WEFT_VERDICT_CAPTURED)) {
		if (kept && p->syn) /* the socket connects again */
			*kept = WEFT_VERDICT_PASS;
		/* What answers to the agent is the agent's, also while the pod leaves; what begins now is not. */
		if (pod->enrolled == WEFT_LEAVING && p->syn)
			keep_verdict(sk, WEFT_VERDICT_PASS);
		if (pod->enrolled != WEFT_LEAVING || p->syn || p->kind == PACKET_UNPARSED || p->vlan)
			return WEFT_NOT_ENROLLED;
	}

	if (p->kind == PACKET_UNPARSED)
		return p->problem;
	if (p->vlan)
		return WEFT_VLAN;
	if (is_looped(skb))
		return WEFT_LOOPED;

	if (sk && bpf_sk_storage_get(&agent_sockets, sk, NULL, 0)) {
		if (sk->state == BPF_TCP_LISTEN || is_destination_of(sk, p))
			return WEFT_AGENT;
		return WEFT_TAG_MISUSED;
	}
	if (is_link_local(&p->dst) && !is_dns_stream(p, pod) && !(registry_only && p->dst.family == 4))
		return WEFT_LINK_LOCAL;
	if (p->syn)
		return new_connection_out(sk, p, pod);
	return old_connection_out(skb, sk, verdict, p);
}

SEC("tc")
int from_pod(struct __sk_buff *skb)
{
	__u32 reason, slot = WEFT_NO_SLOT;
	struct packet p = {};

	reason = from_pod_reason(skb, &p, &slot);
	return finish(skb, WEFT_FROM_POD, reason, slot, &p);
}

static __always_inline __u32 deliver_reason(struct __sk_buff *skb, struct packet *p, __u32 *slot)
{
	struct weft_pod *pod, *peer;
	enum held held;
	__u32 reason, rcv_nxt = 0;

	bpf_skb_change_type(skb, PACKET_HOST);
	parse(skb, p);
	if (p->kind == PACKET_NOT_IP)
		return WEFT_NOT_TCP;
	if (p->kind == PACKET_OTHER && skb->mark & WEFT_MARK_ANSWER)
		return answer_to_pod(skb, p);
	pod = pod_of(&p->src);
	if (p->kind == PACKET_OTHER) {
		if (!is_captured_question(skb, p, pod))
			return WEFT_NOT_TCP;
		*slot = pod->slot;
		return to_dns_socket(skb, p, pod->slot);
	}
	if (!pod && p->kind == PACKET_UNPARSED)
		return p->problem;
	if (!pod)
		return is_loopback(&p->src) ? WEFT_SELF : WEFT_FOREIGN_SOURCE;
	*slot = pod->slot;
	if (pod->enrolled == WEFT_WIRED)
		return WEFT_NOT_ENROLLED;
	if (p->kind == PACKET_UNPARSED)
		return p->problem;
	if (p->vlan)
		return WEFT_VLAN;

	held = receiver_of(skb, p, &rcv_nxt);
	if (!p->syn && is_held(held))
		return WEFT_CONNECTION;
	peer = pod_of(&p->dst);
	if (peer && peer->slot == pod->slot)
		return WEFT_SELF;
	reason = to_listener(skb, p, pod->slot, WEFT_LISTENER_OUTBOUND, held, rcv_nxt, WEFT_LO_IFINDEX);
	if (reason == WEFT_NO_LISTENER && !p->syn && held == HELD_BY_NONE)
		reason = WEFT_NO_SOCKET;
	return reason;
}

SEC("tc")
int deliver(struct __sk_buff *skb)
{
	__u32 reason, slot = WEFT_NO_SLOT;
	struct packet p = {};

	if ((skb->mark & WEFT_MARK_MASK) != WEFT_MARK)
		return -1;
	reason = deliver_reason(skb, &p, &slot);
	return finish(skb, WEFT_DELIVER, reason, slot, &p);
}

static __always_inline __u32 to_pod_reason(struct __sk_buff *skb, struct packet *p, __u32 *slot)
{
	__u32 rcv_nxt = 0, ifindex = skb->ifindex;
	struct weft_pod *pod;
	enum held held;

	parse(skb, p);
	if (p->kind == PACKET_NOT_IP)
		return WEFT_NOT_TCP;
	pod = pod_of(&p->dst);
	if (pod)
		*slot = pod->slot;
	if (p->kind == PACKET_OTHER)
		return WEFT_NOT_TCP;
	if (!pod || pod->enrolled == WEFT_WIRED)
		return WEFT_NOT_ENROLLED;
	if (pod->enrolled == WEFT_LEAVING && p->dport != bpf_htons(WEFT_HBONE_PORT))
		return WEFT_NOT_ENROLLED;
	if (p->kind == PACKET_UNPARSED)
		return p->problem;
	if (p->vlan)
		return WEFT_VLAN;
	held = tagged_receiver_of(skb, p, &rcv_nxt);
	if (!p->syn && is_held(held))
		return held == HELD_BY_AGENT ? WEFT_AGENT : WEFT_CONNECTION;

	if (is_held(sender_of(skb, p)))
		return WEFT_TUPLE_HELD;
	if (p->dport == bpf_htons(WEFT_HBONE_PORT))
		return to_listener(skb, p, pod->slot, WEFT_LISTENER_HBONE, held, rcv_nxt, ifindex);
	if (take_probe(p, pod->host_ifindex))
		return WEFT_PROBE;
	if (pod->inbound == WEFT_INBOUND_PASS)
		return WEFT_OPEN;
	if (pod->inbound == WEFT_INBOUND_CHECK)
		return to_listener(skb, p, pod->slot, WEFT_LISTENER_PLAINTEXT, held, rcv_nxt, ifindex);
	return WEFT_REFUSED;
}

SEC("tc")
int to_pod(struct __sk_buff *skb)
{
	__u32 reason, slot = WEFT_NO_SLOT;
	struct packet p = {};

	reason = to_pod_reason(skb, &p, &slot);
	return finish(skb, WEFT_TO_POD, reason, slot, &p);
}

static __always_inline __u32 to_link_local(struct __sk_buff *skb, __u32 *slot)
{
	__u32 ifindex = skb->ifindex;
	struct weft_pod *pod = bpf_map_lookup_elem(&interfaces, &ifindex);

	if (!is_enrolled(pod) || pod->inbound == WEFT_INBOUND_PASS)
		return WEFT_LINK_LOCAL;
	*slot = pod->slot;
	return WEFT_LINK_LOCAL_REFUSED;
}

static __always_inline __u32 to_pod_host_reason(struct __sk_buff *skb, struct packet *p, __u32 *slot)
{
	struct weft_pod *pod;
	int from_node;

	parse(skb, p);
	if (p->kind == PACKET_NOT_IP || p->kind == PACKET_OTHER) {
		if (registry_only)
			record_udp_peer(skb, p);
		return WEFT_NOT_TCP;
	}
	if (is_link_local(&p->dst) && (p->syn || p->kind == PACKET_UNPARSED))
		return to_link_local(skb, slot);
	if (!p->syn)
		return WEFT_NOT_SYN;
	pod = pod_of(&p->dst);
	if (!is_enrolled(pod) || pod->host_ifindex != skb->ifindex)
		return WEFT_NOT_ENROLLED;
	from_node = sent_by_node(skb);
	record_probe(p, pod->host_ifindex, from_node);
	return from_node ? WEFT_RECORDED : WEFT_NOT_NODE;
}

SEC("tc")
int to_pod_host(struct __sk_buff *skb)
{
	__u32 reason, slot = WEFT_NO_SLOT;
	struct packet p = {};

	reason = to_pod_host_reason(skb, &p, &slot);
	return finish(skb, WEFT_TO_POD_HOST, reason, slot, &p);
}

/* What the kernel itself must be able to send before and beside the pod's address: duplicate address detection, MLD, ND. */
static __always_inline int is_link_housekeeping(const struct packet *p)
{
	if (p->src.family != 6)
		return 0;
	if (is_unspecified(&p->src))
		return p->kind == PACKET_OTHER && p->protocol == IPPROTO_ICMPV6;
	if (!is_link_local(&p->src))
		return 0;
	return p->kind == PACKET_OTHER || (p->kind == PACKET_TCP && is_link_local(&p->dst));
}

/* Where only the registry is allowed. The agent's sockets go where a registered name led. */
static __always_inline int is_past_registry(struct __sk_buff *skb, struct packet *p)
{
	struct bpf_sock *agent;

	if (!registry_only)
		return 0;
	if (p->kind == PACKET_OTHER)
		return is_refused_datagram(skb, p);
	if (!p->syn || !is_refused_by_registry(p))
		return 0;
	agent = sending_agent(skb);
	return !agent || !is_destination_of(agent, p);
}

static __always_inline __u32 guard_reason(struct __sk_buff *skb, struct packet *p, __u32 *slot)
{
	__u32 ifindex = skb->ifindex;
	struct weft_pod *pod, *owner;

	parse(skb, p);
	pod = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (pod)
		*slot = pod->slot;
	if (p->kind == PACKET_NOT_IP) {
		if (is_enrolled(pod) && (p->vlan || p->ethertype != bpf_htons(ETH_P_ARP)))
			return p->vlan ? WEFT_VLAN : WEFT_ETHERTYPE;
		return WEFT_CLEAN;
	}
	owner = pod_of(&p->src);
	if (p->src.family && (!owner || owner->host_ifindex != ifindex) && !is_link_housekeeping(p))
		return WEFT_FOREIGN_SOURCE;
	if (pod && !is_enrolled(pod))
		return WEFT_NOT_ENROLLED;

	if (p->kind == PACKET_UNPARSED)
		return p->problem;
	if (p->vlan)
		return WEFT_VLAN;
	if (p->syn && p->dport != bpf_htons(WEFT_HBONE_PORT) && in_mesh(&p->dst))
		return WEFT_BYPASS;
	if (pod && is_past_registry(skb, p))
		return WEFT_UNREGISTERED;
	return WEFT_CLEAN;
}

SEC("tc")
int guard(struct __sk_buff *skb)
{
	__u32 reason, slot = WEFT_NO_SLOT;
	struct packet p = {};

	reason = guard_reason(skb, &p, &slot);
	return finish(skb, WEFT_GUARD, reason, slot, &p);
}

char LICENSE[] SEC("license") = "GPL";
