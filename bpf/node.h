/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Connections from the node itself (kubelet's probes): who sent them, and the note that to_pod_host leaves for to_pod. */
#ifndef WEFT_BPF_NODE_H
#define WEFT_BPF_NODE_H

#include "kernel.h"
#include "maps.h"
#include "parse.h"

/* The inode of the host's netns, set at load. */
const volatile __u32 host_netns_inode;

/* The packet's sender is a socket of the host's netns. */
static __always_inline int sent_by_node(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tcp;

	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	return tcp && tcp->inet_conn.icsk_inet.sk.__sk_common.skc_net.net->ns.inum == host_netns_inode;
}

static __always_inline void record_probe(const struct packet *p, __u32 host_ifindex, int from_node)
{
	struct weft_tuple key;
	__u64 now = bpf_ktime_get_ns();

	tuple_to_pod(&p->src, p->sport, &p->dst, p->dport, host_ifindex, &key);
	if (from_node)
		bpf_map_update_elem(&probes, &key, &now, BPF_ANY);
	else
		bpf_map_delete_elem(&probes, &key);
}

/* True once for a connection that was recorded within the last second. */
static __always_inline int take_probe(const struct packet *p, __u32 host_ifindex)
{
	struct weft_tuple key;
	__u64 *seen, age;

	if (!host_ifindex)
		return 0;
	tuple_to_pod(&p->src, p->sport, &p->dst, p->dport, host_ifindex, &key);
	seen = bpf_map_lookup_elem(&probes, &key);
	if (!seen)
		return 0;
	age = bpf_ktime_get_ns() - *seen;
	return !bpf_map_delete_elem(&probes, &key) && age < WEFT_PROBE_LIFETIME_NS;
}

#endif
