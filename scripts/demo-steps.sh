# shellcheck shell=bash disable=SC2034,SC2154 # the files of the demo share their variables
# The steps of scripts/demo, in order. Each says what was asked and what was seen, and notes what held.
# Sourced by scripts/demo behind scripts/demo-mesh.sh.

steps=(step_mesh step_pod_to_pod step_service step_policy step_plaintext step_probe step_agent_killed step_wire step_remove)

step_mesh() {
  step "a mesh of two nodes, two pods each, and a pod outside of it"
  "$bin/weftctl" ca init "$state/ca" >"$state/ca.log" 2>&1 || die "weftctl ca init: $(cat "$state/ca.log")"
  make_nodes
  write_config ""
  start_agent 1
  start_agent 2
  start_capture
  local pod
  for pod in "${pods[@]}"; do add_pod "$pod"; done
  asked "CNI ADD by $(command -v cnitool >/dev/null && echo cnitool || echo weft-chain): ptp + host-local + weft-cni"
  for pod in "${pods[@]}"; do
    seen "$(printf '%-15s node%s  %-10s %s' "${pod_namespace[$pod]}/$pod" "${pod_node[$pod]}" "$(v4 "$pod")" "$(v6 "$pod")")"
  done
  holds "five pods were added, four of them to the mesh" [ "$(cat "$state"/node?/agent.log | grep -c 'pod registered .*enrolled=true')" = 4 ]
}

step_pod_to_pod() {
  local answer
  step "a request from pod to pod, across the nodes"
  asked "client: GET http://$(v4 db):$port"
  answer=$(app client get "$(v4 db):$port" --marker "$secret" 2>&1 || true)
  seen "$answer"
  holds "IPv4: db answers and sees the client's own address" has "$answer" "server=db client=$(v4 client):"
  asked "client: GET http://[$(v6 db)]:$port"
  answer=$(app client get "[$(v6 db)]:$port" --marker "$secret" 2>&1 || true)
  seen "$answer"
  holds "IPv6: db answers and sees the client's own address" has "$answer" "server=db client=\[$(v6 client)\]:"
  asked "client: 4 MB to db and 3 MB back at once, compared byte by byte"
  answer=$(app client bulk "$(v4 db):$port" --send 4000000 --receive 3000000 2>&1 || true)
  seen "$answer"
  holds "bulk arrives byte-exact in both directions" has "$answer" 'received=3000000 .*verdict=exact'
  holds "db got the same bytes" eventually 5 grep -q 'received=4000000 .*verdict=exact' "$state/db.log"
}

step_service() {
  local answers vip
  step "a request to the service web, two backends behind one VIP"
  for vip in "$vip4" "[$vip6]"; do
    asked "client: 20 times GET http://$vip:80"
    answers=$(app client get "$vip:80" --count 20 --marker "$secret" 2>&1 || true)
    seen "$(grep -o 'server=[a-z0-9]*' <<<"$answers" | sort | uniq -c | sed 's/^ *//' | tr '\n' ' ')"
    holds "$vip: 20 answers" [ "$(grep -c '^server=web' <<<"$answers")" = 20 ]
    holds "$vip: both web1 (same node) and web2 (other node)" has_both "$answers" server=web1 server=web2
  done
}

deny_client='
- name: no-client
  namespace: bank
  scope: Namespace
  action: Deny
  rules: [[[{principals: [{Exact: cluster.local/ns/shop/sa/client}]}]]]'
mesh_only='
- name: mesh-only
  namespace: bank
  scope: Namespace
  action: Deny
  rules: [[[{notPrincipals: [{Presence: []}]}]]]'

step_policy() {
  local answer
  step "a DENY policy added to the file, with a connection open"
  background held client "$bin/weft-testapp" hold "$(v4 db):$port"
  eventually 5 grep -q '^held' "$state/held.log" || true
  asked "client holds a connection to db; then the policy bank/no-client is added: principals shop/client are denied"
  write_config "$deny_client"
  eventually 10 grep -q '^ended' "$state/held.log" || true
  seen "$(cat "$state/held.log")"
  holds "the live connection was cut" grep -qE '^ended how=(reset|eof)' "$state/held.log"
  asked "client: a new GET http://$(v4 db):$port"
  answer=$(app client get "$(v4 db):$port" --marker "$secret" 2>&1 || true)
  seen "$answer"
  seen "$(grep -E 'no-client' "$state/node2/agent.log" | tail -n 1)"
  holds "a new connection is refused" fails has "$answer" server=db
  asked "web1, which the policy does not name: GET http://$(v4 db):$port"
  answer=$(app web1 get "$(v4 db):$port" --marker "$secret" 2>&1 || true)
  seen "$answer"
  holds "other clients are not" has "$answer" "server=db client=$(v4 web1):"
  write_config ""
  holds "without the policy the client is let in again" eventually 10 app client get "$(v4 db):$port" --marker "$secret"
}

# own_address_seen ANSWER: true when the server saw the very address and port that the client's socket has.
own_address_seen() {
  [ -n "$1" ] && [ "$(sed -n 's/.* client=\([^ ]*\) .*/\1/p' <<<"$1")" = "$(sed -n 's/.* own=\([^ ]*\) .*/\1/p' <<<"$1")" ]
}

step_plaintext() {
  local answer
  step "traffic that is not the mesh's passes untouched"
  asked "client (mesh): GET http://$(v4 outside):$port, outside the mesh"
  answer=$(app client get "$(v4 outside):$port" --marker "$public" 2>&1 || true)
  seen "$answer"
  holds "from the mesh to the outside: the server sees the client's own socket, port included" own_address_seen "$answer"
  asked "outside: GET http://[$(v6 web1)]:$port, in the mesh, with no policy against it"
  answer=$(app outside get "[$(v6 web1)]:$port" --marker "$public" 2>&1 || true)
  seen "$answer"
  holds "from the outside into the mesh: the same" own_address_seen "$answer"
}

step_probe() {
  local answer
  step "a probe from the node, with plaintext into the namespace bank denied"
  write_config "$mesh_only"
  asked "outside: GET http://$(v4 db):$port, with the policy bank/mesh-only"
  eventually 10 fails app outside get "$(v4 db):$port" --connect-timeout 1 --timeout 1 || true
  answer=$(app outside get "$(v4 db):$port" --marker "$public" --connect-timeout 2 --timeout 2 2>&1 || true)
  seen "$answer"
  holds "plaintext from another pod is refused" fails has "$answer" server=db
  asked "node2 itself, as the kubelet does: GET http://$(v4 db):$port"
  answer=$(in_netns node2 "$bin/weft-testapp" get "$(v4 db):$port" --marker "$public" 2>&1 || true)
  seen "$answer"
  holds "the node's own probe passes" has "$answer" server=db
  answer=$(app client get "$(v4 db):$port" --marker "$secret" 2>&1 || true)
  holds "mesh clients are let in" has "$answer" server=db
  write_config ""
}

step_agent_killed() {
  local answer before
  step "the agent of node1 killed, and back"
  : >"$state/held.log"
  background held client "$bin/weft-testapp" hold "$(v4 db):$port"
  eventually 5 grep -q '^held' "$state/held.log" || true
  asked "kill -KILL of the agent, while client holds a connection to db"
  kill -KILL "$(cat "$state/node1/agent.pid")"
  eventually 10 grep -q '^ended' "$state/held.log" || true
  seen "$(tail -n 1 "$state/held.log")"
  holds "the connection ends" grep -q '^ended' "$state/held.log"
  asked "client: GET http://$(v4 db):$port, waiting up to 40 s"
  background waiting client "$bin/weft-testapp" get "$(v4 db):$port" --marker "$secret" --connect-timeout 40 --timeout 40
  asked "client: GET http://$(v4 outside):$port meanwhile"
  answer=$(app client get "$(v4 outside):$port" --marker "$public" 2>&1 || true)
  seen "$answer"
  holds "non-mesh traffic does not notice" own_address_seen "$answer"
  # Two retransmissions of the SYN (after 1 and 3 s) must find the way shut.
  before=$SECONDS
  eventually 4 [ -s "$state/waiting.log" ] || true
  seen "after $((SECONDS - before)) s without the agent: ${answer_waiting:=$(cat "$state/waiting.log")}"
  holds "the client waits" [ -z "$answer_waiting" ]
  sync_capture
  holds "nothing of it is on the wire" [ "$(wire_count "tcp and not port 15008 and $(mesh_pairs)")" = 0 ]
  start_agent 1
  eventually 30 [ -s "$state/waiting.log" ] || true
  answer=$(cat "$state/waiting.log")
  seen "with the agent back: $answer"
  holds "the waiting request is answered when the agent is back" has "$answer" "server=db client=$(v4 client):"
}

step_wire() {
  local tunnel clear hello
  step "the wire between the nodes, all of the above"
  sync_capture
  tunnel=$(wire_count "tcp port 15008 and $(mesh_pairs)")
  clear=$(wire_count "tcp and not port 15008 and $(mesh_pairs)")
  # A TLS handshake record: content type 22, version 3.x, at the start of the TCP payload.
  hello=$(wire_count "tcp port 15008 and tcp[((tcp[12] & 0xf0) >> 2):2] = 0x1603")
  asked "tcpdump between the mesh pods: TCP to or from port 15008, and any other TCP"
  seen "$tunnel packets on 15008 ($hello of IPv4 begin a TLS handshake), $clear others"
  holds "mesh pods speak to each other on 15008 only" [ "$tunnel" -gt 0 -a "$clear" = 0 ]
  holds "what they speak is TLS" [ "$hello" -gt 0 ]
  asked "the marker of the mesh's requests, and that of the others, in all bytes of the capture"
  seen "$secret: $(wire_has "$secret" && echo found || echo not found); $public: $(wire_has "$public" && echo found || echo not found)"
  holds "the mesh's marker is not in the capture" fails wire_has "$secret"
  holds "the other one is: the capture sees what is in the clear" wire_has "$public"
  kill -INT "$(cat "$state/capture.pid")"
  eventually 10 grep -q 'dropped by kernel' "$state/capture.log" || true
  seen "$(grep -E 'packets (captured|dropped)' "$state/capture.log" | tr '\n' ' ')"
  holds "the capture is complete" grep -q '^0 packets dropped' "$state/capture.log"
}

step_remove() {
  [ "$keep" = 0 ] || return 0
  local pod left
  step "the pods removed"
  asked "CNI DEL of every pod"
  for pod in "${pods[@]}"; do
    chain del "$pod" >"$state/$pod.del" 2>&1 || seen "$pod: $(cat "$state/$pod.del")"
  done
  left=$(find "$state"/node?/bpf/weft/links "$state"/node?/run/registrations -mindepth 1 2>/dev/null | wc -l || true)
  seen "pins and registrations left: $left"
  holds "nothing of them is left on the nodes" [ "$left" = 0 ]
  holds "no veth but the wire is left" [ "$(for n in 1 2; do ip -n "${prefix}node$n" -o link show type veth; done | grep -vc ' wire@')" = 0 ]
}

how_to_look_around() {
  cat <<TEXT

Everything is left up; the next run of scripts/demo, or scripts/demo --clean, takes it down. To look around:
  ip netns list                                                            the nodes and pods (${prefix}*)
  nsenter --net=/run/netns/${prefix}client $bin/weft-testapp get $(v4 db):$port
  nsenter --net=/run/netns/${prefix}node1 $bin/weftctl status      also: pods, connections, drops
  nsenter --net=/run/netns/${prefix}node1 tcpdump -ni wire                 what is on the wire
  less $state/node1/agent.log                                              the agent's log, one line per connection
  \$EDITOR $state/mesh.yaml                                             the mesh; the agents follow every change
  bpftool prog show name from_pod; ls $state/node1/bpf/weft               the programs and their pins
TEXT
}
