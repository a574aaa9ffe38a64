//! Converts the statistics of the server into a metrics snapshot.

use std::collections::BTreeMap;

use fdpush::{Cause, Histogram, Stats};

use super::logging;
use super::loop_numbers::LoopNumbers;
use super::metrics::{Descriptors, Durations, Snapshot};
use crate::gateway::hooks::webhook;
use crate::gateway::identity::connect_hook;
use crate::gateway::push::datagrams;
use crate::gateway::runtime::threads;
use crate::gateway::tls::files::{ClientAuthorities, Pair, TlsFiles};

/// The HTTP statuses with which the server itself refuses client requests. A connect hook can refuse a client with any
/// other status.
const REFUSALS: [u16; 16] = [400, 401, 403, 404, 405, 408, 409, 413, 417, 426, 429, 431, 500, 501, 503, 505];

/// The HTTP statuses with which the server refuses API requests before the API checks the path of the request.
const API_REFUSALS: [u16; 9] = [400, 405, 408, 413, 417, 431, 500, 503, 505];

/// Returns a metrics snapshot of the given statistics. `loops` has the statistics of each loop if there are several
/// loops, and is empty otherwise.
pub fn of(
    stats: &Stats,
    loops: &[Stats],
    tls: &TlsFiles,
    datagrams: datagrams::DatagramCounts,
    webhook: webhook::WebhookStats,
    hook: connect_hook::HookStats,
) -> Snapshot {
    Snapshot {
        connections: BTreeMap::from([
            ("open", stats.open),
            ("other", stats.connections - stats.open - stats.control),
            ("api", stats.control),
        ]),
        connections_max: stats.connections_max,
        api_connections_max: stats.control_connections_max,
        uids: stats.users,
        groups: stats.groups,
        accepts: stats.accepted,
        accept_errors: stats.accept_errors,
        opens: stats.opened,
        closes: from_zero(Cause::NAMES, &stats.closed_by_cause),
        refusals: from_zero(REFUSALS, &stats.refused_by_status),
        untrusted_proxies: stats.untrusted_proxies,
        api_evictions: stats.control_evicted,
        api_refusals: from_zero(API_REFUSALS, &stats.control_refused_by_status),
        messages_in: stats.traffic.messages_in,
        messages_out: stats.traffic.messages_out,
        bytes_in: stats.traffic.bytes_in,
        bytes_out: stats.traffic.bytes_out,
        compression: stats.compression,
        tls: stats.tls,
        certificates: certificate_ends(tls),
        queue_bytes: stats.queued_bytes,
        inbound_bytes: stats.inbound_bytes,
        drops: BTreeMap::from([
            ("close", stats.dropped_by_close),
            ("drop_newest", stats.dropped - stats.dropped_by_close),
            ("conflate", stats.conflated),
            ("too_large", stats.too_large),
        ]),
        heartbeats_missed: stats.missed_heartbeats,
        loops: loops.iter().map(loop_numbers).collect(),
        turns: durations(&stats.turn_time),
        pushes: durations(&stats.write_delay),
        timers: stats.timers,
        webhook_queue: webhook.queued,
        webhook_sent: webhook.sent,
        webhook_failures: webhook.failures,
        webhook_given_up: given_up(webhook.given_up),
        auth_waiting: hook.waiting,
        auth: BTreeMap::from([
            ("accepted", hook.accepted),
            ("refused", hook.refused),
            ("failed", hook.failed),
            ("timed_out", hook.timed_out),
            ("overflowed", hook.overflowed),
            ("gone", hook.gone),
        ]),
        datagrams,
        threads: threads::tallies(),
        log_lines_dropped: logging::dropped(),
        descriptors: Descriptors::now(stats.connections),
    }
}

fn loop_numbers(stats: &Stats) -> LoopNumbers {
    LoopNumbers {
        connections: stats.connections,
        open: stats.open,
        opens: stats.opened,
        messages_in: stats.traffic.messages_in,
        messages_out: stats.traffic.messages_out,
        bytes_in: stats.traffic.bytes_in,
        bytes_out: stats.traffic.bytes_out,
        queue_bytes: stats.queued_bytes,
        drops: stats.dropped + stats.conflated,
        forwards: stats.forwarded,
        turns: stats.turn_time.count(),
        turn_time: stats.turn_time.sum(),
    }
}

/// Returns the numbers of dropped webhook events, by reason.
fn given_up(given_up: webhook::GivenUp) -> BTreeMap<&'static str, u64> {
    let webhook::GivenUp { refused, timed_out, queue_full, out_of_memory, shutdown, too_large } = given_up;
    BTreeMap::from([
        ("refused", refused),
        ("timed_out", timed_out),
        ("queue_full", queue_full),
        ("out_of_memory", out_of_memory),
        ("shutdown", shutdown),
        ("too_large", too_large),
    ])
}

/// Returns the time when the certificates of each file expire, in seconds since 1970, by file and certificate name.
fn certificate_ends(tls: &TlsFiles) -> BTreeMap<(String, String), u64> {
    let end_of_chain = |pair: &Pair| {
        let name = pair.chain.server().names.first().cloned().unwrap_or_default();
        ((pair.chain.file().display().to_string(), name), pair.chain.expires_at())
    };
    let end_of_authorities = |authorities: &ClientAuthorities| {
        let first = authorities.certificates().iter().min_by_key(|authority| authority.not_after)?;
        Some(((authorities.file().display().to_string(), first.to_string()), first.not_after))
    };
    tls.pairs.iter().map(end_of_chain).chain(tls.client_authorities.iter().filter_map(end_of_authorities)).collect()
}

/// Adds a count of 0 for each missing key.
///
/// Without a count of 0, a time series would begin with the count after the first event. The Prometheus function `rate`
/// uses only increases between two values, so `rate` would not include the first event.
fn from_zero<K: Copy + Ord, const N: usize>(all: [K; N], counts: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let zeros = all.map(|key| (key, 0));
    zeros.into_iter().chain(counts.iter().map(|(key, count)| (*key, *count))).collect()
}

fn durations(histogram: &Histogram) -> Durations {
    Durations { sum: histogram.sum(), count: histogram.count(), buckets: histogram.buckets().collect() }
}
