# shellcheck shell=bash disable=SC2034,SC2154 # the files of scripts/cri share their variables
# The node of scripts/cri: what process 1 of the new namespaces mounts and starts there, and the pods on it. Sourced by
# scripts/cri. Everything lies on a tmpfs that goes with the namespaces.

state=/run/weft-cri
bin=$state/bin tools=$state/tools net_d=$state/net.d
endpoint=unix://$state/containerd.sock
pod_subnet=10.72.0.0/24

crictl() { "$tools/crictl" --config $state/crictl.yaml "$@"; }
weftctl() { "$bin/weftctl" "$@"; }

# mount_node PROGRAMS TOOLS: the folders that containerd, runc and the CNI plugins write to become empty ones of this
# mount namespace. The two given ones stay in sight under $state, wherever they are.
mount_node() {
  mount -t proc proc /proc
  mount -t tmpfs -o mode=755 weft-cri /run
  mkdir -p $state/{bin,tools,bpf,plugins,net.d,pods,log,tmp} /run/lock /run/netns
  mount --bind "$1" $bin
  mount --bind "$2" $tools
  [ -L /var/run ] || mount --bind /run /var/run
  mount -t tmpfs -o mode=755 weft-cri /var/lib
  mount -t sysfs sysfs /sys
  mount_cgroups /sys/fs/cgroup
  delegate_cgroups
  mount -t bpf weft-cri $state/bpf
  export TMPDIR=$state/tmp
}

# write_list: the list as a node has it without Weft; it is what kindnet makes, in the version that it makes.
write_list() {
  cp /usr/lib/cni/{ptp,host-local,portmap,loopback} $state/plugins/
  cat >$net_d/10-main.conflist <<JSON
{
  "cniVersion": "0.3.1",
  "name": "main",
  "plugins": [
    {"type": "ptp", "ipMasq": false,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_subnet"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
JSON
}

write_containerd_config() {
  cat >$state/crictl.yaml <<YAML
runtime-endpoint: $endpoint
image-endpoint: $endpoint
timeout: 30
YAML
  cat >$state/containerd.toml <<TOML
version = 2
root = "$state/containerd/root"
state = "$state/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$state/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/weft-cri:pause"
  # Root of a container may lack CAP_SYS_RESOURCE, which a score below one's own needs.
  restrict_oom_score_adj = true
  # A profile would be loaded into the machine's kernel.
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$state/plugins"
    conf_dir = "$net_d"
TOML
}

start_containerd() {
  setsid containerd --config $state/containerd.toml >>$state/log/containerd.log 2>&1 </dev/null &
  containerd_pid=$!
  eventually 20 network_ready || die "containerd does not become ready: $(tail -n 5 $state/log/containerd.log)"
}
network_ready() { crictl info | jq -e '[.status.conditions[].status] | all'; }
stop_containerd() {
  kill -TERM "$containerd_pid"
  wait "$containerd_pid" || true
}

start_agent() {
  setsid "$bin/weft-agent" --local-config $state/mesh.json --node node1 --socket $state/agent.sock \
    --bpf-root $state/bpf/weft --run-dir $state/agent --ca-dir $state/ca --cni-conf-dir $net_d \
    --reconcile-interval-ms 500 >>$state/log/agent.log 2>&1 </dev/null &
  agent_pid=$!
  eventually 20 weftctl status || die "the agent does not become ready: $(tail -n 5 $state/log/agent.log)"
}
kill_agent() {
  kill -KILL "$agent_pid"
  wait "$agent_pid" 2>/dev/null || true
}

# write_mesh: every pod that is up is a workload of the mesh. YAML has JSON in it.
write_mesh() {
  local file
  for file in "$state"/pods/*.ip; do
    [ -e "$file" ] || continue
    jq -nc --arg name "$(basename "$file" .ip)" --arg ip "$(cat "$file")" '{uid: "cri//Pod/shop/\($name)", $name,
      namespace: "shop", serviceAccount: $name, node: "node1", protocol: "HBONE", workloadIps: [$ip]}'
  done | jq -s '{workloads: .}' >$state/mesh.new
  mv $state/mesh.new $state/mesh.json
}

# run_sandbox NAME: RunPodSandbox; prints what crictl says.
run_sandbox() {
  jq -n --arg name "$1" --arg logs $state/log '{metadata: {$name, namespace: "shop", uid: "uid-\($name)", attempt: 0},
    log_directory: $logs, linux: {cgroup_parent: "/pods"}}' >$state/pods/"$1".json
  crictl runp $state/pods/"$1".json 2>&1
}

# run_container NAME COMMAND...: a container in the sandbox of that name; its output lands in $state/log/NAME.log.
run_container() {
  local name=$1 sandbox container
  shift
  sandbox=$(sandbox_of "$name")
  jq -n --arg name "$name" --argjson command "$(json_list "$@")" '{metadata: {name: "main", attempt: 0},
    image: {image: "localhost/weft-cri:pod"}, $command, log_path: "\($name).log", linux: {}}' >$state/pods/"$name".container.json
  container=$(crictl create --no-pull "$sandbox" $state/pods/"$name".container.json $state/pods/"$name".json)
  crictl start "$container" >/dev/null
}
sandbox_of() { crictl pods --name "^$1\$" --quiet --no-trunc; }
container_of() { crictl ps --pod "$(sandbox_of "$1")" --quiet --no-trunc; }

# add_pod NAME COMMAND...: a sandbox with one container; it is a workload of the mesh from then on.
add_pod() {
  local name=$1 said
  said=$(run_sandbox "$name") || { warn "RunPodSandbox of $name: $said" && return 1; }
  crictl inspectp "$(sandbox_of "$name")" | jq -er .status.network.ip >$state/pods/"$name".ip
  write_mesh
  run_container "$@"
}
remove_pod() {
  local sandbox
  sandbox=$(sandbox_of "$1")
  crictl stopp "$sandbox" >/dev/null && crictl rmp "$sandbox" >/dev/null
  rm -f $state/pods/"$1".*
}
ip_of() { cat $state/pods/"$1".ip; }
# in_pod NAME COMMAND...: ExecSync in its container.
in_pod() { crictl exec --sync --timeout 20 "$(container_of "$1")" "${@:2}"; }
# get FROM TO: a request of the one pod to the other; prints the answer.
get() { in_pod "$1" weft-testapp get "$(ip_of "$2"):8080" --connect-timeout 8 --timeout 8; }
# beats NAME: how many heartbeats the connection that pod NAME holds has had.
beats() { sed -nE 's/.* beats=([0-9]+)$/\1/p' $state/log/"$1".log | tail -n 1; }
held_for() { [ "$(beats "$1")" -ge "$2" ]; }
# holds_on NAME: its connection has three seconds' more heartbeats from now on, and did not end.
holds_on() {
  eventually 10 held_for "$1" $(($(beats "$1") + 30)) && ! grep -q ' ended ' $state/log/"$1".log
}
pod_has_state() { [ "$(weftctl pods -o json | jq -r --arg name "$1" '.[] | select(.name == $name) | .state')" = "$2" ]; }
