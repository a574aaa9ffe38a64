#!/usr/bin/env bash
# Keeps N WebSockets open in one `fdpush serve` in a virtual machine, measures the server, and prints a table.
#   benches/million/run.sh [N] [GiB]   N connections (default 1000000) in a machine with this memory (default: depends on N)
#   HEARTBEAT    the heartbeat period in seconds (default 300). The test of heartbeats takes two periods
#   DRAIN        the value of --drain-for in seconds (default 30)
#   UWS          1: measure uWebSockets in the same machine, too (default 1 if g++ is installed, else 0)
#   ACCEL        kvm or tcg (default: kvm if /dev/kvm opens, else tcg)
#   FDPUSH_BIN   the binary to measure    (default: target/release/fdpush, built here)
#   MILLION_BIN  the load client          (default: that of benches/load, built here)
#   OUT          directory of table.md and picture.svg (default: target/million)
# The script needs Debian 12 or newer, root to install packages, and as much free memory as the virtual machine gets: 2 GiB, and
# 11 KiB for each connection, which includes the client's end.
set -euo pipefail
cd "$(dirname "$0")/../.."
count=${1:-1000000}
gib=${2:-$(((count * 11 >> 20) + 2))}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$(realpath -m "${OUT:-$target/million}")
image=$target/million/image
mkdir -p "$out" "$target/million"

need() {
    command -v "$1" >/dev/null || missing+=("$2")
}
missing=()
need qemu-system-x86_64 qemu-system-x86
need cpio cpio
need ip iproute2
[[ -x /bin/busybox ]] && ! ldd /bin/busybox &>/dev/null || missing+=(busybox-static)
if ((${#missing[@]} > 0)); then
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The kernel package is unpacked and not installed, so that the boot of this machine does not change.
kernel=$target/million/kernel
if ! compgen -G "$kernel/boot/vmlinuz-*" >/dev/null; then
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    if [[ -z $package ]]; then
        apt-get update -qq
        package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    fi
    echo "unpacking $package"
    download=$(mktemp -d)
    chmod 755 "$download"
    (cd "$download" && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg -x ./*.deb "$kernel")
    rm -r "$download"
fi

if [[ -z ${FDPUSH_BIN:-} ]]; then
    cargo build --release --bin fdpush
    FDPUSH_BIN=$target/release/fdpush
fi
if [[ -z ${MILLION_BIN:-} ]]; then
    cargo build --release --manifest-path benches/load/Cargo.toml --bin million
    MILLION_BIN=${CARGO_TARGET_DIR:-benches/load/target}/release/million
fi
uws=
if [[ ${UWS:-$(command -v g++ >/dev/null && echo 1)} == 1 ]]; then
    uws=$(benches/load/uws/build.sh)
fi

# The image contains busybox, the programs with their libraries, and the kernel modules of conntrack.
rm -rf "$image"
mkdir -p "$image"/{bin,dev,proc,sys,tmp,lib/modules}
cp /bin/busybox "$image/bin/busybox"
cp "$FDPUSH_BIN" "$image/bin/fdpush"
cp "$MILLION_BIN" "$image/bin/million"
# The ip of busybox cannot set the minimum retransmission timeout of a route.
cp "$(command -v ip)" "$image/bin/iproute"
[[ -z $uws ]] || cp "$uws" "$image/bin/uws"
for program in "$image"/bin/{fdpush,million,iproute} ${uws:+"$uws"}; do
    ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$image$(dirname "$library")"
        cp -n "$library" "$image$library"
    done
done
find "$kernel" \( -name libcrc32c.ko -o -name 'nf_defrag_ipv[46].ko' -o -name nf_conntrack.ko \) \
    -exec cp {} "$image/lib/modules/" \;
cat >"$image/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
if grep -q probe /proc/cmdline; then
    echo; echo booted
    reboot -f
fi
ip link set lo up
# docs/operations.md explains these settings.
echo $((3 * count + 1000000)) >/proc/sys/fs/nr_open
echo $((6 * count + 1000000)) >/proc/sys/fs/file-max
echo '1024 65535' >/proc/sys/net/ipv4/ip_local_port_range
echo 9501,9502 >/proc/sys/net/ipv4/ip_local_reserved_ports
echo 65535 >/proc/sys/net/core/somaxconn
# The loopback interface queues all segments of a broadcast and their acknowledgements on one processor.
echo $((4 * count + 10000)) >/proc/sys/net/core/netdev_max_backlog
# Emulation delays acknowledgements by more than the default minimum retransmission timeout of 200 ms. Retransmissions of delivered
# segments would delay further acknowledgements.
iproute route change local 127.0.0.0/8 dev lo proto kernel scope host src 127.0.0.1 table local rto_min 3s
# The values are pages for the data of all TCP sockets. A broadcast occupies the buffers of both ends of each connection.
echo "$((2 * count + 50000)) $((3 * count + 100000)) $((4 * count + 200000))" >/proc/sys/net/ipv4/tcp_mem
ulimit -n $((3 * count + 100000))
taskset -c 1 million run --server /bin/fdpush --count $count --heartbeat-seconds ${HEARTBEAT:-300} \
    --drain-seconds ${DRAIN:-30} --modules /lib/modules ${uws:+--uws /bin/uws}
echo "exit status: \$?"
reboot -f
INIT
chmod +x "$image/init"
(cd "$image" && find . | cpio --quiet -o -H newc | gzip -1) >"$target/million/initrd.gz"

# boot ACCEL ARGUMENTS: boots the image. `slab_nomerge` gives sockets and epoll their own slab caches.
boot() {
    local cpu=max
    # A nested virtual machine often cannot set the register of the CPU feature arch-capabilities, so this feature is disabled.
    [[ $1 != kvm ]] || cpu=host,arch-capabilities=off
    qemu-system-x86_64 -accel "$1" -cpu "$cpu" -smp 2 -m "${gib}G" -nographic -no-reboot -nodefaults -serial stdio \
        -kernel "$kernel"/boot/vmlinuz-* -initrd "$target/million/initrd.gz" \
        -append "console=ttyS0 quiet loglevel=3 panic=-1 slab_nomerge $2" </dev/null
}
export -f boot
export gib kernel target
# The device file of KVM can exist although KVM does not work. Therefore the script tests KVM: it boots an image with KVM.
boots_with_kvm() {
    [[ -c /dev/kvm ]] && timeout --kill-after=1 15 bash -c 'boot kvm probe' 2>/dev/null | grep -q booted
}
accel=${ACCEL:-}
[[ -n $accel ]] || if boots_with_kvm; then accel=kvm; else accel=tcg; fi
began=$SECONDS
# The console also prints lines of the BIOS, the kernel and the server's log. The script does not show these lines.
shown='^(\|| *$|[0-9]+ connections,|failed:|exit status:)'
{
    echo "$count connections, $gib GiB, 2 virtual processors, accelerator: $accel, $(basename "$kernel"/boot/vmlinuz-*)"
    echo
    timeout "${TIME_MAX:-14400}" bash -c "boot $accel tsc=reliable" | sed -u 's|\r||'
} | tee "$out/output" | grep --line-buffered -E "$shown" || true
grep -E "$shown" "$out/output" >"$out/table.md"
grep -q '^point|' "$out/output" && "$MILLION_BIN" draw "$out/output" "$out/picture.svg"
echo "$((SECONDS - began)) s; the table and the picture are in $out"
grep -q '^exit status: 0$' "$out/output"
