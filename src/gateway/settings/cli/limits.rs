//! Converts the settings of `serve` to the limits of the crate.

use std::time::Duration;

use fdpush::Limits;

use super::{Auth, Serve, Switch};

impl Serve {
    /// Returns the minimum timeout of an upgrade that waits for the connect hook: one second more than the timeout of
    /// the connect hook. So the connect hook times out before the upgrade times out.
    fn decision_time_max(&self) -> Duration {
        match self.auth() {
            Auth::Webhook => self.clients.auth_timeout.0 + Duration::from_secs(1),
            Auth::Trust | Auth::Jwt => Duration::ZERO,
        }
    }

    pub fn limits(&self) -> Limits {
        let bounds = &self.bounds;
        Limits {
            connections_max: bounds.connections_max,
            control_connections_max: self.api.api_connections_max,
            accepts_per_second_max: self.clients.accept_rate,
            handshakes_per_second_max: self.tls.tls_handshake_rate,
            address_ipv6_prefix: self.clients.address_ipv6_prefix,
            head_bytes_max: bounds.head_bytes_max.0,
            headers_max: bounds.headers_max as usize,
            head_time_max: bounds.head_time_max.0,
            body_bytes_max: bounds.body_bytes_max.0,
            body_time_max: bounds.body_time_max.0,
            answer_time_max: bounds.answer_time_max.0.max(self.decision_time_max()),
            keep_alive_max: bounds.keep_alive_max.0,
            message_bytes_max: bounds.message_bytes_max.0,
            message_time_max: bounds.message_time_max.0,
            inbound_total_bytes_max: bounds.inbound_total_bytes_max.0,
            close_wait_max: bounds.close_wait_max.0,
            queue_bytes_max: bounds.queue_bytes_max.0,
            queue_total_bytes_max: bounds.queue_total_bytes_max.0,
            queue_bytes_min: bounds.queue_bytes_min.0,
            write_time_max: bounds.write_time_max.0,
            slow_reader: bounds.slow_reader.into(),
            read_budget_bytes: bounds.read_budget_bytes.0,
            // `Roster` also checks `uid_connections_max`, so that the error text for a refused client contains the
            // limit.
            uid_connections_max: self.uid_connections_max(),
            connection_groups_max: bounds.connection_groups_max as usize,
            memberships_max: bounds.memberships_max as usize,
            inbox_max: bounds.inbox_max as usize,
            forward_bytes_max: bounds.forward_bytes_max.0,
            drain_for: bounds.drain_for.0,
            drain_time_max: bounds.drain_time_max.0,
            compression: self.compression.compression == Switch::On,
            compress_bytes_min: self.compression.compress_bytes_min.0,
            inflated_bytes_per_second_max: self.compression.inflated_bytes_per_second_max.0,
        }
    }
}
