/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * DNS of pods that opted in. UDP to port 53 takes the way of captured TCP, to
 * the agent's UDP socket of the pod. That socket is bound to a port of its own,
 * since one bound to 53 would keep the pod's DNS server, if it has one, from
 * that port; so its answers get their source port here.
 *
 * Fragments, and what carries a VLAN tag, go on: DNS is no border of the mesh,
 * and no question is that long.
 */
#ifndef WEFT_BPF_DNS_H
#define WEFT_BPF_DNS_H

#include "maps.h"
#include "parse.h"
#include "redirect.h"

static __always_inline int captures_dns(const struct weft_pod *pod)
{
	__u32 slot = pod->slot, *flags = bpf_map_lookup_elem(&pod_flags, &slot);

	return flags && *flags & WEFT_FLAG_DNS;
}

/* True with the ports in `p` for UDP that can be looked at. */
static __always_inline int read_udp_ports(struct __sk_buff *skb, struct packet *p)
{
	__be16 ports[2];

	if (p->kind != PACKET_OTHER || p->protocol != IPPROTO_UDP || p->fragment || p->vlan)
		return 0;
	if (bpf_skb_load_bytes(skb, p->transport, ports, sizeof(ports)))
		return 0;
	p->sport = ports[0];
	p->dport = ports[1];
	return 1;
}

/* A question from a pod that has its DNS from the agent. The look-up comes first: in an array it costs less than a read. */
static __always_inline int is_captured_question(struct __sk_buff *skb, struct packet *p, const struct weft_pod *pod)
{
	return is_enrolled(pod) && captures_dns(pod) && read_udp_ports(skb, p) && p->dport == bpf_htons(WEFT_DNS_PORT);
}

static __always_inline __u32 to_dns_socket(struct __sk_buff *skb, const struct packet *p, __u32 slot)
{
	__u32 row = slot * WEFT_DNS_FAMILIES + (p->src.family == 6);

	return assign_from(skb, &dns_sockets, row * WEFT_MAX_WORKERS + worker_of(p));
}

/* The application knows it by the port that it asked. */
static __always_inline __u32 answer_to_pod(struct __sk_buff *skb, struct packet *p)
{
	__be16 port = bpf_htons(WEFT_DNS_PORT);
	struct weft_pod *pod = pod_of(&p->dst);

	if (!pod || !read_udp_ports(skb, p) || !captures_dns(pod))
		return WEFT_NOT_TCP;
	if (bpf_l4_csum_replace(skb, p->transport + 6, p->sport, port, BPF_F_MARK_MANGLED_0 | sizeof(port)) ||
	    bpf_skb_store_bytes(skb, p->transport, &port, sizeof(port), 0))
		return WEFT_MALFORMED;
	return WEFT_AGENT;
}

#endif
