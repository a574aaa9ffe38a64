#!/usr/bin/env bash
# Counts the user-space instructions of an echo in fdpush's bench server and in the raw server, under callgrind. It subtracts a
# short run from a long one to exclude start and upgrades. Other load on the machine does not change the counts.
#   benches/load/instructions.sh [DEPTH…]   messages in flight on each connection (default: 1 and 16)
set -euo pipefail
cd "$(dirname "$0")"
command -v valgrind >/dev/null || { echo "valgrind is missing (Debian: apt install valgrind)" >&2; exit 1; }
source ./built.sh
load=$(built Cargo.toml load)
raw=$(built Cargo.toml raw)
fdpush=$(built ../../Cargo.toml examples/bench_server)
source ./measure.sh

port=$((27000 + RANDOM % 2000))
# run SERVER DEPTH SECONDS: sets `counted` to the instructions and the messages, including the warm-up (0.3 s).
run() {
    port=$((port + 1))
    start "valgrind --quiet --tool=callgrind --callgrind-out-file=$scratch/$port $1 127.0.0.1:$port" "127.0.0.1:$port"
    timeout "$run_seconds_max" taskset -c "$load_core" "$load" echo --payload 20 --depth "$2" --seconds "$3" \
        --address "127.0.0.1:$port" --pid "$server" >"$scratch/figures"
    stop
    counted="$(awk '/^summary:/ { print $2 }' "$scratch/$port") $(awk -v rate="$(median rate "$scratch/figures")" \
        -v seconds="$3" 'BEGIN { print rate * (seconds + 0.3) }')"
}

(($#)) || set -- 1 16
for depth in "$@"; do
    line=$(printf '%2d in flight:' "$depth")
    for name in raw fdpush; do
        run "${!name}" "$depth" 1
        short=$counted
        run "${!name}" "$depth" 4
        line+=$(awk -v name="$name" -v both="$short $counted" 'BEGIN {
            split(both, of, " ")
            printf "  %s %.0f instructions a message", name, (of[3] - of[1]) / (of[4] - of[2])
        }')
    done
    echo "$line"
done
