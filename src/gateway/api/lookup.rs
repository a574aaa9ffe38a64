//! The look-ups of users, groups, connections and statistics, and the calls for attributes.

use std::borrow::Cow;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use fdpush::{Context, Fd, QueryError, Request, Stats, Traffic};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::verbs::json;
use crate::gateway::identity::proxies::address_of;
use crate::gateway::serving::session::Session;
use crate::gateway::wire::json::{cut, unexpected_member};

/// The default number of entries in a page. `LIMIT_MAX` is the maximum.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// A page of connections ends after the entry with which it exceeds this number of group names.
///
/// Without this limit, a page of 1,000 connections with 1,000 groups each would have a million names.
const GROUP_NAMES_MAX: usize = 10_000;

/// The parameters of a request for one page of a list.
struct Page {
    after: Option<String>,
    limit: usize,
}

impl Page {
    fn of(request: &Request<'_>) -> Result<Page, ApiError> {
        let malformed = |error: QueryError| ApiError::bad_request(error.to_string());
        let mut pairs = request.query_pairs().map_err(malformed)?;
        const PARAMETERS: [&str; 2] = ["after", "limit"];
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

    /// Returns the fd after which the page begins.
    fn after_fd(&self) -> Result<Option<Fd>, ApiError> {
        self.after.as_deref().map(|after| parse_fd(after, "after")).transpose()
    }

    /// Returns the connections of the page, and whether more connections follow.
    ///
    /// The connections are in the order of their slots, so a connection that stays open is on exactly one page. Only
    /// the entries of the page are sorted.
    fn select_fds(&self, mut fds: Vec<Fd>) -> Result<(Vec<Fd>, bool), ApiError> {
        if let Some(after) = self.after_fd()? {
            fds.retain(|fd| fd.slot() > after.slot());
        }
        let has_more = fds.len() > self.limit;
        if has_more {
            fds.select_nth_unstable_by_key(self.limit, |fd| fd.slot());
            fds.truncate(self.limit);
        }
        fds.sort_unstable_by_key(|fd| fd.slot());
        Ok((fds, has_more))
    }

    /// Returns the names of the page in order, each with its count, and whether more names follow.
    fn select<'a>(&self, names: impl Iterator<Item = (&'a str, usize)>) -> (Vec<(&'a str, usize)>, bool) {
        let behind = names.filter(|(name, _)| self.after.as_deref().is_none_or(|after| *name > after));
        // The heap keeps the smallest entries, with the largest of them on top. So the whole list is never sorted.
        let mut kept: BinaryHeap<(&str, usize)> = BinaryHeap::new();
        for entry in behind {
            if kept.len() <= self.limit {
                kept.push(entry);
            } else if let Some(mut largest) = kept.peek_mut()
                && entry < *largest
            {
                *largest = entry;
            }
        }
        let mut page = kept.into_sorted_vec();
        let has_more = page.len() > self.limit;
        page.truncate(self.limit);
        (page, has_more)
    }
}

/// The JSON of a connection.
#[derive(Serialize)]
struct Connection {
    fd: u64,
    uid: Option<String>,
    groups: Vec<String>,
    peer: String,
    address: Option<IpAddr>,
    /// The time when the WebSocket opened, in milliseconds since 1970.
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

pub fn users(ctx: &Context<'_>, request: &Request<'_>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct User<'a> {
        uid: &'a str,
        connections: usize,
    }
    #[derive(Serialize)]
    struct Users<'a> {
        users: Vec<User<'a>>,
        next: Option<&'a str>,
    }
    let (page, has_more) = Page::of(request)?.select(ctx.users());
    let next = page.last().filter(|_| has_more).map(|(uid, _)| *uid);
    json(&Users {
        users: page.iter().map(|(uid, connections)| User { uid, connections: *connections }).collect(),
        next,
    })
}

pub fn user(ctx: &Context<'_>, request: &Request<'_>, uid: &str) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct User<'a> {
        uid: &'a str,
        count: usize,
        connections: Vec<Connection>,
        next: Option<u64>,
    }
    let page = Page::of(request)?;
    if !ctx.is_online(uid) {
        return Err(ApiError::not_found("uid not online"));
    }
    let count = ctx.connection_count(uid);
    let (fds, has_more) = page.select_fds(ctx.fds_of(uid))?;
    let (connections, next) = page_entries(ctx, fds, has_more);
    json(&User { uid, count, connections, next })
}

/// Returns the entries of a page, up to the limit of group names, and the member `next` of the answer.
fn page_entries(ctx: &Context<'_>, fds: Vec<Fd>, mut has_more: bool) -> (Vec<Connection>, Option<u64>) {
    let (mut connections, mut names) = (Vec::new(), 0);
    for connection in fds.into_iter().filter_map(|fd| Connection::find(ctx, fd)) {
        if names > GROUP_NAMES_MAX {
            has_more = true;
            break;
        }
        names += connection.groups.len();
        connections.push(connection);
    }
    let next = connections.last().filter(|_| has_more).map(|last| last.fd);
    (connections, next)
}

pub fn groups(ctx: &Context<'_>, request: &Request<'_>) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Group<'a> {
        group: &'a str,
        count: usize,
    }
    #[derive(Serialize)]
    struct Groups<'a> {
        groups: Vec<Group<'a>>,
        next: Option<&'a str>,
    }
    let (page, has_more) = Page::of(request)?.select(ctx.groups());
    let next = page.last().filter(|_| has_more).map(|(group, _)| *group);
    json(&Groups { groups: page.iter().map(|(group, count)| Group { group, count: *count }).collect(), next })
}

pub fn group(ctx: &Context<'_>, request: &Request<'_>, group: &str) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Member {
        fd: u64,
        uid: Option<String>,
    }
    #[derive(Serialize)]
    struct Group<'a> {
        group: &'a str,
        count: usize,
        members: Vec<Member>,
        next: Option<u64>,
    }
    let page = Page::of(request)?;
    let count = ctx.member_count(group);
    let (fds, has_more) = page.select_fds(ctx.members(group))?;
    let next = fds.last().filter(|_| has_more).map(|fd| fd.as_u64());
    let member = |fd: Fd| Member { fd: fd.as_u64(), uid: ctx.uid_of(fd).map(str::to_owned) };
    json(&Group { group, count, members: fds.into_iter().map(member).collect(), next })
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
    let (connections, next) = page_entries(ctx, fds, has_more);
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

/// Replaces the attributes of a connection, or merges a patch into them (RFC 7386).
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
    // Without this limit, patches could make the attributes grow without end.
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

/// Applies a JSON merge patch (RFC 7386 section 2): `null` removes a member, objects are merged, and any other value
/// replaces the old value.
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

fn parse_fd(text: &str, member: &str) -> Result<Fd, ApiError> {
    let fd = parse_number(text).and_then(Fd::from_u64);
    fd.ok_or_else(|| ApiError::bad_request(format!("{member}: {:?} is not an fd", cut(text))))
}

/// Parses a number that consists of digits. `FromStr` also accepts a plus sign.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
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
    fn patches_as_in_rfc_7386() {
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

    #[test]
    fn pages_are_consecutive() {
        let names: Vec<String> = (0..250).map(|number| format!("user-{:03}", number * 7 % 250)).collect();
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let page = Page { after: after.clone(), limit: 60 };
            let (found, has_more) = page.select(names.iter().map(|name| (name.as_str(), 1)));
            seen.extend(found.iter().map(|(name, _)| (*name).to_owned()));
            if !has_more {
                break;
            }
            after = seen.last().cloned();
        }
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(seen, sorted);
    }
}
