#!/usr/bin/env bash
# Runs many seeds of the simulator, in an optimised build, on all cores.
#   tests/simulator/many.sh SEEDS [FIRST]      starts with seed FIRST (default 0)
#   JOBS                                       maximum number of processes at a time (default: the number of cores)
# After a failure, the script prints the command that replays the seed.
set -euo pipefail
[[ ${1:-} =~ ^[0-9]+$ ]] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/../.."
seeds=$1
first=${2:-0}
# The number of seeds for each process.
portion=100

# The build of this script has its own target directory, because its settings differ from the release profile.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/simulator
# The optimised build also has overflow checks and debug assertions.
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
# Layers 0 and 1 do not need the gateway. A build without the gateway is faster.
binary=$(cargo test --release --no-default-features --test simulator --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*simulator-[^"]*\)".*/\1/p' | tail -1)

run_portion() {
    local log
    log=$(mktemp)
    if ! SIM_FIRST=$1 SIM_SEEDS=$2 "$binary" --nocapture every_seed >"$log" 2>&1; then
        grep --max-count=1 --after-context=3 'panicked at' "$log" || true
        grep 'SIM_SEED=' "$log" || tail -20 "$log"
        rm "$log"
        return 1
    fi
    rm "$log"
}
export -f run_portion
export binary

for ((from = first; from < first + seeds; from += portion)); do
    left=$((first + seeds - from))
    echo "$from $((left < portion ? left : portion))"
done | xargs --max-procs="${JOBS:-$(nproc)}" --max-args=2 bash -c 'run_portion "$@"' portion
echo "$seeds seeds from $first: passed"
