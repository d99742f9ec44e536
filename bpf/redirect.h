/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The way of a packet to the agent. Nothing else writes skb->mark. */
#ifndef WEFT_BPF_REDIRECT_H
#define WEFT_BPF_REDIRECT_H

#include <linux/if_packet.h>

#include "maps.h"
#include "parse.h"

/* Sends a packet that leaves the pod to the pod's own lo instead, as if it came in there. */
static __always_inline int redirect_to_lo(struct __sk_buff *skb, enum weft_program program, __u32 reason)
{
	count(program, reason);
	skb->mark = WEFT_MARK;
	return bpf_redirect(WEFT_LO_IFINDEX, BPF_F_INGRESS);
}

/* The listener of one worker. All packets of a tuple give the same one: the ACK of a SYN cookie must find the listener
 * of its SYN.
 */
static __always_inline __u32 listener_index(const struct packet *p, __u32 slot, enum weft_listener kind)
{
	__u32 zero = 0, hash, workers = 1;
	struct weft_settings *s = bpf_map_lookup_elem(&settings, &zero);

	if (s && s->workers)
		workers = s->workers;
	hash = p->src.addr[0] ^ p->src.addr[1] ^ p->src.addr[2] ^ p->src.addr[3];
	hash = hash * 31 + (p->dst.addr[0] ^ p->dst.addr[1] ^ p->dst.addr[2] ^ p->dst.addr[3]);
	hash = hash * 31 + ((__u32)p->sport << 16 | p->dport);
	/* What differs between connections may be one byte near the top: MurmurHash3's last step spreads it over all bits. */
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	hash ^= hash >> 16;
	return (slot * WEFT_LISTENER_KINDS + kind) * WEFT_MAX_WORKERS + hash % workers;
}

/* Hands a packet to a listener of the agent: ASSIGNED, NO_LISTENER or ASSIGN_FAILED (the listener lives in another netns:
 * the source was a neighbour's).
 */
static __always_inline __u32 assign(struct __sk_buff *skb, const struct packet *p, __u32 slot, enum weft_listener kind)
{
	__u32 index = listener_index(p, slot, kind);
	struct bpf_sock *listener = bpf_map_lookup_elem(&listeners, &index);
	long err;

	if (!listener)
		return WEFT_NO_LISTENER;
	err = bpf_sk_assign(skb, listener, 0);
	bpf_sk_release(listener);
	return err ? WEFT_ASSIGN_FAILED : WEFT_ASSIGNED;
}

enum held {
	HELD_BY_NONE,
	HELD_BY_LISTENER,
	HELD_BY_CONNECTION, /* established, opening or closing */
};

/* Who in this netns would receive a packet from src:sport to dst:dport. */
static __always_inline enum held holder(struct __sk_buff *skb, const struct weft_addr *src, __be16 sport,
					const struct weft_addr *dst, __be16 dport)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	enum held held;

	if (src->family == 6) {
		__builtin_memcpy(t.ipv6.saddr, src->addr, sizeof(t.ipv6.saddr));
		__builtin_memcpy(t.ipv6.daddr, dst->addr, sizeof(t.ipv6.daddr));
		t.ipv6.sport = sport;
		t.ipv6.dport = dport;
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		t.ipv4.saddr = src->addr[0];
		t.ipv4.daddr = dst->addr[0];
		t.ipv4.sport = sport;
		t.ipv4.dport = dport;
		sk = bpf_skc_lookup_tcp(skb, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return HELD_BY_NONE;
	held = sk->state == BPF_TCP_LISTEN ? HELD_BY_LISTENER : HELD_BY_CONNECTION;
	bpf_sk_release(sk);
	return held;
}

static __always_inline enum held receiver_of(struct __sk_buff *skb, const struct packet *p)
{
	return holder(skb, &p->src, p->sport, &p->dst, p->dport);
}

/* The socket with the ends the other way round: one of this netns that has the packet's source as its own address. */
static __always_inline enum held sender_of(struct __sk_buff *skb, const struct packet *p)
{
	return holder(skb, &p->dst, p->dport, &p->src, p->sport);
}

#endif
