//! The number of the first loop, and the possible numbers of loops.

use fdpush::Fd;

/// The number of the first loop. The first loop has all API connections, and sends all notices of groups.
pub const HOME: usize = 0;

/// The maximum number of loops of a server, as [`Server::loops`](fdpush::Server::loops) states.
pub const LOOPS_MAX: usize = 256;

/// Returns an fd that belongs to the first loop. A command for this fd runs on the first loop.
pub fn home_fd() -> Fd {
    // The lowest 24 bits are the slot, plus 1. The slot 0 belongs to the first loop.
    Fd::from_u64(1).unwrap_or_else(|| unreachable!("1 is an fd"))
}

/// Returns the number of cores that this process may use, by its affinity mask and its cgroup quota.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
