# shellcheck shell=bash disable=SC2034,SC2154 # the files of scripts/cri share their variables
# The checks of scripts/cri, in order. Sourced by scripts/cri.

passed=0 failed=0
# ends STATUS WHAT
ends() {
  if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  printf '%-7s %3d s  %s\n' "$([ "$1" = 0 ] && echo ok || echo FAILED)" $SECONDS "$2"
}
# holds WHAT COMMAND...: notes whether the command says yes; shows what else it says only when it says no.
holds() {
  local what=$1 status=0
  shift
  "$@" >"$state/log/check" 2>&1 || status=1
  ends $status "$what"
  [ $status = 0 ] || tail -n 5 "$state/log/check"
}
fails() { ! "$@"; }
has() { grep -qE -- "$2" <<<"$1"; }
is_empty() { [ -z "$1" ]; }

run_inside() {
  mount_node "$@"
  trap 'show_logs $?' EXIT
  ip link set lo up
  sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1
  write_list
  write_containerd_config
  write_mesh
  "$bin/weftctl" ca init "$state"/ca >/dev/null
  start_containerd
  make_images "$state"/images.tar "$bin"/weft-testapp
  ctr --address "$state"/containerd.sock --namespace k8s.io images import "$state"/images.tar >/dev/null
  check_older_pods
  check_critest
  check_mesh
  check_agent_away
  check_runtime_restart
  check_removal
  closing_line $passed $failed 0
  [ $failed = 0 ]
}
show_logs() {
  [ "$1" != 0 ] || return 0
  local log
  for log in containerd agent; do
    printf '\n-- the last lines of %s\n' $log
    tail -n 20 "$state"/log/$log.log
  done
}

# Pods that were there before Weft are taken up, out of what containerd's libcni remembers.
check_older_pods() {
  add_pod older-server weft-testapp serve --name older-server
  eventually 10 grep -q ' serving' "$state"/log/older-server.log || true
  add_pod older-client weft-testapp hold "$(ip_of older-server):8080"
  eventually 10 held_for older-client 10 || die "the pods without Weft do not reach each other"
  start_agent
  holds "pods of a list without weft-cni are left alone" is_empty "$(weftctl pods -o json | jq -r '.[].name')"
  cp "$net_d"/10-main.conflist "$state"/list.before
  "$bin/weft-cni" install --bin-dir "$state"/plugins --conf-dir "$net_d" --agent-socket "$state"/agent.sock \
    --bpf-root "$state"/bpf/weft >"$state"/log/install.log 2>&1 || die "weft-cni install: $(cat "$state"/log/install.log)"
  holds "weft-cni install puts the entry last" \
    jq -e '.plugins[-1].type == "weft-cni" and (.plugins | length) == 3' "$net_d"/10-main.conflist
  holds "containerd has read the new list, without a restart" eventually 10 runtime_has_entry
  holds "an older pod is adopted: the server" eventually 15 pod_has_state older-server enrolled
  holds "an older pod is adopted: the client" eventually 15 pod_has_state older-client enrolled
  holds "its live connection goes on" holds_on older-client
  holds "its new connections are in the mesh" in_mesh older-client older-server
}
runtime_has_entry() { crictl info | jq -e '.. | .type? | select(. == "weft-cni")'; }

# in_mesh FROM TO: the one pod's request is answered, and the agents' metrics have one more connection under mTLS.
in_mesh() {
  local before answer
  before=$(opened "$1" "$2")
  answer=$(get "$1" "$2" 2>&1) && has "$answer" "server=$2 client=$(ip_of "$1"):" || { echo "$answer" && return 1; }
  eventually 10 more_opened "$1" "$2" "$before"
}
# opened FROM TO: connections under mTLS, as both ends of them counted.
opened() {
  curl -fsS 127.0.0.1:15020/metrics | awk -v from="source_workload=\"$1\"" -v to="destination_workload=\"$2\"" '
    /^istio_tcp_connections_opened_total/ && index($0, from) && index($0, to) && /"mutual_tls"/ {n += $2} END {print n + 0}'
}
more_opened() { [ "$(opened "$1" "$2")" -gt "$3" ]; }

registered() { grep -c 'pod registered' "$state"/log/agent.log || true; }

check_critest() {
  local before log=$state/log/critest.log specs failed_specs
  before=$(registered)
  cat >"$state"/critest-images.yaml <<'YAML'
defaultTestContainerImage: localhost/weft-cri:pod
webServerTestImage: localhost/weft-cri:web
YAML
  "$tools/critest" --runtime-endpoint "$endpoint" --image-endpoint "$endpoint" --test-images-file "$state"/critest-images.yaml \
    --ginkgo.focus Networking --ginkgo.no-color >"$log" 2>&1 || true
  # "SUCCESS! -- 4 Passed | 0 Failed | 0 Pending | 90 Skipped"
  read -r specs failed_specs <<<"$(sed -nE 's/.*-- ([0-9]+) Passed \| ([0-9]+) Failed .*/\1 \2/p' "$log")"
  [ "${specs:-0}:${failed_specs:-1}" = 4:0 ] || tail -n 60 "$log"
  holds "critest: 4 specs of networking passed, none failed (${specs:-0}, ${failed_specs:-?})" \
    [ "${specs:-0}:${failed_specs:-1}" = 4:0 ]
  holds "critest: their pods went through weft-cni" [ $(($(registered) - before)) -ge 4 ]
  holds "critest: and left nothing" eventually 10 only_pods older-client older-server
}
# only_pods NAME...: the agent has these pods and no other, and so has the kernel.
only_pods() {
  local count=$#
  [ "$(weftctl pods -o json | jq -r '.[].name' | sort)" = "$([ $count = 0 ] || printf '%s\n' "$@" | sort)" ] || return 1
  [ "$(ip -o link show type veth | wc -l)" = $count ] || return 1
  [ "$(find "$state"/agent/registrations -type f | wc -l)" = $count ] || return 1
  [ "$(find "$state"/bpf/weft/links -mindepth 1 -maxdepth 1 | wc -l)" = $count ] || return 1
  [ "$(find /run/netns -type f | wc -l)" = $count ] || return 1
  [ "$(find /var/lib/cni/networks/main -name '10.*' | wc -l)" = $count ] || return 1
  [ "$(find /var/lib/cni/results -type f -name 'main-*' | wc -l)" = $count ]
}

check_mesh() {
  add_pod web weft-testapp serve --name web
  add_pod client sleep 10000
  holds "a new pod is in the mesh: web" eventually 10 pod_has_state web enrolled
  holds "a new pod is in the mesh: client" eventually 10 pod_has_state client enrolled
  holds "they talk through HBONE" in_mesh client web
  holds "with pods from before: to one" in_mesh client older-server
  holds "with pods from before: from one" in_mesh older-client web
  add_pod holder weft-testapp hold "$(ip_of web):8080"
  holds "the agent shows the tunnel with both identities" eventually 10 shown_as_tunnel holder web
}
shown_as_tunnel() {
  weftctl connections -o json | jq -e --arg from "/sa/$1" --arg to "/sa/$2" '.[] | select((.hbone // "" | endswith(":15008"))
    and (.sourceIdentity | endswith($from)) and (.destinationIdentity | endswith($to)))'
}

check_agent_away() {
  local said=
  kill_agent
  said=$(run_sandbox late || true)
  say "              $(tail -n 1 <<<"$said")"
  holds "agent away: RunPodSandbox fails, and names plugin, agent and socket" \
    has "$said" "plugin type=.{1,2}weft-cni.{1,2} failed \(add\): connect to the agent at $state/agent.sock: .*is weft-agent running"
  holds "agent away: no sandbox is left of it" is_empty "$(crictl pods --name '^late$' --state ready --quiet)"
  # Other pods are none of its business.
  holds "agent away: a pod can be removed" remove_pod holder
  start_agent
  said=$(run_sandbox late) || say "              $(tail -n 1 <<<"$said")"
  holds "agent back: the same sandbox starts" has "$said" '^[0-9a-f]{64}$'
  crictl inspectp "$(sandbox_of late)" | jq -er .status.network.ip >"$state"/pods/late.ip
  write_mesh
  run_container late weft-testapp hold "$(ip_of web):8080"
  holds "agent back: it is in the mesh" eventually 10 pod_has_state late enrolled
  holds "agent back: its connection is a tunnel" eventually 10 shown_as_tunnel late web
  holds "agent back: the pods from before are in the mesh again" in_mesh client web
}

# carries_on FROM TO: the tunnel's connection moves three seconds' more heartbeats.
carries_on() { eventually 10 carried_more "$1" "$2" $(($(carried "$1" "$2") + 200)); }
carried_more() { [ "$(carried "$1" "$2")" -ge "$3" ]; }
carried() {
  weftctl connections -o json | jq --arg from "/sa/$1" --arg to "/sa/$2" '[.[] | select((.sourceIdentity | endswith($from))
    and (.destinationIdentity | endswith($to))) | .bytesSent] | add'
}

check_runtime_restart() {
  local before sandboxes
  before=$(registered)
  sandboxes=$(crictl pods --state ready --quiet --no-trunc | sort)
  eventually 10 held_for late 10 || true
  stop_containerd
  # Not by its output, which nobody reads now.
  holds "containerd away: a live connection goes on" carries_on late web
  start_containerd
  holds "containerd back: all pods are up" [ "$(crictl pods --state ready --quiet --no-trunc | sort)" = "$sandboxes" ]
  holds "containerd back: a live connection goes on" holds_on late
  holds "containerd back: pods are in the mesh" in_mesh client web
  holds "containerd back: no pod was registered again" [ "$(registered)" = "$before" ]
  holds "containerd back: a pod starts" add_pod after sleep 10000
  holds "containerd back: that pod is in the mesh" in_mesh after web
}

check_removal() {
  local pods=(after late client web older-client older-server) name
  holds "what is counted for nothing to be left of it is there now" only_pods "${pods[@]}"
  for name in "${pods[@]}"; do remove_pod "$name" || say "        $name could not be removed"; done
  holds "removed: no veth, no pin, no registration, no netns, no address, no entry of the cache" eventually 10 only_pods
  holds "the agent logged no error in all that" fails grep -qE '^[^ ]+ error ' "$state"/log/agent.log
  "$bin/weft-cni" uninstall --bin-dir "$state"/plugins --conf-dir "$net_d" >"$state"/log/uninstall.log 2>&1 || cat "$state"/log/uninstall.log
  holds "weft-cni uninstall leaves the list as it was, and no program" list_is_as_before
}
list_is_as_before() { cmp "$net_d"/10-main.conflist "$state"/list.before && [ ! -e "$state"/plugins/weft-cni ]; }
