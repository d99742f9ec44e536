/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The end of every program: who learns of it (counters by program and by pod, whoever listens to events), and the action. */
#ifndef WEFT_BPF_FINISH_H
#define WEFT_BPF_FINISH_H

#include "maps.h"
#include "parse.h"
#include "redirect.h"

/* Adds to one of a row of counters. */
static __always_inline void add_to(__u64 *counters, __u64 index, __u64 size)
{
	/* Or the compiler checks one copy of the index and uses another one, which the verifier has not seen checked. */
	if (!__builtin_constant_p(index))
		asm volatile("" : "+r"(index));
	if (index < size)
		counters[index]++;
}

static __always_inline void count(enum weft_program program, __u32 reason)
{
	__u32 key = program;
	__u64 *row = bpf_map_lookup_elem(&counters, &key);

	if (row)
		add_to(row, reason, WEFT_REASONS);
}

/*
 * The agent's own packets are no application's: those of its sockets, and those of port 15008 that have no socket yet
 * (answers to SYNs, and what comes before it accepts).
 */
static __always_inline int is_agents(__u32 reason, const struct packet *p)
{
	return reason == WEFT_AGENT || (reason == WEFT_UNCAPTURED && p->sport == bpf_htons(WEFT_HBONE_PORT)) ||
	       (reason == WEFT_CONNECTION && p->dport == bpf_htons(WEFT_HBONE_PORT));
}

/*
 * What passes is counted once, at the pod's own end; what is dropped, where it is. from_pod knows a pod by the source that
 * the packet claims, guard by the interface.
 */
static __always_inline void count_of_pod(struct __sk_buff *skb, enum weft_program program, __u32 reason, __u32 slot,
					 const struct packet *p)
{
	const int decides = program == WEFT_FROM_POD || program == WEFT_TO_POD;
	const enum weft_direction direction = program == WEFT_TO_POD ? WEFT_IN : WEFT_OUT;
	struct weft_pod_counters *c;

	if (reason < WEFT_FIRST_DROP && (!decides || is_agents(reason, p)))
		return;
	c = bpf_map_lookup_elem(&pod_counters, &slot);
	if (!c)
		return;
	if (reason >= WEFT_FIRST_DROP) {
		add_to((__u64 *)&c->drops, reason - WEFT_FIRST_DROP, sizeof(c->drops) / sizeof(__u64));
	} else if (reason < WEFT_FIRST_CAPTURE) {
		c->packets[direction]++;
		c->bytes[direction] += skb->len;
	} else if (program == WEFT_FROM_POD) {
		c->captured++;
	}
}

/* The time where somebody listens, 0 where nobody does. */
static __always_inline __u64 event_time(void)
{
	__u32 key = WEFT_EVENTS_UNTIL;
	__u64 now, *until = bpf_map_lookup_elem(&event_state, &key);

	if (!until || !*until)
		return 0;
	now = bpf_ktime_get_ns();
	return now < *until ? now : 0;
}

static __always_inline void write_event(struct __sk_buff *skb, enum weft_program program, __u32 reason, __u32 slot,
					const struct packet *p)
{
	__u64 now = event_time(), *lost;
	__u32 key = WEFT_EVENTS_LOST;
	struct weft_event *e;

	if (!now)
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lost = bpf_map_lookup_elem(&event_state, &key);
		if (lost)
			__sync_fetch_and_add(lost, 1);
		return;
	}
	e->time_ns = now;
	e->slot = slot;
	e->ifindex = skb->ifindex;
	e->src = p->src;
	e->dst = p->dst;
	e->sport = p->sport;
	e->dport = p->dport;
	e->program = program;
	e->reason = reason;
	e->protocol = p->protocol;
	e->tcp_flags = p->tcp_flags;
	bpf_ringbuf_submit(e, 0);
}

/*
 * The TC action that belongs to the reason. -1 is TC_ACT_UNSPEC and TCX_NEXT, 2 TC_ACT_SHOT and TCX_DROP. slot is the
 * pod's, or WEFT_NO_SLOT. Events are of drops, and of SYNs where it is decided what becomes of them; packets of
 * connections never ask whether somebody listens.
 */
static __always_inline int finish(struct __sk_buff *skb, enum weft_program program, __u32 reason, __u32 slot,
				  const struct packet *p)
{
	const int decides = program == WEFT_FROM_POD || program == WEFT_TO_POD;

	count(program, reason);
	if (slot != WEFT_NO_SLOT)
		count_of_pod(skb, program, reason, slot, p);
	if (reason >= WEFT_FIRST_DROP || (decides && p->syn))
		write_event(skb, program, reason, slot, p);
	if (reason >= WEFT_FIRST_DROP)
		return 2;
	if (program == WEFT_FROM_POD && reason >= WEFT_FIRST_CAPTURE)
		return redirect_to_lo(skb);
	return -1;
}

#endif
