//! The calls of the HTTP API: their paths, HTTP methods and labels in the metrics.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::command;
use super::error::ApiError;

/// A call of the HTTP API. The path of a request determines the call.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Call<'a> {
    Push,
    Batch,
    Bind,
    Unbind,
    Join,
    Leave,
    Ungroup,
    Close,
    Online,
    Users,
    User(&'a str),
    Groups,
    Group(&'a str),
    Connections,
    Connection(&'a str),
    Attributes(&'a str),
    Stats,
    Metrics,
    Healthy,
    Ready,
    OpenApi,
}

impl<'a> Call<'a> {
    /// The API calls whose paths contain no name and no fd. The path of such a call is its label.
    pub const WITHOUT_NAME: [Call<'static>; 17] = [
        Call::Push,
        Call::Batch,
        Call::Bind,
        Call::Unbind,
        Call::Join,
        Call::Leave,
        Call::Ungroup,
        Call::Close,
        Call::Online,
        Call::Users,
        Call::Groups,
        Call::Connections,
        Call::Stats,
        Call::Metrics,
        Call::Healthy,
        Call::Ready,
        Call::OpenApi,
    ];

    /// Returns the API call of a percent-encoded path.
    ///
    /// In a path segment, a percent-encoded character is equivalent to the plain character (RFC 3986 section 6.2.2.2).
    /// A percent-encoded slash does not separate path segments.
    pub fn of(path: &'a str) -> Option<Call<'a>> {
        Call::without_name(path).or_else(|| Call::of_segments(path))
    }

    /// Returns the API call of a decoded path that contains no name and no fd.
    fn without_name(path: &str) -> Option<Call<'static>> {
        Call::WITHOUT_NAME.into_iter().find(|call| call.label() == path)
    }

    /// Returns the API call of a path that contains a name, an fd or a percent-encoded character.
    fn of_segments(path: &'a str) -> Option<Call<'a>> {
        // The path of an API call has at most four segments. If a path is longer, the fifth element of `encoded`
        // contains all segments after the fourth segment.
        let encoded: Vec<&str> = path.strip_prefix('/')?.splitn(5, '/').collect();
        let decoded: Vec<Cow<'_, str>> = encoded.iter().map(|segment| decode(segment).ok()).collect::<Option<_>>()?;
        let decoded: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
        match (&decoded[..], &encoded[..]) {
            (["api", "users", _], [.., uid]) => Some(Call::User(uid)),
            (["api", "groups", _], [.., group]) => Some(Call::Group(group)),
            (["api", "connections", _], [.., fd]) => Some(Call::Connection(fd)),
            (["api", "connections", _, "attributes"], [.., fd, _]) => Some(Call::Attributes(fd)),
            _ if decoded.iter().any(|segment| segment.contains('/')) => None,
            _ => Call::without_name(&format!("/{}", decoded.join("/"))),
        }
    }

    /// Returns the label of the API call in the metrics.
    ///
    /// The label contains a placeholder, such as `{uid}`, in place of a name or fd in the path.
    pub fn label(self) -> &'static str {
        match self {
            Call::Push => "/api/push",
            Call::Batch => "/api/batch",
            Call::Bind => "/api/bind",
            Call::Unbind => "/api/unbind",
            Call::Join => "/api/join",
            Call::Leave => "/api/leave",
            Call::Ungroup => "/api/ungroup",
            Call::Close => "/api/close",
            Call::Online => "/api/online",
            Call::Users => "/api/users",
            Call::User(_) => "/api/users/{uid}",
            Call::Groups => "/api/groups",
            Call::Group(_) => "/api/groups/{name}",
            Call::Connections => "/api/connections",
            Call::Connection(_) => "/api/connections/{fd}",
            Call::Attributes(_) => "/api/connections/{fd}/attributes",
            Call::Stats => "/api/stats",
            Call::Metrics => "/metrics",
            Call::Healthy => "/healthz",
            Call::Ready => "/readyz",
            Call::OpenApi => "/openapi.json",
        }
    }

    /// Returns the allowed HTTP methods of the API call. The text has the format of the response header `Allow`.
    pub fn allowed(self) -> &'static str {
        match self {
            Call::Push | Call::Batch | Call::Bind | Call::Unbind | Call::Join | Call::Leave => "POST",
            Call::Ungroup | Call::Close | Call::Online => "POST",
            Call::Attributes(_) => "GET, PUT, PATCH",
            _ => "GET",
        }
    }

    pub fn allows(self, method: &str) -> bool {
        // A call that allows GET also allows HEAD. The connection omits the body of the response to a HEAD request.
        let method = if method == "HEAD" { "GET" } else { method };
        let allowed = self.allowed();
        allowed == method || allowed.split(", ").any(|allowed| allowed == method)
    }

    /// Returns whether the server needs the state of all loops to answer a request of this call.
    ///
    /// A batch request itself does not need this state, because its lines are executed as single commands when the
    /// pieces of its body arrive.
    pub fn concerns_loops(self) -> bool {
        !matches!(self, Call::Batch | Call::Healthy | Call::OpenApi)
    }

    /// Returns whether the API call needs no API key. Only `/healthz` and `/readyz` need no API key.
    pub fn is_open(self) -> bool {
        matches!(self, Call::Healthy | Call::Ready)
    }
}

/// Decodes a percent-encoded uid or group name, and checks the length.
pub fn decode_name(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    let name = decode(segment)?;
    command::check_name(&name, "name in the path")?;
    Ok(name)
}

/// Decodes a percent-encoded segment of a path.
pub fn decode(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    // The parser of HTTP request heads has already refused a path that is not percent-encoded UTF-8.
    percent_decode_str(segment).decode_utf8().map_err(|_| ApiError::bad_request("path must be percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_encoded_character_in_a_path_is_equivalent_to_the_plain_character() {
        for (path, call) in [
            ("/api/users", Some(Call::Users)),
            ("/%61pi/%75sers", Some(Call::Users)),
            ("/api/p%75sh", Some(Call::Push)),
            ("/%68ealthz", Some(Call::Healthy)),
            ("/openapi%2Ejson", Some(Call::OpenApi)),
            ("/api/users/ann", Some(Call::User("ann"))),
            ("/a%70i/user%73/%61nn", Some(Call::User("%61nn"))),
            ("/api/users/", Some(Call::User(""))),
            ("/api/users/a%2Fb", Some(Call::User("a%2Fb"))),
            ("/api/groups/a%2Fattributes", Some(Call::Group("a%2Fattributes"))),
            ("/api/connections/%33", Some(Call::Connection("%33"))),
            ("/api/%63onnections/3/%61ttributes", Some(Call::Attributes("3"))),
            ("/api/connections/%33/attributes", Some(Call::Attributes("%33"))),
            ("/api/connections/3%2Fattributes", Some(Call::Connection("3%2Fattributes"))),
            ("/api%2Fusers", None),
            ("/api/users%2Fann", None),
            ("/%2Fapi/users", None),
            ("/api//users", None),
            ("//api/users", None),
            ("/api/users/a/b", None),
            ("/api/connections/3/attributes/", None),
            ("/api/connections/3/attributes/a/b/c", None),
            ("/api/connections/3/other", None),
            ("/API/users", None),
            ("/api/users%20", None),
            ("/api", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(Call::of(path), call, "{path}");
        }
    }
}
