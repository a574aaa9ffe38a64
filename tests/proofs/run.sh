#!/usr/bin/env bash
# What `fdpush serve` promises of its end, held against what clients get: killed in the middle of pushes, and told to go
# with 10,000 clients and 5,000 pushes a second. Each line says what was counted; any that is not so fails.
#   FDPUSH_BIN   the binary to test           (default: target/release/fdpush, built here)
#   PROOF_BIN    the program that proves it   (default: of benches/load, built here)
#   ROUNDS       how often it is killed       (default 10)
#   SUBSCRIBERS  clients of the drains        (default 10000)
#   RATE_MIN     pushes a second that the drains must have come to, of the 5000 that are due (default 4500)
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${ROUNDS:-10}
options=(--subscribers "${SUBSCRIBERS:-10000}" --rate-min "${RATE_MIN:-4500}")
if [[ -z ${FDPUSH_BIN:-} ]]; then
    cargo build --release --bin fdpush
    FDPUSH_BIN=${CARGO_TARGET_DIR:-target}/release/fdpush
fi
if [[ -z ${PROOF_BIN:-} ]]; then
    cargo build --release --manifest-path benches/load/Cargo.toml --bin proof
    PROOF_BIN=${CARGO_TARGET_DIR:-benches/load/target}/release/proof
fi
# Server and client each hold a descriptor a connection; the server raises its own limit.
ulimit -n "$(ulimit -H -n)"
timeout $((60 + 30 * rounds)) "$PROOF_BIN" kill --server "$FDPUSH_BIN" --rounds "$rounds"
timeout 120 "$PROOF_BIN" drain --server "$FDPUSH_BIN" "${options[@]}"
timeout 120 "$PROOF_BIN" drain --server "$FDPUSH_BIN" "${options[@]}" --drain-for-ms 3000
