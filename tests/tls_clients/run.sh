#!/usr/bin/env bash
# Tests `examples/tls` with OpenSSL's s_client, curl, Python's websockets and websocket-client, Node's ws, and Chromium. Tests the
# API of `fdpush serve` over TLS with s_client, curl and Python's http.client. Each client trusts an authority that this script creates.
# Needs openssl, curl, Python 3 with venv, node 20 or newer, chromium and certutil.
#   TLS_BIN     the example to test              (default: target/release/examples/tls, built here)
#   FDPUSH_BIN  the server to test               (default: target/release/fdpush, built here)
#   PYTHON      a Python with requirements.txt   (default: a venv under the target directory, created once)
#   CHROMIUM    the browser to drive             (default: /usr/bin/chromium)
#   NODE        the node to run                  (default: node)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

if [[ -z ${TLS_BIN:-} ]]; then
    cargo build --release --example tls
    TLS_BIN=$target/release/examples/tls
fi
if [[ -z ${FDPUSH_BIN:-} ]]; then
    cargo build --release --bin fdpush
    FDPUSH_BIN=$target/release/fdpush
fi
export FDPUSH_BIN
if [[ -z ${PYTHON:-} ]]; then
    venv=$target/tls_clients
    PYTHON=$venv/bin/python
    if ! cmp --silent "$here/requirements.txt" "$venv/made-of"; then
        python3 -m venv --clear "$venv"
        install=("$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt")
        # A download can fail, so the script tries twice.
        "${install[@]}" || "${install[@]}"
        cp "$here/requirements.txt" "$venv/made-of"
    fi
fi
export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}

FILES=$(mktemp -d)
export FILES
server=
cleanup() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    rm -rf "$FILES"
}
trap cleanup EXIT

# authority NAME: creates NAME.pem and NAME-key.pem.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
        -out "$FILES/$1.pem" -keyout "$FILES/$1-key.pem" 2>/dev/null
}

# certificate NAME AUTHORITY USAGE KEY_OPTIONS ALTERNATIVE_NAMES: creates NAME.pem and NAME-key.pem, signed by the authority.
certificate() {
    local options
    read -ra options <<<"$4"
    openssl req -x509 -newkey "${options[@]}" -nodes -days 2 -subj "/CN=$1" -CA "$FILES/$2.pem" -CAkey "$FILES/$2-key.pem" \
        -addext "subjectAltName=$5" -addext basicConstraints=critical,CA:FALSE -addext "extendedKeyUsage=$3" \
        -out "$FILES/$1.pem" -keyout "$FILES/$1-key.pem" 2>/dev/null
}

authority ca
authority other-ca
authority back-ends-ca
p256="ec -pkeyopt ec_paramgen_curve:prime256v1"
certificate localhost ca serverAuth "$p256" "DNS:localhost,IP:127.0.0.1"
certificate rsa.test ca serverAuth "rsa:2048" "DNS:rsa.test"
certificate back-end back-ends-ca clientAuth "$p256" "DNS:back-end.test"
certificate foreign-back-end other-ca clientAuth "$p256" "DNS:back-end.test"

"$TLS_BIN" 127.0.0.1:0 "$FILES"/{localhost,localhost-key}.pem "$FILES"/{rsa.test,rsa.test-key}.pem >"$FILES/listening" &
server=$!
for ((tenths = 0; tenths < 600; tenths++)); do
    [[ ! -s $FILES/listening ]] || break
    kill -0 "$server" || { echo "tls_clients: $TLS_BIN has exited" >&2; exit 1; }
    sleep 0.1
done
PORT=$(sed -n 's/^listening on 127\.0\.0\.1://p' "$FILES/listening")
[[ -n $PORT ]] || { echo "tls_clients: $TLS_BIN does not listen" >&2; exit 1; }
export PORT

# The module server_process is in tests/python.
PYTHONPATH=$here/../python PYTHONDONTWRITEBYTECODE=1 timeout 900 "$PYTHON" -m unittest discover --start-directory "$here" --verbose
(
    cd "$here"
    # There is no lockfile, because it would contain the registry's host. package.json pins all dependencies.
    install=(npm install --no-package-lock --no-audit --no-fund --loglevel=error)
    # A download can fail, so the script tries twice.
    "${install[@]}" || "${install[@]}"
    timeout 900 "${NODE:-node}" --test --test-reporter=spec clients.test.mjs
)
kill -0 "$server" || { echo "tls_clients: the server has exited" >&2; exit 1; }
