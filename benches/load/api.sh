#!/usr/bin/env bash
# Compares the cost of a back end's push in `fdpush serve`, in Nchan, and in the handler of bench_server, which reads no
# JSON. Prints the medians of all rounds. Each round runs every server once.
#   benches/load/api.sh [PATTERN]    runs the measurements whose names match PATTERN (default: all)
#   ROUNDS, SECONDS_EACH, SERVER_CORE, LOAD_CORE   as for run.sh
# post         32 keep-alive connections, each with its own receiver and one post in flight: server's CPU µs a post
# post-5000    5,000 posts a second: time from the scheduled post to its delivery, p50 and p99 in µs; server's CPU in %
# batch        only fdpush: one endless /api/batch to 32 receivers, with one message of 20 bytes a line. Prints messages a
#              second, server's CPU µs a message, and peak memory in MiB
# batch-128B   the measurement `batch` with messages of 128 bytes
# The script measures Nchan if nginx has this module (Debian: apt install nginx libnginx-mod-nchan).
set -euo pipefail
cd "$(dirname "$0")"
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-1}
pattern=${1:-.}

source ./built.sh
load=$(built Cargo.toml load)
bench_server=$(built ../../Cargo.toml examples/bench_server)
cargo build --quiet --release --manifest-path ../../Cargo.toml --bin fdpush
fdpush=$(built ../../Cargo.toml fdpush)

source ./measure.sh

# one SHAPE SERVER OPTIONS…: starts a server and runs the load client against it once.
one() {
    local shape=$1 name=$2 address api
    [[ $shape =~ $pattern ]] || return 0
    shift 2
    port=$((port + 2))
    address=127.0.0.1:$port
    api=$address
    case $name in
        fdpush)
            api=127.0.0.1:$((port + 1))
            start "$fdpush serve --log warn --api $api --listen $address" "$address"
            ;;
        nchan)
            start "./nchan.sh $address" "$address"
            ;;
        bench) start "$bench_server $address" "$address" ;;
    esac
    timeout "$run_seconds_max" taskset -c "$load_core" "$load" "$@" --dialect "$name" --seconds "$seconds" \
        --address "$address" --api "$api" --pid "$server" >>"$scratch/$shape-$name" ||
        echo "failed" | tee -a "$scratch/$shape-$name" >&2
    stop
}

# table SHAPE FIELD…: prints the medians of the fields for each server, and the ratios of the other servers to fdpush.
table() {
    local shape=$1 line name file field
    [[ $shape =~ $pattern ]] || return 0
    local own=$scratch/$1-fdpush
    shift
    line=$(printf '%-12s' "$shape")
    for name in "${names[@]}"; do
        file=$scratch/$shape-$name
        [[ -s $file ]] || continue
        line+="  $name"
        for field in "$@"; do
            line+=" $field $(median "$field" "$file")"
            [[ $name == fdpush ]] || line+=" ($(ratio "$field" "$file" "$own") times fdpush's)"
        done
    done
    echo "$line"
}

port=$((28000 + RANDOM % 2000))
names=(fdpush bench)
! ./nchan.sh --check 2>/dev/null || names+=(nchan)
ulimit -n "$(ulimit -H -n)"
echo "load $(cut -d' ' -f1-3 /proc/loadavg), $rounds rounds of $seconds s"
for ((round = 0; round < rounds; round++)); do
    for turn in "${!names[@]}"; do
        name=${names[(turn + round) % ${#names[@]}]}
        one post "$name" push --connections 32 --payload 128
        one post-5000 "$name" push --connections 32 --payload 128 --pace 5000
    done
    one batch fdpush batch --connections 32 --payload 20 --depth 64
    one batch-128B fdpush batch --connections 32 --payload 128 --depth 16
done
table post cpu_us rate
table post-5000 cpu_us p50_us p99_us busy
table batch rate cpu_us peak_mib
table batch-128B rate cpu_us peak_mib
