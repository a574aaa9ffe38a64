//! The mutex and the atomic values of the state that several loops share.
//!
//! These types are the types of the standard library. The unit tests of a build with `--cfg fdpush_interleave` use the
//! types of the crate shuttle instead. Shuttle runs all threads of a test on one thread, and chooses the next thread
//! before each operation on a mutex or an atomic value. So a test can try many orders of these operations, and can
//! repeat an order that fails.

#[cfg(all(test, fdpush_interleave))]
pub use shuttle::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(all(test, fdpush_interleave)))]
pub use std::sync::{Mutex, MutexGuard, atomic};
