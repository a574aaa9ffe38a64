#!/usr/bin/env bash
# Measures TLS 1.3 with AES-128-GCM in fdpush's bench server, and in uWebSockets and nginx with OpenSSL. Prints medians.
#   benches/load/tls.sh [PATTERN]   measures the shapes whose names match PATTERN (default: all)
#   ROUNDS, SECONDS_EACH, SERVER_CORE, LOAD_CORE   as for run.sh
# echo, fan-out      server's CPU µs a message or delivery; `plain` is fdpush's bench server without TLS
# handshakes         server's CPU µs of a full and of a resumed handshake, with an ECDSA P-256 certificate and X25519
# idle-10000         the server's private memory for each connection, in bytes: idle, and after 100 messages
# storm              p99 of the echo delay of 1,000 connected clients, without and during 2,000 full handshakes a second, and the
#                    second value divided by the first. No core becomes idle: see start_spinners in measure.sh.
# The ratio is fdpush's CPU time an operation, divided by the other server's CPU time an operation. `cargo bench --bench cipher`
# measures the cost of the cipher alone. Needs gcc, g++, OpenSSL and nginx (Debian: apt install g++ libssl-dev nginx-light).
set -euo pipefail
cd "$(dirname "$0")"
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-1}
pattern=${1:-.}

# name|servers|options of load
shapes=(
    'echo-20B|fdpush uws plain|echo --payload 20'
    'echo-16KiB|fdpush uws plain|echo --payload 16384'
    'fanout-1000|fdpush uws plain|fanout --payload 128 --connections 1000'
    'fanout-1000-16-outstanding|fdpush uws plain|fanout --payload 128 --connections 1000 --depth 16'
    'handshakes-full|fdpush uws nginx|handshakes --connections 20'
    'handshakes-resumed|fdpush uws nginx|handshakes --connections 20 --resume'
    'idle-10000|fdpush uws|idle --connections 10000'
    'storm|fdpush uws|storm --connections 1000'
)

source ./built.sh
load=$(built Cargo.toml load)
fdpush=$(built ../../Cargo.toml examples/bench_server)
uws=$(uws/build.sh tls)
source ./measure.sh

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$scratch/key.pem" -out "$scratch/certificate.pem" 2>/dev/null
pair="$scratch/certificate.pem $scratch/key.pem"

write_nginx_conf() {
    cat >"$scratch/nginx.conf" <<CONF
daemon off;
master_process off;
error_log $scratch/nginx.log crit;
pid $scratch/nginx.pid;
events { worker_connections 4096; use epoll; multi_accept on; }
http {
    access_log off;
    client_body_temp_path $scratch/body;
    proxy_temp_path $scratch/proxy;
    fastcgi_temp_path $scratch/fastcgi;
    uwsgi_temp_path $scratch/uwsgi;
    scgi_temp_path $scratch/scgi;
    server {
        listen $1 ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate $scratch/certificate.pem;
        ssl_certificate_key $scratch/key.pem;
        ssl_session_cache shared:sessions:10m;
    }
}
CONF
}

# run SHAPE SERVER OPTIONS…: starts a server, runs the load client against it once, and adds the figures to their file.
run() {
    local shape=$1 name=$2 address tls=--tls
    shift 2
    port=$((port + 1))
    address=127.0.0.1:$port
    case $name in
        fdpush) start "$fdpush $address $pair" "$address" ;;
        uws) start "$uws $address $pair" "$address" ;;
        nginx)
            write_nginx_conf "$address"
            start "nginx -p $scratch -c $scratch/nginx.conf" "$address"
            ;;
        plain)
            start "$fdpush $address" "$address"
            tls=
            ;;
    esac
    # shellcheck disable=SC2086 # no option without TLS
    timeout "$run_seconds_max" taskset -c "$load_core" "$load" "$@" $tls --seconds "$seconds" \
        --address "$address" --pid "$server" >>"$scratch/$shape-$name" ||
        echo "failed" | tee -a "$scratch/$shape-$name" >&2
    stop
}

port=$((30000 + RANDOM % 2000))
ulimit -n "$(ulimit -H -n)"
echo "load $(cut -d' ' -f1-3 /proc/loadavg), $rounds rounds of $seconds s"
for shape in "${shapes[@]}"; do
    IFS='|' read -r shape_name servers options <<<"$shape"
    [[ $shape_name =~ $pattern ]] || continue
    read -ra names <<<"$servers"
    [[ $options == storm* ]] && start_spinners
    for ((round = 0; round < rounds; round++)); do
        # One round is enough to measure memory.
        [[ $options == idle* ]] && ((round > 0)) && break
        for turn in "${!names[@]}"; do
            # shellcheck disable=SC2086 # options are split into words
            run "$shape_name" "${names[(turn + round) % ${#names[@]}]}" $options
        done
    done
    stop_spinners
    line=$(printf '%-28s' "$shape_name")
    own=$scratch/$shape_name-fdpush
    for name in "${names[@]}"; do
        file=$scratch/$shape_name-$name
        line+="  $name"
        for field in rate cpu_us idle_anonymous used_anonymous quiet_p99_us storm_p99_us ratio handshakes; do
            value=$(median "$field" "$file")
            [[ -n $value ]] && line+=" $field $value"
        done
        [[ $name != fdpush && $options != idle* && $options != storm* ]] && line+=" = $(ratio cpu_us "$own" "$file")"
    done
    echo "$line"
done
