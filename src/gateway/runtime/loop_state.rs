//! State that belongs to a single loop, or that several loops share.

use std::sync::{Arc, Mutex, PoisonError};

/// A value that belongs to a single loop, or a handle of a value that several loops share.
///
/// If the server has one loop, an access to the value takes no lock.
#[derive(Debug)]
pub enum LoopState<T> {
    Own(T),
    Shared(Arc<Mutex<T>>),
}

impl<T> LoopState<T> {
    /// Calls `call` with the value. If several loops share the value, `call` runs while the value is locked. So `call`
    /// must be short and must not call `with` on the same value.
    pub fn with<R>(&mut self, call: impl FnOnce(&mut T) -> R) -> R {
        match self {
            LoopState::Own(value) => call(value),
            LoopState::Shared(value) => call(&mut value.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Returns `count` handles of one value. If `count` is 1, the handle owns the value and has no lock.
    pub fn handles(value: T, count: usize) -> Vec<LoopState<T>> {
        if count == 1 {
            return vec![LoopState::Own(value)];
        }
        let shared = Arc::new(Mutex::new(value));
        (0..count).map(|_| LoopState::Shared(Arc::clone(&shared))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_handles_have_one_value() {
        for count in [1, 3] {
            let mut handles = LoopState::handles(0, count);
            assert_eq!(handles.len(), count);
            handles.iter_mut().for_each(|handle| handle.with(|value| *value += 1));
            assert!(handles.iter_mut().all(|handle| handle.with(|value| *value) == count));
        }
    }
}
