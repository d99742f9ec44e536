# shellcheck shell=bash
# Functions that the scripts share. Sourced, never run.
set -euo pipefail
# shellcheck disable=SC2034 # for the scripts
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
  warn "$(basename "$0"): $*"
  exit 1
}
is_root() { [ "$(id -u)" = 0 ]; }
need_root() { is_root || die "needs root: ${1:-network namespaces and BPF programs are made}"; }

# usage_of FILE: the comment block at the head of a script, which is its help text.
usage_of() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"; }

# jobs: how many things to build or test at once: the cores, but at least 2 GiB of memory for each.
jobs() {
  local cores memory_gib
  cores=$(nproc)
  memory_gib=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  local fit=$((memory_gib / 2))
  [ "$fit" -ge 1 ] || fit=1
  echo $((cores < fit ? cores : fit))
}

# go_tool NAME PACKAGE@VERSION: prints the path of build/tools/NAME, which Go 1.21 or later builds of that package where it
# is not there already. Says why and fails where it cannot.
go_tool() {
  local name=$1 source=$2 folder=$root/build/tools minor
  if [ ! -x "$folder/$name" ] || [ "$(cat "$folder/$name.source" 2>/dev/null)" != "$source" ]; then
    minor=$(go env GOVERSION 2>/dev/null | sed -nE 's/^go1\.([0-9]+).*/\1/p')
    [ "${minor:-0}" -ge 21 ] || { warn "no $name: Go 1.21 or later is not installed" && return 1; }
    GOBIN=$folder CGO_ENABLED=0 go install "$source" >&2 ||
      { warn "no $name: go install $source failed (is the module proxy reachable?)" && return 1; }
    echo "$source" >"$folder/$name.source"
  fi
  echo "$folder/$name"
}

# cni_tools: builds the reference plugins and cnitool for the conformance tests, which skip what is not there.
cni_tools() {
  local plugin from=github.com/containernetworking
  for plugin in main/{ptp,bridge,macvlan,loopback} ipam/host-local meta/{bandwidth,portmap,tuning}; do
    go_tool "${plugin#*/}" "$from/plugins/plugins/$plugin@v1.9.1" >/dev/null || return 0
  done
  go_tool cnitool "$from/cni/cnitool@v1.3.1" >/dev/null || return 0
}

# eventually SECONDS COMMAND...: tries it again and again until it succeeds or the time is over.
eventually() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.05
  done
}

# add_counts FILE: reads lines "passed failed skipped", prints their sums in the same form.
add_counts() { awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}' "$1"; }
# closing_line PASSED FAILED SKIPPED: the plain last line of every script that counts.
closing_line() { printf '%d passed, %d failed, %d skipped\n' "$1" "$2" "$3"; }
