#!/bin/bash
# run_corpora.sh - each fuzzer once over its corpus, without libFuzzer (tests/fuzz/replay.c)
#
#   scripts/run_corpora.sh DIR PROGRAM...
#
# Exit status 1 when one of them fails; its last line names the input.
set -u

out=$1
shift
failed=()
total=0
log=$out/corpora.log

for program in "$@"; do
    name=$(basename "$program")
    name=${name#fuzz_}
    if timeout 120 "$program" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
        total=$((total + $(sed -n '$s/ inputs$//p' "$log")))
    else
        tail -n 30 "$log"
        echo "  FAIL  $program: the input is the last one named above"
        failed+=("$name")
    fi
done
echo "corpora: $total inputs of $# fuzzers, ${#failed[@]} failed"
[ "${#failed[@]}" -eq 0 ]
