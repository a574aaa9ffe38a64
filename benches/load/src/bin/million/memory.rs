//! Reads the memory of the server, and the kernel's memory for the server's sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use fdpush_load::process;

const PAGE_BYTES: u64 = 4096;

/// The memory of the server and of the kernel at one moment, in bytes.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The memory of the server in user space.
    pub user: u64,
    /// The memory that the kernel can still give to programs.
    pub available: u64,
    /// The bytes of the kernel's slab caches, by name.
    caches: BTreeMap<String, u64>,
}

/// The bytes of the kernel's slab caches, by purpose.
#[derive(Copy, Clone, Debug, Default)]
pub struct Slab {
    pub sockets: u64,
    pub epoll: u64,
    pub files: u64,
    pub other: u64,
}

impl Memory {
    /// Reads the memory of the process with this id, and of the kernel.
    pub fn of(pid: u32) -> io::Result<Memory> {
        let slabs = fs::read_to_string("/proc/slabinfo")?;
        Ok(Memory {
            user: process::anonymous_bytes(pid)?,
            available: available_bytes()?,
            caches: slabs.lines().skip(2).filter_map(cache).collect(),
        })
    }

    /// Returns the growth of the slab caches since `before`.
    pub fn slab_since(&self, before: &Memory) -> Slab {
        let mut slab = Slab::default();
        for (name, bytes) in &self.caches {
            let grown = bytes.saturating_sub(before.caches.get(name).copied().unwrap_or(0));
            let sum = match name.as_str() {
                "TCP" | "sock_inode_cache" | "request_sock_TCP" | "tw_sock_TCP" | "tcp_bind_bucket"
                | "tcp_bind2_bucket" => &mut slab.sockets,
                "eventpoll_epi" | "eventpoll_pwq" | "ep_head" => &mut slab.epoll,
                "filp" | "dentry" => &mut slab.files,
                _ => &mut slab.other,
            };
            *sum += grown;
        }
        slab
    }
}

impl Slab {
    pub fn total(self) -> u64 {
        self.sockets + self.epoll + self.files + self.other
    }
}

/// Returns the name and the bytes of the cache in a line of `/proc/slabinfo`. A slab that is only partly used counts
/// with its whole size.
fn cache(line: &str) -> Option<(String, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pages_per_slab: u64 = words.get(5)?.parse().ok()?;
    let slabs: u64 = words.get(14)?.parse().ok()?;
    Some(((*words.first()?).to_owned(), slabs * pages_per_slab * PAGE_BYTES))
}

/// Returns `MemAvailable` of `/proc/meminfo`.
pub fn available_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
}

/// Returns the number of open descriptors of a process.
pub fn descriptors(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Returns the steal time of the machine since its start, in seconds.
pub fn stolen_seconds() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks = text.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse::<f64>().ok());
    Ok(ticks.ok_or(io::ErrorKind::InvalidData)? / 100.0)
}

/// Returns the number of packets that the kernel dropped since its start because the queue of a processor was full
/// (`net.core.netdev_max_backlog`).
pub fn dropped_packets() -> io::Result<u64> {
    dropped(&fs::read_to_string("/proc/net/softnet_stat")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Adds the second column of `/proc/net/softnet_stat`, which has one line for each processor and hexadecimal numbers.
fn dropped(stat: &str) -> Option<u64> {
    stat.lines().map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_slabinfo_is_read() {
        let line =
            "TCP                  84    104   2432   13    8 : tunables    0    0    0 : slabdata      8      8      0";
        assert_eq!(cache(line), Some(("TCP".to_owned(), 8 * 8 * 4096)));
        assert_eq!(cache("# name <active_objs>"), None);
    }

    #[test]
    fn dropped_packets_of_all_processors_are_added() {
        assert_eq!(dropped("0000a1b2 0000000f 00000000\n00000001 00000010 00000000\n"), Some(31));
        assert_eq!(dropped("0000a1b2\n"), None);
    }
}
