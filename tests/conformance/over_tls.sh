#!/usr/bin/env bash
# Serves `examples/tls` at an address without TLS: over_tls.sh ADDRESS. kosoku has no TLS, so stunnel is the TLS client.
#   TLS_BIN   the server   (default: target/release/examples/tls, built here)
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

if [[ -z ${TLS_BIN:-} ]]; then
    cargo build --release --example tls
    TLS_BIN=$target/release/examples/tls
fi
files=$(mktemp -d)
children=()
cleanup() {
    (( ${#children[@]} == 0 )) || kill "${children[@]}" 2>/dev/null || true
    rm -rf "$files"
}
trap cleanup EXIT
trap 'exit 143' TERM

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -out "$files/certificate.pem" -keyout "$files/key.pem" 2>/dev/null
"$TLS_BIN" 127.0.0.1:0 "$files/certificate.pem" "$files/key.pem" >"$files/listening" &
children+=($!)
for ((tenths = 0; tenths < 600; tenths++)); do
    [[ ! -s $files/listening ]] || break
    sleep 0.1
done
port=$(sed -n 's/^listening on 127\.0\.0\.1://p' "$files/listening")
[[ -n $port ]] || { echo "over_tls: $TLS_BIN does not listen" >&2; exit 1; }

cat >"$files/stunnel.conf" <<END
foreground = yes
pid =
syslog = no
debug = crit
[echo]
client = yes
accept = $1
connect = 127.0.0.1:$port
CAfile = $files/certificate.pem
verifyChain = yes
checkHost = localhost
sslVersionMin = TLSv1.3
TIMEOUTclose = 10
END
stunnel "$files/stunnel.conf" &
children+=($!)
# If stunnel or the server ends, the script ends the other process.
wait -n
