#!/bin/bash
# install-deps.sh - installs the Debian packages that the project needs and that are not there
#
#   scripts/install-deps.sh [build] [run] [test] [bench] [tcl] [clients] [page] [demo] [package]
#                           [dev]
#
#   Without arguments: build run test.
#
#   build   compiler and libraries       run    what `make run` starts, and a client to try it
#   test    test frameworks              bench  the servers that are measured against
#   clients client libraries of other languages
#   demo    Prometheus, for `make demo`
#   page    a browser for the status page, and what drives it
#   tcl     what Redis's own test suite needs
#   package building Debian packages and trying them
#   dev     clang, clang-format, shellcheck, gcovr: fuzzing, formatting, linting, coverage
#
# Nothing is done, and nothing asked of the network, when all of it is there. Debian's packages of
# redis-server, memcached and prometheus start a service of their own (ports 6379, 11211, 9090): it
# is neither used nor stopped.
set -euo pipefail

declare -A packages=(
    [build]="gcc make pkgconf libc6-dev libevent-dev libhiredis-dev libjansson-dev libjemalloc-dev
        libinih-dev libncurses-dev libxxhash-dev libsystemd-dev libssl-dev"
    [run]="redis-server redis-tools python3 curl"
    [test]="redis-server redis-tools python3 python3-pytest python3-pytest-xdist python3-redis
        python3-pyte python3-yaml libcmocka-dev openssl prometheus"
    [clients]="nodejs npm php-cli php-redis ruby-redis libredis-perl"
    [page]="chromium fonts-dejavu-core nodejs npm"
    [tcl]="redis-server redis-sentinel redis-tools python3 tcl8.6 dpkg-dev"
    [demo]="prometheus"
    [package]="debhelper dpkg-dev fakeroot lintian debootstrap systemd-container"
    [bench]="redis-server python3 memcached nutcracker xz-utils"
    [dev]="clang clang-format libclang-rt-dev shellcheck gcovr"
)
libraries=(libevent hiredis jansson jemalloc inih ncursesw libxxhash libsystemd libssl)

fail() {
    echo "install-deps.sh: $*" >&2
    exit 1
}

# Elsewhere than on Debian we only look whether things can be used, as their packages' names differ.
check_elsewhere() {
    local group missing=()

    for group in "$@"; do
        case $group in
        build)
            command -v "${CC:-cc}" >/dev/null || missing+=("a C compiler")
            command -v pkg-config >/dev/null || missing+=(pkg-config)
            pkg-config --exists "${libraries[@]}" 2>/dev/null ||
                missing+=("the development files of ${libraries[*]}")
            ;;
        run) command -v redis-server >/dev/null || missing+=(redis-server) ;;
        test)
            "${PYTHON:-/usr/bin/python3}" -c 'import pyte, pytest, redis, xdist, yaml' \
                2>/dev/null ||
                missing+=("pytest, pytest-xdist, pyte, redis-py, PyYAML for ${PYTHON:-python3}")
            command -v prometheus >/dev/null || missing+=(prometheus)
            pkg-config --exists cmocka 2>/dev/null || missing+=(cmocka)
            ;;
        package) command -v dpkg-buildpackage >/dev/null || missing+=(dpkg-buildpackage) ;;
        tcl) command -v tclsh8.6 >/dev/null || missing+=(tclsh8.6) ;;
        demo) command -v prometheus >/dev/null || missing+=(prometheus) ;;
        bench) command -v nutcracker >/dev/null || missing+=(nutcracker) ;;
        dev) command -v clang >/dev/null || missing+=(clang) ;;
        esac
    done
    [ "${#missing[@]}" -eq 0 ] && exit 0
    printf 'missing: %s\n' "${missing[@]}" >&2
    fail "this is neither Debian nor Ubuntu: install the above by hand, then try again"
}

groups=("$@")
[ "${#groups[@]}" -eq 0 ] && groups=(build run test)
wanted=()
for group in "${groups[@]}"; do
    [ -n "${packages[$group]:-}" ] ||
        fail "no group '$group' (there are: ${!packages[*]})"
    read -r -d '' -a names <<<"${packages[$group]}" || true
    wanted+=("${names[@]}")
done

if [ ! -e /etc/debian_version ] || [ ! -x /usr/bin/dpkg-query ]; then
    check_elsewhere "${groups[@]}"
fi

# Ask for all of them at once: one process. Packages that dpkg never heard of are not in its answer.
declare -A installed=()
while read -r status name; do
    [ "$status" = installed ] && installed[$name]=1
done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
missing=()
for name in "${wanted[@]}"; do
    # pkg-config is the former name of pkgconf.
    [ "$name" = pkgconf ] && [ -x /usr/bin/pkg-config ] && continue
    # Node.js is often installed from elsewhere, and npm is part of it there.
    [ "$name" = nodejs ] && command -v node >/dev/null && continue
    [ "$name" = npm ] && command -v npm >/dev/null && continue
    if [ -z "${installed[$name]:-}" ]; then
        missing+=("$name")
        installed[$name]=asked
    fi
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "Missing packages: ${missing[*]}" >&2
    fail "only root can install them: sudo $0 ${groups[*]}"
fi
echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -o DPkg::Lock::Timeout=120 -qq)
"${apt[@]}" update || echo "install-deps.sh: apt-get update failed; going on with old lists" >&2
# The log is long and rarely read: it is shown when something went wrong.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    cat "$log" >&2
    fail "apt-get could not install: ${missing[*]}"
fi
