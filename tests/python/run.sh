#!/usr/bin/env bash
# A back end's day in Python, with requests and websocket-client. Needs Python 3 with venv, and openssl.
#   FDPUSH_BIN  the binary to test                 (default: target/release/fdpush, built here)
#   PYTHON      a Python that has requirements.txt (default: a venv of ours under the target directory, made once)
# The tests start their servers themselves, on free ports, and stop those, by handle.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
target=${CARGO_TARGET_DIR:-target}

if [[ -z ${FDPUSH_BIN:-} ]]; then
    cargo build --release --bin fdpush
    FDPUSH_BIN=$target/release/fdpush
fi
export FDPUSH_BIN
if [[ -z ${PYTHON:-} ]]; then
    venv=$target/python
    PYTHON=$venv/bin/python
    if ! cmp --silent "$here/requirements.txt" "$venv/made-of"; then
        python3 -m venv --clear "$venv"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt"
        cp "$here/requirements.txt" "$venv/made-of"
    fi
fi
PYTHONDONTWRITEBYTECODE=1 exec timeout 300 "$PYTHON" -m unittest discover --start-directory "$here" --verbose
