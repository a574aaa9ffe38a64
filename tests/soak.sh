#!/bin/sh
# Runs the connect-close cycles of tests/hostile/system.rs: `tests/soak.sh [CYCLES]`, 100,000 by default.
set -eu
cd "$(dirname "$0")/.."
FDPUSH_CYCLES="${1:-100000}" exec cargo test --test hostile -- --exact system::connect_close_cycles_release_all_resources
