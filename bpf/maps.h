/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps. All are pinned under root/maps and outlive the agent. The agent is
 * the only writer of all but probes, app_sockets and counters. The sizes here
 * are placeholders where the loader sets them.
 */
#ifndef WEFT_BPF_MAPS_H
#define WEFT_BPF_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "shared.h"

/* A pod by each of its addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct weft_addr);
	__type(value, struct weft_pod);
} pods SEC(".maps");

/* A pod by the ifindex of its host side. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_pod);
} interfaces SEC(".maps");

/* Mesh addresses and ranges; the value says nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct weft_addr);
	__type(value, __u32);
} destinations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct weft_cidr);
	__type(value, __u32);
} destination_cidrs SEC(".maps");

/* Listening sockets of the agent by listener_index(). A socket that closes leaves by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, WEFT_LISTENERS_PER_POD);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

/* Tags of the agent's own sockets. Without BPF_F_CLONE: an accepted socket does not inherit the tag. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} agent_sockets SEC(".maps");

/* Verdicts of the applications' connections. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, enum weft_verdict);
} app_sockets SEC(".maps");

/* New connections from the node itself: when each was seen, ns since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WEFT_MAX_PROBES);
	__type(key, struct weft_probe);
	__type(value, __u64);
} probes SEC(".maps");

/* Key: enum weft_program. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WEFT_PROGRAMS);
	__type(key, __u32);
	__type(value, struct weft_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_settings);
} settings SEC(".maps");

static __always_inline struct weft_pod *pod_of(const struct weft_addr *addr)
{
	return bpf_map_lookup_elem(&pods, addr);
}

static __always_inline void count(enum weft_program program, __u32 reason)
{
	__u32 key = program;
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);
	__u64 index = reason;

	/* Or the compiler checks one copy of the index and uses another one, which the verifier has not seen checked. */
	if (!__builtin_constant_p(reason))
		asm volatile("" : "+r"(index));
	if (counter && index < WEFT_REASONS)
		counter[index]++;
}

/* Counts, and gives the TC action that belongs to the reason. -1 is TC_ACT_UNSPEC and TCX_NEXT, 2 TC_ACT_SHOT and TCX_DROP. */
static __always_inline int finish(enum weft_program program, __u32 reason)
{
	count(program, reason);
	return reason >= WEFT_FIRST_DROP ? 2 : -1;
}

#endif
