#!/usr/bin/env bash
# Counts the user-space instructions of an operation in fdpush's bench server and in the raw server, under callgrind. The script
# subtracts the count of a short run from the count of a long run, to exclude the start and the upgrades. Other load on the machine
# does not change the counts.
#   benches/load/instructions.sh [PATTERN]   measures the shapes whose names match PATTERN (default: all)
#   SERVERS          the servers, as for run.sh
set -euo pipefail
cd "$(dirname "$0")"
command -v valgrind >/dev/null || { echo "valgrind is missing (Debian: apt install valgrind)" >&2; exit 1; }
pattern=${1:-.}

# name|options of load
shapes=(
    'echo-20B|echo --payload 20'
    'echo-20B-16-in-flight|echo --payload 20 --depth 16'
    'echo-1KiB|echo --payload 1024'
    'p2p-8-in-flight|p2p --payload 128 --depth 8'
    'fanout-1000-16-outstanding|fanout --payload 128 --connections 1000 --depth 16'
    'push|push --payload 128 --connections 32'
)

source ./built.sh
load=$(built Cargo.toml load)
raw=$(built Cargo.toml raw)
fdpush=$(built ../../Cargo.toml examples/bench_server)
source ./measure.sh

port=$((27000 + RANDOM % 2000))
# run COMMAND OPTIONS SECONDS: runs a server under callgrind, and sets `counted` to the number of the
# instructions of the server and the number of the measured operations.
run() {
    port=$((port + 1))
    start "valgrind --quiet --tool=callgrind --callgrind-out-file=$scratch/$port $1 127.0.0.1:$port" "127.0.0.1:$port"
    # shellcheck disable=SC2086 # options are split into words
    timeout "$run_seconds_max" taskset -c "$load_core" "$load" $2 --seconds "$3" \
        --address "127.0.0.1:$port" --pid "$server" >"$scratch/figures"
    stop
    counted="$(awk '/^summary:/ { print $2 }' "$scratch/$port") $(median total "$scratch/figures")"
}

for shape in "${shapes[@]}"; do
    IFS='|' read -r shape_name options <<<"$shape"
    [[ $shape_name =~ $pattern ]] || continue
    line=$(printf '%-28s' "$shape_name")
    while read -r name command; do
        [[ -n $name ]] || continue
        [[ $name == raw && $options == push* ]] && continue
        case $name in
            raw) command=${command:-$raw} ;;
            fdpush) command=${command:-$fdpush} ;;
        esac
        run "$command" "$options" 1
        short=$counted
        run "$command" "$options" 4
        line+=$(awk -v name="$name" -v both="$short $counted" 'BEGIN {
            split(both, of, " ")
            printf "  %s %.0f", name, (of[3] - of[1]) / (of[4] - of[2])
        }')
    done <<<"${SERVERS:-$'raw\nfdpush'}"
    echo "$line instructions"
done
