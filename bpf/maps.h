/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps. All are pinned under root/maps and outlive the agent. The agent is
 * the only writer of all but probes, app_sockets, the counters and events. The
 * sizes here are placeholders where the loader sets them.
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

/* What is true of a pod beside struct weft_pod, whose layout is that of earlier agents: enum weft_pod_flag, by slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} pod_flags SEC(".maps");

/* UDP sockets of the agent: (slot * WEFT_DNS_FAMILIES + (1 for IPv6)) * WEFT_MAX_WORKERS + worker. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, WEFT_DNS_SOCKETS_PER_POD);
	__type(key, __u32);
	__type(value, __u64);
} dns_sockets SEC(".maps");

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
	__type(key, struct weft_tuple);
	__type(value, __u64);
} probes SEC(".maps");

/* Key: enum weft_program. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WEFT_PROGRAMS);
	__type(key, __u32);
	__type(value, struct weft_counters);
} counters SEC(".maps");

/* Key: the slot of a pod. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_pod_counters);
} pod_counters SEC(".maps");

/* struct weft_event, while somebody listens. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, WEFT_EVENT_BYTES);
} events SEC(".maps");

/* Key: enum weft_event_state. Not in `settings`, whose layout is that of earlier agents. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WEFT_EVENT_STATES);
	__type(key, __u32);
	__type(value, __u64);
} event_state SEC(".maps");

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

static __always_inline void tuple_to_pod(const struct weft_addr *remote, __be16 remote_port, const struct weft_addr *pod,
					 __be16 pod_port, __u32 host_ifindex, struct weft_tuple *key)
{
	key->host_ifindex = host_ifindex;
	key->sport = remote_port;
	key->dport = pod_port;
	key->src = *remote;
	key->dst = *pod;
}

/* Whether an address is in one of two maps that are a set together: single addresses, and ranges. */
static __always_inline int is_listed(void *addresses, void *cidrs, const struct weft_addr *addr)
{
	struct weft_cidr key = {
		.prefix_length = 32 + (addr->family == 6 ? 128 : 32),
		.addr = *addr,
	};

	return bpf_map_lookup_elem(addresses, addr) || bpf_map_lookup_elem(cidrs, &key);
}

static __always_inline int is_enrolled(const struct weft_pod *pod)
{
	return pod && pod->enrolled == WEFT_ENROLLED;
}

#endif
