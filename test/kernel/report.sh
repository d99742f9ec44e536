# shellcheck shell=bash
# shellcheck disable=SC2154 # root, kernels and time_limit are set by scripts/kernels
# Runs the tests of tests.txt in guests and tells each one's result. Sourced by scripts/kernels.

# Guests are that much slower: tests wait this many times longer before they give up.
guest_slowness=10

# selected_tests HOOK: "PROGRAM FILTER" for each program of tests.txt, its filters joined as GoogleTest takes them.
selected_tests() {
  awk -v hook="$1" '/^[^#]/ && ($2 == "any" || $2 == hook) {
      if (!($1 in filters)) order[++programs] = $1
      filters[$1] = filters[$1] (filters[$1] == "" ? "" : ":") $3
    }
    END {for (i = 1; i <= programs; ++i) print order[i], filters[order[i]]}' "$root/test/kernel/tests.txt"
}

# expected_cases BINARIES HOOK: the names of all cases that must tell a result.
expected_cases() {
  local program filter
  selected_tests "$2" | while read -r program filter; do
    "$1/$program" --gtest_list_tests --gtest_filter="$filter" |
      awk '/^[^ ].*\.$/ {suite = $1} /^[^ ].*\.  *#/ {suite = $1} /^ / {print suite $1}'
  done
}

# results: reads GoogleTest's output, prints "passed|failed|skipped SECONDS CASE" for each case that ended.
results() {
  sed -unE 's/^\[ +(OK|FAILED|SKIPPED) +\] ([^ ,]+)(,.*)? \(([0-9]+) ms\).*/\1 \4 \2/p' |
    awk '{word["OK"] = "passed"; word["FAILED"] = "failed"; word["SKIPPED"] = "skipped"
          printf "%s %.1f %s\n", word[$1], $2 / 1000, $3; fflush()}'
}

# test_kernel BINARIES VERSION: runs the tests in one guest; prints a line for each and appends "passed failed skipped" of
# the kernel to $report/counts, and a line for people to $report/summary.
test_kernel() {
  local binaries=$1 version=$2 folder=$kernels/$2 program filter started=$SECONDS status=0
  local command="export WEFT_TEST_SLOW=$guest_slowness WEFT_BIN=$binaries; uname -r"
  get_kernel "$version" || {
    echo "0 1 0" >>"$report/counts"
    printf 'kernel %-8s cannot be fetched\n' "$version" >>"$report/summary"
    return 0
  }
  local hook release
  hook=$(hook_of "$version") release=$(cat "$folder/release")
  say "== kernel $version: $release, $hook"
  while read -r program filter; do
    command+="; $binaries/$program --gtest_color=no --gtest_filter='$filter' || bad=1"
  done < <(selected_tests "$hook")
  # shellcheck disable=SC2016 # for the guest
  command+='; exit ${bad:-0}'
  expected_cases "$binaries" "$hook" | sort >"$report/expected"
  [ -s "$report/expected" ] || die "test/kernel/tests.txt selects no test"
  run_in_guest "$version" "$time_limit" "$command" 2>&1 | tr -d '\r' | tee "$folder/tests.log" | results |
    tee "$report/results" | while read -r result took name; do
    printf '%-84s %-8s %6.1f s\n' "kernel/$version/$name" "$result" "$took"
  done || status=$?
  # A case without a result has crashed, hung or was never reached.
  cut -d' ' -f3 "$report/results" | sort | comm -23 "$report/expected" - >"$report/lost"
  while read -r name; do say "kernel/$version/$name   failed: no result"; done <"$report/lost"
  local passed failed skipped
  passed=$(grep -c '^passed' "$report/results") || true
  skipped=$(grep -c '^skipped' "$report/results") || true
  failed=$(($(grep -c '^failed' "$report/results" || true) + $(wc -l <"$report/lost")))
  # All cases are well, and a program ended badly all the same.
  [ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
  [ "$failed" = 0 ] || {
    say "-- the output of kernel $version (all of it: $folder/tests.log):"
    tail -n 200 "$folder/tests.log"
  }
  echo "$passed $failed $skipped" >>"$report/counts"
  printf 'kernel %-8s %-28s %-7s %3d passed %3d failed %3d skipped %4d s\n' "$version" "$release" "$hook" "$passed" \
    "$failed" "$skipped" $((SECONDS - started)) >>"$report/summary"
}

# test_kernels BINARIES VERSION...: one after the other; ends with the plain closing line.
test_kernels() {
  local binaries=$1 passed failed skipped
  shift
  report=$(mktemp -d)
  trap 'rm -rf "$report"' EXIT
  for version in "$@"; do test_kernel "$binaries" "$version"; done
  say
  cat "$report/summary"
  read -r passed failed skipped < <(add_counts "$report/counts")
  closing_line "$passed" "$failed" "$skipped"
  [ "$failed" = 0 ]
}
