#!/bin/sh
# Runs the test of tests/hostile/system.rs that connects and closes clients: `tests/soak.sh [CYCLES]`, 100,000 cycles by default.
set -eu
cd "$(dirname "$0")/.."
FDPUSH_CYCLES="${1:-100000}" exec cargo test --test hostile -- --exact system::connect_close_cycles_release_all_resources
