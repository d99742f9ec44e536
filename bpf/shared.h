/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the capture programs and the C++ side agree on: keys, values, verdicts
 * and reasons. Both compile this file. A change of the layout of a pinned map
 * changes WEFT_LAYOUT_VERSION: an agent refuses pins of another layout.
 */
#ifndef WEFT_BPF_SHARED_H
#define WEFT_BPF_SHARED_H

#include <linux/types.h>

#ifdef __cplusplus
#define WEFT_STATIC_ASSERT static_assert
#else
#define WEFT_STATIC_ASSERT _Static_assert
#endif

#define WEFT_LAYOUT_VERSION 2

/* The capture mark. In the pod's netns a rule sends it to a table of local routes. */
#define WEFT_MARK 0x1000
#define WEFT_MARK_MASK 0x1000

/* Beside it or alone: a SYN that comes back after it ended a TIME_WAIT. */
#define WEFT_MARK_AGAIN 0x2000

/* Beside it: a DNS answer of the agent, to be sent on as if it came from port 53. */
#define WEFT_MARK_ANSWER 0x4000

#define WEFT_HBONE_PORT 15008
#define WEFT_DNS_PORT 53
#define WEFT_MAX_WORKERS 16
#define WEFT_LISTENER_KINDS 3
#define WEFT_LISTENERS_PER_POD (WEFT_LISTENER_KINDS * WEFT_MAX_WORKERS)
#define WEFT_DNS_FAMILIES 2
#define WEFT_DNS_SOCKETS_PER_POD (WEFT_DNS_FAMILIES * WEFT_MAX_WORKERS)
/* The loopback device of every network namespace. */
#define WEFT_LO_IFINDEX 1
#define WEFT_PROBE_LIFETIME_NS 1000000000ULL
#define WEFT_MAX_PROBES 8192
/* How long a pod may answer who sent it UDP, if nothing but the registry is allowed: as long as conntrack remembers. */
#define WEFT_UDP_PEER_LIFETIME_NS 180000000000ULL
#define WEFT_MAX_UDP_PEERS 16384
#define WEFT_EVENT_BYTES (256 * 1024)
/* Where it is not known whose a packet is. */
#define WEFT_NO_SLOT 0xffffffff

/* family is 4 or 6; addr is in network order, an IPv4 address in its first word and zeros behind. */
struct weft_addr {
	__u32 family;
	__u32 addr[4];
};
WEFT_STATIC_ASSERT(sizeof(struct weft_addr) == 20, "pinned layout");

/* LPM key: the 32 bits of the family count as part of the prefix. */
struct weft_cidr {
	__u32 prefix_length;
	struct weft_addr addr;
};
WEFT_STATIC_ASSERT(sizeof(struct weft_cidr) == 24, "pinned layout");

enum weft_inbound {
	WEFT_INBOUND_PASS,
	WEFT_INBOUND_CHECK,
	WEFT_INBOUND_DROP,
};

enum weft_enrolment {
	WEFT_WIRED,
	WEFT_ENROLLED,
	WEFT_LEAVING, /* as wired, but peers that do not know yet may still reach its HBONE listener */
};

/* Value of `pods` (by address) and of `interfaces` (by the ifindex of the host side). */
struct weft_pod {
	__u32 slot;
	__u32 host_ifindex;
	__u32 enrolled; /* enum weft_enrolment */
	__u32 inbound; /* enum weft_inbound */
};
WEFT_STATIC_ASSERT(sizeof(struct weft_pod) == 16, "pinned layout");

/* Bits of a value of `pod_flags`. */
enum weft_pod_flag {
	WEFT_FLAG_DNS = 1, /* its DNS is the agent's, while it is enrolled */
};

enum weft_listener {
	WEFT_LISTENER_OUTBOUND,
	WEFT_LISTENER_HBONE,
	WEFT_LISTENER_PLAINTEXT,
};

/* Value of `app_sockets`: what was decided for an application's connection. */
enum weft_verdict {
	WEFT_VERDICT_PASS = 1,
	WEFT_VERDICT_CAPTURED = 2,
};

/* Key of `probes` and `udp_peers`: the pod's host side and the tuple of a packet to the pod. */
struct weft_tuple {
	__u32 host_ifindex;
	__be16 sport;
	__be16 dport;
	struct weft_addr src;
	struct weft_addr dst;
};
WEFT_STATIC_ASSERT(sizeof(struct weft_tuple) == 48, "pinned layout");

/* The one entry of `settings`. */
struct weft_settings {
	__u32 layout_version; /* 0: the maps were created, but never filled */
	__u32 workers;
	__u32 capture_all; /* until the first complete sync */
	__u32 overflow; /* the destinations do not fit */
};
WEFT_STATIC_ASSERT(sizeof(struct weft_settings) == 16, "pinned layout");

enum weft_program {
	WEFT_FROM_POD,
	WEFT_DELIVER,
	WEFT_TO_POD,
	WEFT_TO_POD_HOST,
	WEFT_GUARD,
	WEFT_PROGRAMS,
};

/*
 * Every way in which a program can end, X(ENUM, member, words). The list tells
 * the verdict: "go on", then "to the agent", then "drop"; the programs derive
 * the TC action from the reason, so that the counters cannot lie.
 */
#define WEFT_PASS_REASONS(X)                                                    \
	X(NOT_TCP, not_tcp, "not TCP")                                          \
	X(NOT_ENROLLED, not_enrolled, "the pod is not enrolled")                \
	X(LINK_LOCAL, link_local, "link-local is never captured")               \
	X(AGENT, agent, "a socket of the agent")                                \
	X(NOT_MESH, not_mesh, "a new connection to outside the mesh")           \
	X(UNCAPTURED, uncaptured, "a connection that is not captured")          \
	X(CONNECTION, connection, "a connection that exists here")              \
	X(SELF, self, "from the pod to itself")                                 \
	X(NO_SOCKET, no_socket, "nothing is here")   \
	X(OPEN, open, "plaintext that needs no check")                          \
	X(PROBE, probe, "a connection from the node itself")                    \
	X(NOT_SYN, not_syn, "not a new connection")                             \
	X(RECORDED, recorded, "a connection from the node itself, recorded")    \
	X(NOT_NODE, not_node, "a connection from elsewhere than the node")      \
	X(CLEAN, clean, "nothing against it")

#define WEFT_CAPTURE_REASONS(X)                                                 \
	X(CAPTURED_NEW, captured_new, "a new connection to the mesh")           \
	X(UNREGISTERED_NEW, unregistered_new, "a new connection past the registry") \
	X(CAPTURED, captured, "a captured connection")                          \
	X(ASSIGNED, assigned, "handed to a listener of the agent")              \
	X(TIME_WAIT, time_wait, "ends the TIME_WAIT of its tuple, comes back")

#define WEFT_DROP_REASONS(X)                                                    \
	X(MALFORMED, malformed, "headers that cannot be parsed")                \
	X(TOO_DEEP, too_deep, "too many VLAN tags or IPv6 extension headers")   \
	X(FRAGMENT, fragment, "a fragment of TCP, or one that may be")          \
	X(SOURCE_ROUTE, source_route, "source routed, or options that may hide it")                          \
	X(VLAN, vlan, "a VLAN tag")                                             \
	X(ETHERTYPE, ethertype, "neither ARP nor IP")                           \
	X(FOREIGN_SOURCE, foreign_source, "a source that is not the pod's")     \
	X(LOOPED, looped, "the capture mark, or back from lo")                  \
	X(TAG_MISUSED, tag_misused, "a socket of the agent sent elsewhere")     \
	X(NO_STORAGE, no_storage, "no memory for the verdict")                  \
	X(NO_LISTENER, no_listener, "the agent does not listen")                \
	X(ASSIGN_FAILED, assign_failed, "the listener cannot take it")          \
	X(TUPLE_HELD, tuple_held, "the agent uses the same tuple")              \
	X(REFUSED, refused, "no plaintext into this pod")                       \
	X(BYPASS, bypass, "plaintext into the mesh past the agent")             \
	X(LINK_LOCAL_REFUSED, link_local_refused, "link-local into a checked pod") \
	X(UNREGISTERED, unregistered, "to where the registry names nothing")

enum weft_reason {
#define WEFT_X(upper, lower, words) WEFT_##upper,
	WEFT_PASS_REASONS(WEFT_X)
	WEFT_CAPTURE_REASONS(WEFT_X)
	WEFT_DROP_REASONS(WEFT_X)
#undef WEFT_X
	WEFT_REASONS,
	WEFT_FIRST_CAPTURE = WEFT_CAPTURED_NEW,
	WEFT_FIRST_DROP = WEFT_MALFORMED,
};

/* Value of `counters`, one entry per program: packets by reason, in the order of enum weft_reason. */
struct weft_counters {
#define WEFT_X(upper, lower, words) __u64 lower;
	WEFT_PASS_REASONS(WEFT_X)
	WEFT_CAPTURE_REASONS(WEFT_X)
	WEFT_DROP_REASONS(WEFT_X)
#undef WEFT_X
};
WEFT_STATIC_ASSERT(sizeof(struct weft_counters) == WEFT_REASONS * sizeof(__u64), "one counter per reason");

enum weft_direction {
	WEFT_OUT, /* of the pod */
	WEFT_IN,
	WEFT_DIRECTIONS,
};

struct weft_drops {
#define WEFT_X(upper, lower, words) __u64 lower;
	WEFT_DROP_REASONS(WEFT_X)
#undef WEFT_X
};

/* Value of `pod_counters`, one entry per slot. */
struct weft_pod_counters {
	__u64 packets[WEFT_DIRECTIONS]; /* what passed without the agent */
	__u64 bytes[WEFT_DIRECTIONS]; /* the same, frames from the Ethernet header on */
	__u64 captured; /* packets of applications that went to the agent instead of out */
	struct weft_drops drops; /* by reason, whichever program dropped */
};
WEFT_STATIC_ASSERT(sizeof(struct weft_pod_counters) == (5 + WEFT_REASONS - WEFT_FIRST_DROP) * sizeof(__u64),
		   "one counter per drop reason");

/* Key of `event_state`. */
enum weft_event_state {
	WEFT_EVENTS_UNTIL, /* somebody listens until then, ns of CLOCK_MONOTONIC; 0: nobody */
	WEFT_EVENTS_LOST, /* events that found no room */
	WEFT_EVENT_STATES,
};

/* What `events` carries: a drop, or what was decided of a new connection. */
struct weft_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 slot; /* or WEFT_NO_SLOT */
	__u32 ifindex;
	struct weft_addr src; /* family 0: not known */
	struct weft_addr dst;
	__be16 sport; /* ports and flags: 0 where it is not TCP or cannot be parsed */
	__be16 dport;
	__u8 program; /* enum weft_program */
	__u8 reason; /* enum weft_reason */
	__u8 protocol; /* of IP */
	__u8 tcp_flags; /* as they stand in the header */
};
WEFT_STATIC_ASSERT(sizeof(struct weft_event) == 64, "pinned layout");

#endif
