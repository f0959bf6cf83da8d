#!/bin/sh
# Builds the model into $BUILD (default: build/) and runs it with the arguments given.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-$here/../../build}
mkdir -p "$build"
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra "$here"/*.c -o "$build/model"
exec "$build/model" "$@"
