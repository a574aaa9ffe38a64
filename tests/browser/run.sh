#!/bin/sh
# The page, and the client of the README, in headless Chromium, against a built `fdpush`. Needs node 20 or later and Debian's chromium.
#   FDPUSH_BIN  the binary to test   (default: target/release/fdpush of this repository)
#   CHROMIUM    the browser to drive (default: /usr/bin/chromium)
# The test starts its servers itself, on free ports, and stops those, by handle, at its end.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
FDPUSH_BIN=${FDPUSH_BIN:-$here/../../target/release/fdpush}
CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
for program in "$FDPUSH_BIN" "$CHROMIUM"; do
    [ -x "$program" ] || { echo "tests/browser: no program at $program" >&2; exit 1; }
done
FDPUSH_BIN=$(cd "$(dirname "$FDPUSH_BIN")" && pwd)/$(basename "$FDPUSH_BIN")
export FDPUSH_BIN CHROMIUM
cd "$here"
# A lockfile would pin one registry's host; the dependencies are pinned in package.json and have none of their own.
npm install --no-package-lock --no-audit --no-fund --loglevel=error
exec node --test --test-reporter=spec page.test.mjs client.test.mjs
