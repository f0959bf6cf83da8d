#!/bin/bash
# run_fuzz.sh - runs fuzzers, each for a while on a copy of its corpus
#
#   scripts/run_fuzz.sh DIR SECONDS PROGRAM...
#
# The corpus of fuzz_NAME is tests/fuzz/corpus/NAME. What a fuzzer finds is left in DIR, beside the
# grown corpus; an input worth keeping goes into the tree by hand. Exit status 1 on a finding.
set -u

out=$1
seconds=$2
shift 2
status=0

for program in "$@"; do
    name=$(basename "$program")
    corpus=$out/corpus/${name#fuzz_}
    mkdir -p "$corpus"
    if [ -d "tests/fuzz/corpus/${name#fuzz_}" ]; then
        cp -R "tests/fuzz/corpus/${name#fuzz_}/." "$corpus/"
    fi
    echo "$name: $seconds s"
    if "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$out/$name-" "$corpus" >"$out/$name.log" 2>&1; then
        grep -E '^stat::number_of_executed_units|^stat::average_exec_per_sec' "$out/$name.log"
    else
        tail -n 60 "$out/$name.log"
        echo "$name: FAILED; see $out/$name.log and $out/$name-*"
        status=1
    fi
done
exit $status
