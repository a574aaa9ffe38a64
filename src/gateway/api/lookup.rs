//! API calls about connections, the attributes of connections, and server statistics.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use fdpush::{Context, Fd, Stats, TlsCounts, Traffic};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::verbs::json;
use crate::gateway::identity::proxies::address_of;
use crate::gateway::serving::session::Session;

/// The number of group names at which a page of connections ends.
///
/// The entry with which the page exceeds this number is the last entry of the page. Without this limit, a page of 1,000
/// connections with 1,000 groups each would contain a million group names.
pub const GROUP_NAMES_MAX: usize = 10_000;

/// The JSON of a member of a group.
#[derive(Serialize, Debug)]
pub struct Member {
    pub fd: u64,
    pub uid: Option<String>,
}

/// The JSON object that describes a connection.
#[derive(Serialize, Debug)]
pub struct Connection {
    fd: u64,
    pub uid: Option<String>,
    groups: Vec<String>,
    peer: String,
    address: Option<IpAddr>,
    /// The time when the WebSocket opened, in milliseconds since the Unix epoch.
    connected_at_ms: u64,
    connected_for_ms: u64,
    idle_for_ms: u64,
    #[serde(flatten)]
    traffic: TrafficCounts,
    queued_bytes: usize,
    tls: Option<Tls>,
}

/// The TLS version and the cipher suite of a connection.
#[derive(Serialize, Debug)]
struct Tls {
    version: &'static str,
    cipher: &'static str,
}

#[derive(Serialize, Debug)]
struct TrafficCounts {
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl From<Traffic> for TrafficCounts {
    fn from(traffic: Traffic) -> TrafficCounts {
        let Traffic { bytes_in, bytes_out, messages_in, messages_out, .. } = traffic;
        TrafficCounts { messages_in, messages_out, bytes_in, bytes_out }
    }
}

impl Connection {
    pub fn fd(&self) -> u64 {
        self.fd
    }

    /// Returns the number of groups of the connection.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    fn find(ctx: &Context<'_>, fd: Fd) -> Option<Connection> {
        let info = ctx.info(fd)?;
        Some(Connection {
            fd: info.fd.as_u64(),
            peer: info.peer.to_string(),
            address: address_of(ctx, fd, info.peer),
            connected_at_ms: info.connected_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis),
            connected_for_ms: millis(info.connected_for),
            idle_for_ms: millis(info.idle_for),
            traffic: info.traffic.into(),
            queued_bytes: info.queued_bytes,
            tls: info.tls.map(|tls| Tls { version: tls.version.as_str(), cipher: tls.cipher }),
            uid: info.uid,
            groups: info.groups,
        })
    }
}

/// Returns the entries and the member `next` of a page of connections.
///
/// The page contains no connection that has closed or that `is_listed` rejects. [`GROUP_NAMES_MAX`] limits the number
/// of group names on the page.
pub fn page_entries(
    ctx: &Context<'_>,
    fds: &[Fd],
    mut has_more: bool,
    is_listed: impl Fn(&Connection) -> bool,
) -> (Vec<Connection>, Option<u64>) {
    let (mut connections, mut names, mut last) = (Vec::new(), 0, None);
    for fd in fds {
        if names > GROUP_NAMES_MAX {
            has_more = true;
            break;
        }
        last = Some(fd.as_u64());
        if let Some(connection) = Connection::find(ctx, *fd).filter(&is_listed) {
            names += connection.groups.len();
            connections.push(connection);
        }
    }
    (connections, last.filter(|_| has_more))
}

/// Returns at most `limit` connections of this loop after `after`, and the fd after which the next page begins.
pub fn page_after(ctx: &Context<'_>, after: Option<Fd>, limit: usize) -> (Vec<Connection>, Option<u64>) {
    let mut fds = ctx.connections_after(after, limit + 1);
    let has_more = fds.len() > limit;
    fds.truncate(limit);
    page_entries(ctx, &fds, has_more, |_| true)
}

/// Returns the JSON of a page of connections.
pub fn connections_json(connections: Vec<Connection>, next: Option<u64>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Connections {
        connections: Vec<Connection>,
        next: Option<u64>,
    }
    json(&Connections { connections, next })
}

/// Returns the JSON of a connection of this loop.
pub fn connection(ctx: &Context<'_>, fd: Fd) -> Result<String, ApiError> {
    check_open(ctx, fd)?;
    json(&Connection::find(ctx, fd).ok_or_else(not_found)?)
}

/// Returns the attributes of a connection of this loop.
pub fn attributes(ctx: &Context<'_>, fd: Fd) -> Result<String, ApiError> {
    check_open(ctx, fd)?;
    match ctx.session::<Session>(fd) {
        Some(session) => json(&session.attributes),
        None => Ok("{}".to_owned()),
    }
}

/// A change of the attributes of a connection.
pub struct Attributes {
    given: Map<String, Value>,
    /// Whether `given` is a JSON merge patch to the old attributes (RFC 7386). Otherwise, `given` replaces the old
    /// attributes.
    merges: bool,
}

impl Attributes {
    /// Parses the attributes in the body of a PUT or PATCH request. Returns `None` for any other method, because it
    /// changes no attributes.
    ///
    /// # Errors
    /// Returns an error if the body is not a JSON object.
    pub fn read(method: &str, body: &[u8]) -> Result<Option<Attributes>, ApiError> {
        let merges = match method {
            "PUT" => false,
            "PATCH" => true,
            _ => return Ok(None),
        };
        Ok(Some(Attributes { given: super::command::read_attributes(body)?.0, merges }))
    }
}

/// Replaces the attributes of a connection on this loop, or merges a JSON merge patch into the attributes.
pub fn set_attributes(ctx: &mut Context<'_>, fd: Fd, change: Attributes) -> Result<String, ApiError> {
    check_open(ctx, fd)?;
    let Attributes { given, merges } = change;
    let attributes = if merges {
        let mut attributes = ctx.session::<Session>(fd).map(|session| session.attributes.clone()).unwrap_or_default();
        merge(&mut attributes, given);
        attributes
    } else {
        given
    };
    // Each merge patch can add members to the attributes, so the length of all attributes needs a limit.
    let (json, bytes_max) = (json(&attributes)?, ctx.limits().body_bytes_max);
    if json.len() > bytes_max {
        let what = format!("attributes limit exceeded ({} of {bytes_max} bytes)", json.len());
        return Err(ApiError::too_large(what));
    }
    match ctx.session_mut::<Session>(fd) {
        Some(session) => session.attributes = attributes,
        None => _ = ctx.set_session(fd, Session { attributes, ..Session::default() }),
    }
    Ok(json)
}

/// Applies a JSON merge patch to a JSON object (RFC 7386 section 2).
///
/// The value `null` in the patch removes a member of the object. A JSON object in the patch is merged into the member
/// with the same name. Any other value in the patch replaces the value of the member.
fn merge(into: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                into.remove(&name);
            }
            Value::Object(patch) => {
                let target = into.entry(name).or_insert(Value::Null);
                if !target.is_object() {
                    *target = Value::Object(Map::new());
                }
                if let Value::Object(target) = target {
                    merge(target, patch);
                }
            }
            value => {
                into.insert(name, value);
            }
        }
    }
}

/// The JSON of the statistics of one loop.
#[derive(Serialize)]
struct LoopNumbers {
    connections: usize,
    open: usize,
    accepted: u64,
    opened: u64,
    closed: u64,
    refused: u64,
    dropped: u64,
    queued_bytes: usize,
    #[serde(flatten)]
    traffic: TrafficCounts,
    /// The number of pushes that the loop sent to other loops.
    forwarded: u64,
}

impl From<&Stats> for LoopNumbers {
    fn from(stats: &Stats) -> LoopNumbers {
        LoopNumbers {
            connections: stats.connections,
            open: stats.open,
            accepted: stats.accepted,
            opened: stats.opened,
            closed: stats.closed,
            refused: stats.refused,
            dropped: stats.dropped,
            queued_bytes: stats.queued_bytes,
            traffic: stats.traffic.into(),
            forwarded: stats.forwarded,
        }
    }
}

/// The JSON of the TLS handshakes, by outcome.
#[derive(Serialize)]
struct Handshakes {
    full: u64,
    resumed: u64,
    failed: u64,
    abandoned: u64,
    plain_http: u64,
    on_plain: u64,
}

impl From<TlsCounts> for Handshakes {
    fn from(counts: TlsCounts) -> Handshakes {
        Handshakes {
            full: counts.full,
            resumed: counts.resumed,
            failed: counts.failed,
            abandoned: counts.abandoned,
            plain_http: counts.plain_http,
            on_plain: counts.on_plain,
        }
    }
}

/// Returns the JSON of the statistics of the server. `loops` contains the statistics of each loop if there are several
/// loops, and is empty otherwise.
pub fn stats_json(stats: &Stats, loops: &[Stats], is_draining: bool) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Numbers {
        version: &'static str,
        uptime_ms: u64,
        is_draining: bool,
        connections: usize,
        connections_max: usize,
        api_connections: usize,
        api_connections_max: usize,
        open: usize,
        users: usize,
        groups: usize,
        accepted: u64,
        opened: u64,
        closed: u64,
        refused: u64,
        api_refused: u64,
        dropped: u64,
        queued_bytes: usize,
        inbound_bytes: usize,
        #[serde(flatten)]
        traffic: TrafficCounts,
        tls: Handshakes,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        loops: Vec<LoopNumbers>,
    }
    json(&Numbers {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: millis(stats.uptime),
        is_draining,
        connections: stats.connections,
        connections_max: stats.connections_max,
        api_connections: stats.control,
        api_connections_max: stats.control_connections_max,
        open: stats.open,
        users: stats.users,
        groups: stats.groups,
        accepted: stats.accepted,
        opened: stats.opened,
        closed: stats.closed,
        refused: stats.refused,
        api_refused: stats.control_refused,
        dropped: stats.dropped,
        queued_bytes: stats.queued_bytes,
        inbound_bytes: stats.inbound_bytes,
        traffic: stats.traffic.into(),
        tls: stats.tls.into(),
        loops: loops.iter().map(LoopNumbers::from).collect(),
    })
}

/// Checks that a connection of this loop is an open WebSocket.
pub fn check_open(ctx: &Context<'_>, fd: Fd) -> Result<(), ApiError> {
    if ctx.is_open(fd) { Ok(()) } else { Err(not_found()) }
}

fn not_found() -> ApiError {
    ApiError::not_found("no open WebSocket with this fd")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patches_have_the_results_of_rfc_7386() {
        let table = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ];
        for (before, patch, after) in table {
            let mut value: Map<String, Value> = serde_json::from_str(before).expect("the text is a JSON object");
            merge(&mut value, serde_json::from_str(patch).expect("the text is a JSON object"));
            assert_eq!(
                Value::Object(value),
                serde_json::from_str::<Value>(after).expect("the text is a JSON object"),
                "{before} {patch}"
            );
        }
    }
}
