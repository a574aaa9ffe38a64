//! Reads the webhook events of a back end, one event at a time.

use serde_json::{Value, json};

use super::backend::{Answer, Backend};
use super::gateway::Gateway;

/// Starts a back end that accepts every request.
pub fn start_accepting_back_end() -> Backend {
    Backend::start(|_| Answer::Status(204, String::new()))
}

/// Reads the events from the webhook requests of a server. Checks that the numbers `seq` of the events have no gaps.
pub struct Events<'a> {
    backend: &'a Backend,
    waiting: Vec<Value>,
    seq: u64,
    run: Option<Value>,
}

impl<'a> Events<'a> {
    /// Creates a reader for the back end of [`start_with_webhook`]. The reader starts with the first event of the
    /// server.
    pub fn of(backend: &'a Backend) -> Events<'a> {
        Events { backend, waiting: Vec::new(), seq: 0, run: None }
    }

    /// Returns the next event without the members that differ between runs.
    pub fn next(&mut self) -> Value {
        while self.waiting.is_empty() {
            let request = self.backend.requests.next();
            assert!(request.is_signed_with("hush"), "{}", request.head);
            assert_eq!(request.header("content-type"), Some("application/json"));
            assert_eq!(request.header("x-fdpush-node"), Some("here"));
            let body = request.json();
            assert_eq!((&body["node"], &body["given_up"]), (&json!("here"), &json!(0)));
            assert!(body["sent_ms"].is_u64());
            assert_eq!(
                *self.run.get_or_insert(body["run"].clone()),
                body["run"],
                "all requests must have the same `run`"
            );
            self.waiting.extend(body["events"].as_array().expect("the value is an array").iter().cloned());
        }
        let mut event = self.waiting.remove(0);
        self.seq += 1;
        assert_eq!(event["seq"], self.seq, "{event}");
        let fields = event.as_object_mut().expect("the value is an object");
        fields.remove("seq");
        assert!(fields.remove("time_ms").is_some_and(|time| time.is_u64()));
        fields.remove("peer");
        assert!(fields.remove("address").is_none_or(|address| address == "127.0.0.1"));
        event
    }
}

/// Starts a server that sends webhooks to this back end, with these flags.
pub fn start_with_webhook(backend: &Backend, flags: &[&str]) -> Gateway {
    let url = backend.url();
    let watch = ["--webhook", &url, "--webhook-secret", "hush", "--node", "here"];
    Gateway::start(&[&watch[..], flags].concat())
}
