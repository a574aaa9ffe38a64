//! Requests to back ends: the signed HTTP client, the webhook, and the emitter of webhook events.

pub mod backend;
pub mod emitter;
pub mod webhook;
