/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The one parser of all hooks. It reads the frame itself: skb->protocol is
 * what an AF_PACKET sender said it is. Headers are copied out with
 * bpf_skb_load_bytes, which also reads what is not in the linear part.
 *
 * What may be TCP and cannot be followed to its ports is PACKET_UNPARSED with
 * the reason to drop it, and with the addresses if they could be read.
 */
#ifndef WEFT_BPF_PARSE_H
#define WEFT_BPF_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "shared.h"

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 6
#define MAX_IP_OPTIONS 16

#define IPV4_FRAGMENT 0x3fff /* more fragments, or an offset */
#define IPV6_FRAGMENT_OFFSET 0xfff8

enum packet_kind {
	PACKET_NOT_IP,
	PACKET_OTHER, /* IP, and certainly not TCP */
	PACKET_TCP,
	PACKET_UNPARSED,
};

struct packet {
	struct weft_addr src; /* family 0: unknown */
	struct weft_addr dst;
	__u32 transport; /* offset in the frame of what is behind the IP headers; not of PACKET_UNPARSED */
	__be16 sport; /* of PACKET_TCP, and of UDP once read_udp_ports() has read it */
	__be16 dport;
	__be16 ethertype; /* behind VLAN tags */
	__u8 protocol; /* the last IP protocol that could be read */
	__u8 syn; /* SYN without ACK, whatever else is set */
	__u8 vlan; /* tagged, in the frame or beside it */
	__u8 kind; /* enum packet_kind */
	__u8 problem; /* enum weft_reason of PACKET_UNPARSED */
	__u8 tcp_flags; /* of PACKET_TCP, as they arrived */
	__u8 fragment; /* PACKET_OTHER: what is at `transport` may be no header */
};

static __always_inline void unparsed(struct packet *p, enum weft_reason problem)
{
	p->kind = PACKET_UNPARSED;
	p->problem = problem;
}

static __always_inline void parse_tcp(struct __sk_buff *skb, __u32 offset, struct packet *p)
{
	struct tcphdr tcp;

	if (bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
		return unparsed(p, WEFT_MALFORMED);
	p->transport = offset;
	p->sport = tcp.source;
	p->dport = tcp.dest;
	p->syn = tcp.syn && !tcp.ack;
	p->tcp_flags = ((const __u8 *)&tcp)[13];
	p->kind = PACKET_TCP;
}

/*
 * True if the options between two offsets route the packet elsewhere than its destination says, cannot be read, or are
 * too many to look at. A global function, as skip_extensions: the verifier looks at it once and by itself, and forgets the
 * ways through it; inlined, the loops multiplied to 300,000 instructions a program.
 */
__attribute__((noinline)) int source_routed(struct __sk_buff *skb, __u32 offset, __u32 end)
{
	__u8 option[2]; /* type, length */
	int i;

	for (i = 0; i < MAX_IP_OPTIONS && offset < end; i++) {
		/* The byte behind the last option belongs to TCP and is there too. */
		if (bpf_skb_load_bytes(skb, offset, option, sizeof(option)))
			return 1;
		if (option[0] == 0) /* end of the list */
			return 0;
		if (option[0] == 1) /* padding */
			option[1] = 1;
		else if (option[1] < 2)
			return 1;
		if (option[0] == 131 || option[0] == 137) /* loose, strict source route */
			return 1;
		offset += option[1];
	}
	return offset < end;
}

static __always_inline void parse_ipv4(struct __sk_buff *skb, __u32 offset, struct packet *p)
{
	struct iphdr ip;
	__u32 length;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return unparsed(p, WEFT_MALFORMED);
	p->src.family = 4;
	p->src.addr[0] = ip.saddr;
	p->dst.family = 4;
	p->dst.addr[0] = ip.daddr;
	p->protocol = ip.protocol;
	if (ip.version != 4 || ip.ihl < 5)
		return unparsed(p, WEFT_MALFORMED);
	length = ip.ihl * 4;
	if (ip.protocol != IPPROTO_TCP) {
		p->kind = PACKET_OTHER;
		p->transport = offset + length;
		p->fragment = !!(ip.frag_off & bpf_htons(IPV4_FRAGMENT));
		return;
	}
	if (ip.frag_off & bpf_htons(IPV4_FRAGMENT))
		return unparsed(p, WEFT_FRAGMENT);
	if (length > sizeof(ip) && source_routed(skb, offset + sizeof(ip), offset + length))
		return unparsed(p, WEFT_SOURCE_ROUTE);
	parse_tcp(skb, offset + length, p);
}

static __always_inline int is_extension(__u32 next)
{
	const __u64 low = 1ULL << IPPROTO_HOPOPTS | 1ULL << IPPROTO_ROUTING | 1ULL << IPPROTO_FRAGMENT | 1ULL << IPPROTO_AH |
			  1ULL << IPPROTO_DSTOPTS;

	if (next < 64)
		return low >> next & 1;
	return next == IPPROTO_MH || next == 139 /* HIP */ || next == 140 /* Shim6 */;
}

#define EXTENSIONS_FRAGMENT 0x100 /* one of them is a fragment header */
#define EXTENSIONS_PROBLEM(result) ((result) >> 16 & 0xff)
#define EXTENSIONS_OFFSET(result) ((__u32)((result) >> 32))

/*
 * Follows the extension headers from one of type `next` on. From the low end: the type of what is behind them, a bit for a
 * fragment header, the reason if they cannot be followed, and the offset of what is behind.
 */
__attribute__((noinline)) __u64 skip_extensions(struct __sk_buff *skb, __u32 offset, __u32 next)
{
	__u32 fragment = 0;
	__u8 header[4]; /* next, length, and two bytes that depend on the type */
	int i;

	for (i = 0; i < MAX_EXTENSION_HEADERS && is_extension(next); i++) {
		if (bpf_skb_load_bytes(skb, offset, header, sizeof(header)))
			return WEFT_MALFORMED << 16;
		/* Segments left: the address in front is not the destination. */
		if (next == IPPROTO_ROUTING && header[3])
			return WEFT_SOURCE_ROUTE << 16;
		if (next == IPPROTO_FRAGMENT) {
			fragment = EXTENSIONS_FRAGMENT;
			/* What begins in the middle cannot be followed. */
			if ((header[2] << 8 | header[3]) & IPV6_FRAGMENT_OFFSET && is_extension(header[0]))
				return WEFT_FRAGMENT << 16;
			offset += 8;
		} else if (next == IPPROTO_AH) {
			offset += (header[1] + 2) * 4;
		} else {
			offset += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	if (is_extension(next))
		return WEFT_TOO_DEEP << 16;
	return (__u64)offset << 32 | fragment | (next & 0xff);
}

static __always_inline void parse_ipv6(struct __sk_buff *skb, __u32 offset, struct packet *p)
{
	struct ipv6hdr ip;
	__u64 behind = 0;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return unparsed(p, WEFT_MALFORMED);
	p->src.family = 6;
	__builtin_memcpy(p->src.addr, &ip.saddr, sizeof(p->src.addr));
	p->dst.family = 6;
	__builtin_memcpy(p->dst.addr, &ip.daddr, sizeof(p->dst.addr));
	p->protocol = ip.nexthdr;
	if (ip.version != 6)
		return unparsed(p, WEFT_MALFORMED);
	offset += sizeof(ip);
	if (is_extension(ip.nexthdr)) {
		behind = skip_extensions(skb, offset, ip.nexthdr);
		if (EXTENSIONS_PROBLEM(behind))
			return unparsed(p, EXTENSIONS_PROBLEM(behind));
		p->protocol = behind;
		offset = EXTENSIONS_OFFSET(behind);
	}
	if (p->protocol != IPPROTO_TCP) {
		p->kind = PACKET_OTHER;
		p->transport = offset;
		p->fragment = !!(behind & EXTENSIONS_FRAGMENT);
	} else if (behind & EXTENSIONS_FRAGMENT) {
		/* Even with nothing behind it (an "atomic fragment"): nobody needs one for TCP. */
		unparsed(p, WEFT_FRAGMENT);
	} else {
		parse_tcp(skb, offset, p);
	}
}

static __always_inline int is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* Fills a zeroed packet. */
static __always_inline void parse(struct __sk_buff *skb, struct packet *p)
{
	__u32 offset = ETH_HLEN;
	__be16 ethertype;
	int i;

	p->vlan = !!skb->vlan_present;
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype)))
		return unparsed(p, WEFT_MALFORMED);
	for (i = 0; i < MAX_VLAN_TAGS && is_vlan(ethertype); i++) {
		p->vlan = 1;
		if (bpf_skb_load_bytes(skb, offset + 2, &ethertype, sizeof(ethertype)))
			return unparsed(p, WEFT_MALFORMED);
		offset += 4;
	}
	p->ethertype = ethertype;
	if (is_vlan(ethertype))
		unparsed(p, WEFT_TOO_DEEP);
	else if (ethertype == bpf_htons(ETH_P_IP))
		parse_ipv4(skb, offset, p);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		parse_ipv6(skb, offset, p);
}

static __always_inline int is_link_local(const struct weft_addr *a)
{
	if (a->family == 4)
		return (a->addr[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
	return a->family == 6 && (a->addr[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline int is_loopback(const struct weft_addr *a)
{
	if (a->family == 4)
		return (a->addr[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return a->family == 6 && !a->addr[0] && !a->addr[1] && !a->addr[2] && a->addr[3] == bpf_htonl(1);
}

static __always_inline int is_unspecified(const struct weft_addr *a)
{
	return !a->addr[0] && !a->addr[1] && !a->addr[2] && !a->addr[3];
}

#endif
