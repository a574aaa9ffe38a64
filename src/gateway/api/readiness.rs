//! The answer to `/readyz`.

use std::borrow::Cow;

use fdpush::{Response, Stats};

use crate::gateway::runtime::threads;

/// Returns the answer to `/readyz` for these statistics of the server.
pub fn readiness(stats: &Stats, is_draining: bool) -> Response {
    let is_full = stats.connections - stats.control >= stats.connections_max;
    match unreadiness(is_draining, is_full, threads::first_down()) {
        Some(why) => Response::text(503, format!("{why}\n")),
        None => Response::text(200, "ready\n"),
    }
}

/// Returns the reason why the server is not ready. Returns `None` if the server is ready.
///
/// `thread_down` is the name of a thread that has failed.
fn unreadiness(is_draining: bool, is_full: bool, thread_down: Option<&str>) -> Option<Cow<'static, str>> {
    match thread_down {
        _ if is_draining => Some("draining".into()),
        _ if is_full => Some("full".into()),
        thread => thread.map(|name| format!("thread {name} is down").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unready_server_names_the_reason() {
        assert_eq!(unreadiness(false, false, None), None);
        let why = |is_draining, is_full| {
            unreadiness(is_draining, is_full, Some("fdpush-webhook")).expect("the server is not ready")
        };
        assert_eq!(why(false, false), "thread fdpush-webhook is down");
        assert_eq!((why(false, true), why(true, true)), ("full".into(), "draining".into()));
    }
}
