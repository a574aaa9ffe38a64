#!/usr/bin/env bash
# Counts the system calls of fdpush's bench server for each message and for each connection, for each shape, under strace. A
# turn in the trace goes from one epoll_wait to the next. Other load on the machine does not change the counts.
#   benches/load/syscalls.sh [PATTERN]   shapes with matching names, all by default
#   SERVER           the command of another server to measure; the script appends the address
set -euo pipefail
cd "$(dirname "$0")"
pattern=${1:-.}
seconds=1
run_seconds_max=60

# name|options of load|bytes of a frame from the server
shapes=(
    'echo-20B|echo --payload 20 --connections 100|22'
    'echo-20B-16-in-flight|echo --payload 20 --connections 100 --depth 16|22'
    'p2p-8-in-flight|p2p --payload 128 --connections 100 --depth 8|132'
    'fanout-1000-16-outstanding|fanout --payload 128 --connections 1000 --depth 16|132'
)

command -v strace >/dev/null || { echo "strace is missing (Debian: apt install strace)" >&2; exit 1; }
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

# count FRAME_BYTES TRACE: counts the calls after the upgrades. An upgrade is the first read and the first write of a connection.
count() {
    awk -v frame="$1" '
        { call = $0; sub(/\(.*/, "", call); fd = $0; sub(/^[^(]*\(/, "", fd); sub(/[,)].*/, "", fd) }
        / = -1 E/ { next }
        call == "accept4" { connections++; is_new_read[$NF] = is_new_write[$NF] = 1; next }
        !connections { next }
        call == "epoll_wait" || call == "epoll_pwait" { turn++; waits++; next }
        call ~ /^(read|readv|recvfrom|recvmsg)$/ && is_new_read[fd] { is_new_read[fd] = 0; next }
        call ~ /^(write|writev|sendto|sendmsg)$/ && is_new_write[fd] { is_new_write[fd] = 0; waits = 0; next }
        call ~ /^(read|readv|recvfrom|recvmsg)$/ { reads++; bytes_in += $NF; next }
        call ~ /^(write|writev|sendto|sendmsg)$/ {
            writes++
            bytes_out += $NF
            if (writes_of[turn, fd]++ == 0) { receivers++ }
            if (writes_of[turn, fd] > most) { most = writes_of[turn, fd] }
            next
        }
        { others[call]++ }
        END {
            # Client frames are 4 bytes longer, because they have a mask.
            received = bytes_in / (frame + 4)
            sent = bytes_out / frame
            printf "%.3f reads a message of %d, ", reads / received, received
            printf "%.3f writes a message of %d, %.3f epoll_wait; ", writes / sent, sent, waits / sent
            printf "at most %d write a connection and turn; each connection:", most
            for (call in others) {
                # Excludes calls that the server makes only at its start and its end.
                if (others[call] > connections / 2) { printf " %.2f %s,", others[call] / connections, call }
            }
            printf " 1 accept4, %d setsockopt, %d fcntl\n", \
                others["setsockopt"] / connections, others["fcntl"] / connections
        }
    ' "$2"
}

port=$((25000 + RANDOM % 2000))
for shape in "${shapes[@]}"; do
    IFS='|' read -r name options frame_bytes <<<"$shape"
    [[ $name =~ $pattern ]] || continue
    port=$((port + 1))
    rm -f "$scratch/trace"
    # shellcheck disable=SC2086 # the command is split into words
    strace -D -s 0 -o "$scratch/trace" $server_command "127.0.0.1:$port" >/dev/null 2>&1 &
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
    printf '%-28s' "$name"
    count "$frame_bytes" "$scratch/trace"
done
