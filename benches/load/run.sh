#!/usr/bin/env bash
# Measures fdpush's bench server against the raw epoll server, shape by shape, and prints a table of medians.
#   benches/load/run.sh [PATTERN]   the shapes whose name matches, all by default
#   ROUNDS           how often each is run (default 5), the servers in turn
#   SECONDS_EACH     how long each run is measured (default 1)
#   SERVERS          further servers, or others, a line each: `name command`; the address is appended to the command.
#                    The first is what the rest are compared with. `raw` and `fdpush` alone stand for those built here.
#   SERVER_CORE, LOAD_CORE   where they are pinned (default 0 and 1)
# A ratio is that of the server's CPU time an operation, which others on the machine disturb less than throughput.
set -euo pipefail
cd "$(dirname "$0")"
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-1}
server_core=${SERVER_CORE:-0}
load_core=${LOAD_CORE:-1}
pattern=${1:-.}
# No run takes longer, whatever happens.
run_seconds_max=120

# name|options of load
shapes=(
    'echo-20B|echo --payload 20'
    'echo-20B-16-in-flight|echo --payload 20 --depth 16'
    'echo-1KiB|echo --payload 1024'
    'echo-16KiB|echo --payload 16384'
    'fanout-1000|fanout --payload 128 --connections 1000'
    'fanout-1000-16-outstanding|fanout --payload 128 --connections 1000 --depth 16'
    'fanout-10000-4-outstanding|fanout --payload 128 --connections 9900 --depth 4'
    'p2p|p2p --payload 128'
    'p2p-8-in-flight|p2p --payload 128 --depth 8'
    'push|push --payload 128 --connections 32'
    'upgrades|upgrades --connections 50'
    'idle|idle --connections 19000'
    'idle-bound|idle --connections 19000 --bound'
)

source ./built.sh
load=$(built Cargo.toml load)
raw=$(built Cargo.toml raw)
fdpush=$(built ../../Cargo.toml examples/bench_server)

names=()
commands=()
while read -r name command; do
    [[ -n $name ]] || continue
    case $name in
        raw) command=${command:-$raw} ;;
        fdpush) command=${command:-$fdpush} ;;
    esac
    names+=("$name")
    commands+=("$command")
done <<<"${SERVERS:-$'raw\nfdpush'}"

scratch=$(mktemp -d)
server=
finish() {
    stop
    rm -rf "$scratch"
}
stop() {
    [[ -n $server ]] || return 0
    kill "$server" 2>/dev/null || true
    # A server that drains has nobody left to drain.
    wait "$server" 2>/dev/null || true
    server=
}
trap finish EXIT

# start COMMAND ADDRESS: sets `server` to the process, once it listens.
start() {
    # shellcheck disable=SC2086 # a command is words
    taskset -c "$server_core" $1 "$2" >"$scratch/server.log" 2>&1 &
    server=$!
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        (exec 3<>"/dev/tcp/${2/://}") 2>/dev/null && return
        sleep 0.05
    done
    echo "$1 does not listen on $2:" >&2
    cat "$scratch/server.log" >&2
    return 1
}

# median FIELD FILE: of the values of `FIELD=…`, or nothing.
median() {
    { grep -o "\b$1=[0-9.]*" "$2" 2>/dev/null || true; } | cut -d= -f2 | sort -n |
        awk '{ value[NR] = $1 } END { if (NR) print value[int((NR + 1) / 2)] }'
}

# Another port for each run: one that was just closed may still be held by its connections.
port=$((20000 + RANDOM % 5000))
ulimit -n "$(ulimit -H -n)"
echo "load $(cut -d' ' -f1-3 /proc/loadavg), $rounds rounds of $seconds s: operations/s (server's CPU µs an operation)"
for shape in "${shapes[@]}"; do
    IFS='|' read -r shape_name options <<<"$shape"
    [[ $shape_name =~ $pattern ]] || continue
    for ((round = 0; round < rounds; round++)); do
        # Memory is not noisy.
        [[ $options == idle* ]] && ((round > 0)) && break
        for index in "${!names[@]}"; do
            [[ ${names[index]} == raw && $options == push* ]] && continue
            port=$((port + 1))
            start "${commands[index]}" "127.0.0.1:$port"
            # shellcheck disable=SC2086 # options are words
            timeout "$run_seconds_max" taskset -c "$load_core" "$load" $options --seconds "$seconds" \
                --address "127.0.0.1:$port" --pid "$server" >>"$scratch/$shape_name-${names[index]}" ||
                echo "$shape_name, ${names[index]}: failed" >&2
            stop
        done
    done
    line=$(printf '%-28s' "$shape_name")
    first=
    for name in "${names[@]}"; do
        file=$scratch/$shape_name-$name
        cpu=$(median cpu_us "$file")
        if [[ -n $cpu ]]; then
            line+=$(printf '  %s %s (%s)' "$name" "$(median rate "$file")" "$cpu")
            if [[ -n $first ]]; then
                line+=$(awk -v first="$first" -v own="$cpu" 'BEGIN { printf " = %.2f", first / own }')
            fi
            first=${first:-$cpu}
        elif [[ -s $file ]]; then
            line+="  $name $(<"$file")"
        fi
    done
    echo "$line"
done
