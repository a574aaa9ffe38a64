//! Checks the settings of the host: each setting is tried with a value that is too small, and with a sufficient value.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::api::{Api, member};
use crate::clients::{BROADCAST, Clients, Kind};
use crate::memory;
use crate::report::{Report, grouped};
use crate::server::{API_PORT, PORT, Server};
use crate::{Options, failure};

/// The number of connections in each check.
const COUNT: usize = 2000;

/// The value of a setting that is too small for [`COUNT`] connections.
const SMALL: usize = 1000;

/// The number of clients that do not read their messages.
///
/// All messages to one of these clients fit into its receive window, so the server's queue stays empty below the memory
/// limit. Over the memory limit, the kernel still delivers the first message to each client, so the check needs more
/// than one message.
const UNREAD_COUNT: usize = 500;
/// The number of messages to each client that does not read.
const UNREAD_MESSAGES: usize = 3;
const UNREAD_BYTES: usize = 16 << 10;

/// The maximum number of broadcasts that the check of the backlog sends.
const BROADCASTS: usize = 50;

/// Checks each setting. No measurement may follow, because the kernel module conntrack stays loaded.
pub fn check(options: &Options, modules: &Path, report: &mut Report) -> io::Result<()> {
    descriptors(options, report)?;
    nr_open(report)?;
    ports(options, report)?;
    tcp_mem(options, report)?;
    backlog(options, report)?;
    conntrack(options, modules, report)
}

/// Checks that the hard limit of descriptors limits the server's `connections_max`.
fn descriptors(options: &Options, report: &mut Report) -> io::Result<()> {
    for limit in [SMALL, 2 * COUNT] {
        let command = format!("ulimit -n {limit}; exec {} {}", options.server, arguments().join(" "));
        let server = Server::start("sh", &["-c".to_owned(), command], API_PORT)?;
        let max = member(&Api::connect(API_PORT)?.call("/api/stats", "")?, "connections_max")?;
        let title = format!("`ulimit -n {limit}`: connections_max");
        report.check(&title, COUNT, format!("below {limit}"), max, max < limit && max > limit / 2);
        drop(server);
    }
    Ok(())
}

/// Checks that no limit of descriptors can exceed `fs.nr_open`, not even for root.
fn nr_open(report: &mut Report) -> io::Result<()> {
    let text = fs::read_to_string("/proc/sys/fs/nr_open")?;
    let most: u64 = text.trim().parse().map_err(|_| failure("fs.nr_open is not a number"))?;
    let before = getrlimit(Resource::Nofile);
    let set = |limit| setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) });
    let (over, equal) = (set(most + 1), set(most));
    setrlimit(Resource::Nofile, before)?;
    let is_met = over == Err(rustix::io::Errno::PERM) && equal.is_ok();
    let came = if is_met { "refused, granted" } else { "differs" };
    report.check("a descriptor limit of `fs.nr_open` + 1, and of `fs.nr_open`", 0, "refused, granted", came, is_met);
    Ok(())
}

/// Checks the limit of client ports (`net.ipv4.ip_local_port_range`).
///
/// All connections from one client address to one address and port of the server need different client ports.
fn ports(options: &Options, report: &mut Report) -> io::Result<()> {
    let before = sysctl("net/ipv4/ip_local_port_range", "20000 20999")?;
    let few = opened(options)?;
    sysctl("net/ipv4/ip_local_port_range", &before)?;
    let many = opened(options)?;
    check_limit(report, "`ip_local_port_range` of 1,000 ports, and the earlier range: connections", few, many);
    Ok(())
}

/// Checks that sockets accept no bytes over `net.ipv4.tcp_mem`, so that the server queues the bytes.
fn tcp_mem(options: &Options, report: &mut Report) -> io::Result<()> {
    let before = sysctl("net/ipv4/tcp_mem", "128 256 512")?;
    let few = queued_unread(options)?;
    sysctl("net/ipv4/tcp_mem", &before)?;
    let many = queued_unread(options)?;
    let expected = "over 0 and 0";
    let came = format!("{} and {}", grouped(few), grouped(many));
    let title = "`tcp_mem` of 2 MiB, and the default: bytes left in the server's queues";
    report.check(title, UNREAD_COUNT, expected, came, few > 0 && many == 0);
    Ok(())
}

/// Checks that the loopback interface drops packets over `net.core.netdev_max_backlog`.
fn backlog(options: &Options, report: &mut Report) -> io::Result<()> {
    let before = sysctl("net/core/netdev_max_backlog", "1")?;
    let few = dropped_by_broadcasts(options)?;
    sysctl("net/core/netdev_max_backlog", &before)?;
    let many = dropped_by_broadcasts(options)?;
    let title = "`netdev_max_backlog` of 1, and the earlier value: packets that loopback dropped";
    let came = format!("{} and {}", grouped(few as usize), grouped(many as usize));
    report.check(title, COUNT, "over 0 and 0", came, few > 0 && many == 0);
    Ok(())
}

/// Checks the limit of connection tracking: over `nf_conntrack_max`, the first packet of a connection is dropped.
fn conntrack(options: &Options, modules: &Path, report: &mut Report) -> io::Result<()> {
    for module in ["libcrc32c", "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_conntrack"] {
        let mut insmod = Command::new("insmod");
        insmod.arg(modules.join(format!("{module}.ko")));
        if module == "nf_conntrack" {
            insmod.arg("enable_hooks=1");
        }
        if !insmod.status()?.success() {
            return Err(failure(format!("insmod {module} failed")));
        }
    }
    sysctl("net/ipv4/tcp_syn_retries", "1")?;
    sysctl("net/netfilter/nf_conntrack_max", "1000")?;
    let few = opened(options)?;
    sysctl("net/netfilter/nf_conntrack_max", "100000")?;
    let many = opened(options)?;
    check_limit(report, "`nf_conntrack_max` of 1,000, and of 100,000: connections", few, many);
    Ok(())
}

fn check_limit(report: &mut Report, title: &str, few: usize, many: usize) {
    let expected = format!("at most {}, and {}", grouped(SMALL), grouped(COUNT));
    let came = format!("{}, and {}", grouped(few), grouped(many));
    report.check(title, COUNT, expected, came, (SMALL / 2..=SMALL).contains(&few) && many == COUNT);
}

/// Tries to open [`COUNT`] connections to one address, and returns the number of opened connections.
fn opened(options: &Options) -> io::Result<usize> {
    let _server = Server::start(&options.server, &arguments(), API_PORT)?;
    let mut clients = Clients::new(PORT)?;
    // An error is expected: no port is left, or a connect has timed out.
    let _ = clients.open_until(COUNT, Kind::Bare);
    let deadline = Instant::now() + Duration::from_secs(2);
    while clients.has_upgrades() && Instant::now() < deadline {
        clients.turn(Duration::from_millis(100))?;
    }
    Ok(clients.open().count())
}

/// Sends messages that no client reads, and returns the bytes in the server's queues.
fn queued_unread(options: &Options) -> io::Result<usize> {
    let _server = Server::start(&options.server, &arguments(), API_PORT)?;
    let mut clients = Clients::new(PORT)?;
    clients.open_until(UNREAD_COUNT, Kind::Bare)?;
    let mut api = Api::connect(API_PORT)?;
    for _ in 0..UNREAD_MESSAGES {
        api.call("/api/push", &format!(r#"{{"all":true,"text":"{}"}}"#, "x".repeat(UNREAD_BYTES)))?;
    }
    member(&api.call("/api/stats", "")?, "queued_bytes")
}

/// Sends broadcasts until the loopback interface has dropped a packet, and returns the number of dropped packets.
fn dropped_by_broadcasts(options: &Options) -> io::Result<u64> {
    let _server = Server::start(&options.server, &arguments(), API_PORT)?;
    let mut clients = Clients::new(PORT)?;
    clients.open_until(COUNT, Kind::Bare)?;
    let mut api = Api::connect(API_PORT)?;
    let before = memory::dropped_packets()?;
    let mut dropped = 0;
    for number in 1..=BROADCASTS {
        api.call("/api/push", &format!(r#"{{"all":true,"text":"{}{number}"}}"#, char::from(BROADCAST)))?;
        clients.turn(Duration::from_millis(100))?;
        dropped = memory::dropped_packets()? - before;
        if dropped > 0 {
            break;
        }
    }
    Ok(dropped)
}

fn arguments() -> Vec<String> {
    let addresses = [format!("--listen=0.0.0.0:{PORT}"), format!("--api=127.0.0.1:{API_PORT}")];
    ["serve".to_owned()].into_iter().chain(addresses).chain(["--auth=trust", "--log=off"].map(str::to_owned)).collect()
}

/// Sets a value below `/proc/sys`, and returns the earlier value.
fn sysctl(name: &str, value: &str) -> io::Result<String> {
    let path = Path::new("/proc/sys").join(name);
    let before = fs::read_to_string(&path)?;
    fs::write(&path, value)?;
    Ok(before.trim().to_owned())
}
