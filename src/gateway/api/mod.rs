//! The HTTP API for back ends and operators: authentication, routing and answers.
//!
//! Requests arrive on the control listeners, which are the listeners of `--api`. The thread of the event loop executes
//! the requests in the order of arrival. `docs/api.md` is the reference of the API.

mod across;
mod backpressure;
mod batch;
mod call;
mod close;
mod command;
mod connection_list;
mod error;
mod first_names;
mod lists;
mod long_commands;
mod lookup;
mod name_list;
mod notice_hold;
mod openapi;
mod page;
mod parts;
mod push;
mod readiness;
mod response;
mod verbs;

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fdpush::{BodyEvent, BodyMode, Context, Fd, Origins, Peer, Request, Response, TimerId};

use self::across::Across;
pub use self::across::Loops;
use self::backpressure::PausedBatches;
use self::batch::Batch;
use self::call::{Call, decode, decode_name};
use self::close::Close;
use self::command::{Command, PushCommand};
use self::connection_list::ConnectionList;
use self::error::ApiError;
use self::lists::Lists;
use self::long_commands::LongCommands;
use self::lookup::Attributes;
use self::name_list::NameList;
use self::notice_hold::NoticeHold;
use self::page::Page;
use self::page::parse_fd;
pub use self::parts::{ApiParts, MetricsText};
use self::readiness::readiness;
use self::response::{json_response, metrics_response, uncached};
use crate::gateway::identity::api_keys::ApiKeys;
use crate::gateway::identity::has_several_authorizations;
use crate::gateway::operations::metrics::Metrics;
use crate::gateway::presence::roster::Roster;
use crate::gateway::runtime::clock;

/// The state of the API: API keys, paused batches, and the commands and lists in progress.
pub struct Api {
    /// The API keys, which the API shares with the threads that receive datagrams.
    keys: Arc<Mutex<ApiKeys>>,
    /// The answers to the lines of one batch piece. The next piece reuses the memory of this buffer.
    answers: String,
    paused: PausedBatches,
    long: LongCommands,
    lists: Lists,
    /// The part of the API that executes calls on all loops. `None` if the server has one loop.
    across: Option<Across>,
    /// Whether the notices of groups wait for commands that run on all loops.
    notice_hold: NoticeHold,
    /// The number of datagrams that were dropped because the inbox of a loop was full.
    lost_datagrams: u64,
}

/// A request that the API refuses with an error.
struct RefusedRequest {
    /// The label of the API call in the metrics.
    label: &'static str,
    error: ApiError,
    /// The value of the response header `Allow`. `None` if the method of the request is allowed or was not checked.
    allow: Option<&'static str>,
}

impl Api {
    /// Creates an API whose requests need one of the keys in `keys`.
    ///
    /// If `keys` is empty, requests need no API key.
    ///
    /// `loops` contains the rosters and the agendas of all loops. `loops` is `Some` only on the first of several loops.
    pub fn new(keys: Arc<Mutex<ApiKeys>>, loops: Option<Loops>) -> Api {
        Api {
            keys,
            answers: String::new(),
            paused: PausedBatches::default(),
            long: LongCommands::default(),
            lists: Lists::default(),
            across: loops.map(Across::new),
            notice_hold: NoticeHold::default(),
            lost_datagrams: 0,
        }
    }

    /// Replaces the API keys for all later requests and datagrams.
    pub fn set_keys(&mut self, keys: ApiKeys) {
        *self.keys() = keys;
    }

    fn keys(&self) -> MutexGuard<'_, ApiKeys> {
        lock(&self.keys)
    }

    /// Admits or refuses a request with a body before reading the body.
    pub fn handle_head(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>, metrics: &Metrics) -> BodyMode {
        match self.admit(ctx, fd, request) {
            Ok(Call::Batch) => BodyMode::stream(Batch::new(ctx.ticket(fd), ctx.limits().body_bytes_max)),
            Ok(_) => BodyMode::Collect,
            Err(refused) => BodyMode::Refuse(refused.response(metrics)),
        }
    }

    /// Handles a piece, or the end, of the body of a batch request.
    pub fn handle_piece(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        state: &mut dyn Any,
        event: BodyEvent<'_>,
        parts: &mut ApiParts<'_>,
    ) {
        let Some(batch) = state.downcast_mut::<Batch>() else { return };
        // The response begins only after the first piece of the body has arrived. If the response began earlier, the
        // server could not send `100 Continue` any more, and a client that waits for `100 Continue` would not send the
        // body.
        if batch.begin(ctx, &uncached(ndjson())) {
            parts.metrics.count_api_request(Call::Batch.label(), 200);
        }
        self.answers.clear();
        match event {
            BodyEvent::Data(bytes) => batch.handle_piece(ctx, parts, &mut self.paused, bytes, &mut self.answers),
            BodyEvent::End => batch.handle_end(ctx, parts, &mut self.paused, &mut self.answers),
        }
        if let Some(outgoing) = &batch.outgoing {
            return outgoing.end_piece(ctx, event == BodyEvent::End);
        }
        if let Some(response) = &batch.response {
            ctx.write_response(response, self.answers.as_bytes());
        }
        self.paused.pause(ctx, fd, clock::now());
        if event == BodyEvent::End
            && let Some(response) = batch.response.take()
        {
            ctx.end_response(response);
        }
    }

    /// Handles an expired timer. Returns `false` if the timer does not belong to the API.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) -> bool {
        self.paused.handle_timer(ctx, timer, clock::now())
    }

    /// Answers a request whose body is complete.
    ///
    /// [`handle_head`](Api::handle_head) has admitted each request with a body, so `respond` checks only requests
    /// without a body.
    pub fn respond(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        request: &Request<'_>,
        parts: &mut ApiParts<'_>,
        scrape: impl FnOnce() -> MetricsText,
    ) -> Response {
        let admitted = match Call::of(request.raw_path()).filter(|_| !request.body().is_empty()) {
            Some(call) => Ok(call),
            None => self.admit(ctx, fd, request),
        };
        let call = match admitted {
            Ok(call) => call,
            Err(refused) => return refused.response(parts.metrics),
        };
        if let Some(across) = self.across.as_ref().filter(|_| call.concerns_loops()) {
            return across.respond(ctx, fd, call, request, parts, scrape);
        }
        let response = match call {
            Call::Push => push(ctx, parts, request.body()),
            // A batch request without a body contains no commands, so the body of the response is empty.
            Call::Batch => ndjson(),
            Call::Metrics => metrics_response(scrape()(&ctx.stats(), &[])),
            Call::Healthy => Response::text(200, "alive\n"),
            Call::Ready => readiness(&ctx.stats(), ctx.is_draining()),
            Call::OpenApi => openapi::response(),
            Call::Close
            | Call::Unbind
            | Call::Ungroup
            | Call::Users
            | Call::User(_)
            | Call::Groups
            | Call::Group(_) => {
                match self.execute_long(ctx, fd, call, request, parts.roster) {
                    Ok(response) => {
                        // The status of a deferred response is not known yet, so the metrics count the request with
                        // status 200.
                        parts.metrics.count_api_request(call.label(), 200);
                        return uncached(response);
                    }
                    Err(error) => error.response(None),
                }
            }
            call => match answer(ctx, call, request, parts.roster) {
                Ok(json) => json_response(json),
                Err(error) => error.response(None),
            },
        };
        parts.metrics.count_api_request(call.label(), response.status());
        uncached(response)
    }

    /// Executes a command or list request that may take several turns.
    fn execute_long(
        &mut self,
        ctx: &mut Context<'_>,
        fd: Fd,
        call: Call<'_>,
        request: &Request<'_>,
        roster: &mut Roster,
    ) -> Result<Response, ApiError> {
        let body = request.body();
        match call {
            Call::Users => self.lists.execute(ctx, fd, NameList::users(Page::of(request)?)),
            Call::Groups => self.lists.execute(ctx, fd, NameList::groups(Page::of(request)?)),
            Call::User(uid) => {
                let uid = decode_name(uid)?.into_owned();
                self.lists.execute(ctx, fd, ConnectionList::of_user(uid, &Page::of(request)?)?)
            }
            Call::Group(group) => {
                let group = decode_name(group)?.into_owned();
                self.lists.execute(ctx, fd, ConnectionList::of_group(group, &Page::of(request)?)?)
            }
            Call::Unbind => self.long.execute(ctx, fd, roster, verbs::Unbind::read(ctx, body)?),
            Call::Ungroup => self.long.execute(ctx, fd, roster, verbs::Ungroup::read(body)?),
            _ => self.long.execute(ctx, fd, roster, Close::read(ctx, body)?),
        }
    }

    /// Continues the commands and lists that take several turns of the loop.
    pub fn handle_turn_end(&mut self, ctx: &mut Context<'_>, roster: &mut Roster) {
        self.long.handle_turn_end(ctx, roster);
        self.lists.handle_turn_end(ctx);
    }

    /// Returns whether the notices of groups must wait for the end of a command.
    ///
    /// With one loop, the notices wait only for a command that takes several turns. With several loops, the notices
    /// wait for each command, but only for the time that [`NoticeHold`] allows.
    pub fn holds_notices(&mut self) -> bool {
        match &self.across {
            Some(across) => self.notice_hold.holds(across.has_command(), clock::now()),
            None => self.long.is_active(),
        }
    }

    /// Records that the notices of all groups were sent.
    pub fn handle_notices_sent(&mut self) {
        self.notice_hold.handle_all_sent();
    }

    /// Executes the push command of a datagram that [`check_datagram`] has authenticated.
    pub fn handle_datagram(&mut self, ctx: &mut Context<'_>, datagram: &[u8], parts: &mut ApiParts<'_>) {
        self.answers.clear();
        let outcome = PushCommand::read(datagram, &command::DATAGRAM).and_then(|command| match self.across {
            Some(_) => across::send(ctx, parts, &command),
            None => push::execute(ctx, parts, &command, None, &mut self.answers),
        });
        if let Err(error) = outcome {
            self.lost_datagrams += u64::from(self.across.is_some() && error.status == 503);
            log::debug!("datagram refused: {:?}", error.message);
        }
    }

    /// Returns the number of datagrams that were dropped because the inbox of a loop was full.
    pub fn lost_datagrams(&self) -> u64 {
        self.lost_datagrams
    }

    /// Checks a request. If the request is valid, protects its connection against being closed for a new connection.
    ///
    /// A protected connection counts towards `control_connections_max`, and the server never closes it to make room for
    /// a new connection. Health probes and requests for metrics do not protect their connection, so the server answers
    /// them even when `control_connections_max` is reached.
    fn admit<'r>(&self, ctx: &mut Context<'_>, fd: Fd, request: &'r Request<'_>) -> Result<Call<'r>, RefusedRequest> {
        let checked = self.check(request);
        match &checked {
            Ok(Call::Healthy | Call::Ready | Call::Metrics) => {}
            Ok(call) if !ctx.keep_control(fd).is_done() => {
                let error = ApiError::full(ctx.limits().control_connections_max);
                return Err(RefusedRequest { label: call.label(), allow: None, error });
            }
            Err(RefusedRequest { error: ApiError { status: 401 | 403, .. }, .. }) => _ = ctx.release_control(fd),
            Ok(_) | Err(_) => {}
        }
        checked
    }

    /// Authenticates a request and returns its API call.
    fn check<'r>(&self, request: &'r Request<'_>) -> Result<Call<'r>, RefusedRequest> {
        let call = Call::of(request.raw_path());
        let refused = |error| RefusedRequest { label: call.map_or("other", Call::label), allow: None, error };
        if !call.is_some_and(Call::is_open) {
            self.check_caller(request).map_err(refused)?;
        }
        let Some(call) = call else {
            return Err(refused(ApiError::not_found("unknown path")));
        };
        if !call.allows(request.method()) {
            let allowed = call.allowed();
            return Err(RefusedRequest { allow: Some(allowed), ..refused(ApiError::method_not_allowed(allowed)) });
        }
        if self.keys().is_empty() {
            check_content_type(call, request).map_err(refused)?;
        }
        Ok(call)
    }

    /// Checks the sender of a request.
    ///
    /// If API keys are set, the request must contain one of the API keys.
    ///
    /// If no API keys are set, the request must come from this machine: the peer address and the header `Host` must
    /// belong to this machine. If the request has the header `Origin`, a web page has sent the request. The
    /// origin of the web page must then be the origin of the server.
    fn check_caller(&self, request: &Request<'_>) -> Result<(), ApiError> {
        let keys = self.keys();
        if !keys.is_empty() {
            return match request.header("authorization") {
                None if has_several_authorizations(request) => {
                    Err(ApiError::bad_request("duplicate header: Authorization"))
                }
                shown if keys.authorize(shown) => Ok(()),
                Some(shown) if ApiKeys::has_bearer(shown) => Err(ApiError::unauthorized("unknown API key")),
                _ => Err(ApiError::unauthorized("missing API key: send Authorization: Bearer KEY")),
            };
        }
        let peer = request.peer();
        if !is_this_machine(peer) {
            return Err(ApiError::forbidden("API without keys: requests are allowed from this machine only"));
        }
        if peer.ip().is_some() && !Origins::host_is_loopback(request) {
            return Err(ApiError::forbidden("API without keys: Host must be localhost, 127.0.0.1 or [::1]"));
        }
        if Origins::Same.allows(request).is_err() {
            return Err(ApiError::forbidden("API without keys: requests from web pages of other origins are refused"));
        }
        Ok(())
    }
}

/// Checks a datagram on the thread that received the datagram.
///
/// Only a datagram without an error is passed to the event loop.
///
/// # Errors
/// Returns an error if the push command in the datagram is invalid, or if the API key in the member `auth` is missing
/// or unknown. The status of an error about the API key is 401.
pub fn check_datagram(keys: &Mutex<ApiKeys>, datagram: &[u8]) -> Result<(), ApiError> {
    let mut command = Command::read(datagram, &command::DATAGRAM)?;
    let shown = command.auth.take();
    command.take_push()?;
    // The datagram thread locks the API keys after it has parsed the command, because the loop may wait for the lock.
    let keys = lock(keys);
    match shown {
        _ if keys.is_empty() => Ok(()),
        Some(key) if keys.contains(key.as_ref()) => Ok(()),
        Some(_) => Err(ApiError::unauthorized("unknown API key")),
        None => Err(ApiError::unauthorized("missing API key: send the API key in the member \"auth\"")),
    }
}

/// Locks the API keys.
///
/// The API keys are always replaced as a whole, so they are valid even after a thread that held the lock has panicked.
fn lock(keys: &Mutex<ApiKeys>) -> MutexGuard<'_, ApiKeys> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether a peer is on this machine.
///
/// An API without API keys listens on local addresses only. But a forwarding rule of the kernel can make a local
/// address reachable from other machines.
fn is_this_machine(peer: Peer) -> bool {
    peer.is_loopback() || peer == Peer::Unix
}

/// Checks the header `Content-Type` of a request.
///
/// An HTML form on a web page cannot send the content types that the API accepts. So a web page of another origin
/// cannot send commands with an HTML form.
fn check_content_type(call: Call<'_>, request: &Request<'_>) -> Result<(), ApiError> {
    if matches!(request.method(), "GET" | "HEAD") {
        return Ok(());
    }
    let given = request.header("content-type").unwrap_or_default();
    if given == "application/json" {
        return Ok(());
    }
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

impl RefusedRequest {
    fn response(&self, metrics: &Metrics) -> Response {
        metrics.count_api_request(self.label, self.error.status);
        let response = uncached(self.error.response(None));
        match self.allow {
            Some(allow) => response.header("Allow", allow),
            // The limit of API connections is reached, so the server closes this connection. RFC 9110 section 10.2.3
            // defines `Retry-After`.
            None if self.error.status == 503 => response.header("Retry-After", "1").close(),
            None => response,
        }
    }
}

fn push(ctx: &mut Context<'_>, parts: &mut ApiParts<'_>, body: &[u8]) -> Response {
    let mut json = String::with_capacity(96);
    let status = push::handle_command(ctx, parts, body, None, &mut json);
    json.push('\n');
    Response::json(status, json)
}

fn answer(
    ctx: &mut Context<'_>,
    call: Call<'_>,
    request: &Request<'_>,
    roster: &mut Roster,
) -> Result<String, ApiError> {
    let body = request.body();
    match call {
        Call::Bind => verbs::bind(ctx, roster, body),
        Call::Join => verbs::join(ctx, roster, body),
        Call::Leave => verbs::leave(ctx, roster, body),
        Call::Online => verbs::online(ctx, body),
        Call::Connections => {
            let page = Page::of(request)?;
            let (connections, next) = lookup::page_after(ctx, page.after_fd()?, page.limit);
            lookup::connections_json(connections, next)
        }
        Call::Connection(fd) => lookup::connection(ctx, parse_fd(&decode(fd)?, "fd")?),
        Call::Attributes(fd) => {
            let fd = parse_fd(&decode(fd)?, "fd")?;
            lookup::check_open(ctx, fd)?;
            match Attributes::read(request.method(), body)? {
                Some(change) => lookup::set_attributes(ctx, fd, change),
                None => lookup::attributes(ctx, fd),
            }
        }
        Call::Stats => lookup::stats_json(&ctx.stats(), &[], ctx.is_draining()),
        Call::Push
        | Call::Batch
        | Call::Unbind
        | Call::Ungroup
        | Call::Close
        | Call::Users
        | Call::User(_)
        | Call::Groups
        | Call::Group(_)
        | Call::Metrics
        | Call::Healthy
        | Call::Ready
        | Call::OpenApi => Err(ApiError::not_found("unknown path")),
    }
}

/// Returns the head of the response to a batch request.
fn ndjson() -> Response {
    Response::new(200).header("Content-Type", "application/x-ndjson")
}

#[cfg(test)]
mod readiness_tests;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn the_keys_remain_usable_after_a_panic_of_a_thread_that_held_their_lock() {
        let keys = Mutex::new(ApiKeys::new(["k"]));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _keys = keys.lock();
            panic!("panic of the test");
        }));
        assert!(panic.is_err() && keys.is_poisoned());
        let status = |json: &str| check_datagram(&keys, json.as_bytes()).map_err(|error| error.status);
        assert_eq!(status(r#"{"all":true,"data":1,"auth":"k"}"#), Ok(()));
        assert_eq!(status(r#"{"all":true,"data":1,"auth":"x"}"#), Err(401));
    }

    #[test]
    fn without_keys_only_local_requests_are_allowed() {
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
            let address: SocketAddr = peer.parse().expect("the address is valid");
            assert_eq!(is_this_machine(address.into()), is_here, "{peer}");
        }
    }
}
