# What run.sh, api.sh and instructions.sh share: servers that are started and ended, medians and ratios. Sourced by them.
server_core=${SERVER_CORE:-0}
load_core=${LOAD_CORE:-1}
# No run takes longer, whatever happens.
run_seconds_max=120

scratch=$(mktemp -d)
server=
finish() {
    stop
    rm -rf "$scratch"
}
stop() {
    [[ -n $server ]] || return 0
    kill "$server" 2>/dev/null || true
    # A server that drains has nobody left to drain.
    wait "$server" 2>/dev/null || true
    server=
}
trap finish EXIT

# start COMMAND ADDRESS: sets `server` to the process, once it listens there.
start() {
    # shellcheck disable=SC2086 # a command is words
    taskset -c "$server_core" $1 >"$scratch/server.log" 2>&1 &
    server=$!
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        (exec 3<>"/dev/tcp/${2/://}") 2>/dev/null && return
        sleep 0.05
    done
    echo "$1 does not listen on $2:" >&2
    cat "$scratch/server.log" >&2
    return 1
}

# median FIELD FILE: of the values of `FIELD=…`, or nothing.
median() {
    { grep -o "\b$1=[0-9.]*" "$2" 2>/dev/null || true; } | cut -d= -f2 | sort -n |
        awk '{ value[NR] = $1 } END { if (NR) print value[int((NR + 1) / 2)] }'
}

# ratio FIELD FILE OTHER: the median, over the rounds, of FIELD in FILE by that in OTHER: what the machine does in the
# course of a run moves both alike. A line of each file is a round.
ratio() {
    paste -d'|' "$2" "$3" | sed -n "s/^[^|]*\b$1=\([0-9.]*\)[^|]*|.*\b$1=\([0-9.]*\).*/\1 \2/p" |
        awk '$2 > 0 { print $1 / $2 }' | sort -n | awk '{ value[NR] = $1 } END { if (NR) printf "%.2f", value[int((NR + 1) / 2)] }'
}
