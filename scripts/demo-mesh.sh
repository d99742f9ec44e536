# shellcheck shell=bash disable=SC2034,SC2154 # the files of the demo share their variables
# The small mesh of scripts/demo: two nodes and their pods as network namespaces, joined by a wire, one agent per node.
# Sourced by scripts/demo, which sets `root`. Everything carries the prefix weftdemo- or stands in $state.

prefix=weftdemo-
state=/run/weftdemo
bin=$root/build/release/bin
port=8080

# pod NAME -> its node, namespace, service account, addresses.
declare -A pod_node=([client]=1 [web1]=1 [web2]=2 [db]=2 [outside]=2)
declare -A pod_namespace=([client]=shop [web1]=shop [web2]=shop [db]=bank [outside]=legacy)
declare -A pod_number=([client]=2 [web1]=3 [web2]=2 [db]=3 [outside]=4)
pods=(client web1 web2 db outside)
mesh_pods=(client web1 web2 db)
vip4=10.96.0.10 vip6=fd96::10

v4() { echo "10.71.${pod_node[$1]}.${pod_number[$1]}"; }
v6() { echo "fd71:0:0:${pod_node[$1]}::${pod_number[$1]}"; }

# in_netns NAME COMMAND...: runs it in the namespace of a node (node1, node2) or a pod.
in_netns() { nsenter --net="/run/netns/$prefix$1" -- "${@:2}"; }
# app POD ARGUMENTS...: the test application in a pod.
app() { in_netns "$1" timeout 60 "$bin/weft-testapp" "${@:2}"; }

# background NAME NETNS COMMAND...: starts it in the namespace with its output in $state/NAME.log and its id in NAME.pid.
# The lock of the demo is not passed on, and no signal of the terminal reaches it.
background() {
  local name=$1 netns=$2
  shift 2
  setsid nsenter --net="/run/netns/$prefix$netns" -- "$@" >>"$state/$name.log" 2>&1 </dev/null 9>&- &
  echo $! >"$state/$name.pid"
  disown $!
}

# Removes everything that this or an earlier run made. Programs are found by the namespaces that they run in.
clean_up() {
  local name pid mount
  for name in $(ip netns list 2>/dev/null | awk -v p="$prefix" 'index($1, p) == 1 {print $1}'); do
    for pid in $(ip netns pids "$name" 2>/dev/null); do
      [ "$pid" = $$ ] || kill -KILL "$pid" 2>/dev/null || true
    done
    ip netns del "$name" 2>/dev/null || rm -f "/run/netns/$name"
  done
  while read -r mount; do umount -l "$mount"; done < <(awk -v s="$state/" 'index($5, s) == 1 {print $5}' /proc/self/mountinfo)
  rm -rf "$state"
  rm -f /var/lib/cni/results/${prefix}* 2>/dev/null || true
}

# add_netns NAME: a namespace without duplicate address detection, which would hold every ADD for two seconds.
add_netns() {
  ip netns add "$prefix$1"
  in_netns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
}

make_nodes() {
  local here there
  for here in 1 2; do
    add_netns "node$here"
    in_netns "node$here" ip link set lo up
    in_netns "node$here" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    mkdir -p "$state/node$here/bpf"
    mount -t bpf weftdemo "$state/node$here/bpf"
  done
  ip -n ${prefix}node1 link add wire type veth peer name wire netns ${prefix}node2
  for here in 1 2; do
    there=$((3 - here))
    ip -n ${prefix}node$here link set wire up
    ip -n ${prefix}node$here addr add 10.70.0.$here/24 dev wire
    ip -n ${prefix}node$here addr add fd70::$here/64 dev wire nodad
    ip -n ${prefix}node$here route add 10.71.$there.0/24 via 10.70.0.$there
    ip -n ${prefix}node$here route add "fd71:0:0:$there::/64" via fd70::$there
  done
}

# write_config POLICIES: the mesh's configuration with these policies (YAML list items, maybe none), put in place by
# rename, so that no agent reads half of it.
write_config() {
  local pod
  {
    echo "workloads:"
    for pod in "${mesh_pods[@]}"; do
      cat <<YAML
- uid: demo//Pod/${pod_namespace[$pod]}/$pod
  name: $pod
  namespace: ${pod_namespace[$pod]}
  serviceAccount: $pod
  node: node${pod_node[$pod]}
  protocol: HBONE
  workloadIps: ["$(v4 "$pod")", "$(v6 "$pod")"]
YAML
      case $pod in web*) echo '  services: {"shop/web.shop.svc.cluster.local": {80: '$port'}}' ;; esac
    done
    cat <<YAML
services:
- name: web
  namespace: shop
  hostname: web.shop.svc.cluster.local
  vips: ["/$vip4", "/$vip6"]
  ports: {80: $port}
YAML
    [ -z "$1" ] || printf 'policies:\n%s\n' "$1"
  } >"$state/mesh.yaml.new"
  mv "$state/mesh.yaml.new" "$state/mesh.yaml"
}

start_agent() {
  local node=node$1
  background "$node/agent" "$node" "$bin/weft-agent" --local-config "$state/mesh.yaml" --node "$node" \
    --socket "$state/$node/agent.sock" --bpf-root "$state/$node/bpf/weft" --run-dir "$state/$node/run" \
    --ca-dir "$state/ca" --admin 127.0.0.1:15000 --metrics 0.0.0.0:15020 --ready 0.0.0.0:15021
  eventually 10 agent_ready "$1" || {
    tail -n 20 "$state/$node/agent.log" >&2
    die "the agent of $node does not become ready (its log is above)"
  }
}
agent_ready() { in_netns "node$1" "$bin/weft-testapp" get 127.0.0.1:15021 --marker healthz/ready --timeout 2; }

write_conflist() {
  local pod=$1 node=node${pod_node[$1]}
  mkdir -p "$state/$node/net.d/$pod"
  # The addresses are asked for, because the configuration of the mesh names them before the pod is there.
  cat >"$state/$node/net.d/$pod/10-weftdemo.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "${prefix}net", "plugins": [
  {"type": "ptp", "ipMasq": false, "args": {"cni": {"ips": ["$(v4 "$pod")", "$(v6 "$pod")"]}},
   "ipam": {"type": "host-local", "dataDir": "$state/$node/ipam",
            "ranges": [[{"subnet": "10.71.${pod_node[$pod]}.0/24"}], [{"subnet": "fd71:0:0:${pod_node[$pod]}::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "weft-cni", "agentSocket": "$state/$node/agent.sock", "bpfRoot": "$state/$node/bpf/weft"}]}
JSON
}

# chain VERB POD: runs the chain ptp + host-local + weft-cni for a pod on its node, with CNI's own cnitool where there is
# one. Prints what the chain printed.
chain() {
  local verb=$1 pod=$2 node=node${pod_node[$2]}
  local conf=$state/$node/net.d/$pod netns=/run/netns/$prefix$pod
  export CNI_PATH=$bin:/usr/lib/cni:/opt/cni/bin
  export CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=${pod_namespace[$pod]};K8S_POD_NAME=$pod;K8S_POD_UID=demo-$pod"
  if command -v cnitool >/dev/null; then
    in_netns "$node" env NETCONFPATH="$conf" CNI_IFNAME=eth0 cnitool "$verb" "${prefix}net" "$netns"
  else
    in_netns "$node" "$bin/weft-chain" --cache "$state/$node/cache" "$verb" "$conf/10-weftdemo.conflist" "$netns" "$prefix$pod" eth0
  fi
}

add_pod() {
  local pod=$1
  add_netns "$pod"
  write_conflist "$pod"
  chain add "$pod" >"$state/$pod.result" 2>"$state/$pod.err" || {
    cat "$state/$pod.result" "$state/$pod.err" >&2
    die "ADD of pod ${pod_namespace[$pod]}/$pod failed (what it said is above)"
  }
  background "$pod" "$pod" "$bin/weft-testapp" serve --name "$pod" --port $port
  eventually 5 grep -q '^serving' "$state/$pod.log" || die "the server of pod $pod does not start"
}

# The capture of the wire between the nodes.
start_capture() {
  background capture node1 tcpdump -i wire -s 0 -B 32768 -U --immediate-mode -Z root -w "$state/wire.pcap"
  eventually 10 grep -q 'listening on' "$state/capture.log" || die "tcpdump does not start: $(cat "$state/capture.log")"
}
# Waits until the capture has everything that was sent before: a datagram sent now must be in the file.
sync_capture() {
  local mark="weftdemo-mark-$RANDOM$RANDOM"
  in_netns node1 bash -c "echo $mark >/dev/udp/10.70.0.2/9"
  eventually 10 grep -qa "$mark" "$state/wire.pcap" || die "the capture of the wire fell behind"
}
# wire_count FILTER: packets in the capture that the filter matches.
wire_count() { tcpdump -nr "$state/wire.pcap" "$1" 2>/dev/null | wc -l; }
# wire_has TEXT: true when the text stands anywhere in the capture.
wire_has() { grep -qaF -- "$1" "$state/wire.pcap"; }
# The pairs of mesh pods on different nodes, as a tcpdump filter.
mesh_pairs() {
  local a b filter=
  for a in client web1; do
    for b in web2 db; do
      filter+="${filter:+ or }(host $(v4 $a) and host $(v4 $b)) or (host $(v6 $a) and host $(v6 $b))"
    done
  done
  echo "($filter)"
}
