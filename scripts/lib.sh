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

# add_counts FILE: reads lines "passed failed skipped", prints their sums in the same form.
add_counts() { awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}' "$1"; }
# closing_line PASSED FAILED SKIPPED: the plain last line of every script that counts.
closing_line() { printf '%d passed, %d failed, %d skipped\n' "$1" "$2" "$3"; }
