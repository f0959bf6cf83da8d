#!/bin/bash
# install_clients.sh - brings tests/clients/node_modules to what package-lock.json says
#
# Nothing is done, and nothing asked of the network, when it is there already. Without npm, or
# without a network, it says so and succeeds: the tests of these clients are skipped then.
set -euo pipefail

cd "$(dirname "$0")/../tests/clients"
stamp=node_modules/.nearcached-lock
cmp -s package-lock.json "$stamp" && exit 0

if ! command -v npm >/dev/null; then
    echo "install_clients.sh: no npm; the tests of the clients from npm will be skipped" >&2
    exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "Installing the client libraries of tests/clients"
# Without the optional ones: those are compiled code that the others do without.
if ! npm ci --omit=optional >"$log" 2>&1; then
    cat "$log" >&2
    echo "install_clients.sh: npm ci failed; the tests of these clients will be skipped" >&2
    exit 0
fi
cp package-lock.json "$stamp"
