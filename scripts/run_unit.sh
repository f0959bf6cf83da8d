#!/bin/bash
# run_unit.sh - runs the unit tests one after the other
#
#   scripts/run_unit.sh DIR PROGRAM...
#
# One line per program; the whole output of one that fails, and the reasons of skipped tests. The
# closing line is also left in DIR/unit.summary. Exit status 1 when anything failed.
set -u

out=$1
shift
total=0
skipped=0
failed=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

for program in "$@"; do
    name=${program#"$out"/tests/unit/}
    timeout 300 "$program" >"$log" 2>&1
    status=$?
    n=$(sed -n 's/^\[==========\] .*\b\([0-9][0-9]*\) test(s) run\.$/\1/p' "$log" |
        awk '{ sum += $1 } END { print sum + 0 }')
    n_skipped=$(grep -c '^\[  SKIPPED \] [a-z_0-9]*$' "$log")
    total=$((total + n))
    if [ "$status" -ne 0 ]; then
        failed+=("$name")
        cat "$log"
        [ "$status" -eq 124 ] && echo "$name: did not end within 300 s"
        printf '  FAIL  %s (status %d)\n' "$name" "$status"
        continue
    fi
    printf '  ok    %-28s %3d tests\n' "$name" "$n"
    if [ "$n_skipped" -gt 0 ]; then
        # A test prints its reason just before it skips.
        grep -B 1 '^\[  SKIPPED \] [a-z_0-9]*$' "$log" | sed 's/^/        /'
        skipped=$((skipped + n_skipped))
    fi
done

summary="unit: $total tests in $# programs, ${#failed[@]} programs failed, $skipped tests skipped"
echo "$summary" | tee "$out/unit.summary"
if [ "${#failed[@]}" -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
