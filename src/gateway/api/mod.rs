//! The HTTP API for back ends and operators, on the control listeners: who may ask, for what, and what is answered.
//!
//! `docs/api.md` is its reference. Commands are carried out on the loop's thread, in the order in which they come.

mod backpressure;
mod batch;
mod command;
mod error;
mod lookup;
mod push;
mod slots;
mod verbs;

use std::any::Any;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fdpush::{BodyEvent, BodyMode, Context, Fd, Peer, Request, Response, TimerId};
use percent_encoding::percent_decode_str;

use self::backpressure::Holds;
use self::batch::Batch;
use self::command::Command;
use self::error::ApiError;
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::operations::metrics::{self, Metrics};
use crate::gateway::presence::roster::Roster;
use crate::gateway::push::publish::Publisher;
use crate::gateway::runtime::clock;
use crate::gateway::runtime::threads;

/// The API's state: its keys, and memory for reuse.
pub struct Api {
    /// Shared with the threads that take datagrams.
    keys: Arc<Mutex<ApiKeys>>,
    answers: String,
    holds: Holds,
}

/// What the API works on besides the connections.
pub struct Parts<'a> {
    pub roster: &'a mut Roster,
    pub publisher: &'a mut Publisher,
    pub metrics: &'a Metrics,
}

/// A call, by its path.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Call<'a> {
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

/// A request that is not carried out.
struct Refused {
    /// The call's, for the metrics.
    label: &'static str,
    error: ApiError,
    /// The methods that would do.
    allow: Option<&'static str>,
}

impl<'a> Call<'a> {
    fn of(path: &'a str) -> Option<Call<'a>> {
        // Four segments at most; a longer path leaves slashes in the last one.
        let mut segments = path.strip_prefix('/')?.splitn(4, '/');
        let segments: [Option<&str>; 4] = std::array::from_fn(|_| segments.next());
        let count = segments.iter().flatten().count();
        let segments = segments.map(Option::unwrap_or_default);
        Some(match &segments[..count] {
            ["api", "push"] => Call::Push,
            ["api", "batch"] => Call::Batch,
            ["api", "bind"] => Call::Bind,
            ["api", "unbind"] => Call::Unbind,
            ["api", "join"] => Call::Join,
            ["api", "leave"] => Call::Leave,
            ["api", "ungroup"] => Call::Ungroup,
            ["api", "close"] => Call::Close,
            ["api", "online"] => Call::Online,
            ["api", "users"] => Call::Users,
            ["api", "users", uid] => Call::User(uid),
            ["api", "groups"] => Call::Groups,
            ["api", "groups", group] => Call::Group(group),
            ["api", "connections"] => Call::Connections,
            ["api", "connections", fd] => Call::Connection(fd),
            ["api", "connections", fd, "attributes"] => Call::Attributes(fd),
            ["api", "stats"] => Call::Stats,
            ["metrics"] => Call::Metrics,
            ["healthz"] => Call::Healthy,
            ["readyz"] => Call::Ready,
            _ => return None,
        })
    }

    /// Its name in the metrics: of few values, whatever is asked for.
    fn label(self) -> &'static str {
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

    /// The methods it knows, as `Allow` lists them.
    fn allowed(self) -> &'static str {
        match self {
            Call::Push | Call::Batch | Call::Bind | Call::Unbind | Call::Join | Call::Leave => "POST",
            Call::Ungroup | Call::Close | Call::Online => "POST",
            Call::Attributes(_) => "GET, PUT, PATCH",
            _ => "GET",
        }
    }

    fn allows(self, method: &str) -> bool {
        // What knows GET knows HEAD, whose body the connection leaves out.
        let method = if method == "HEAD" { "GET" } else { method };
        self.allowed().split(", ").any(|allowed| allowed == method)
    }

    /// Whether anybody may ask: those who watch over processes have no keys.
    fn is_open(self) -> bool {
        matches!(self, Call::Healthy | Call::Ready)
    }
}

impl Api {
    /// An API that asks for one of these keys; for none, if there are none.
    pub fn new(keys: Arc<Mutex<ApiKeys>>) -> Api {
        Api { keys, answers: String::new(), holds: Holds::default() }
    }

    /// Takes other keys, from the next request on.
    pub fn set_keys(&mut self, keys: ApiKeys) {
        *self.keys() = keys;
    }

    fn keys(&self) -> MutexGuard<'_, ApiKeys> {
        lock(&self.keys)
    }

    /// Admits a request with a body, or refuses it before its body is read.
    pub fn handle_head(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request, metrics: &Metrics) -> BodyMode {
        match self.admit(ctx, fd, request) {
            Ok(Call::Batch) => BodyMode::stream(Batch::new(ctx.limits().body_bytes_max)),
            Ok(_) => BodyMode::Collect,
            Err(refused) => BodyMode::Refuse(refused.response(metrics)),
        }
    }

    /// A piece of a batch.
    pub fn handle_piece(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        state: &mut dyn Any,
        event: BodyEvent<'_>,
        parts: &mut Parts<'_>,
    ) {
        let Some(batch) = state.downcast_mut::<Batch>() else { return };
        // Not before there is a piece: behind a response, a client that waits for a 100 would wait in vain.
        if batch.begin() {
            parts.metrics.count_api_request(Call::Batch.label(), 200);
            ctx.begin_response(fd, &ndjson());
        }
        self.answers.clear();
        match event {
            BodyEvent::Data(bytes) => batch.handle_piece(ctx, parts, &mut self.holds, bytes, &mut self.answers),
            BodyEvent::End => batch.handle_end(ctx, parts, &mut self.holds, &mut self.answers),
        }
        ctx.write_response(fd, self.answers.as_bytes());
        self.holds.pause(ctx, fd, clock::now());
        if event == BodyEvent::End {
            ctx.end_response(fd);
        }
    }

    /// A timer fired. `false`: it is not the API's.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) -> bool {
        self.holds.handle_timer(ctx, timer, clock::now())
    }

    /// Answers a complete request.
    ///
    /// A request with a body was admitted by [`handle_head`](Api::handle_head), before its body was read. It is not admitted
    /// again.
    pub fn respond(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        request: &Request,
        parts: &mut Parts<'_>,
        metrics_text: impl FnOnce(&Context<'_>) -> String,
    ) -> Response {
        let admitted = match Call::of(path_of(request)).filter(|_| !request.body().is_empty()) {
            Some(call) => Ok(call),
            None => self.admit(ctx, fd, request),
        };
        let call = match admitted {
            Ok(call) => call,
            Err(refused) => return refused.response(parts.metrics),
        };
        let response = match call {
            Call::Push => push(ctx, parts, request.body()),
            // An empty one, which has no body, and so no pieces.
            Call::Batch => ndjson(),
            Call::Metrics => {
                Response::new(200).header("Content-Type", metrics::CONTENT_TYPE).body(metrics_text(ctx).into_bytes())
            }
            Call::Healthy => Response::text(200, "alive\n"),
            Call::Ready => ready(ctx),
            call => match answer(ctx, call, request, parts.roster) {
                Ok(mut json) => {
                    json.push('\n');
                    Response::json(200, json)
                }
                Err(error) => error.response(None),
            },
        };
        parts.metrics.count_api_request(call.label(), response.status());
        response.header("Cache-Control", "no-store")
    }

    /// Carries out a push that came as a datagram. Who sent it was asked before.
    pub fn handle_datagram(&mut self, ctx: &mut Context<'_>, datagram: &[u8], parts: &mut Parts<'_>) {
        self.answers.clear();
        let outcome = Command::read(datagram, &command::DATAGRAM)
            .and_then(|command| push::execute(ctx, parts, &command.into_push()?, None, &mut self.answers));
        if let Err(error) = outcome {
            log::debug!("a datagram is not carried out: {:?}", error.message);
        }
    }

    /// As [`judge`](Api::judge). A connection with a valid request is kept when others come. Probes and scrapes find their
    /// place without that, also where back ends have all of theirs.
    fn admit<'r>(&self, ctx: &mut Context<'_>, fd: Fd, request: &'r Request) -> Result<Call<'r>, Refused> {
        let judged = self.judge(request);
        match &judged {
            Ok(Call::Healthy | Call::Ready | Call::Metrics) => {}
            Ok(call) if !ctx.keep_control(fd) => {
                let error = ApiError::full(ctx.limits().control_connections_max);
                return Err(Refused { label: call.label(), allow: None, error });
            }
            Err(Refused { error: ApiError { status: 401 | 403, .. }, .. }) => ctx.release_control(fd),
            Ok(_) | Err(_) => {}
        }
        judged
    }

    /// Whether a request may be carried out, and which call it is.
    fn judge<'r>(&self, request: &'r Request) -> Result<Call<'r>, Refused> {
        let call = Call::of(path_of(request));
        let refused = |error| Refused { label: call.map_or("other", Call::label), allow: None, error };
        if !call.is_some_and(Call::is_open) {
            self.check_caller(request).map_err(refused)?;
        }
        let Some(call) = call else {
            return Err(refused(ApiError::not_found("no such path")));
        };
        if !call.allows(request.method()) {
            let allowed = call.allowed();
            return Err(Refused { allow: Some(allowed), ..refused(ApiError::method_not_allowed(allowed)) });
        }
        if self.keys().is_empty() {
            check_content_type(call, request).map_err(refused)?;
        }
        Ok(call)
    }

    /// With keys, one must be shown. Without, the request must be one that no web page can make: browsers tell the page's
    /// origin, and a name that was bent to this machine stands in `Host`.
    fn check_caller(&self, request: &Request) -> Result<(), ApiError> {
        let keys = self.keys();
        if !keys.is_empty() {
            return match request.header("authorization") {
                None if request.header_all("authorization").nth(1).is_some() => {
                    Err(ApiError::bad_request("Authorization is given more than once"))
                }
                shown if keys.authorize(shown) => Ok(()),
                Some(shown) if ApiKeys::is_shown(shown) => Err(ApiError::unauthorized("this API key is not known")),
                _ => Err(ApiError::unauthorized("an API key is needed: Authorization: Bearer KEY")),
            };
        }
        let (peer, host) = (request.peer(), request.header("host").unwrap_or_default());
        if !is_this_machine(peer) {
            return Err(ApiError::forbidden("without API keys, only this machine may ask"));
        }
        if peer.ip().is_some() && !is_local(host) {
            return Err(ApiError::forbidden(
                "without API keys, Host must be this machine's own: localhost, 127.0.0.1, [::1]",
            ));
        }
        // All lines, and those that are not UTF-8: what decides on safety must not overlook one.
        let mut origins = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("origin"));
        if origins.any(|(_, origin)| !is_origin_of(origin, host)) {
            return Err(ApiError::forbidden("without API keys, no web page of another origin may ask"));
        }
        Ok(())
    }
}

/// Judges a datagram before the loop is troubled with it.
///
/// # Errors
/// What is wrong with the command; or 401 where keys are set and its sender shows none of them: in the member `auth`, for
/// a datagram has no header.
pub fn check_datagram(keys: &Mutex<ApiKeys>, datagram: &[u8]) -> Result<(), ApiError> {
    let mut command = Command::read(datagram, &command::DATAGRAM)?;
    let shown = command.auth.take();
    command.into_push()?;
    // Only now: the loop waits for this lock, and nothing panics while it is held.
    let keys = lock(keys);
    match shown {
        _ if keys.is_empty() => Ok(()),
        Some(key) if keys.contains(key.as_ref()) => Ok(()),
        Some(_) => Err(ApiError::unauthorized("this API key is not known")),
        None => Err(ApiError::unauthorized("an API key is needed: a member \"auth\"")),
    }
}

/// The path of a request, as it was sent: without the query, and not decoded.
fn path_of(request: &Request) -> &str {
    request.target().split_once('?').map_or(request.target(), |(path, _)| path)
}

/// A thread that panicked while it read the keys has left them as they were.
fn lock(keys: &Mutex<ApiKeys>) -> MutexGuard<'_, ApiKeys> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it came from this machine. No listener that takes no key can be reached from elsewhere; where something on the
/// way changed the address that was asked for, the one that asks still tells.
fn is_this_machine(peer: Peer) -> bool {
    peer.is_loopback() || peer == Peer::Unix
}

/// Whether `host`, a name or an address with or without a port, is this machine to itself.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Whether an `Origin` has this authority, with any scheme.
fn is_origin_of(origin: &[u8], host: &str) -> bool {
    let origin = str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, authority)| authority == host)
}

/// A form that a web page posts has none of these types.
fn check_content_type(call: Call<'_>, request: &Request) -> Result<(), ApiError> {
    if matches!(request.method(), "GET" | "HEAD") {
        return Ok(());
    }
    let given = request.header("content-type").unwrap_or_default();
    let given = given.split(';').next().unwrap_or_default().trim_ascii();
    let is = |wanted: &str| given.eq_ignore_ascii_case(wanted);
    match call {
        _ if is("application/json") => Ok(()),
        Call::Batch if is("application/x-ndjson") => Ok(()),
        Call::Attributes(_) if is("application/merge-patch+json") => Ok(()),
        Call::Batch => Err(ApiError::unsupported_media_type("application/x-ndjson")),
        _ => Err(ApiError::unsupported_media_type("application/json")),
    }
}

impl Refused {
    fn response(&self, metrics: &Metrics) -> Response {
        metrics.count_api_request(self.label, self.error.status);
        let response = self.error.response(None);
        match self.allow {
            Some(allow) => response.header("Allow", allow),
            // RFC 9110 section 10.2.3. The connection has no place, and gives up the one it has.
            None if self.error.status == 503 => response.header("Retry-After", "1").close(),
            None => response,
        }
    }
}

fn push(ctx: &mut Context<'_>, parts: &mut Parts<'_>, body: &[u8]) -> Response {
    let mut json = String::with_capacity(96);
    let status = push::carry_out(ctx, parts, body, None, &mut json);
    json.push('\n');
    Response::json(status, json)
}

fn answer(ctx: &mut Context<'_>, call: Call<'_>, request: &Request, roster: &mut Roster) -> Result<String, ApiError> {
    let body = request.body();
    match call {
        Call::Bind => verbs::bind(ctx, roster, body),
        Call::Unbind => verbs::unbind(ctx, roster, body),
        Call::Join => verbs::join(ctx, roster, body),
        Call::Leave => verbs::leave(ctx, roster, body),
        Call::Ungroup => verbs::ungroup(ctx, roster, body),
        Call::Close => verbs::close(ctx, body),
        Call::Online => verbs::online(ctx, body),
        Call::Users => lookup::users(ctx, request),
        Call::User(uid) => lookup::user(ctx, request, &decoded(uid)?),
        Call::Groups => lookup::groups(ctx, request),
        Call::Group(group) => lookup::group(ctx, request, &decoded(group)?),
        Call::Connections => lookup::connections(ctx, request),
        Call::Connection(fd) => lookup::connection(ctx, fd),
        Call::Attributes(fd) => match request.method() {
            "PUT" => lookup::set_attributes(ctx, fd, body, false),
            "PATCH" => lookup::set_attributes(ctx, fd, body, true),
            _ => lookup::attributes(ctx, fd),
        },
        Call::Stats => lookup::stats(ctx),
        Call::Push | Call::Batch | Call::Metrics | Call::Healthy | Call::Ready => Err(ApiError::not_found("not here")),
    }
}

/// The head of the answers to a batch.
fn ndjson() -> Response {
    Response::new(200).header("Content-Type", "application/x-ndjson")
}

fn ready(ctx: &Context<'_>) -> Response {
    let stats = ctx.stats();
    let is_full = stats.connections - stats.control >= stats.connections_max;
    match unreadiness(ctx.is_draining(), is_full, threads::first_down()) {
        Some(why) => Response::text(503, format!("{why}\n")),
        None => Response::text(200, "ready\n"),
    }
}

/// Why new connections should go elsewhere. `thread_down` is the name of a thread that has failed.
fn unreadiness(is_draining: bool, is_full: bool, thread_down: Option<&str>) -> Option<Cow<'static, str>> {
    match thread_down {
        _ if is_draining => Some("draining".into()),
        _ if is_full => Some("full".into()),
        thread => thread.map(|name| format!("thread {name} is down").into()),
    }
}

fn decoded(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    let name = percent_decode_str(segment).decode_utf8();
    let name = name.map_err(|_| ApiError::bad_request("the name in the path is no UTF-8"))?;
    command::check_name(&name, "the name in the path")?;
    Ok(name)
}

#[cfg(test)]
mod readiness_tests;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn a_server_that_is_not_ready_says_why() {
        assert_eq!(unreadiness(false, false, None), None);
        let why = |is_draining, is_full| unreadiness(is_draining, is_full, Some("fdpush-webhook")).expect("a reason");
        assert_eq!(why(false, false), "thread fdpush-webhook is down");
        assert_eq!((why(false, true), why(true, true)), ("full".into(), "draining".into()));
    }

    #[test]
    fn keys_outlive_a_panic_of_a_thread_that_reads_them() {
        let keys = Mutex::new(ApiKeys::new(["k"]));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _keys = keys.lock();
            panic!("a test panics here");
        }));
        assert!(panic.is_err() && keys.is_poisoned());
        let status = |json: &str| check_datagram(&keys, json.as_bytes()).map_err(|error| error.status);
        assert_eq!(status(r#"{"all":true,"data":1,"auth":"k"}"#), Ok(()));
        assert_eq!(status(r#"{"all":true,"data":1,"auth":"x"}"#), Err(401));
    }

    #[test]
    fn without_keys_only_this_machine_may_ask() {
        assert!(is_this_machine(Peer::Unix));
        for (peer, is_here) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            let address: SocketAddr = peer.parse().expect("an address");
            assert_eq!(is_this_machine(address.into()), is_here, "{peer}");
        }
    }
}
