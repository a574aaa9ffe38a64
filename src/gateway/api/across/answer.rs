//! The answer to a call that runs on several loops.

use fdpush::{Context, Response, Ticket};

use super::super::error::ApiError;
use super::super::response::uncached;
use crate::gateway::operations::metrics::Metrics;
use crate::gateway::runtime::gather::GatherError;

/// A function that executes a checked API call and sends the answer.
pub type Work = Box<dyn FnOnce(&mut Context<'_>, Answer)>;

/// The deferred answer to a request. The receiver of this value must call [`send`](Answer::send), which also counts the
/// answer in the metrics.
pub struct Answer {
    ticket: Ticket<Response>,
    metrics: Metrics,
    /// The label of the call in the metrics.
    label: &'static str,
}

impl Answer {
    pub fn new(ticket: Ticket<Response>, metrics: Metrics, label: &'static str) -> Answer {
        Answer { ticket, metrics, label }
    }

    /// Sends the response or the error.
    pub fn send(self, ctx: &mut Context<'_>, result: Result<Response, ApiError>) {
        let response = result.unwrap_or_else(|error| error.response(None));
        self.metrics.count_api_request(self.label, response.status());
        ctx.answer(self.ticket, uncached(response));
    }
}

impl From<GatherError> for ApiError {
    fn from(error: GatherError) -> ApiError {
        match error {
            GatherError::Full => ApiError::busy("the inbox of a loop is full"),
            GatherError::Incomplete => ApiError::busy("a loop did not carry out its part of the request"),
        }
    }
}
