/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Where pods of the mesh may go if nothing but the registry is allowed: what the
 * mesh's configuration names, and what the operator exempts. from_pod hands new
 * TCP connections to elsewhere to the agent, which refuses them and says why;
 * guard, which the pod cannot reach, drops what is not TCP and what came past
 * from_pod.
 *
 * Exempt are port 53, ICMP and IGMP, what cannot leave the link (multicast and
 * broadcast of the link, IPv6 link-local), answers of the pod's UDP servers, and
 * what the agent itself sends, which has asked the registry by name.
 *
 * Without the setting the verifier removes all of this.
 */
#ifndef WEFT_BPF_REGISTRY_H
#define WEFT_BPF_REGISTRY_H

#include "dns.h"
#include "maps.h"
#include "parse.h"

#ifndef IPPROTO_IGMP
#define IPPROTO_IGMP 2
#endif

/* Set at load. The maps of this file exist only where it is; whoever calls its functions has asked. */
const volatile __u32 registry_only;

/* Addresses and ranges that the registry names or the operator exempts; the value says nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct weft_addr);
	__type(value, __u32);
} registry SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct weft_cidr);
	__type(value, __u32);
} registry_cidrs SEC(".maps");

/* Who sent UDP to a pod and may be answered: when it last did, ns since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WEFT_MAX_UDP_PEERS);
	__type(key, struct weft_tuple);
	__type(value, __u64);
} udp_peers SEC(".maps");

static __always_inline int is_registered(const struct weft_addr *addr)
{
	return is_listed(&registry, &registry_cidrs, addr);
}

/* To an address that no router forwards. 169.254.0.0/16 is none: clouds answer there for more than the link. */
static __always_inline int stays_on_link(const struct weft_addr *dst)
{
	if (dst->family == 4)
		return (dst->addr[0] & bpf_htonl(0xffffff00)) == bpf_htonl(0xe0000000) || dst->addr[0] == 0xffffffff;
	return is_link_local(dst) || (dst->addr[0] & bpf_htonl(0xff0f0000)) == bpf_htonl(0xff020000);
}

/* Of a pod that is in the mesh. TCP of a connection that lives has been asked for at its SYN. */
static __always_inline int is_refused_by_registry(const struct packet *p)
{
	return p->dport != bpf_htons(WEFT_DNS_PORT) && !stays_on_link(&p->dst) && !is_registered(&p->dst);
}

/* On the way to a pod: whom it may answer. */
static __always_inline void record_udp_peer(struct __sk_buff *skb, struct packet *p)
{
	struct weft_tuple key;
	struct weft_pod *pod;
	__u64 now;

	if (!read_udp_ports(skb, p))
		return;
	pod = pod_of(&p->dst);
	if (!is_enrolled(pod) || pod->host_ifindex != skb->ifindex || is_registered(&p->src))
		return;
	now = bpf_ktime_get_ns();
	tuple_to_pod(&p->src, p->sport, &p->dst, p->dport, skb->ifindex, &key);
	bpf_map_update_elem(&udp_peers, &key, &now, BPF_ANY);
}

static __always_inline int answers_udp_peer(const struct __sk_buff *skb, const struct packet *p)
{
	struct weft_tuple key;
	__u64 *seen;

	tuple_to_pod(&p->dst, p->dport, &p->src, p->sport, skb->ifindex, &key);
	seen = bpf_map_lookup_elem(&udp_peers, &key);
	return seen && bpf_ktime_get_ns() - *seen < WEFT_UDP_PEER_LIFETIME_NS;
}

/* What a pod sends that is neither TCP nor a connection's. */
static __always_inline int is_refused_datagram(struct __sk_buff *skb, struct packet *p)
{
	int is_udp;

	if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6 || p->protocol == IPPROTO_IGMP)
		return 0;
	is_udp = read_udp_ports(skb, p);
	return is_refused_by_registry(p) && !(is_udp && answers_udp_peer(skb, p));
}

#endif
