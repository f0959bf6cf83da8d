#!/bin/bash
# run.sh - starts the proxy to try it out; `make run` builds it first
#
#   scripts/run.sh [OPTION...]          options are those of nearcached
#
#   BACKEND=redis://...    the Redis or Redis Cluster to stand in front of; empty: a private cluster
#                          of three masters on free loopback ports, gone when the proxy ends
#   NEARCACHED_BIN=...     the program (build/nearcached)
#
# The default ports are 6380 and, for metrics, 9380; where one is taken, the next free one. The
# shell becomes the proxy at the end, so Ctrl-C and signals reach it directly and nothing is left
# behind.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
binary=${NEARCACHED_BIN:-$here/../build/nearcached}
python=/usr/bin/python3
# Every NEARCACHED_ variable would be an option of the daemon.
unset NEARCACHED_BIN

# Where setpriv can: the end of whoever started this, even by a kill -9, is the end of it all.
with_parent=()
if setpriv --pdeathsig TERM true 2>/dev/null; then
    with_parent=(setpriv --pdeathsig TERM --)
fi

if [ ! -x "$binary" ]; then
    echo "run.sh: $binary is not there: run make" >&2
    exit 1
fi
if [ -n "${BACKEND:-}" ]; then
    export NEARCACHED_BACKEND=$BACKEND
elif [ -z "${NEARCACHED_BACKEND:-}" ]; then
    # It starts this script again, with NEARCACHED_BACKEND set, and ends with it.
    export NEARCACHED_BIN=$binary
    exec "${with_parent[@]}" "$python" -B "$here/cluster.py" --masters 3 -- "$0" "$@"
fi

# next_free_port FIRST: the first port from there on that can be bound.
next_free_port() {
    "$python" - "$1" <<'PYTHON'
import socket
import sys

for port in range(int(sys.argv[1]), int(sys.argv[1]) + 500):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
else:
    sys.exit("run.sh: no free port")
PYTHON
}

port=$(next_free_port 6380)
admin=$(next_free_port 9380)

# is_ready: the proxy has reached its backend.
is_ready() {
    local status=''
    # A subshell: the connection ends with it, and so does its failure.
    status=$({
        exec 3<>"/dev/tcp/127.0.0.1/$admin" &&
            printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && read -r _ status _ <&3 && echo "$status"
    } 2>/dev/null) || return 1
    [ "$status" = 200 ]
}

print_what_to_try() {
    local i

    for ((i = 0; i < 100; i++)); do
        is_ready && break
        sleep 0.1
        # Told apart from a proxy that is there but not ready: that one goes on trying by itself.
        kill -0 $$ 2>/dev/null || return
    done
    cat <<TEXT

nearcached is on 127.0.0.1:$port. Try, in another terminal:

    redis-cli -p $port set greeting hello
    redis-cli -p $port get greeting         # fetched from the backend, kept in memory
    redis-cli -p $port get greeting         # answered from memory
    redis-cli -p $port info nearcached
    curl -s 127.0.0.1:$admin/metrics | grep -E 'nearcached_(hits|misses)_total'
    ${binary}-top 127.0.0.1:$admin        # the same in a terminal; q ends it

and http://127.0.0.1:$admin/ in a browser. Ctrl-C ends everything that was started here.

TEXT
}

# Twice removed, so that it does not stay behind as a dead child of the proxy.
(print_what_to_try &)
# Options given here come first: of a repeated one the last counts.
exec "${with_parent[@]}" "$binary" --listen "127.0.0.1:$port" --admin "127.0.0.1:$admin" "$@"
