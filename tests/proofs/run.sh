#!/usr/bin/env bash
# Checks that clients lose no acknowledged message when `fdpush serve` ends: by SIGKILL during pushes, and by SIGTERM with 10,000
# clients and 5,000 pushes a second. Each test prints its counts in one line. The script fails if a count is wrong.
#   FDPUSH_BIN      the binary to test           (default: target/release/fdpush, built here)
#   PROOF_BIN       the test program             (default: that of benches/load, built here)
#   ROUNDS          number of kills              (default 10)
#   SUBSCRIBERS     clients of the drain tests   (default 10000)
#   RATE_MIN        minimum pushes a second in the drain tests, which try to send 5000 (default 4500)
#   RESTART_MS_MAX  maximum of the median restart time in the kill test, in milliseconds (default 200)
#   DRAIN_MS_MAX    time limit of a drain, in milliseconds (default 10000)
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${ROUNDS:-10}
options=(--subscribers "${SUBSCRIBERS:-10000}" --rate-min "${RATE_MIN:-4500}" --drain-time-max-ms "${DRAIN_MS_MAX:-10000}")
if [[ -z ${FDPUSH_BIN:-} ]]; then
    cargo build --release --bin fdpush
    FDPUSH_BIN=${CARGO_TARGET_DIR:-target}/release/fdpush
fi
if [[ -z ${PROOF_BIN:-} ]]; then
    cargo build --release --manifest-path benches/load/Cargo.toml --bin proof
    PROOF_BIN=${CARGO_TARGET_DIR:-benches/load/target}/release/proof
fi
# The server and the test program use one descriptor each for a connection. The server raises its own limit.
ulimit -n "$(ulimit -H -n)"
timeout $((60 + 60 * rounds)) "$PROOF_BIN" kill --server "$FDPUSH_BIN" --rounds "$rounds" --restart-ms-max "${RESTART_MS_MAX:-200}"
timeout 600 "$PROOF_BIN" drain --server "$FDPUSH_BIN" "${options[@]}"
timeout 600 "$PROOF_BIN" drain --server "$FDPUSH_BIN" "${options[@]}" --drain-for-ms 3000
