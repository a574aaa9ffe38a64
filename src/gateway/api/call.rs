//! The calls of the HTTP API: paths, labels and methods.

/// A call, identified by its path.
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
}

impl<'a> Call<'a> {
    pub fn of(path: &'a str) -> Option<Call<'a>> {
        Some(match path {
            "/api/push" => Call::Push,
            "/api/batch" => Call::Batch,
            "/api/bind" => Call::Bind,
            "/api/unbind" => Call::Unbind,
            "/api/join" => Call::Join,
            "/api/leave" => Call::Leave,
            "/api/ungroup" => Call::Ungroup,
            "/api/close" => Call::Close,
            "/api/online" => Call::Online,
            "/api/users" => Call::Users,
            "/api/groups" => Call::Groups,
            "/api/connections" => Call::Connections,
            "/api/stats" => Call::Stats,
            "/metrics" => Call::Metrics,
            "/healthz" => Call::Healthy,
            "/readyz" => Call::Ready,
            _ => return Call::with_name(path),
        })
    }

    /// Returns a call whose path contains an encoded name or an fd.
    fn with_name(path: &'a str) -> Option<Call<'a>> {
        let is_segment = |name: &&str| !name.contains('/');
        match path.strip_prefix("/api/")?.split_once('/')? {
            ("users", uid) if is_segment(&uid) => Some(Call::User(uid)),
            ("groups", group) if is_segment(&group) => Some(Call::Group(group)),
            ("connections", fd) if is_segment(&fd) => Some(Call::Connection(fd)),
            ("connections", rest) => rest.strip_suffix("/attributes").filter(is_segment).map(Call::Attributes),
            _ => None,
        }
    }

    /// Returns the label of the call in the metrics. The number of labels is fixed, whatever the path.
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
        }
    }

    /// Returns the allowed methods, as in the header `Allow`.
    pub fn allowed(self) -> &'static str {
        match self {
            Call::Push | Call::Batch | Call::Bind | Call::Unbind | Call::Join | Call::Leave => "POST",
            Call::Ungroup | Call::Close | Call::Online => "POST",
            Call::Attributes(_) => "GET, PUT, PATCH",
            _ => "GET",
        }
    }

    pub fn allows(self, method: &str) -> bool {
        // GET includes HEAD. The connection omits the body of the response to a HEAD.
        let method = if method == "HEAD" { "GET" } else { method };
        let allowed = self.allowed();
        allowed == method || allowed.split(", ").any(|allowed| allowed == method)
    }

    /// Returns whether the call needs no API key. Only probes need none.
    pub fn is_open(self) -> bool {
        matches!(self, Call::Healthy | Call::Ready)
    }
}
