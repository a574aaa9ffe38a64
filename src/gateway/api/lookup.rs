//! API calls about connections, the attributes of connections, and server statistics.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use fdpush::{Context, Fd, Request, Stats, Traffic};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::page::{Page, parse_fd};
use super::verbs::json;
use crate::gateway::identity::proxies::address_of;
use crate::gateway::serving::session::Session;

/// The number of group names at which a page of connections ends.
///
/// The entry that exceeds this number is the last entry of the page. Without this limit, a page of 1,000 connections
/// with 1,000 groups each would contain a million group names.
const GROUP_NAMES_MAX: usize = 10_000;

/// The JSON object that describes a connection.
#[derive(Serialize)]
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
#[derive(Serialize)]
struct Tls {
    version: &'static str,
    cipher: &'static str,
}

#[derive(Serialize)]
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

pub fn connections(ctx: &Context<'_>, request: &Request<'_>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Connections {
        connections: Vec<Connection>,
        next: Option<u64>,
    }
    let page = Page::of(request)?;
    let mut fds = ctx.connections_after(page.after_fd()?, page.limit + 1);
    let has_more = fds.len() > page.limit;
    fds.truncate(page.limit);
    let (connections, next) = page_entries(ctx, &fds, has_more, |_| true);
    json(&Connections { connections, next })
}

pub fn connection(ctx: &Context<'_>, fd: &str) -> Result<String, ApiError> {
    let fd = open_fd(ctx, fd)?;
    json(&Connection::find(ctx, fd).ok_or_else(not_found)?)
}

pub fn attributes(ctx: &Context<'_>, fd: &str) -> Result<String, ApiError> {
    let fd = open_fd(ctx, fd)?;
    match ctx.session::<Session>(fd) {
        Some(session) => json(&session.attributes),
        None => Ok("{}".to_owned()),
    }
}

/// Changes the attributes of a connection.
///
/// If `merges` is `true`, `body` is a JSON merge patch to the old attributes (RFC 7386). If `merges` is `false`, `body`
/// replaces the old attributes.
pub fn set_attributes(ctx: &mut Context<'_>, fd: &str, body: &[u8], merges: bool) -> Result<String, ApiError> {
    let fd = open_fd(ctx, fd)?;
    let given = super::command::read_attributes(body)?.0;
    let attributes = if merges {
        let mut attributes = ctx.session::<Session>(fd).map(|session| session.attributes.clone()).unwrap_or_default();
        merge(&mut attributes, given);
        attributes
    } else {
        given
    };
    // Without this limit, the attributes could grow with each merge patch, without a bound.
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

pub fn stats(ctx: &Context<'_>) -> Result<String, ApiError> {
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
    }
    #[derive(Serialize)]
    struct Handshakes {
        full: u64,
        resumed: u64,
        failed: u64,
        abandoned: u64,
        plain_http: u64,
        on_plain: u64,
    }
    let stats: Stats = ctx.stats();
    json(&Numbers {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: millis(stats.uptime),
        is_draining: ctx.is_draining(),
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
        tls: Handshakes {
            full: stats.tls.full,
            resumed: stats.tls.resumed,
            failed: stats.tls.failed,
            abandoned: stats.tls.abandoned,
            plain_http: stats.tls.plain_http,
            on_plain: stats.tls.on_plain,
        },
    })
}

fn open_fd(ctx: &Context<'_>, fd: &str) -> Result<Fd, ApiError> {
    let fd = parse_fd(fd, "fd")?;
    if ctx.is_open(fd) { Ok(fd) } else { Err(not_found()) }
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
