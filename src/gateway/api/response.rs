//! Responses of the HTTP API.

use fdpush::Response;

/// Returns a response with status 200 and a JSON body.
pub fn json_response(mut json: String) -> Response {
    json.push('\n');
    Response::json(200, json)
}

/// Adds `Cache-Control: no-store`, which every response of the API has.
pub fn uncached(response: Response) -> Response {
    response.header("Cache-Control", "no-store")
}
