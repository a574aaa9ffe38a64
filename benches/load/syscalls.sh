#!/usr/bin/env bash
# Counts the system calls of fdpush's bench server under strace, for each message and for each connection. In the trace, a
# turn goes from one epoll_wait to the next. Other load on the machine does not change the counts.
#   benches/load/syscalls.sh [PATTERN]   measures the shapes whose names match PATTERN (default: all)
#   SERVER           the command of another server to measure; the script appends the address, and with TLS the certificate and key
# With TLS, the handshake and the session ticket are not counted. Needs strace and OpenSSL.
set -euo pipefail
cd "$(dirname "$0")"
pattern=${1:-.}
seconds=1
run_seconds_max=60

# name|options of load|bytes of a frame from the server|frames from the server for each message of a client
shapes=(
    'echo-20B|echo --payload 20 --connections 100|22|1'
    'echo-20B-16-in-flight|echo --payload 20 --connections 100 --depth 16|22|1'
    'p2p-8-in-flight|p2p --payload 128 --connections 100 --depth 8|132|1'
    'fanout-1000-16-outstanding|fanout --payload 128 --connections 1000 --depth 16|132|1000'
    'echo-20B-16-in-flight-tls|echo --payload 20 --connections 100 --depth 16 --tls|22|1'
    'fanout-1000-16-outstanding-tls|fanout --payload 128 --connections 1000 --depth 16 --tls|132|1000'
)

for program in strace openssl; do
    command -v $program >/dev/null || { echo "$program is missing (Debian: apt install $program)" >&2; exit 1; }
done
source ./built.sh
load=$(built Cargo.toml load)
server_command=${SERVER:-$(built ../../Cargo.toml examples/bench_server)}

scratch=$(mktemp -d)
server=
finish() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    rm -rf "$scratch"
}
trap finish EXIT

# count FRAME_BYTES FRAMES OPENING TRACE: counts the system calls after the upgrades. The first OPENING writes of a connection
# belong to its upgrade, and the last of these writes is the response. With TLS, the answer to the hello and the session ticket
# precede the response. With TLS, each record of at most 16 KiB has 22 more bytes.
count() {
    awk -v frame="$1" -v frames="$2" -v opening="$3" '
        function payload(bytes) { return opening > 1 ? bytes - 22 * int((bytes + 16405) / 16406) : bytes }
        { call = $0; sub(/\(.*/, "", call); fd = $0; sub(/^[^(]*\(/, "", fd); sub(/[,)].*/, "", fd) }
        / = -1 E/ { next }
        call == "accept4" { connections++; left[$NF] = opening; next }
        !connections { next }
        call ~ /^epoll_(wait|pwait|pwait2)$/ { turn++; waits++; next }
        call ~ /^(read|readv|recvfrom|recvmsg)$/ && left[fd] { next }
        call ~ /^(write|writev|sendto|sendmsg)$/ && left[fd] { left[fd]--; waits = 0; next }
        call ~ /^(read|readv|recvfrom|recvmsg)$/ { reads++; bytes_in += $NF; next }
        call ~ /^(write|writev|sendto|sendmsg)$/ {
            writes++
            bytes_out += payload($NF)
            writes_of[turn, fd]++
            if (writes_of[turn, fd] > most) { most = writes_of[turn, fd] }
            next
        }
        { others[call]++ }
        END {
            sent = bytes_out / frame
            # Client frames are 4 bytes longer, because they have a mask. With TLS, the number of records in a read is
            # unknown, so the number of received messages is computed from the sent bytes.
            received = opening > 1 ? sent / frames : bytes_in / (frame + 4)
            printf "%.3f reads a message of %d, ", reads / received, received
            printf "%.3f writes a message of %d, %.3f epoll_wait; ", writes / sent, sent, waits / sent
            printf "at most %d writes to a connection in a turn; each connection:", most
            for (call in others) {
                # Excludes calls that the server makes only at its start and its end.
                if (others[call] > connections / 2) { printf " %.2f %s,", others[call] / connections, call }
            }
            printf " 1 accept4, %d setsockopt, %d fcntl\n", \
                others["setsockopt"] / connections, others["fcntl"] / connections
        }
    ' "$4"
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$scratch/key.pem" -out "$scratch/certificate.pem" 2>/dev/null

port=$((25000 + RANDOM % 2000))
for shape in "${shapes[@]}"; do
    IFS='|' read -r name options frame_bytes frames <<<"$shape"
    [[ $name =~ $pattern ]] || continue
    port=$((port + 1))
    rm -f "$scratch/trace"
    pair= opening=1
    [[ $options == *--tls* ]] && pair="$scratch/certificate.pem $scratch/key.pem" opening=3
    # shellcheck disable=SC2086 # the command and the pair are split into words
    strace -D -s 0 -o "$scratch/trace" $server_command "127.0.0.1:$port" $pair >/dev/null 2>&1 &
    server=$!
    for ((tries = 0; tries < 100; tries++)); do
        grep -qs epoll_wait "$scratch/trace" && break
        sleep 0.05
    done
    # shellcheck disable=SC2086 # options are split into words
    timeout "$run_seconds_max" "$load" $options --seconds "$seconds" \
        --address "127.0.0.1:$port" --pid "$server" >/dev/null
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
    # Waits until strace has written its last line.
    while ! tail -1 "$scratch/trace" | grep -q '^+++'; do sleep 0.05; done
    printf '%-32s' "$name"
    count "$frame_bytes" "$frames" "$opening" "$scratch/trace"
done
