#!/bin/bash
# redis-cli: what people and scripts do with it.
# shellcheck disable=SC2016,SC2317 # the steps are called by name
set -euo pipefail

steps=(connect databases types stdin pipe scan scripts visible transactions blocking pubsub)
port=0 around=0 tag='' only='' cluster='' more=()
while [ $# -gt 0 ]; do
    case $1 in
    --port) port=$2; shift 2 ;;
    --around) around=$2; shift 2 ;;
    --tag) tag=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --cluster) cluster=1; shift ;;
    --resp) [ "$2" = 2 ] || more=(-3); shift 2 ;;
    --list) printf '%s\n' "${steps[@]}"; exit ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
    esac
done

cli() { timeout 10 redis-cli -p "$port" "${more[@]}" "$@"; }
beside() { timeout 10 redis-cli -p "$around" "$@"; }
key() { printf '{%s}%s' "$tag" "$1"; }

same() {
    if [ "$1" != "$2" ]; then
        echo "expected ${1@Q}, got ${2@Q}" | tr '\n' ' ' >&2
        return 1
    fi
}

step_connect() {
    same PONG "$(cli PING)"
    same scenario "$(printf 'CLIENT SETNAME scenario\nCLIENT GETNAME\n' | cli | tail -1)"
    same '"PONG"' "$(cli --json PING)"
    cli INFO server | grep -q '^redis_version:7'
    same v "$(redis-cli -u "redis://127.0.0.1:$port/0" --no-raw ECHO v | tr -d '"')"
}

step_databases() {
    [ -z "$cluster" ] || return 0
    same OK "$(cli -n 3 SET "$(key db)" three)"
    same OK "$(cli SET "$(key db)" zero)"
    same three "$(cli -n 3 GET "$(key db)")"
    same zero "$(cli GET "$(key db)")"
    cli -n 3 DEL "$(key db)" >/dev/null
}

step_types() {
    same OK "$(cli SET "$(key s)" one EX 100)"
    same one "$(cli GET "$(key s)")"
    same 2 "$(cli HSET "$(key h)" f v n 1)"
    same $'f\nv\nn\n1' "$(cli HGETALL "$(key h)" | sed 's/^\([fn]\) \(.*\)/\1\n\2/')"
    same 3 "$(cli RPUSH "$(key l)" a b c)"
    same $'a\nb\nc' "$(cli LRANGE "$(key l)" 0 -1)"
    same 2 "$(cli ZADD "$(key z)" 1 one 2.5 two)"
    same 2.5 "$(cli ZSCORE "$(key z)" two)"
    cli LPUSH "$(key s)" x | grep -q WRONGTYPE
}

step_stdin() {
    same 'from stdin' "$(printf 'from stdin' | cli -x SET "$(key in)" >/dev/null &&
        cli GET "$(key in)")"
    same $'OK\n1\n2' "$(printf 'SET %s 0\nINCR %s\nINCR %s\n' "$(key n)" "$(key n)" "$(key n)" |
        cli)"
    same 4 "$(cli -r 2 INCR "$(key n)" | tail -1)"
}

step_pipe() {
    local i
    for ((i = 0; i < 1000; i++)); do
        printf '*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1\r\nv\r\n' \
            "$((${#tag} + 6 + ${#i}))" "$(key "pipe$i")"
    done | cli --pipe | grep -q 'errors: 0, replies: 1000'
    same v "$(cli GET "$(key pipe999)")"
}

step_scan() {
    same 1000 "$(cli --scan --pattern "$(key 'pipe*')" | sort -u | wc -l)"
}

step_scripts() {
    beside SCRIPT FLUSH >/dev/null
    local script="return redis.call('INCRBY', KEYS[1], ARGV[1])" sha
    same 5 "$(cli EVAL "$script" 1 "$(key script)" 5)"
    echo "return {KEYS[1], ARGV[1]}" >"${TMPDIR:-/tmp}/$tag.lua"
    same "$(key k) v" "$(cli --eval "${TMPDIR:-/tmp}/$tag.lua" "$(key k)" , v | tr '\n' ' ' |
        sed 's/ $//')"
    rm -f "${TMPDIR:-/tmp}/$tag.lua"
    sha=$(cli SCRIPT LOAD "$script")
    same 10 "$(cli EVALSHA "$sha" 1 "$(key script)" 5)"
}

step_visible() {
    local i end
    for i in 1 2 3 4 5; do
        cli SET "$(key seen)" "$i" >/dev/null
        same "$i" "$(cli GET "$(key seen)")"
        same "$i" "$(beside GET "$(key seen)")"
        beside SET "$(key seen)" "around$i" >/dev/null
        end=$((SECONDS + 5))
        while [ "$(cli GET "$(key seen)")" != "around$i" ]; do
            [ "$SECONDS" -lt "$end" ]
        done
    done
}

step_transactions() {
    same $'OK\nQUEUED\nQUEUED\nOK\n2' "$(printf 'MULTI\nSET %s 1\nINCR %s\nEXEC\n' \
        "$(key t)" "$(key t)" | cli)"
    same 2 "$(cli GET "$(key t)")"
}

step_blocking() {
    (cli RPUSH "$(key q)" job >/dev/null) &
    same "$(key q) job" "$(cli BLPOP "$(key q)" 5 | tr '\n' ' ' | sed 's/ $//')"
    wait
    same '' "$(cli BLPOP "$(key q)" 0.1 | sed 's/(nil)//')"
}

# redis-cli prints messages until it is ended: here by the first.
step_pubsub() {
    local line='' publisher subscriber status=1
    exec 9< <(exec timeout 10 redis-cli -p "$port" "${more[@]}" SUBSCRIBE "$(key news)")
    subscriber=$!
    (while sleep 0.02; do cli PUBLISH "$(key news)" hello; done >/dev/null 2>&1) &
    publisher=$!
    while read -r line <&9; do
        if [[ $line == *hello* ]]; then
            status=0
            break
        fi
    done
    kill "$publisher" "$subscriber" 2>/dev/null || true
    exec 9<&-
    wait "$publisher" 2>/dev/null || true
    return "$status"
}

status=0
[ -n "$only" ] || only=${steps[*]}
for name in ${only//,/ }; do
    # A shell of its own: set -e means nothing within a condition.
    set +e
    error=$(set -e; "step_$name" 2>&1 >/dev/null)
    result=$?
    set -e
    if [ "$result" -eq 0 ]; then
        echo "ok $name"
    else
        status=1
        echo "FAIL $name: status $result ${error//$'\n'/ }"
    fi
done
exit "$status"
