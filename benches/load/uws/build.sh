#!/usr/bin/env bash
# Builds server.cpp with the uWebSockets sources of the crate libuwebsockets-sys, and prints the path of the binary:
#   SERVERS=$'raw\nfdpush\nuws '"$(benches/load/uws/build.sh)" benches/load/run.sh
# Needs gcc and g++ 11 or newer, for C++20. The build has neither TLS nor compression.
set -euo pipefail
cd "$(dirname "$0")"
version=0.0.10
out=${CARGO_TARGET_DIR:-$PWD/../target}/uws
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Only the sources are used. cargo compiles nothing of the crate.
cat >"$out/Cargo.toml" <<TOML
[workspace]
[package]
name = "sources"
version = "0.0.0"
edition = "2021"
[lib]
path = "lib.rs"
[dependencies]
libuwebsockets-sys = "=$version"
TOML
: >"$out/lib.rs"
sources=$(cargo metadata --quiet --format-version 1 --manifest-path "$out/Cargo.toml" |
    grep -o "\"manifest_path\":\"[^\"]*libuwebsockets-sys-$version/Cargo.toml\"" | cut -d'"' -f4)
uws=$(dirname "$sources")/uWebSockets

cd "$out"
gcc -std=gnu11 -O3 -flto -DLIBUS_NO_SSL -I"$uws/uSockets/src" -c "$uws"/uSockets/src/*.c "$uws"/uSockets/src/eventing/*.c
g++ -std=c++20 -O3 -flto=auto -DLIBUS_NO_SSL -DUWS_NO_ZLIB -I"$uws/src" -I"$uws/uSockets/src" \
    "$OLDPWD/server.cpp" ./*.o -o server
echo "$out/server"
