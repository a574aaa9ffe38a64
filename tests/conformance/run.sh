#!/usr/bin/env bash
# Runs the Autobahn cases against `examples/echo`: the 301 cases without compression, then all 517 cases with compression.
# Then runs the 301 cases against `examples/tls`, over TLS. Needs Python 3 with venv, openssl and stunnel.
#   ECHO_BIN  the server to test    (default: target/release/examples/echo, built here)
#   KOSOKU    the fuzzing client    (default: kosoku in a venv under the target directory, installed once and corrected by
#             correct.py)
#   MESSAGES  the number of messages in each of the 216 compression cases (default: 1000, as in Autobahn)
#   REPORTS   the report directory  (default: conformance/ under the target directory)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

if [[ -z ${ECHO_BIN:-} ]]; then
    cargo build --release --example echo
    ECHO_BIN=$target/release/examples/echo
fi
if [[ -z ${KOSOKU:-} ]]; then
    messages=${MESSAGES:-1000}
    venv=$target/kosoku
    KOSOKU=$venv/bin/kosoku
    # The stamp is the number of messages and a hash of correct.py. The stamp shows which corrections the installed cases have.
    stamp="$messages $(sha256sum <"$here/correct.py")"
    if ! "$KOSOKU" --help &>/dev/null || [[ $(cat "$venv/corrected" 2>/dev/null) != "$stamp" ]]; then
        python3 -m venv --clear "$venv"
        install=("$venv/bin/pip" install --quiet --disable-pip-version-check kosoku==0.1.0)
        # A download can fail, so the script tries twice.
        "${install[@]}" || "${install[@]}"
        "$venv/bin/python" "$here/correct.py" "$venv"/lib/python3*/site-packages/kosoku/cases "$messages"
        echo "$stamp" >"$venv/corrected"
    fi
fi
reports=${REPORTS:-$target/conformance}
rm -rf "$reports"
mkdir -p "$reports"

server=
stop_server() {
    [[ -n $server ]] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}
trap stop_server EXIT

# Only the servers of this script listen on this address, so that no other server takes a port
# that `free_port` has found.
host=127.0.0.80

free_port() {
    python3 -c 'import socket, sys; s = socket.socket(); s.bind((sys.argv[1], 0)); print(s.getsockname()[1])' "$host"
}

# Returns whether the started server listens. The server exits immediately if another process took the port.
listens() {
    local tenths
    for ((tenths = 0; tenths < 600; tenths++)); do
        kill -0 "$server" 2>/dev/null || return 1
        if (exec 3<>"/dev/tcp/$host/$1") 2>/dev/null; then
            sleep 0.2
            kill -0 "$server" 2>/dev/null
            return
        fi
        sleep 0.1
    done
    return 1
}

# run NAME CASES [OPTION…] -- [ARGUMENT…]: runs the client with these options against a server with these arguments
# and checks that CASES cases ran.
run() {
    local name=$1 cases=$2 options=() status attempt port
    shift 2
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    shift
    for attempt in 1 2 3 4 5; do
        port=$(free_port)
        "$ECHO_BIN" "$host:$port" "$@" &
        server=$!
        listens "$port" && break
        stop_server
        [[ $attempt != 5 ]] || { echo "conformance: $ECHO_BIN does not listen" >&2; exit 1; }
    done
    mkdir "$reports/$name"
    echo "conformance: $name"
    # The client's exit code does not show whether the cases passed: check.py reads the report.
    timeout 1000 "$KOSOKU" -m fuzzingclient "${options[@]}" -o "$reports/$name" "ws://$host:$port/" \
        >"$reports/$name/log" 2>&1 || {
        status=$?
        tail -n 20 "$reports/$name/log"
        echo "conformance: the client exited with $status" >&2
    }
    kill -0 "$server" 2>/dev/null || { echo "conformance: the server has exited" >&2; exit 1; }
    stop_server
    python3 "$here/check.py" "$reports/$name/index.json" "$cases"
}

# Groups 12 and 13 test compression.
run plain 301 -x '12.*' -x '13.*' --
run deflate 517 -p 2 -- deflate
# Runs the cases over TLS, through stunnel as the TLS client.
ECHO_BIN=$here/over_tls.sh run tls 301 -x '12.*' -x '13.*' --
