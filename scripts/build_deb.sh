#!/bin/bash
# build_deb.sh - builds Debian's packages of the sources as they lie here, committed or not
#
#   scripts/build_deb.sh FOLDER
#
# The packages go to FOLDER (made anew), which also keeps the log: FOLDER/build.log. The sources are
# copied there and built with dpkg-buildpackage; nothing is written elsewhere. Unit tests are run
# unless DEB_BUILD_OPTIONS has the word nocheck. Needs: scripts/install-deps.sh build package
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 1 ] || { sed -n '4,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
rm -rf "$1"
mkdir -p "$1/source"
folder=$(realpath "$1")

if git rev-parse --git-dir >/dev/null 2>&1; then
    # What is known to git or may become so, where it is still there.
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' path; do
            [ ! -e "$path" ] || printf '%s\0' "$path"
        done | tar -c --null -T - | tar -x -C "$folder/source"
else
    tar -c --exclude=./build --exclude=./tests/clients/node_modules . | tar -x -C "$folder/source"
fi
# Modes are part of a package's bytes; git knows but one of them.
chmod -R u=rwX,go=rX "$folder/source"

# What the caller's make was given is not this build's.
unset MAKEFLAGS MFLAGS MAKELEVEL
if ! (umask 022 && cd "$folder/source" && dpkg-buildpackage -b -us -uc -ui) \
    >"$folder/build.log" 2>&1; then
    tail -n 40 "$folder/build.log" >&2
    echo "build_deb.sh: failed; see $folder/build.log" >&2
    exit 1
fi
rm -rf "$folder/source"
ls "$folder"/*.deb
