//! Replies whose values the program sets itself.

use std::fmt;

use crate::remote::{Remote, RemoteError, Reply};

/// Sets the value of a [`Reply`]: see [`Remote::promise`].
///
/// If a promise is dropped before [`keep`](Promise::keep), the result of the reply is [`RemoteError::Closed`].
#[must_use = "a dropped promise makes its reply an error"]
pub struct Promise<T>(oneshot::Sender<Result<T, RemoteError>>);

impl Remote {
    /// Returns a promise, and the reply that gets the value of the promise.
    ///
    /// A handler can wait for the value with [`Reply::then`], while another thread or loop computes the value.
    pub fn promise<T>(&self) -> (Promise<T>, Reply<T>) {
        let (sender, receiver) = oneshot::channel();
        (Promise(sender), Reply { receiver: Ok(receiver), remote: self.clone() })
    }
}

impl<T> Promise<T> {
    /// Sets the value of the reply, which is then ready.
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
