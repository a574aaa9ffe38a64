//! Responses of the HTTP API.

use fdpush::Response;

/// Returns a response with status 200 and a JSON body.
pub fn json_response(mut json: String) -> Response {
    json.push('\n');
    Response::json(200, json)
}

/// Adds the header `Cache-Control: no-store` to a response. Every response of the API contains this header.
pub fn uncached(response: Response) -> Response {
    response.header("Cache-Control", "no-store")
}
