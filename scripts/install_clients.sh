#!/bin/bash
# install_clients.sh [DIRECTORY] - brings its node_modules to what its package-lock.json says
#
#   DIRECTORY  tests/clients (the default) or tests/page
#
# Nothing is done, and nothing asked of the network, when it is there already. Without npm, or
# without a network, it says so and succeeds: the tests that need it are skipped then.
set -euo pipefail

directory=${1:-tests/clients}
cd "$(dirname "$0")/../$directory"
stamp=node_modules/.nearcached-lock
cmp -s package-lock.json "$stamp" && exit 0

if ! command -v npm >/dev/null; then
    echo "install_clients.sh: no npm; the tests of $directory that need it will be skipped" >&2
    exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "Installing the libraries of $directory"
# Without the optional ones: those are compiled code that the others do without.
if ! npm ci --omit=optional >"$log" 2>&1; then
    cat "$log" >&2
    echo "install_clients.sh: npm ci failed; tests of $directory that need it will be skipped" >&2
    exit 0
fi
cp package-lock.json "$stamp"
