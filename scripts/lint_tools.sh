#!/bin/bash
# lint_tools.sh - the checks of `make lint` that need tools from outside
#
#   scripts/lint_tools.sh 'SHELL_FILE...' C_FILE...
#
# A tool that is not installed is named and skipped. Exit status 1 when one complains.
set -u

read -r -a shell_files <<<"$1"
shift
status=0

# have TOOL: true if it can be used; otherwise says what is left out.
have() {
    command -v "$1" >/dev/null && return 0
    echo "lint: $1 is not installed; skipped"
    return 1
}

if have clang-format; then
    clang-format --dry-run --Werror "$@" || status=1
fi
if have shellcheck; then
    shellcheck "${shell_files[@]}" || status=1
fi
if have groff; then
    # It warns, and ends with 0 all the same.
    if groff -ww -man -Tutf8 -z docs/*.[1-8] 2>&1 | grep .; then
        status=1
    fi
fi
if have systemd-analyze; then
    # The program need not be installed where the unit is checked.
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' systemd/nearcached.service \
        >"$scratch/nearcached.service"
    cp systemd/*.socket "$scratch"
    systemd-analyze verify --man=no "$scratch"/nearcached* || status=1
fi
exit $status
