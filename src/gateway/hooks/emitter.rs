//! Emits webhook events.
//!
//! The emitter only puts events into the webhook's queue, so a slow, dead or malicious back end delays no client.

use std::sync::Arc;
use std::time::Duration;

use fdpush::{Closed, Context, Fd, Request, TimerId};
use serde_json::value::RawValue;

use super::webhook::debounce::Debounce;
use super::webhook::event::{Event, Kind};
use super::webhook::{EmitResult, Webhook};
use crate::gateway::identity::proxies::address_of;
use crate::gateway::runtime::clock;
use crate::gateway::runtime::loop_state::LoopState;
use crate::gateway::serving::session::Session;

/// The maximum number of `offline` events that the emitter emits when its timer fires. The next turn of the loop emits
/// the remaining `offline` events. In tests, this maximum is low, so that a test can reach the maximum.
const OFFLINE_MAX: usize = if cfg!(test) { 64 } else { 1024 };

/// The emitter of webhook events. The emitter also decides when a uid is online or offline.
///
/// The emitters of all loops share the online uids. An emitter holds the lock of the online uids while it puts an
/// `online` or `offline` event into the queue. So the events of a uid are in order, even if its connections are on
/// several loops.
#[derive(Debug)]
pub struct EventEmitter {
    webhook: Option<Arc<Webhook>>,
    online: LoopState<OnlineUids>,
}

/// The uids for which the back end got `online` and not yet `offline`.
#[derive(Debug)]
struct OnlineUids {
    debounce: Debounce,
    /// The timer of the next `offline` event. The timer belongs to one of the loops.
    timer: Option<TimerId>,
}

impl EventEmitter {
    /// Creates an emitter. Without a webhook, the emitter emits nothing.
    #[cfg(test)]
    pub fn new(webhook: Option<Arc<Webhook>>, presence_delay: Duration) -> EventEmitter {
        let online = LoopState::Own(OnlineUids::new(presence_delay));
        EventEmitter { webhook, online }
    }

    /// Creates `count` emitters that share the online uids. A single emitter needs no lock.
    pub fn several(webhook: &Option<Arc<Webhook>>, presence_delay: Duration, count: usize) -> Vec<EventEmitter> {
        let online = LoopState::handles(OnlineUids::new(presence_delay), count);
        online.into_iter().map(|online| EventEmitter { webhook: webhook.clone(), online }).collect()
    }

    /// Emits an `open` event. `groups` are the groups that the new connection joined.
    pub fn emit_open(&mut self, ctx: &Context<'_>, fd: Fd, request: &Request<'_>, groups: &[String]) {
        let Some(webhook) = self.webhook.as_ref().filter(|webhook| webhook.wants(Kind::Open)) else { return };
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let attributes = ctx.session::<Session>(fd).filter(|session| !session.attributes.is_empty());
        let attributes = attributes.and_then(|session| serde_json::value::to_raw_value(&session.attributes).ok());
        let path = request.path();
        let attributes: Option<&RawValue> = attributes.as_deref();
        webhook.emit(Event::Open {
            fd,
            uid: ctx.uid_of(fd),
            peer: request.peer(),
            address: address_of(ctx, fd, request.peer()),
            path: &path,
            groups: &groups,
            attributes,
            is_truncated: false,
        });
    }

    /// Emits a `message` event for a text message of a client.
    pub fn emit_message(&mut self, ctx: &Context<'_>, fd: Fd, text: &str) -> EmitResult {
        match &self.webhook {
            Some(webhook) => webhook.emit(Event::Message { fd, uid: ctx.uid_of(fd), text }),
            None => EmitResult::Unwanted,
        }
    }

    /// Emits a `send` event for a valid frame of type `send`.
    pub fn emit_send(&mut self, ctx: &Context<'_>, fd: Fd, data: &RawValue) -> EmitResult {
        match &self.webhook {
            Some(webhook) => webhook.emit(Event::Send { fd, uid: ctx.uid_of(fd), data }),
            None => EmitResult::Unwanted,
        }
    }

    /// Returns whether `send` events are enabled.
    pub fn wants_send(&self) -> bool {
        self.webhook.as_ref().is_some_and(|webhook| webhook.wants(Kind::Send))
    }

    /// Emits a `close` event.
    pub fn emit_close(&mut self, ctx: &Context<'_>, fd: Fd, closed: &Closed) {
        if let Some(webhook) = &self.webhook {
            webhook.emit(Event::Close { fd, uid: ctx.uid_of(fd), closed });
        }
    }

    /// Handles a new connection of a uid. Emits `online` if the uid was offline.
    pub fn handle_arrival(&mut self, uid: &str) {
        let Some(webhook) = self.presence() else { return };
        self.online.with(|online| {
            if online.debounce.arrive(uid) {
                webhook.emit(Event::Online { uid });
            }
        });
    }

    /// Handles the end of a connection of a uid. After the last connection of the uid has ended, emits `offline` when
    /// the presence delay has passed.
    ///
    /// The caller must call this function only after `Context::is_online` has stopped counting the ended connection,
    /// for example in `on_close`.
    pub fn handle_departure(&mut self, ctx: &mut Context<'_>, uid: &str) {
        let Some(webhook) = self.presence() else { return };
        self.online.with(|online| {
            // Another loop may open a connection of the same uid now. The uid is online before the other loop calls
            // `handle_arrival`. So either this check or the later call of `handle_arrival` prevents the `offline`
            // event.
            if !ctx.is_online(uid) {
                let offline = online.debounce.depart(uid, clock::now());
                offline.into_iter().for_each(|uid| online.emit_offline(ctx, &webhook, &uid));
                online.arm(ctx);
            }
        });
    }

    /// Emits `offline` events for at most [`OFFLINE_MAX`] uids whose presence delay has passed. Returns `false` if
    /// `timer` is not the timer of the emitter.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) -> bool {
        let webhook = self.presence();
        self.online.with(|online| {
            if online.timer != Some(timer) {
                return false;
            }
            online.timer = None;
            let Some(webhook) = webhook else { return true };
            let now = clock::now();
            for _ in 0..OFFLINE_MAX {
                let Some(uid) = online.debounce.poll(now) else { break };
                online.emit_offline(ctx, &webhook, &uid);
            }
            online.arm(ctx);
            true
        })
    }

    /// At the end of the server, emits `offline` for each uid that has no connection and whose presence delay has not
    /// passed yet.
    pub fn end(&mut self) {
        let Some(webhook) = self.presence() else { return };
        self.online.with(|online| {
            while let Some(deadline) = online.debounce.next_deadline() {
                while let Some(uid) = online.debounce.poll(deadline) {
                    webhook.emit(Event::Offline { uid: &uid });
                }
            }
        });
    }

    /// Returns the webhook if `online` or `offline` events are enabled.
    fn presence(&self) -> Option<Arc<Webhook>> {
        let wants = |webhook: &&Arc<Webhook>| webhook.wants(Kind::Online) || webhook.wants(Kind::Offline);
        self.webhook.as_ref().filter(wants).cloned()
    }
}

impl OnlineUids {
    fn new(presence_delay: Duration) -> OnlineUids {
        OnlineUids { debounce: Debounce::new(presence_delay), timer: None }
    }

    /// Emits `offline` for a uid whose delay has passed.
    ///
    /// If another loop has opened a connection of the uid but has not called `handle_arrival` yet, the uid stays online
    /// and no event is emitted.
    fn emit_offline(&mut self, ctx: &Context<'_>, webhook: &Webhook, uid: &str) {
        if ctx.is_online(uid) {
            self.debounce.arrive(uid);
        } else {
            webhook.emit(Event::Offline { uid });
        }
    }

    fn arm(&mut self, ctx: &mut Context<'_>) {
        if self.timer.is_none()
            && let Some(deadline) = self.debounce.next_deadline()
        {
            self.timer = Some(ctx.set_timer(deadline.saturating_duration_since(clock::now())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread;
    use std::time::Duration;

    use fdpush::{Handler, Server};

    use super::*;
    use crate::gateway::hooks::backend::{BackendConfig, BackendUrl};
    use crate::gateway::hooks::webhook::Config;

    const UIDS: usize = 2 * OFFLINE_MAX + 1;
    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    /// A handler that lets many uids arrive and depart at the start of the server. The handler counts the `offline`
    /// events that the emitter emits each time its timer fires.
    struct Departures {
        events: EventEmitter,
        webhook: Arc<Webhook>,
        emitted: Sender<usize>,
    }

    impl Handler for Departures {
        fn on_start(&mut self, ctx: &mut Context<'_>) {
            for uid in (0..UIDS).map(|number| format!("u{number}")) {
                self.events.handle_arrival(&uid);
                self.events.handle_departure(ctx, &uid);
            }
        }

        fn on_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) {
            let before = self.webhook.stats().queued;
            assert!(self.events.handle_timer(ctx, timer));
            self.emitted.send(self.webhook.stats().queued - before).expect("the receiver is open");
        }
    }

    #[test]
    fn the_number_of_events_that_one_timer_emits_is_bounded() {
        let (emitted, counts) = channel();
        let (stop, remote) = channel();
        let server = thread::spawn(move || {
            let contact = BackendConfig {
                // No back end listens on this port, so all events stay in the queue.
                url: BackendUrl::parse("http://127.0.0.1:1/").expect("the URL is valid"),
                node: "node".to_owned(),
                secret: None,
                authorities: None,
            };
            let config = Config { kinds: [Kind::Offline].into_iter().collect(), ..Config::new(contact) };
            let webhook = Arc::new(Webhook::start(config).expect("the thread can start"));
            let events = EventEmitter::new(Some(Arc::clone(&webhook)), Duration::ZERO);
            let server = Server::bind("127.0.0.1:0").expect("the port can be bound").catch_signals(false);
            stop.send(server.remote()).expect("the receiver is open");
            server.handler(Departures { events, webhook, emitted }).run().expect("the run starts");
        });
        let next = || counts.recv_timeout(TEST_TIMEOUT).expect("the timer fires");
        let (mut total, mut most) = (0, 0);
        while total < UIDS {
            let count = next();
            (total, most) = (total + count, most.max(count));
        }
        assert_eq!((total, most), (UIDS, OFFLINE_MAX));
        remote.recv().expect("the server runs").shutdown().expect("the server is running");
        server.join().expect("the thread ends without a panic");
    }
}
