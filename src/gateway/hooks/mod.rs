//! Requests to back ends: the signed HTTP client, the webhook, and the events that go to it.

pub mod backend;
pub mod emitter;
pub mod webhook;
