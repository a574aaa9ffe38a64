# Functions to start and end servers, and to compute medians and ratios. run.sh, api.sh, tls.sh and instructions.sh source this
# file.
server_core=${SERVER_CORE:-0}
load_core=${LOAD_CORE:-1}
# The timeout of a run, in seconds.
run_seconds_max=120

scratch=$(mktemp -d)
server=
spinners=()
finish() {
    stop
    stop_spinners
    rm -rf "$scratch"
}
stop() {
    [[ -n $server ]] || return 0
    kill "$server" 2>/dev/null || true
    # The load client has closed its connections, so the drain of the server ends immediately.
    wait "$server" 2>/dev/null || true
    server=
}
trap finish EXIT

# start_spinners: keeps the cores of the server and of the load client busy with processes of the scheduling class SCHED_IDLE,
# because an idle virtual processor takes milliseconds to wake up. The kernel preempts these processes immediately when
# another process can run.
start_spinners() {
    local core
    for core in "$server_core" "$load_core"; do
        chrt --idle 0 taskset -c "$core" bash -c 'while :; do :; done' &
        spinners+=($!)
    done
}
stop_spinners() {
    ((${#spinners[@]})) || return 0
    kill "${spinners[@]}" 2>/dev/null || true
    wait "${spinners[@]}" 2>/dev/null || true
    spinners=()
}

# start COMMAND ADDRESS: starts the server, waits until it listens, and sets `server` to its pid.
start() {
    # shellcheck disable=SC2086 # the command is split into words
    taskset -c "$server_core" $1 >"$scratch/server.log" 2>&1 &
    server=$!
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        (exec 3<>"/dev/tcp/${2/://}") 2>/dev/null && return
        sleep 0.05
    done
    echo "$1: not listening on $2:" >&2
    cat "$scratch/server.log" >&2
    return 1
}

# median FIELD FILE: prints the median of the values of `FIELD=…` in FILE, or nothing if there are none.
median() {
    { grep -o "\b$1=[0-9.]*" "$2" 2>/dev/null || true; } | cut -d= -f2 | sort -n |
        awk '{ value[NR] = $1 } END { if (NR) print value[int((NR + 1) / 2)] }'
}

# ratio FIELD FILE OTHER: prints the median, over all rounds, of the ratio of FIELD in FILE to FIELD in OTHER. Each line of a
# file is a round. Slow changes of the machine's speed affect the values of a round in both files alike.
ratio() {
    paste -d'|' "$2" "$3" | sed -n "s/^[^|]*\b$1=\([0-9.]*\)[^|]*|.*\b$1=\([0-9.]*\).*/\1 \2/p" |
        awk '$2 > 0 { print $1 / $2 }' | sort -n | awk '{ value[NR] = $1 } END { if (NR) printf "%.2f", value[int((NR + 1) / 2)] }'
}
