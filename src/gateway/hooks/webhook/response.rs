//! Decides from the HTTP status of an answer whether the events of the request were delivered.

use std::time::Duration;

/// The meaning of an answer for the events of its request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ResponseClass {
    /// The back end accepted the events.
    Accepted,
    /// The back end will never accept this request.
    Rejected,
    /// The back end may accept the same request later. The field is the pause that the back end requested, if any.
    Retryable(Option<Duration>),
}

impl ResponseClass {
    /// Returns the class of an answer with this status.
    ///
    /// A refusal with a status from 400 to 499 is final (RFC 9110 section 15.5). Only the statuses 408, 425 and 429 are
    /// temporary. `Retry-After` does not change the class of a status. If `Retry-After` made a refusal temporary, a
    /// proxy that adds the header to every refusal would block the queue of events. So a 413 with `Retry-After` is also
    /// final, although RFC 9110 section 15.5.14 calls a 413 with `Retry-After` temporary.
    pub fn of(status: u16, retry_after: Option<Duration>) -> ResponseClass {
        match (status, retry_after) {
            (200..=299, _) => ResponseClass::Accepted,
            (408 | 425 | 429, _) => ResponseClass::Retryable(retry_after),
            (400..=499, _) => ResponseClass::Rejected,
            _ => ResponseClass::Retryable(retry_after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_accepted_or_rejected_or_retryable() {
        let pause = Some(Duration::from_secs(7));
        for status in 200..=599 {
            let expected = match status {
                200..=299 => ResponseClass::Accepted,
                408 | 425 | 429 => ResponseClass::Retryable(None),
                400..=499 => ResponseClass::Rejected,
                _ => ResponseClass::Retryable(None),
            };
            assert_eq!(ResponseClass::of(status, None), expected, "{status}");
        }
        for status in [408, 425, 429, 500, 503] {
            assert_eq!(ResponseClass::of(status, pause), ResponseClass::Retryable(pause), "{status}");
        }
        for status in [400, 401, 403, 404, 410, 413, 422, 431] {
            assert_eq!(ResponseClass::of(status, pause), ResponseClass::Rejected, "{status}");
        }
        assert_eq!(ResponseClass::of(204, pause), ResponseClass::Accepted);
    }
}
