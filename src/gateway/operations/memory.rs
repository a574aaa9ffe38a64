//! The allocator of the process, and the return of freed memory to the kernel.
//!
//! The allocator is mimalloc. The allocator of glibc keeps most of the memory that was freed after a peak.
//!
//! mimalloc returns a page to the kernel a second after the page became free, but it looks for such pages only when
//! another page is freed. An idle server frees no page, so a thread allocates and frees a block from time to time.

use std::hint::black_box;
use std::io;
use std::thread;
use std::time::Duration;

use mimalloc::MiMalloc;

use crate::gateway::runtime::threads;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The time between two blocks that the thread allocates and frees.
const PERIOD: Duration = Duration::from_secs(1);

/// The size of the block in bytes. A block of this size has a page of its own, so freeing the block frees the page.
const BLOCK_BYTES: usize = 8 << 20;

/// Starts the thread that makes mimalloc return free pages. The thread ends with the process.
///
/// # Errors
///
/// The system cannot start a thread.
pub fn return_free_pages() -> io::Result<()> {
    threads::spawn("fdpush-memory", || {
        loop {
            thread::park_timeout(PERIOD);
            let mut block: Vec<u8> = Vec::new();
            // The thread writes nothing to the block, so the kernel assigns almost no memory to it.
            let _ = block.try_reserve_exact(BLOCK_BYTES);
            drop(black_box(block));
        }
    })?;
    Ok(())
}
