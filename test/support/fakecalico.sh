#!/usr/bin/env bash
# weft-fakecalico: wires a pod as Calico's CNI plugin does, without Calico: a routed veth named cali + sha1(namespace.pod),
# with one MAC address on every node's side, /32 and /128 addresses, and a gateway that exists only by proxy ARP (IPv6: the
# link-local address of the node's side). The node needs some route that covers that gateway, a default route usually.
# Addresses come from the IPAM plugin of the configuration. Felix's rules are not its business (test/support/mesh_felix.h).
# Speaks every version of CNI that has prevResult; needs ip, jq and nsenter.
set -eEuo pipefail
shopt -s inherit_errexit

gateway=169.254.1.1
node_mac=ee:ee:ee:ee:ee:ee

# refuse CODE TEXT: the error document of CNI, and the end.
refuse() {
  jq -nc --arg version "${version:-1.0.0}" --argjson code "$1" --arg msg "$2" \
    '{cniVersion: $version, code: $code, msg: $msg, details: ""}'
  exit 1
}
trap 'refuse 999 "$BASH_COMMAND: failed (stderr has its words)"' ERR

if [ "${CNI_COMMAND:-}" = VERSION ]; then
  echo '{"cniVersion":"1.1.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}'
  exit 0
fi
conf=$(cat)
read -r version mtu ipam < <(jq -r '"\(.cniVersion) \(.mtu // 1450) \(.ipam.type // "-")"' <<<"$conf") ||
  refuse 6 "the network configuration is no JSON object"

# argument NAME: its value in CNI_ARGS, empty where it is not there.
argument() { tr ';' '\n' <<<"${CNI_ARGS:-}" | sed -n "s/^$1=//p"; }
# call_ipam: the IPAM plugin with this call's own variables and configuration.
call_ipam() {
  local folder
  while IFS= read -r -d: folder; do
    [ -x "$folder/$ipam" ] || continue
    "$folder/$ipam" <<<"$conf"
    return
  done <<<"${CNI_PATH:-}:"
  return 1
}
in_pod() { nsenter --net="$CNI_NETNS" -- "$@"; }
# set_sysctl VALUE NAME: of the node, where the kernel has it.
set_sysctl() { [ ! -e "/proc/sys/net/$2" ] || echo "$1" >"/proc/sys/net/$2"; }

# make_veth NODE_SIDE: both ends up, and the node's side answering for the gateway.
make_veth() {
  ip link del "$1" 2>/dev/null || true
  ip link add "$1" address "$node_mac" mtu "$mtu" type veth peer name "$CNI_IFNAME" mtu "$mtu" netns "$CNI_NETNS"
  set_sysctl 1 "ipv4/conf/$1/route_localnet"
  set_sysctl 0 "ipv4/neigh/$1/proxy_delay"
  set_sysctl 1 "ipv4/conf/$1/proxy_arp"
  set_sysctl 1 "ipv4/conf/$1/forwarding"
  set_sysctl 0 "ipv6/conf/$1/accept_ra"
  set_sysctl 1 "ipv6/conf/$1/proxy_ndp"
  set_sysctl 1 "ipv6/conf/$1/forwarding"
  ip link set "$1" up
  in_pod ip link set "$CNI_IFNAME" up
}

# link_local NODE_SIDE: its IPv6 link-local address, which comes up some moments after the interface.
link_local() {
  local address
  for _ in {1..100}; do # 2 seconds
    address=$(ip -6 -o addr show dev "$1" scope link -tentative | sed -nE 's|.* inet6 ([^/]+)/.*|\1|p')
    [ -z "$address" ] || { echo "$address" && return; }
    sleep 0.02
  done
  return 1
}

# give_v4, give_v6 NODE_SIDE ADDRESS: the pod's address and routes, and the node's route to the pod.
give_v4() {
  in_pod ip route add "$gateway/32" dev "$CNI_IFNAME" scope link
  in_pod ip route add default via "$gateway" dev "$CNI_IFNAME"
  in_pod ip addr add "$2/32" dev "$CNI_IFNAME"
  ip route replace "$2/32" dev "$1" scope link
}
give_v6() {
  local node_address
  node_address=$(link_local "$1") || refuse 999 "$1 has no IPv6 link-local address: is IPv6 off on the node?"
  in_pod ip addr add "$2/128" dev "$CNI_IFNAME"
  in_pod ip -6 route add default via "$node_address" dev "$CNI_IFNAME"
  ip -6 route replace "$2/128" dev "$1"
}

add() {
  local given addresses=() address node_side mac
  given=$(call_ipam) || { echo "$given" && exit 1; }
  mapfile -t addresses < <(jq -r '.ips[].address | split("/")[0]' <<<"$given")
  [ ${#addresses[@]} -gt 0 ] || refuse 7 "the IPAM plugin $ipam gave no address: is it in CNI_PATH?"
  node_side=cali$(printf %s "$(argument K8S_POD_NAMESPACE).$(argument K8S_POD_NAME)" | sha1sum | cut -c-11)
  make_veth "$node_side"
  for address in "${addresses[@]}"; do
    case $address in
      *:*) give_v6 "$node_side" "$address" ;;
      *) give_v4 "$node_side" "$address" ;;
    esac
  done
  mac=$(in_pod ip -j link show dev "$CNI_IFNAME" | jq -r '.[0].address')
  printf '%s\n' "${addresses[@]}" | jq -Rnc --arg version "$version" --arg node_side "$node_side" --arg name "$CNI_IFNAME" \
    --arg mac "$mac" --argjson mtu "$mtu" --arg sandbox "$CNI_NETNS" '
    # Before 1.0.0 an address tells its family.
    def family: if $version < "1" then {version: (if contains(":") then "6" else "4" end)} else {} end;
    def prefix: if contains(":") then "/128" else "/32" end;
    {cniVersion: $version,
     interfaces: [{name: $node_side}, {name: $name, mac: $mac, mtu: $mtu, sandbox: $sandbox}],
     ips: [inputs | family + {interface: 1, address: (. + prefix)}]}'
}

# Runtimes go on with a DEL only when it succeeds, so nothing that is already gone is an error.
remove() {
  call_ipam >/dev/null || true
  [ -z "${CNI_NETNS:-}" ] || [ ! -e "$CNI_NETNS" ] || in_pod ip link del "$CNI_IFNAME" 2>/dev/null || true
}

case ${CNI_COMMAND:-} in
  ADD) add ;;
  DEL) remove ;;
  CHECK) in_pod ip link show dev "$CNI_IFNAME" >/dev/null 2>&1 || refuse 999 "$CNI_IFNAME is not in $CNI_NETNS" ;;
  GC) call_ipam ;;
  STATUS) ;;
  *) refuse 4 "unknown CNI_COMMAND '${CNI_COMMAND:-}'" ;;
esac
