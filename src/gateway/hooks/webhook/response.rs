//! The consequence of an answer for the events of its request.

use std::time::Duration;

/// The fate of the events in a request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The back end has them.
    Taken,
    /// The back end does not take this request, however often it is sent.
    Refused,
    /// The back end may take the same request later; not before this pause, if it named one.
    MayPass(Option<Duration>),
}

impl Fate {
    /// The meaning of a status, with the `Retry-After` of its answer.
    ///
    /// A 4xx refuses the request for good (RFC 9110 section 15.5), but for three that speak of the moment: 408, 425 and
    /// 429. `Retry-After` does not change that: a proxy that adds it to every refusal would block the queue. So a 413 with
    /// `Retry-After`, which section 15.5.14 calls temporary, is a refusal, too.
    pub fn of(status: u16, retry_after: Option<Duration>) -> Fate {
        match (status, retry_after) {
            (200..=299, _) => Fate::Taken,
            (408 | 425 | 429, _) => Fate::MayPass(retry_after),
            (400..=499, _) => Fate::Refused,
            _ => Fate::MayPass(retry_after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_fate() {
        let pause = Some(Duration::from_secs(7));
        for status in 200..=599 {
            let expected = match status {
                200..=299 => Fate::Taken,
                408 | 425 | 429 => Fate::MayPass(None),
                400..=499 => Fate::Refused,
                _ => Fate::MayPass(None),
            };
            assert_eq!(Fate::of(status, None), expected, "{status}");
        }
        for status in [408, 425, 429, 500, 503] {
            assert_eq!(Fate::of(status, pause), Fate::MayPass(pause), "{status}");
        }
        for status in [400, 401, 403, 404, 410, 413, 422, 431] {
            assert_eq!(Fate::of(status, pause), Fate::Refused, "{status}");
        }
        assert_eq!(Fate::of(204, pause), Fate::Taken);
    }
}
