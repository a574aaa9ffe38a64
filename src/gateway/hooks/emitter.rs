//! The events that the back end receives: connections that open, send and close, and uids that go online and offline.
//!
//! Everything here only puts an event into the webhook's queue: a back end that is slow, dead or lying delays nothing.

use std::sync::Arc;

use fdpush::{Closed, Context, Fd, Request, TimerId};
use serde_json::value::RawValue;

use super::webhook::debounce::Debounce;
use super::webhook::event::{Event, Kind};
use super::webhook::{Emitted, Webhook};
use crate::gateway::identity::proxies::address_of;
use crate::gateway::runtime::clock;
use crate::gateway::serving::session::Session;

/// Emits webhook events.
#[derive(Debug)]
pub struct Watch {
    webhook: Option<Arc<Webhook>>,
    debounce: Debounce,
    /// When it may be time to call somebody offline.
    timer: Option<TimerId>,
}

impl Watch {
    /// For this webhook, or for nobody.
    pub fn new(webhook: Option<Arc<Webhook>>, presence_delay: std::time::Duration) -> Watch {
        Watch { webhook, debounce: Debounce::new(presence_delay), timer: None }
    }

    /// A connection is open.
    pub fn opened(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request) {
        let Some(webhook) = self.webhook.as_ref().filter(|webhook| webhook.wants(Kind::Open)) else { return };
        let session = ctx.session::<Session>(fd);
        let groups: Vec<&str> =
            session.map_or_else(Vec::new, |session| session.groups.iter().map(String::as_str).collect());
        let attributes = session.filter(|session| !session.attributes.is_empty());
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

    /// A client sent a text message.
    pub fn message(&mut self, ctx: &Context<'_>, fd: Fd, text: &str) -> Emitted {
        match &self.webhook {
            Some(webhook) => webhook.emit(Event::Message { fd, uid: ctx.uid_of(fd), text }),
            None => Emitted::Unwanted,
        }
    }

    /// A client sent a valid frame of type `send`.
    pub fn sent(&mut self, ctx: &Context<'_>, fd: Fd, data: &RawValue) -> Emitted {
        match &self.webhook {
            Some(webhook) => webhook.emit(Event::Send { fd, uid: ctx.uid_of(fd), data }),
            None => Emitted::Unwanted,
        }
    }

    /// Whether the back end wants the frames of type `send`.
    pub fn wants_sent(&self) -> bool {
        self.webhook.as_ref().is_some_and(|webhook| webhook.wants(Kind::Send))
    }

    /// A connection is open no more.
    pub fn closed(&mut self, ctx: &Context<'_>, fd: Fd, closed: &Closed) {
        if let Some(webhook) = &self.webhook {
            webhook.emit(Event::Close { fd, uid: ctx.uid_of(fd), closed });
        }
    }

    /// A connection is somebody's.
    pub fn came(&mut self, uid: &str) {
        let Some(webhook) = self.presence() else { return };
        if self.debounce.opened(uid) {
            webhook.emit(Event::Online { uid });
        }
    }

    /// A connection is that person's no more.
    pub fn went(&mut self, ctx: &mut Context<'_>, uid: &str) {
        if self.presence().is_some() {
            self.debounce.closed(uid, clock::now());
            self.arm(ctx);
        }
    }

    /// Whether the timer was this room's; if so, whoever stayed away is offline.
    pub fn handle_timer(&mut self, ctx: &mut Context<'_>, timer: TimerId) -> bool {
        if self.timer != Some(timer) {
            return false;
        }
        self.timer = None;
        let Some(webhook) = self.presence() else { return true };
        let now = clock::now();
        while let Some(uid) = self.debounce.poll(now) {
            webhook.emit(Event::Offline { uid: &uid });
        }
        self.arm(ctx);
        true
    }

    /// The server has ended: nobody comes back to it, and whoever may still have done is offline.
    pub fn end(&mut self) {
        let Some(webhook) = self.presence() else { return };
        while let Some(deadline) = self.debounce.next_deadline() {
            while let Some(uid) = self.debounce.poll(deadline) {
                webhook.emit(Event::Offline { uid: &uid });
            }
        }
    }

    /// The webhook, if it wants to hear of persons.
    fn presence(&self) -> Option<Arc<Webhook>> {
        let wants = |webhook: &&Arc<Webhook>| webhook.wants(Kind::Online) || webhook.wants(Kind::Offline);
        self.webhook.as_ref().filter(wants).cloned()
    }

    fn arm(&mut self, ctx: &mut Context<'_>) {
        if self.timer.is_none()
            && let Some(deadline) = self.debounce.next_deadline()
        {
            self.timer = Some(ctx.set_timer(deadline.saturating_duration_since(clock::now())));
        }
    }
}
