# shellcheck shell=bash disable=SC2154 # the files of scripts/cri share their variables
# The control groups of scripts/cri: a folder weft-cri in every hierarchy of the machine, seen as the root by what runs in
# it. Sourced by scripts/cri.

cgroup_name=weft-cri
no_cgroups=77 # exit status of process 1 where it cannot have them

# mount_cgroups FOLDER: the machine's hierarchies, version 1 or 2, seen from the root of this process's cgroup namespace.
mount_cgroups() {
  local controllers name
  if ! grep -qv '^0::' /proc/self/cgroup; then
    mount -t cgroup2 cgroup "$1"
    return
  fi
  mount -t tmpfs -o mode=755 cgroup "$1"
  while IFS=: read -r _ controllers _; do
    name=${controllers#name=}
    [ -n "$controllers" ] || continue
    [ "$name" = "$controllers" ] || controllers=none,$controllers
    mkdir "$1/$name"
    mount -t cgroup -o "$controllers" cgroup "$1/$name"
  done </proc/self/cgroup
}
# hierarchies FOLDER: their folders.
hierarchies() { if [ -e "$1/cgroup.controllers" ]; then echo "$1"; else printf '%s\n' "$1"/*; fi; }

# enter_cgroups --in-cgroups ARGUMENTS...: process 1 puts itself into the folder of every hierarchy, and goes on with that
# as the root: scripts/cri --inside ARGUMENTS.
enter_cgroups() {
  shift
  local seen own file
  seen=$(mktemp -d)
  mount -t tmpfs -o mode=755 weft-cri "$seen"
  mkdir "$seen/cgroup"
  mount_cgroups "$seen/cgroup"
  for own in $(hierarchies "$seen/cgroup"); do
    own+=/$cgroup_name
    mkdir -p "$own" && has_controllers "$own" || exit $no_cgroups
    # A folder of cpuset has no cores and no memory at first, and takes no process then.
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$own/cpuset.memory_migrate" ] || cat "${own%/*}/$file" >"$own/$file"
    done
    echo $$ >"$own/cgroup.procs"
  done
  umount -l "$seen"
  rmdir "$seen"
  exec unshare --cgroup "$0" --inside "$@"
}

# has_controllers FOLDER: in version 2 the group above hands on what containers are limited with, or can be made to. It
# cannot where it has processes of its own, as that of a container has.
has_controllers() {
  [ -e "$1/cgroup.controllers" ] || return 0
  local controller
  for controller in cpu memory pids; do
    grep -qw $controller "$1/cgroup.controllers" || echo +$controller >"${1%/*}/cgroup.subtree_control" || return 1
  done
}

# delegate_cgroups: in version 2 a group with processes has no controllers for its children: process 1 steps aside.
delegate_cgroups() {
  local own=/sys/fs/cgroup controller controllers
  [ -e $own/cgroup.controllers ] || return 0
  mkdir $own/init
  echo 0 >$own/init/cgroup.procs
  read -ra controllers <$own/cgroup.controllers
  for controller in "${controllers[@]}"; do echo "+$controller" >$own/cgroup.subtree_control; done
}

# drop_cgroups: removes the folders; what ran in them has been killed, and may need a moment to be gone.
drop_cgroups() {
  # shellcheck disable=SC2016 # expanded inside
  unshare --mount --propagation private bash -c '
    . "$1"
    seen=$(mktemp -d) && mount -t tmpfs weft-cri "$seen" && mkdir "$seen/cgroup" && mount_cgroups "$seen/cgroup"
    left=
    for _ in $(seq 100); do
      for own in $(hierarchies "$seen/cgroup"); do
        [ ! -d "$own/$cgroup_name" ] || find "$own/$cgroup_name" -depth -type d -exec rmdir {} + 2>/dev/null
      done
      left=$(for own in $(hierarchies "$seen/cgroup"); do find "$own/$cgroup_name" -maxdepth 0 2>/dev/null; done)
      [ -n "$left" ] || break
      sleep 0.05
    done
    umount -l "$seen"
    rmdir "$seen"
    [ -z "$left" ]' bash "$root/test/support/cri-cgroups.sh" || warn "control groups $cgroup_name are left behind"
}
