//! Responses of the HTTP API.

use fdpush::Response;

use crate::gateway::operations::metrics;

/// Returns a response with status 200 and a JSON body.
pub fn json_response(mut json: String) -> Response {
    json.push('\n');
    Response::json(200, json)
}

/// Returns the response to `/metrics` with this text.
pub fn metrics_response(text: String) -> Response {
    Response::new(200).header("Content-Type", metrics::CONTENT_TYPE).body(text.into_bytes())
}

/// Adds the header `Cache-Control: no-store` to a response. Every response of the API contains this header.
pub fn uncached(response: Response) -> Response {
    response.header("Cache-Control", "no-store")
}
