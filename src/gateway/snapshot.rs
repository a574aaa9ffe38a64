//! The loop's numbers, as the metrics want them.

use std::collections::BTreeMap;

use fdpush::{Histogram, Stats};

use super::auth::hook;
use super::ingress;
use super::metrics::{Descriptors, Durations, Snapshot};
use super::webhook;

/// The state of the server at the time of a scrape.
pub fn of(stats: &Stats, datagrams: ingress::Counts, webhook: webhook::Stats, hook: hook::Stats) -> Snapshot {
    Snapshot {
        connections: BTreeMap::from([("open", stats.open), ("other", stats.connections - stats.open)]),
        uids: stats.users,
        groups: stats.groups,
        accepts: stats.accepted,
        opens: stats.opened,
        closes: stats.closed_by_cause.clone(),
        refusals: stats.refused_by_status.clone(),
        messages_in: stats.traffic.messages_in,
        messages_out: stats.traffic.messages_out,
        bytes_in: stats.traffic.bytes_in,
        bytes_out: stats.traffic.bytes_out,
        queue_bytes: stats.queued_bytes,
        drops: BTreeMap::from([
            ("drop_newest", stats.dropped),
            ("conflate", stats.conflated),
            ("too_large", stats.too_large),
        ]),
        heartbeats_missed: stats.missed_heartbeats,
        turns: durations(&stats.turn_time),
        pushes: durations(&stats.write_delay),
        timers: stats.timers,
        webhook_queue: webhook.queued,
        webhook_sent: webhook.sent,
        webhook_failures: webhook.failures,
        webhook_given_up: webhook.given_up,
        auth: BTreeMap::from([
            ("accepted", hook.accepted),
            ("refused", hook.refused),
            ("failed", hook.failed),
            ("timed_out", hook.timed_out),
        ]),
        datagrams,
        descriptors: Descriptors::now(),
    }
}

fn durations(histogram: &Histogram) -> Durations {
    Durations { sum: histogram.sum(), count: histogram.count(), buckets: histogram.buckets().collect() }
}
