//! The query parameters `after` and `limit`, which select one page of a list.

use std::borrow::Cow;
use std::str::FromStr;

use fdpush::{Fd, QueryError, Request};

use super::error::ApiError;
use crate::gateway::wire::json::{cut, unexpected_member};

/// The query parameters of a request for one page of a list.
pub const PARAMETERS: [&str; 2] = ["after", "limit"];

/// The default value of the query parameter `limit`.
pub const LIMIT: usize = 100;

/// The maximum value of the query parameter `limit`.
pub const LIMIT_MAX: usize = 1000;

/// The query parameters of a request for one page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The name or the fd after which the page begins. `None` for the first page of a list.
    pub after: Option<String>,
    /// The maximum number of entries on the page.
    pub limit: usize,
}

impl Page {
    pub fn of(request: &Request<'_>) -> Result<Page, ApiError> {
        let malformed = |error: QueryError| ApiError::bad_request(error.to_string());
        let mut pairs = request.query_pairs().map_err(malformed)?;
        if let Some((other, _)) = pairs.find(|(name, _)| !PARAMETERS.contains(&&**name)) {
            return Err(ApiError::bad_request(unexpected_member("the query", &other, &PARAMETERS)));
        }
        let given = |name: &str| -> Result<Option<String>, ApiError> {
            let value = request.try_query(name).map_err(malformed)?;
            Ok(value.filter(|value| !value.is_empty()).map(Cow::into_owned))
        };
        let limit = match given("limit")?.as_deref().map(parse_number) {
            None => LIMIT,
            Some(Some(limit @ 1..=LIMIT_MAX)) => limit,
            Some(_) => return Err(ApiError::bad_request(format!("limit must be from 1 to {LIMIT_MAX}"))),
        };
        Ok(Page { after: given("after")?, limit })
    }

    /// Returns the fd after which the page begins. Returns `None` for the first page of a list.
    pub fn after_fd(&self) -> Result<Option<Fd>, ApiError> {
        self.after.as_deref().map(|after| parse_fd(after, "after")).transpose()
    }
}

/// Parses the decimal digits of an fd. The text of an error begins with `member`.
pub fn parse_fd(text: &str, member: &str) -> Result<Fd, ApiError> {
    let fd = parse_number(text).and_then(Fd::from_u64);
    fd.ok_or_else(|| ApiError::bad_request(format!("{member}: {:?} is not an fd", cut(text))))
}

/// Parses a number that consists of decimal digits. `FromStr` alone would also accept a plus sign.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
