#!/bin/sh
# Tests the JavaScript client with a double of the WebSocket class, against the server in Node, and in headless Chromium. Needs a
# built `fdpush`, node 20 or newer, and Debian's chromium.
#   FDPUSH_BIN  the binary to test   (default: target/release/fdpush of this repository)
#   CHROMIUM    the browser to drive (default: /usr/bin/chromium)
#   NODE        the node to run      (default: node)
# The tests start their servers on free ports, and end only these processes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
FDPUSH_BIN=${FDPUSH_BIN:-$here/../../../target/release/fdpush}
CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
for program in "$FDPUSH_BIN" "$CHROMIUM"; do
    [ -x "$program" ] || { echo "clients/js/test: no program at $program" >&2; exit 1; }
done
FDPUSH_BIN=$(cd "$(dirname "$FDPUSH_BIN")" && pwd)/$(basename "$FDPUSH_BIN")
export FDPUSH_BIN CHROMIUM
cd "$here/.."
# There is no lockfile, because it would contain the registry's host. package.json pins all dependencies.
install() { npm install --no-package-lock --no-audit --no-fund --loglevel=error; }
# A download can fail, so the script tries twice.
install || install
# Node 20 has the global class WebSocket only with this option.
"${NODE:-node}" -e 'process.exit(typeof WebSocket === "undefined" ? 0 : 1)' && export NODE_OPTIONS=--experimental-websocket
exec "${NODE:-node}" --test --test-concurrency=2 --test-reporter=spec test/*.test.mjs
