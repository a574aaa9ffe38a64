#!/usr/bin/env bash
# Installs Bun from npm, and prints the command that starts server.js with Bun:
#   SERVERS=$'raw\nfdpush\nbun '"$(benches/load/bun/install.sh)" benches/load/run.sh 'echo|fanout|p2p'
# Needs npm (Debian: apt install npm).
set -euo pipefail
cd "$(dirname "$0")"
version=1.4.5
out=${CARGO_TARGET_DIR:-$PWD/../target}/bun
mkdir -p "$out"
npm install --silent --no-save --prefix "$out" "bun@$version" >&2
echo "$(realpath "$out")/node_modules/.bin/bun $PWD/server.js"
