//! Emits webhook events.
//!
//! The emitter only puts events into the webhook's queue, so a slow, dead or malicious back end delays no client.

use std::sync::Arc;

use fdpush::{Closed, Context, Fd, Request, TimerId};
use serde_json::value::RawValue;

use super::webhook::debounce::Debounce;
use super::webhook::event::{Event, Kind};
use super::webhook::{EmitResult, Webhook};
use crate::gateway::identity::proxies::address_of;
use crate::gateway::runtime::clock;
use crate::gateway::serving::session::Session;

/// Emits webhook events.
#[derive(Debug)]
pub struct EventEmitter {
    webhook: Option<Arc<Webhook>>,
    debounce: Debounce,
    /// The timer of the next `offline` event.
    timer: Option<TimerId>,
}

impl EventEmitter {
    /// Creates an emitter. Without a webhook, the emitter emits nothing.
    pub fn new(webhook: Option<Arc<Webhook>>, presence_delay: std::time::Duration) -> EventEmitter {
        EventEmitter { webhook, debounce: Debounce::new(presence_delay), timer: None }
    }

    /// Emits `open`.
    pub fn emit_open(&mut self, ctx: &mut Context<'_>, fd: Fd, request: &Request<'_>) {
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

    /// Emits `close`.
    pub fn emit_close(&mut self, ctx: &Context<'_>, fd: Fd, closed: &Closed) {
        if let Some(webhook) = &self.webhook {
            webhook.emit(Event::Close { fd, uid: ctx.uid_of(fd), closed });
        }
    }

    /// Handles a new connection of a uid. Emits `online` if the uid was offline.
    pub fn handle_arrival(&mut self, uid: &str) {
        let Some(webhook) = self.presence() else { return };
        if self.debounce.arrive(uid) {
            webhook.emit(Event::Online { uid });
        }
    }

    /// Handles the end of a connection of a uid. If it was the last connection of the uid, `offline` follows after the
    /// delay.
    ///
    /// The caller must first remove the connection from the registry. Inside `on_close`, the server has already removed
    /// the connection.
    pub fn handle_departure(&mut self, ctx: &mut Context<'_>, uid: &str) {
        if self.presence().is_some() && !ctx.is_online(uid) {
            self.debounce.depart(uid, clock::now());
            self.arm(ctx);
        }
    }

    /// Emits `offline` events for uids whose delay has passed. Returns `false` if the timer does not belong to the
    /// emitter.
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

    /// Emits `offline` for all uids that wait for their delay, when the server ends.
    pub fn end(&mut self) {
        let Some(webhook) = self.presence() else { return };
        while let Some(deadline) = self.debounce.next_deadline() {
            while let Some(uid) = self.debounce.poll(deadline) {
                webhook.emit(Event::Offline { uid: &uid });
            }
        }
    }

    /// Returns the webhook if presence events are enabled.
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
