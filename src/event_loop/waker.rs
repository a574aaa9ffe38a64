//! Wakes a loop that waits for events.

use std::io;

#[cfg(not(all(test, fdpush_interleave)))]
pub use mio::Waker;

#[cfg(all(test, fdpush_interleave))]
pub use self::double::Waker;

/// Wakes a loop.
pub fn wake(waker: &Waker) {
    let mut woken = waker.wake();
    while woken.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
        woken = waker.wake();
    }
    if let Err(error) = woken {
        log::error!("cannot wake the loop: {error}");
    }
}

/// A waker for tests with schedules: see `src/sync.rs`.
#[cfg(all(test, fdpush_interleave))]
mod double {
    use std::io;

    use mio::{Registry, Token};
    use shuttle::sync::{Condvar, Mutex};

    /// Wakes a thread, as an eventfd in an epoll instance does.
    #[derive(Debug, Default)]
    pub struct Waker {
        is_woken: Mutex<bool>,
        woken: Condvar,
    }

    impl Waker {
        /// Creates a waker that uses no epoll instance.
        pub fn new(_: &Registry, _: Token) -> io::Result<Waker> {
            Ok(Waker::default())
        }

        /// Wakes the thread that waits for events, or ends its next wait for events immediately.
        pub fn wake(&self) -> io::Result<()> {
            *self.is_woken.lock().expect("no thread has panicked") = true;
            self.woken.notify_one();
            Ok(())
        }

        /// Waits for a wake since the last wait.
        pub fn wait(&self) {
            let is_woken = self.is_woken.lock().expect("no thread has panicked");
            let mut is_woken = self.woken.wait_while(is_woken, |is_woken| !*is_woken).expect("no thread has panicked");
            *is_woken = false;
        }
    }
}
