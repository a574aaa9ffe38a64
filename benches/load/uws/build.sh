#!/usr/bin/env bash
# Builds server.cpp with the uWebSockets sources of the crate libuwebsockets-sys, and prints the path of the binary:
#   SERVERS=$'raw\nfdpush\nuws '"$(benches/load/uws/build.sh)" benches/load/run.sh
#   benches/load/uws/build.sh tls   builds the binary that speaks TLS, with OpenSSL (Debian: apt install libssl-dev)
# Needs gcc and g++ 11 or newer, for C++20. The build without TLS also needs zlib (Debian: zlib1g-dev). The build with TLS has
# no compression.
set -euo pipefail
cd "$(dirname "$0")"
version=0.0.10
out=${CARGO_TARGET_DIR:-$PWD/../target}/uws
mkdir -p "$out"
out=$(cd "$out" && pwd)

# The script uses only the C and C++ sources of the crate. cargo does not compile the crate.
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

here=$PWD
if [[ ${1:-} == tls ]]; then
    name=server-tls
    tls=(-DLIBUS_USE_OPENSSL -DUWS_NO_ZLIB -Wno-deprecated-declarations)
    c_files=("$uws"/uSockets/src/*.c "$uws"/uSockets/src/eventing/*.c "$uws"/uSockets/src/crypto/openssl.c)
    cpp_files=("$uws"/uSockets/src/crypto/sni_tree.cpp)
    libraries=(-lssl -lcrypto)
else
    name=server
    tls=(-DLIBUS_NO_SSL)
    c_files=("$uws"/uSockets/src/*.c "$uws"/uSockets/src/eventing/*.c)
    cpp_files=() libraries=(-lz)
fi
mkdir -p "$out/$name.objects"
cd "$out/$name.objects"
gcc -std=gnu11 -O3 -flto "${tls[@]}" -I"$uws/uSockets/src" -c "${c_files[@]}"
g++ -std=c++20 -O3 -flto=auto "${tls[@]}" -I"$uws/src" -I"$uws/uSockets/src" \
    "$here/server.cpp" "${cpp_files[@]}" ./*.o "${libraries[@]}" -o "$out/$name"
echo "$out/$name"
