#!/usr/bin/env bash
# Tests the API as a back end in Python, with requests and websocket-client, and its OpenAPI document with Schemathesis.
# Then installs clients/python, checks it with mypy, and runs its tests. Needs Python 3 with venv, and openssl.
#   FDPUSH_BIN  the binary to test                 (default: target/release/fdpush, built here)
#   PYTHON      a Python with requirements.txt     (default: a venv under the target directory, created once)
# The tests start their servers on free ports, and end only these processes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

if [[ -z ${FDPUSH_BIN:-} ]]; then
    cargo build --release --bin fdpush
    FDPUSH_BIN=$target/release/fdpush
fi
# The tests of the client run in another directory, so both paths must be absolute.
FDPUSH_BIN=$(realpath "$FDPUSH_BIN")
export FDPUSH_BIN
if [[ -z ${PYTHON:-} ]]; then
    venv=$target/python
    PYTHON=$venv/bin/python
    if ! cmp --silent "$here/requirements.txt" "$venv/made-of"; then
        python3 -m venv --clear "$venv"
        install=("$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt")
        # A download can fail, so the script tries twice.
        "${install[@]}" || "${install[@]}"
        cp "$here/requirements.txt" "$venv/made-of"
    fi
fi
[[ $PYTHON != */* ]] || PYTHON=$(realpath --no-symlinks "$PYTHON")
export PYTHONDONTWRITEBYTECODE=1
timeout 900 "$PYTHON" -m unittest discover --start-directory "$here" --verbose

"$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall ./clients/python
cd clients/python
"$PYTHON" -m mypy --strict --cache-dir /dev/null src
timeout 900 "$PYTHON" -m pytest --quiet
