/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The way of a packet to the agent. Nothing else writes skb->mark. */
#ifndef WEFT_BPF_REDIRECT_H
#define WEFT_BPF_REDIRECT_H

#include <linux/if_packet.h>
#include <bpf/bpf_core_read.h>

#include "kernel.h"
#include "maps.h"
#include "parse.h"

/* Sends a packet that leaves the pod to the pod's own lo instead, as if it came in there. */
static __always_inline int redirect_to_lo(struct __sk_buff *skb)
{
	skb->mark = WEFT_MARK;
	return bpf_redirect(WEFT_LO_IFINDEX, BPF_F_INGRESS);
}

/* Which worker's. All packets of a tuple give the same one: the ACK of a SYN cookie must find the listener of its SYN. */
static __always_inline __u32 worker_of(const struct packet *p)
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
	return hash % workers;
}

/* Hands a packet to a socket of the agent: ASSIGNED, NO_LISTENER or ASSIGN_FAILED (the socket lives in another netns: the
 * source was a neighbour's).
 */
static __always_inline __u32 assign_from(struct __sk_buff *skb, void *sockets, __u32 index)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(sockets, &index);
	long err;

	if (!sk)
		return WEFT_NO_LISTENER;
	err = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	return err ? WEFT_ASSIGN_FAILED : WEFT_ASSIGNED;
}

static __always_inline __u32 assign(struct __sk_buff *skb, const struct packet *p, __u32 slot, enum weft_listener kind)
{
	return assign_from(skb, &listeners, (slot * WEFT_LISTENER_KINDS + kind) * WEFT_MAX_WORKERS + worker_of(p));
}

enum held {
	HELD_BY_NONE,
	HELD_BY_LISTENER,
	HELD_BY_TIME_WAIT,
	HELD_BY_CONNECTION, /* established, opening or closing */
	HELD_BY_AGENT, /* the same, and tagged */
};

/*
 * What a TIME_WAIT socket expects. Not through bpf_skc_to_tcp_timewait_sock, which knows no child of a listener that is in
 * a SOCKMAP; and from the start of the socket, since the verifier lets nobody add to its address.
 */
static __always_inline int read_rcv_nxt(struct bpf_sock *sk, __u32 *rcv_nxt)
{
	__u64 offset = bpf_core_field_offset(struct sock_common, skc_tw_rcv_nxt);
	__u8 head[160];

	if (bpf_probe_read_kernel(head, sizeof(head), sk) || offset > sizeof(head) - sizeof(*rcv_nxt))
		return -1;
	__builtin_memcpy(rcv_nxt, head + offset, sizeof(*rcv_nxt));
	return 0;
}

/* Who in this netns would receive a packet from src:sport to dst:dport. Without `tags` the agent's are as any other. */
static __always_inline enum held holder(struct __sk_buff *skb, const struct weft_addr *src, __be16 sport,
					const struct weft_addr *dst, __be16 dport, int tags, __u32 *rcv_nxt)
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
	if (sk->state == BPF_TCP_TIME_WAIT && !read_rcv_nxt(sk, rcv_nxt))
		held = HELD_BY_TIME_WAIT;
	else if (tags && held == HELD_BY_CONNECTION && bpf_sk_storage_get(&agent_sockets, sk, NULL, 0))
		held = HELD_BY_AGENT;
	bpf_sk_release(sk);
	return held;
}

/* rcv_nxt is set for HELD_BY_TIME_WAIT: the sequence number that the socket expects. */
static __always_inline enum held receiver_of(struct __sk_buff *skb, const struct packet *p, __u32 *rcv_nxt)
{
	return holder(skb, &p->src, p->sport, &p->dst, p->dport, 0, rcv_nxt);
}

/* The same, and tells the agent's sockets from the application's. */
static __always_inline enum held tagged_receiver_of(struct __sk_buff *skb, const struct packet *p, __u32 *rcv_nxt)
{
	return holder(skb, &p->src, p->sport, &p->dst, p->dport, 1, rcv_nxt);
}

/* The socket with the ends the other way round: one of this netns that has the packet's source as its own address. */
static __always_inline enum held sender_of(struct __sk_buff *skb, const struct packet *p)
{
	__u32 rcv_nxt;

	return holder(skb, &p->dst, p->dport, &p->src, p->sport, 0, &rcv_nxt);
}

/* An established connection, or one that is gone: the kernel knows what to do with what belongs to it. */
static __always_inline int is_held(enum held held)
{
	return held >= HELD_BY_TIME_WAIT;
}

/*
 * A SYN for the agent meets the TIME_WAIT of an earlier connection with the same ports: the agent's side closed first, so
 * the client was free to use its port again. The kernel would let such a SYN replace the old socket, but only for a
 * listener that it finds by itself; one that is assigned loses its request as a duplicate, without a word (6.10 and
 * later). So the SYN itself becomes the RST that ends TIME_WAIT, and a copy of it comes in behind. Once a packet: where
 * the netns protects TIME_WAIT (tcp_rfc1337), the copy goes the usual way.
 */
static __always_inline int end_time_wait(struct __sk_buff *skb, const struct packet *p, __u32 rcv_nxt, __u32 ifindex)
{
	__be32 old_seq, seq = bpf_htonl(rcv_nxt);
	__be16 old_flags, flags;
	__u32 mark = skb->mark;

	if (bpf_skb_load_bytes(skb, p->transport + 4, &old_seq, sizeof(old_seq)) ||
	    bpf_skb_load_bytes(skb, p->transport + 12, &old_flags, sizeof(old_flags)))
		return -1;
	skb->mark = mark | WEFT_MARK_AGAIN;
	if (bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS))
		return -1;
	skb->mark = mark;
	flags = (old_flags & bpf_htons(0xf000)) | bpf_htons(0x0004); /* the header's length, RST */
	if (bpf_l4_csum_replace(skb, p->transport + 16, old_seq, seq, sizeof(seq)) ||
	    bpf_l4_csum_replace(skb, p->transport + 16, old_flags, flags, sizeof(flags)) ||
	    bpf_skb_store_bytes(skb, p->transport + 4, &seq, sizeof(seq), 0) ||
	    bpf_skb_store_bytes(skb, p->transport + 12, &flags, sizeof(flags), 0))
		return -1;
	return 0;
}

/* Hands a new connection, or the last ACK of one that a SYN cookie opened, to a listener; gives the reason. */
static __always_inline __u32 to_listener(struct __sk_buff *skb, const struct packet *p, __u32 slot,
					 enum weft_listener kind, enum held held, __u32 rcv_nxt, __u32 ifindex)
{
	if (held == HELD_BY_TIME_WAIT && !(skb->mark & WEFT_MARK_AGAIN))
		return end_time_wait(skb, p, rcv_nxt, ifindex) ? WEFT_ASSIGN_FAILED : WEFT_TIME_WAIT;
	return assign(skb, p, slot, kind);
}

#endif
