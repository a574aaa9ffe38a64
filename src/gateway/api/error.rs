//! Errors of the HTTP API.

use std::borrow::Cow;
use std::fmt::Write;

use fdpush::Response;

use crate::gateway::wire::json::Quoted;

/// An error of the HTTP API: an HTTP status, a code for programs and a message for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    pub status: u16,
    pub code: &'static str,
    pub message: Cow<'static, str>,
}

impl ApiError {
    fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { status, code, message: message.into() }
    }

    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(400, "bad_request", message)
    }

    pub fn unauthorized(message: &'static str) -> ApiError {
        ApiError::new(401, "unauthorized", message)
    }

    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(403, "forbidden", message)
    }

    pub fn not_found(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(404, "not_found", message)
    }

    pub fn method_not_allowed(allowed: &'static str) -> ApiError {
        ApiError::new(405, "method_not_allowed", format!("method must be {allowed}"))
    }

    pub fn too_many(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(409, "too_many", message)
    }

    pub fn too_large(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(413, "too_large", message)
    }

    /// Returns the error for a request on a connection that exceeds the limit of API connections.
    ///
    /// `max` is the maximum number of API connections.
    pub fn full(max: u32) -> ApiError {
        ApiError::new(503, "unavailable", format!("API connection limit reached ({max})"))
    }

    pub fn busy(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(503, "unavailable", message)
    }

    pub fn out_of_memory() -> ApiError {
        ApiError::busy("out of memory")
    }

    pub fn unsupported_media_type(wanted: &'static str) -> ApiError {
        ApiError::new(415, "unsupported_media_type", format!("Content-Type must be {wanted}"))
    }

    /// Appends the error as a JSON object to `out`.
    ///
    /// `id` is the member `id` of the refused command. `line` is the line number of the refused command in a batch,
    /// counted from 1.
    pub fn write(&self, id: Option<&str>, line: Option<u64>, out: &mut String) {
        out.push('{');
        // Writing to a string does not fail.
        if let Some(id) = id {
            let _ = write!(out, "\"id\":{id},");
        }
        let _ = write!(out, "\"error\":{{\"code\":\"{}\",\"message\":{}", self.code, Quoted(&self.message));
        if let Some(line) = line {
            let _ = write!(out, ",\"line\":{line}");
        }
        out.push_str("}}");
    }

    /// Returns the HTTP response with this error.
    pub fn response(&self, id: Option<&str>) -> Response {
        let mut json = String::new();
        self.write(id, None, &mut json);
        json.push('\n');
        let response = Response::json(self.status, json);
        match self.status {
            401 => response.header("WWW-Authenticate", "Bearer"),
            _ => response,
        }
    }
}
