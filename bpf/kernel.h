/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the programs read of the kernel's own structures, by CO-RE: only names and nesting must match the running kernel. */
#ifndef WEFT_BPF_KERNEL_H
#define WEFT_BPF_KERNEL_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	possible_net_t skc_net;
	__u32 skc_tw_rcv_nxt; /* in TIME_WAIT: the sequence number that the socket expects */
};

struct sock {
	struct sock_common __sk_common;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
};
#pragma clang attribute pop

#endif
