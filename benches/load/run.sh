#!/usr/bin/env bash
# Measures fdpush's bench server and the raw epoll server for each shape, and prints a table of medians.
#   benches/load/run.sh [PATTERN]   measures the shapes whose names match PATTERN (default: all)
#   ROUNDS           number of rounds (default 5); each round runs every server once
#   SECONDS_EACH     measured seconds of each run (default 1)
#   SERVERS          the servers, one on each line: `name command`. The script appends the address to the command. `raw` and
#                    `fdpush` without a command are built here. The script compares each server with the first server.
#                    The clients of a server whose name ends with `-deflate` negotiate permessage-deflate. `fdpush-deflate`
#                    without a command is built here. See deflate.sh.
#                    `uws/build.sh` and `bun/install.sh` print the commands of other servers.
#   SERVER_CORE, LOAD_CORE   the cores of the server and of the load client (default 0 and 1)
# The table has two ratios for each server except the first. The first ratio is the first server's CPU time an operation, divided by
# this server's CPU time an operation. The second ratio is this server's throughput, divided by the first server's throughput. Other
# load on the machine disturbs CPU time less than throughput. Both ratios are medians of the ratios of all rounds.
set -euo pipefail
cd "$(dirname "$0")"
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-1}
pattern=${1:-.}

# name|options of load
shapes=(
    'echo-20B|echo --payload 20'
    'echo-20B-16-in-flight|echo --payload 20 --depth 16'
    'echo-1KiB|echo --payload 1024'
    'echo-16KiB|echo --payload 16384'
    'fanout-1000|fanout --payload 128 --connections 1000'
    'fanout-1000-16-outstanding|fanout --payload 128 --connections 1000 --depth 16'
    'fanout-1000-json-1KiB|fanout --payload 1024 --connections 1000 --json'
    'fanout-10000-4-outstanding|fanout --payload 128 --connections 9900 --depth 4'
    'fanout-10000-bursts-of-4|fanout --payload 128 --connections 9900 --depth 4 --bursts'
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
        fdpush-deflate) command=${command:-$fdpush deflate} ;;
    esac
    names+=("$name")
    commands+=("$command")
done <<<"${SERVERS:-$'raw\nfdpush'}"

source ./measure.sh

# Each run uses a new port, because connections of the previous run may still occupy the old port.
port=$((20000 + RANDOM % 5000))
ulimit -n "$(ulimit -H -n)"
echo "load $(cut -d' ' -f1-3 /proc/loadavg), $rounds rounds of $seconds s: operations/s (server's CPU µs an operation)"
for shape in "${shapes[@]}"; do
    IFS='|' read -r shape_name options <<<"$shape"
    [[ $shape_name =~ $pattern ]] || continue
    for ((round = 0; round < rounds; round++)); do
        # One round is enough to measure memory.
        [[ $options == idle* ]] && ((round > 0)) && break
        for turn in "${!names[@]}"; do
            # Each round begins with another server, because the machine may be in another state for the first run of a
            # round.
            index=$(((turn + round) % ${#names[@]}))
            [[ ${names[index]} == raw && $options == push* ]] && continue
            deflate=()
            if [[ ${names[index]} == *-deflate ]]; then
                [[ $options == fanout* || $options == idle* ]] || continue
                deflate=(--deflate)
            fi
            port=$((port + 1))
            start "${commands[index]} 127.0.0.1:$port" "127.0.0.1:$port"
            # shellcheck disable=SC2086 # options are split into words
            timeout "$run_seconds_max" taskset -c "$load_core" "$load" $options "${deflate[@]}" --seconds "$seconds" \
                --address "127.0.0.1:$port" --pid "$server" >>"$scratch/$shape_name-${names[index]}" ||
                echo "failed" | tee -a "$scratch/$shape_name-${names[index]}" >&2
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
                line+=" = $(ratio cpu_us "$first" "$file") (throughput $(ratio rate "$file" "$first"))"
            fi
            first_us=$(median first_us "$file")
            [[ -z $first_us ]] || line+=", first delivery after $first_us µs, last after $(median last_us "$file") µs"
            first=${first:-$file}
        elif [[ -s $file ]]; then
            line+="  $name $(<"$file")"
        fi
    done
    echo "$line"
done
