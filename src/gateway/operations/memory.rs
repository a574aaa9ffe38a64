//! Sets the allocator of the process, and returns freed memory to the kernel.
//!
//! The allocator is mimalloc. After a peak of memory use, the allocator of glibc keeps most of the freed memory.
//!
//! mimalloc returns a free page to the kernel one second after the page became free. mimalloc looks for free pages only
//! when another page is freed. An idle server frees no page. So the thread `fdpush-memory` allocates and frees a block
//! once a second.

use std::hint::black_box;
use std::io;
use std::thread;
use std::time::Duration;

use mimalloc::MiMalloc;

use crate::gateway::runtime::threads;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The interval at which the thread `fdpush-memory` allocates and frees a block.
const PERIOD: Duration = Duration::from_secs(1);

/// The size of the block that `fdpush-memory` allocates, in bytes. mimalloc puts no other block into the page of a
/// block of this size. So freeing the block frees the page.
const BLOCK_BYTES: usize = 8 << 20;

/// Starts the thread that makes mimalloc return free pages to the kernel. The thread runs until the process ends.
///
/// # Errors
///
/// Returns an error if the system cannot start a thread.
pub fn return_free_pages() -> io::Result<()> {
    threads::spawn("fdpush-memory", || {
        loop {
            thread::park_timeout(PERIOD);
            let mut block: Vec<u8> = Vec::new();
            // The thread writes nothing to the block, so the kernel assigns almost no memory to the block.
            let _ = block.try_reserve_exact(BLOCK_BYTES);
            drop(black_box(block));
        }
    })?;
    Ok(())
}
