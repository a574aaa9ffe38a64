//! Encodes the response of `/metrics` in the text format of OpenMetrics 1.0.
//!
//! This module owns the metric names and the counts of API requests. A [`Snapshot`] contains all other numbers at the
//! time of a scrape. So the loop counts a message without an atomic operation, and a scrape takes no lock of the loop.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use fdpush::{Compression, TlsCounts};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabel, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};
use rustix::process::{Resource, getrlimit};

use super::loop_numbers::{LOOP_METRICS, LoopNumbers};
use crate::gateway::push::datagrams;
use crate::gateway::runtime::threads::Tally;

/// The media type of the text that [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counts of API requests. Clones of [`Metrics`] share the counts, even between threads.
#[derive(Clone, Debug)]
pub struct Metrics {
    api_requests: Family<ApiRequest, Counter>,
    /// The counter of answers of `/api/push` with status 200. The cell is empty before the first answer with this path
    /// and status.
    pushes: OnceLock<Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ApiRequest {
    path: &'static str,
    status: u16,
}

/// The numbers that one scrape returns. A field that is named after an event, such as `opens`, counts the events since
/// the start of the server.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// The number of connections by state: `open` for WebSockets; `other` for HTTP connections and closing connections
    /// of clients; `api` for connections of back ends.
    pub connections: BTreeMap<&'static str, usize>,
    /// The maximum number of client connections in the states `open` and `other` together.
    pub connections_max: usize,
    /// The maximum number of connections in the state `api`.
    pub api_connections_max: usize,
    pub uids: usize,
    pub groups: usize,
    pub accepts: u64,
    pub accept_errors: u64,
    pub opens: u64,
    /// The number of closed WebSockets by [`Cause::as_str`](fdpush::Cause::as_str).
    pub closes: BTreeMap<&'static str, u64>,
    /// The number of refused client requests, by HTTP status.
    pub refusals: BTreeMap<u16, u64>,
    pub untrusted_proxies: u64,
    /// The number of API connections that the server closed to accept newer API connections.
    pub api_evictions: u64,
    /// The number of API requests that were refused before routing, by HTTP status.
    pub api_refusals: BTreeMap<u16, u64>,
    pub messages_in: u64,
    pub messages_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub compression: Compression,
    pub tls: TlsCounts,
    /// The time when the certificates of each file expire, in seconds since 1970. The key is the file and a certificate
    /// name.
    pub certificates: BTreeMap<(String, String), u64>,
    pub queue_bytes: usize,
    /// The memory of unfinished messages, unfinished request heads and unfinished request bodies, in bytes.
    pub inbound_bytes: usize,
    /// The number of messages that slow clients did not get, by policy: `close`, `drop_newest`, `conflate`,
    /// `too_large`.
    pub drops: BTreeMap<&'static str, u64>,
    pub heartbeats_missed: u64,
    /// The metrics of each loop. With one loop, the list is empty.
    pub loops: Vec<LoopNumbers>,
    pub turns: Durations,
    pub pushes: Durations,
    pub timers: usize,
    pub webhook_queue: usize,
    pub webhook_sent: u64,
    pub webhook_failures: u64,
    /// The number of dropped webhook events by reason: `refused`, `timed_out`, `queue_full`, `out_of_memory`,
    /// `shutdown`, `too_large`.
    pub webhook_given_up: BTreeMap<&'static str, u64>,
    /// The number of authentications by outcome: `accepted`, `refused`, `failed`, `timed_out`, `overflowed`, `gone`.
    pub auth: BTreeMap<&'static str, u64>,
    /// The number of clients whose upgrade request waits in the queue of the connect hook.
    pub auth_waiting: usize,
    pub datagrams: datagrams::DatagramCounts,
    /// The states of the threads, by the name of the thread.
    pub threads: BTreeMap<&'static str, Tally>,
    pub log_lines_dropped: u64,
    /// The number of file descriptors of this process, and the limit of this number.
    pub descriptors: Descriptors,
}

/// A histogram of durations with cumulative buckets, as in Prometheus.
#[derive(Clone, Default, Debug)]
pub struct Durations {
    /// The sum of all durations.
    pub sum: Duration,
    /// The number of durations.
    pub count: u64,
    /// The upper bound of each bucket in ascending order, with the number of durations up to this bound. The list does
    /// not contain the bucket `+Inf`.
    pub buckets: Vec<(Duration, u64)>,
}

/// The maximum number of connections up to which the file descriptors are counted one by one.
///
/// Counting ten thousand file descriptors takes about a millisecond.
const COUNTED_MAX: usize = 10_000;

/// The number of open file descriptors of this process, and the limit of this number.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Descriptors {
    pub used: u64,
    /// The current `RLIMIT_NOFILE`. `None` means that there is no limit.
    pub max: Option<u64>,
}

impl Metrics {
    /// Creates metrics whose counters are 0.
    pub fn new() -> Metrics {
        Metrics { api_requests: Family::default(), pushes: OnceLock::new() }
    }

    /// Counts an answer of the API.
    ///
    /// `path` is the route, such as `/api/users/{uid}`, and not the path of the request. Each value of `path` adds a
    /// time series.
    pub fn count_api_request(&self, path: &'static str, status: u16) {
        let counter = || self.api_requests.get_or_create(&ApiRequest { path, status }).clone();
        match (path, status) {
            // Status 200 of `/api/push` is the most common answer. So the counter of this answer is not looked up in
            // the map.
            ("/api/push", 200) => self.pushes.get_or_init(counter).inc(),
            _ => counter().inc(),
        };
    }

    /// Encodes all metrics as text of the media type [`CONTENT_TYPE`].
    pub fn encode(&self, snapshot: Snapshot) -> String {
        let mut registry = Registry::default();
        let api = self.api_requests.clone();
        registry.register("fdpush_api_requests", "Answers of the HTTP API by route and status", api);
        registry.register_collector(Box::new(snapshot));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("writing to a string succeeds");
        out
    }
}

impl Descriptors {
    /// Returns the number of open file descriptors, and the limit of this number.
    ///
    /// Since Linux 6.2, the size of the directory `/proc/self/fd` is the number of descriptors. On an older kernel,
    /// this function counts the descriptors. If there are more than [`COUNTED_MAX`] connections, this function returns
    /// the number of connections, because counting takes long.
    pub fn now(connections: usize) -> Descriptors {
        let max = getrlimit(Resource::Nofile).current;
        let size = fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
        Descriptors { used: if size > 0 { size } else { Descriptors::count(connections) }, max }
    }

    /// Counts the file descriptors of this process. If there are more than [`COUNTED_MAX`] connections, returns the
    /// number of connections.
    fn count(connections: usize) -> u64 {
        if connections > COUNTED_MAX {
            return connections as u64;
        }
        // The open directory uses one file descriptor, which is subtracted from the count.
        fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1)) as u64
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.encode_connections(&mut writer)?;
        self.encode_tls(&mut writer)?;
        self.encode_traffic(&mut writer)?;
        self.encode_compression(&mut writer)?;
        self.encode_loop(&mut writer)?;
        self.encode_each_loop(&mut writer)?;
        self.encode_process(&mut writer)
    }
}

impl Snapshot {
    fn encode_connections(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let connections = self.connections.iter().map(|(state, count)| (*state, *count as u64));
        writer.family(MetricType::Gauge, "fdpush_connections", "Connections by state", "state", connections)?;
        let (clients, api) = (self.connections_max as u64, self.api_connections_max as u64);
        writer.gauge("fdpush_connections_max", "Maximum number of client connections", clients)?;
        writer.gauge("fdpush_api_connections_max", "Maximum number of API connections", api)?;
        writer.gauge("fdpush_uids", "Uids with at least one connection", self.uids as u64)?;
        writer.gauge("fdpush_groups", "Groups with at least one member", self.groups as u64)?;
        writer.counter("fdpush_accepts", "Connections accepted", self.accepts)?;
        writer.counter("fdpush_accept_errors", "Errors of accept(2)", self.accept_errors)?;
        writer.counter("fdpush_opens", "WebSockets opened", self.opens)?;
        let closes = self.closes.iter().map(|(cause, count)| (*cause, *count));
        writer.family(MetricType::Counter, "fdpush_closes", "Closed WebSockets, by cause", "cause", closes)?;
        let refusals = self.refusals.iter().map(|(status, count)| (*status, *count));
        writer.family(
            MetricType::Counter,
            "fdpush_refusals",
            "Client requests refused, by HTTP status",
            "status",
            refusals,
        )?;
        let refusals = self.api_refusals.iter().map(|(status, count)| (*status, *count));
        let help = "API connections and requests refused before routing, by HTTP status";
        writer.family(MetricType::Counter, "fdpush_api_refusals", help, "status", refusals)?;
        let help = "Connections closed because their peer is not a trusted proxy";
        writer.counter("fdpush_untrusted_proxies", help, self.untrusted_proxies)?;
        let help = "API connections closed to accept newer API connections";
        writer.counter("fdpush_api_evictions", help, self.api_evictions)?;
        writer.counter(
            "fdpush_heartbeats_missed",
            "Heartbeats that a client did not answer in time",
            self.heartbeats_missed,
        )
    }

    fn encode_tls(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let counts = &self.tls;
        let handshakes = [
            ("full", counts.full),
            ("resumed", counts.resumed),
            ("failed", counts.failed),
            ("abandoned", counts.abandoned),
            ("plain_http", counts.plain_http),
            ("on_plain", counts.on_plain),
        ];
        let help = "TLS handshakes by outcome";
        writer.family(MetricType::Counter, "fdpush_tls_handshakes", help, "outcome", handshakes)?;
        let help = "End of the validity of a certificate file, in Unix time";
        let name = "fdpush_tls_certificate_expiry";
        let mut encoder = writer.start(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        self.certificates.iter().try_for_each(|((file, name), end)| {
            let labels = [("file", file.as_str()), ("name", name.as_str())];
            encoder.encode_family(&labels)?.encode_gauge(end)
        })
    }

    fn encode_traffic(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let messages = [("in", self.messages_in), ("out", self.messages_out)];
        writer.family(
            MetricType::Counter,
            "fdpush_messages",
            "WebSocket messages by direction",
            "direction",
            messages,
        )?;
        let bytes = [("in", self.bytes_in), ("out", self.bytes_out)];
        writer.family(
            MetricType::Counter,
            "fdpush_bytes",
            "Bytes received and sent, by direction",
            "direction",
            bytes,
        )?;
        writer.gauge("fdpush_queue_bytes", "Bytes in the send queues of connections", self.queue_bytes as u64)?;
        let inbound = self.inbound_bytes as u64;
        writer.gauge(
            "fdpush_inbound_bytes",
            "Bytes of memory for unfinished messages, request heads and request bodies",
            inbound,
        )?;
        let auth = self.auth.iter().map(|(outcome, count)| (*outcome, *count));
        writer.family(
            MetricType::Counter,
            "fdpush_auth_requests",
            "Authentications by token or connect hook, by outcome",
            "outcome",
            auth,
        )?;
        writer.gauge(
            "fdpush_auth_waiting",
            "Clients whose requests to auth_url wait in the queue of the connect hook",
            self.auth_waiting as u64,
        )?;
        let drops = self.drops.iter().map(|(policy, count)| (*policy, *count));
        writer.family(
            MetricType::Counter,
            "fdpush_drops",
            "Messages not delivered to slow clients, by policy",
            "policy",
            drops,
        )
    }

    fn encode_compression(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let counts = &self.compression;
        writer.counter("fdpush_deflate_opens", "WebSockets opened with permessage-deflate", counts.connections)?;
        let messages = [("in", counts.messages_in), ("out", counts.messages_out)];
        let help = "Compressed messages, which fdpush_messages_total also counts";
        writer.family(MetricType::Counter, "fdpush_deflate_messages", help, "direction", messages)?;
        let bytes = [("before", counts.bytes_out), ("after", counts.bytes_out_deflated)];
        let help =
            "Payload bytes of messages to clients, before and after compression, counted per message, not per receiver";
        writer.family(MetricType::Counter, "fdpush_deflate_bytes", help, "stage", bytes)?;
        let bytes = [("before", counts.bytes_in_deflated), ("after", counts.bytes_in)];
        let help = "Payload bytes of compressed messages from clients, before and after inflation";
        writer.family(MetricType::Counter, "fdpush_inflate_bytes", help, "stage", bytes)?;
        let help = "Messages from clients that are not valid compressed data, or that inflate to too many bytes";
        writer.counter("fdpush_inflate_failures", help, counts.failures)?;
        let help = "Number of times that inflated_bytes_per_second_max delayed the input of a client";
        writer.counter("fdpush_inflate_holds", help, counts.holds)
    }

    fn encode_loop(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.histogram(
            "fdpush_turn_duration",
            "Duration of the turns of the event loop, without the wait for events",
            &self.turns,
        )?;
        writer.histogram(
            "fdpush_push_to_write",
            "Time from the push of a message to the write of the last byte of the message",
            &self.pushes,
        )?;
        writer.gauge("fdpush_timers", "Active timers of the event loop", self.timers as u64)
    }

    fn encode_each_loop(&self, writer: &mut Writer<'_>) -> fmt::Result {
        if self.loops.is_empty() {
            return Ok(());
        }
        for metric in LOOP_METRICS {
            let kind = if metric.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let values = self.loops.iter().enumerate().map(|(index, numbers)| (index, (metric.value)(numbers)));
            writer.family(kind, metric.name, metric.help, "loop", values)?;
        }
        let help = "Total duration of the turns of a loop, without the wait for events";
        let name = "fdpush_loop_turn";
        let mut encoder = writer.start(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        self.loops.iter().enumerate().try_for_each(|(index, numbers)| {
            let labels = [("loop", index)];
            let seconds = numbers.turn_time.as_secs_f64();
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, u64>(&seconds, None)
        })
    }

    fn encode_process(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.gauge("fdpush_webhook_queue", "Events in the webhook queue", self.webhook_queue as u64)?;
        writer.counter("fdpush_webhook_sent", "Webhook events that the back end accepted", self.webhook_sent)?;
        writer.counter(
            "fdpush_webhook_failures",
            "Webhook requests that failed or that the back end refused",
            self.webhook_failures,
        )?;
        let given_up = self.webhook_given_up.iter().map(|(reason, count)| (*reason, *count));
        writer.family(
            MetricType::Counter,
            "fdpush_webhook_given_up",
            "Webhook events dropped, by reason",
            "reason",
            given_up,
        )?;
        let datagrams::DatagramCounts { done, malformed, unauthorized, overflowed, lost } = self.datagrams;
        let datagrams = [
            ("done", done),
            ("malformed", malformed),
            ("unauthorized", unauthorized),
            ("overflowed", overflowed),
            ("lost", lost),
        ];
        writer.family(MetricType::Counter, "fdpush_datagrams", "API datagrams by outcome", "outcome", datagrams)?;
        let down = self.threads.values().map(|tally| tally.down as u64).sum();
        writer.gauge("fdpush_threads_down", "Threads that failed and wait for a restart", down)?;
        let failures = self.threads.iter().map(|(name, tally)| (*name, tally.failures));
        writer.family(
            MetricType::Counter,
            "fdpush_thread_failures",
            "Panics and errors of the threads of the server, by thread",
            "thread",
            failures,
        )?;
        writer.counter("fdpush_log_lines_dropped", "Log lines dropped and not written", self.log_lines_dropped)?;
        writer.gauge("fdpush_descriptors_used", "Open file descriptors of the process", self.descriptors.used)?;
        // If the number of file descriptors has no limit, this metric is not written.
        if let Some(max) = self.descriptors.max {
            writer.gauge("fdpush_descriptors_max", "Maximum number of file descriptors of the process", max)?;
        }
        let mut build = writer.start("fdpush_build", "Build information", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

/// A writer of metric families.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn start<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, &format!("{help}."), unit, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.start(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut encoder = self.start(name, help, None, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    /// Writes a metric with one number for each value of a label. `kind` is a gauge or a counter.
    fn family<L>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result
    where
        (&'static str, L): EncodeLabel,
    {
        let mut encoder = self.start(name, help, None, kind)?;
        values.into_iter().try_for_each(|(key, value)| {
            let labels = [(label, key)];
            let mut encoder = encoder.encode_family(&labels)?;
            match kind {
                MetricType::Gauge => encoder.encode_gauge(&value),
                _ => encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None),
            }
        })
    }

    /// Writes a histogram in seconds. The counts in `durations` are cumulative, but the encoder needs the count of each
    /// single bucket.
    fn histogram(&mut self, name: &str, help: &str, durations: &Durations) -> fmt::Result {
        let mut so_far = 0;
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(durations.buckets.len() + 1);
        for (end, no_longer) in &durations.buckets {
            buckets.push((end.as_secs_f64(), no_longer.saturating_sub(so_far)));
            so_far = *no_longer;
        }
        buckets.push((f64::INFINITY, durations.count.saturating_sub(so_far)));
        let mut encoder = self.start(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(durations.sum.as_secs_f64(), durations.count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let millis = Duration::from_millis;
        let turns = Durations { sum: millis(2500), count: 4, buckets: vec![(millis(1), 1), (millis(2), 3)] };
        Snapshot {
            connections: [("open", 1000), ("other", 2), ("api", 1)].into(),
            connections_max: 5000,
            api_connections_max: 256,
            uids: 7,
            groups: 8,
            accepts: 1200,
            accept_errors: 33,
            opens: 1100,
            closes: [("client_closed", 90), ("heartbeat_missed", 10)].into(),
            refusals: [(403, 5), (503, 6)].into(),
            api_refusals: [(503, 4)].into(),
            untrusted_proxies: 35,
            api_evictions: 34,
            messages_in: 11,
            messages_out: 12,
            bytes_in: 13,
            bytes_out: u64::MAX,
            certificates: [(("/c \"1\".pem".to_owned(), "*.chat.example".to_owned()), 1_769_817_600)].into(),
            queue_bytes: 15,
            inbound_bytes: 14,
            auth: [("accepted", 0), ("timed_out", 1)].into(),
            auth_waiting: 29,
            drops: [("drop_newest", 16), ("conflate", 17)].into(),
            heartbeats_missed: 18,
            turns,
            timers: 19,
            webhook_queue: 20,
            webhook_sent: 21,
            webhook_failures: 22,
            webhook_given_up: [("refused", 23), ("too_large", 0)].into(),
            datagrams: datagrams::DatagramCounts {
                done: 24,
                malformed: 25,
                unauthorized: 26,
                overflowed: 27,
                lost: 28,
            },
            threads: [
                ("fdpush-a", Tally { alive: 2, down: 1, failures: 29 }),
                ("fdpush-b", Tally { alive: 1, down: 1, failures: 30 }),
            ]
            .into(),
            log_lines_dropped: 31,
            descriptors: Descriptors { used: 1010, max: Some(65536) },
            ..Snapshot::default()
        }
    }

    #[test]
    fn every_metric_has_its_value() {
        let metrics = Metrics::new();
        metrics.count_api_request("/api/push", 200);
        metrics.count_api_request("/api/push", 200);
        metrics.clone().count_api_request("/api/users/{uid}", 404);
        let text = metrics.encode(snapshot());
        let version = env!("CARGO_PKG_VERSION");
        let build = format!("fdpush_build_info{{version=\"{version}\"}} 1");
        let lines = "fdpush_connections{state=\"open\"} 1000|fdpush_connections{state=\"other\"} 2|\
            fdpush_connections{state=\"api\"} 1|fdpush_uids 7|fdpush_groups 8|fdpush_accepts_total 1200|\
            fdpush_accept_errors_total 33|fdpush_opens_total 1100|fdpush_closes_total{cause=\"client_closed\"} 90|\
            fdpush_closes_total{cause=\"heartbeat_missed\"} 10|fdpush_refusals_total{status=\"403\"} 5|\
            fdpush_refusals_total{status=\"503\"} 6|fdpush_api_refusals_total{status=\"503\"} 4|\
            fdpush_untrusted_proxies_total 35|fdpush_api_evictions_total 34|\
            fdpush_connections_max 5000|fdpush_api_connections_max 256|\
            fdpush_messages_total{direction=\"in\"} 11|\
            fdpush_messages_total{direction=\"out\"} 12|fdpush_bytes_total{direction=\"in\"} 13|\
            fdpush_bytes_total{direction=\"out\"} 18446744073709551615|fdpush_queue_bytes 15|fdpush_inbound_bytes 14|\
            fdpush_drops_total{policy=\"drop_newest\"} 16|fdpush_drops_total{policy=\"conflate\"} 17|\
            fdpush_heartbeats_missed_total 18|fdpush_turn_duration_seconds_sum 2.5|\
            fdpush_turn_duration_seconds_count 4|fdpush_turn_duration_seconds_bucket{le=\"0.001\"} 1|\
            fdpush_turn_duration_seconds_bucket{le=\"0.002\"} 3|fdpush_turn_duration_seconds_bucket{le=\"+Inf\"} 4|\
            fdpush_push_to_write_seconds_count 0|fdpush_push_to_write_seconds_bucket{le=\"+Inf\"} 0|\
            fdpush_timers 19|fdpush_webhook_queue 20|fdpush_webhook_sent_total 21|fdpush_webhook_failures_total 22|\
            fdpush_webhook_given_up_total{reason=\"refused\"} 23|\
            fdpush_webhook_given_up_total{reason=\"too_large\"} 0|fdpush_datagrams_total{outcome=\"done\"} 24|\
            fdpush_datagrams_total{outcome=\"malformed\"} 25|fdpush_datagrams_total{outcome=\"unauthorized\"} 26|\
            fdpush_datagrams_total{outcome=\"overflowed\"} 27|fdpush_datagrams_total{outcome=\"lost\"} 28|\
            fdpush_threads_down 2|fdpush_thread_failures_total{thread=\"fdpush-a\"} 29|\
            fdpush_thread_failures_total{thread=\"fdpush-b\"} 30|fdpush_log_lines_dropped_total 31|\
            fdpush_descriptors_used 1010|fdpush_descriptors_max 65536|\
            fdpush_api_requests_total{path=\"/api/push\",status=\"200\"} 2|\
            fdpush_api_requests_total{path=\"/api/users/{uid}\",status=\"404\"} 1|\
            fdpush_auth_requests_total{outcome=\"accepted\"} 0|fdpush_auth_requests_total{outcome=\"timed_out\"} 1|\
            fdpush_auth_waiting 29|fdpush_tls_handshakes_total{outcome=\"abandoned\"} 0|\
            fdpush_tls_certificate_expiry_seconds{file=\"/c \\\"1\\\".pem\",name=\"*.chat.example\"} 1769817600";
        for line in lines.split('|').chain([build.as_str()]) {
            assert!(text.lines().any(|has| has == line), "expected the line {line} in\n{text}");
        }
    }

    #[test]
    fn the_text_is_openmetrics() {
        let text = Metrics::new().encode(snapshot());
        assert!(text.ends_with("\n# EOF\n"));
        assert!(text.contains("# UNIT fdpush_turn_duration_seconds seconds\n"));
        assert!(text.contains("# UNIT fdpush_tls_certificate_expiry_seconds seconds\n"));
        let mut families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let count = families.len();
        families.dedup_by_key(|family| family.split(' ').next());
        assert_eq!(families.len(), count, "each metric family must occur once");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let family = families.iter().map(|family| family.split(' ').next().unwrap_or_default());
            assert!(line.starts_with("fdpush_") && family.into_iter().any(|name| line.starts_with(name)), "{line}");
        }
    }

    #[test]
    fn without_a_descriptor_limit_the_metric_of_the_limit_is_missing() {
        let text = Metrics::new().encode(Snapshot::default());
        assert!(!text.contains("fdpush_descriptors_max"), "{text}");
        assert!(text.contains("\nfdpush_descriptors_used 0\n"), "{text}");
    }

    #[test]
    fn descriptors_are_counted() {
        let files: Vec<fs::File> =
            (0..50).map(|_| fs::File::open("/dev/null").expect("the file can be opened")).collect();
        let descriptors = Descriptors::now(0);
        assert!(descriptors.used >= files.len() as u64, "{descriptors:?}");
        assert!(descriptors.max.is_none_or(|max| max >= descriptors.used), "{descriptors:?}");
        // On Linux before 6.2, `now` calls `count`.
        assert!((files.len() as u64..COUNTED_MAX as u64).contains(&Descriptors::count(0)));
        assert_eq!(Descriptors::count(COUNTED_MAX + 1), COUNTED_MAX as u64 + 1);
    }
}
