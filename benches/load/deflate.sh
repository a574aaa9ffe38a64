#!/usr/bin/env bash
# Measures the fan-out of a deflated JSON message of 1 KiB to 1,000 receivers, and the memory of idle connections that
# negotiated permessage-deflate.
#   ROUNDS, SECONDS_EACH, SERVER_CORE, LOAD_CORE   as for run.sh
# Compares each server with fdpush without compression: the server's CPU time for each delivery, and the throughput. The
# servers are fdpush with compression, uWebSockets with its shared compressor (needs zlib1g-dev), and Nchan if nginx has this
# module (Debian: apt install nginx libnginx-mod-nchan).
set -euo pipefail
cd "$(dirname "$0")"
servers=$'fdpush\nfdpush-deflate\nuws-deflate '"$(./uws/build.sh) deflate"
./nchan.sh --check && servers+=$'\nnchan-deflate ./nchan.sh'
SERVERS=$servers ./run.sh fanout-1000-json
SERVERS=$'fdpush\nfdpush-deflate' ./run.sh '^idle$'
