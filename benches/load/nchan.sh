#!/usr/bin/env bash
# Replaces this process by nginx with Nchan.
#   nchan.sh ADDRESS   serves WebSockets on /sub and /pub, as bench_server does; a POST to /pub?id=N publishes to /sub?id=N
#   nchan.sh --check   exits with 0 if nginx has Nchan
set -euo pipefail
nginx=$(command -v nginx || true)
module=$(find /usr/lib/nginx/modules /usr/share/nginx/modules -name ngx_nchan_module.so 2>/dev/null | head -1)
[[ -n $nginx && -n $module ]] || { echo "nginx has no Nchan: apt install nginx libnginx-mod-nchan" >&2; exit 1; }
[[ $1 != --check ]] || exit 0

directory=$(mktemp -d)
cat >"$directory/nginx.conf" <<CONF
load_module $module;
daemon off;
master_process off;
error_log $directory/nginx.log crit;
pid $directory/nginx.pid;
events { worker_connections 20480; use epoll; multi_accept on; }
http {
    access_log off;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    server {
        listen $1;
        location /sub { nchan_subscriber websocket; nchan_channel_id n\$arg_id; nchan_subscriber_first_message newest;
                        nchan_deflate_message_for_websocket on; }
        location /pub { nchan_publisher http websocket; nchan_channel_id n\$arg_id;
                        nchan_deflate_message_for_websocket on; }
    }
}
CONF
exec "$nginx" -p "$directory" -c "$directory/nginx.conf"
