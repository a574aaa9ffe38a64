//! Replies that a program makes itself.

use std::fmt;

use crate::remote::{Remote, RemoteError, Reply};

/// The obligation to make a [`Reply`] ready: see [`Remote::promise`].
///
/// If the value is dropped, the reply is [`RemoteError::Closed`].
#[must_use = "a dropped promise makes its reply an error"]
pub struct Promise<T>(oneshot::Sender<Result<T, RemoteError>>);

impl Remote {
    /// Returns a promise, and the reply that gets its value.
    ///
    /// A handler can wait for the value with [`Reply::then`], while other threads or other loops make the value.
    pub fn promise<T>(&self) -> (Promise<T>, Reply<T>) {
        let (sender, receiver) = oneshot::channel();
        (Promise(sender), Reply { receiver: Ok(receiver), remote: self.clone() })
    }
}

impl<T> Promise<T> {
    /// Makes the reply ready.
    pub fn keep(self, value: T) {
        // The send fails if the reply was dropped.
        drop(self.0.send(Ok(value)));
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Promise")
    }
}
