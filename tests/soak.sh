#!/bin/sh
# The connect-close cycles of tests/hostile_system.rs at full length: `tests/soak.sh [CYCLES]`, 100,000 by default.
set -eu
cd "$(dirname "$0")/.."
FDPUSH_CYCLES="${1:-100000}" exec cargo test --test hostile_system -- --exact connect_close_cycles_leave_nothing_behind
