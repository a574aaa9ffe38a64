#!/usr/bin/env bash
# Runs every fuzz target, with the committed corpora and the findings of earlier runs on this machine.
#   fuzz/all.sh HOURS   runs each target for HOURS hours, which may be a fraction
#   FUZZ_SECONDS        seconds for each target, instead of HOURS
#   FUZZ_JOBS           number of targets that run at the same time (default: number of cores)
# The script stores new inputs in fuzz/found/TARGET. The script reports a crash, and stores the input of the crash in
# fuzz/artifacts/TARGET. Fix the fault, then add the input to fuzz/corpus/TARGET. `cargo test` replays fuzz/corpus.
set -euo pipefail
[[ ${FUZZ_SECONDS:-${1:-}} =~ ^[0-9]*\.?[0-9]+$ ]] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."

targets=(frames proxy head body upgrade extension inflate connection tls wheel registry)
# The minimum is one second, because libFuzzer treats 0 as no limit.
seconds=$(awk -v seconds="${FUZZ_SECONDS:-}" -v hours="${1:-0}" \
    'BEGIN { whole = int(seconds == "" ? hours * 3600 : seconds); print (whole > 0 ? whole : 1) }')
jobs=${FUZZ_JOBS:-$(nproc)}
# The targets use no sanitizer, because the code has no `unsafe`. Without a sanitizer, they run several times faster and can be
# built with stable Rust. The script uses nightly Rust if it is installed.
toolchain=+nightly
[[ $(rustup toolchain list 2>/dev/null) =~ (^|$'\n')nightly ]] || toolchain=+stable
cargo "$toolchain" fuzz build --sanitizer none
# The script starts the built fuzzers directly, and not through `cargo fuzz run`, so that the pid of a job is that of its fuzzer.
built=${CARGO_TARGET_DIR:-fuzz/target}/$(rustc -vV | sed -n 's/^host: //p')/release

run_target() {
    local target=$1 options=(-max_total_time="$seconds" -max_len=4096 -timeout=60 -print_final_stats=1)
    mkdir -p "fuzz/found/$target" "fuzz/artifacts/$target"
    options+=(-artifact_prefix="fuzz/artifacts/$target/")
    [[ -f fuzz/$target.dict ]] && options+=(-dict="fuzz/$target.dict")
    exec "$built/$target" "${options[@]}" "fuzz/found/$target" "fuzz/corpus/$target" &>"fuzz/found/$target.log"
}

report() {
    local log=fuzz/found/$1.log
    if [[ $2 == 0 ]]; then
        local runs coverage
        runs=$(awk '/number_of_executed_units/ { print $2 }' "$log")
        coverage=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)
        echo "fuzz $1: no fault in $runs runs, $seconds s, ${coverage:-cov: ?}"
    else
        tail -n 40 "$log"
        echo "fuzz $1: FAILED; the input is in fuzz/artifacts/$1, the whole log in $log"
    fi
}

declare -A running=()   # pid -> target
trap '(( ${#running[@]} == 0 )) || kill "${!running[@]}" 2>/dev/null || true' EXIT
failed=0
reap_one() {
    local pid='' status=0
    wait -n -p pid "${!running[@]}" || status=$?
    report "${running[$pid]}" "$status"
    (( status == 0 )) || failed=1
    unset "running[$pid]"
}
for target in "${targets[@]}"; do
    (( ${#running[@]} < jobs )) || reap_one
    run_target "$target" &
    running[$!]=$target
done
while (( ${#running[@]} > 0 )); do reap_one; done
exit "$failed"
