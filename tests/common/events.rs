//! The events that a server sends to a back end, one by one.

use serde_json::{Value, json};

use super::backend::{Answer, Backend};
use super::gateway::Gateway;

/// A back end that takes everything.
pub fn willing() -> Backend {
    Backend::start(|_| Answer::Status(204, String::new()))
}

/// The events of a back end one by one, whatever requests they come in. Their `seq` has no holes.
pub struct Events<'a> {
    backend: &'a Backend,
    waiting: Vec<Value>,
    seq: u64,
    run: Option<Value>,
}

impl<'a> Events<'a> {
    /// Those that the server of [`watched`] sends from its start on.
    pub fn of(backend: &'a Backend) -> Events<'a> {
        Events { backend, waiting: Vec::new(), seq: 0, run: None }
    }

    /// The next event, without what differs from run to run.
    pub fn next(&mut self) -> Value {
        while self.waiting.is_empty() {
            let asked = self.backend.asked.next();
            assert!(asked.is_signed_with("hush"), "{}", asked.head);
            assert_eq!(asked.header("content-type"), Some("application/json"));
            assert_eq!(asked.header("x-fdpush-node"), Some("here"));
            let body = asked.json();
            assert_eq!((&body["node"], &body["given_up"]), (&json!("here"), &json!(0)));
            assert!(body["sent_ms"].is_u64());
            assert_eq!(*self.run.get_or_insert(body["run"].clone()), body["run"], "one run");
            self.waiting.extend(body["events"].as_array().expect("a list").iter().cloned());
        }
        let mut event = self.waiting.remove(0);
        self.seq += 1;
        assert_eq!(event["seq"], self.seq, "{event}");
        let fields = event.as_object_mut().expect("an object");
        fields.remove("seq");
        assert!(fields.remove("time_ms").is_some_and(|time| time.is_u64()));
        fields.remove("peer");
        assert!(fields.remove("address").is_none_or(|address| address == "127.0.0.1"));
        event
    }
}

/// A server that tells this back end of its events, with these flags.
pub fn watched(backend: &Backend, flags: &[&str]) -> Gateway {
    let url = backend.url();
    let watch = ["--webhook", &url, "--webhook-secret", "hush", "--node", "here"];
    Gateway::start(&[&watch[..], flags].concat())
}
