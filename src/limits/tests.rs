//! Checks of limits.

use super::*;

#[test]
fn the_defaults_are_valid() {
    assert_eq!(Limits::default().check(), Ok(()));
    assert_eq!(Heartbeat::default().check(), Ok(()));
}

#[test]
fn the_default_of_connections_max_follows_from_the_descriptor_limit() {
    let limits = Limits { control_connections_max: 100, ..Limits::default() };
    for (descriptors, has_control, most) in [
        (Some(1024), false, 1024 - 64),
        (Some(1024), true, 1024 - 64 - 100),
        (Some(64), true, 1),
        (Some(0), false, 1),
        (Some(u64::MAX), true, Fd::CONNECTIONS_MAX),
        (None, true, Fd::CONNECTIONS_MAX),
    ] {
        assert_eq!(limits.derived_connections_max(descriptors, has_control), most, "{descriptors:?}");
    }
}

#[test]
fn each_fault_names_its_limit() {
    let limits = Limits { queue_bytes_max: 0, ..Limits::default() };
    assert!(limits.check().is_err_and(|why| why.name() == "queue_bytes_max"));
    let limits = Limits { message_bytes_max: 1000, queue_bytes_max: 1009, ..Limits::default() };
    assert!(limits.check().is_err_and(|why| why.to_string().contains("at least 1010")));
    assert_eq!(Limits { queue_bytes_max: 1010, ..limits }.check(), Ok(()));
    let limits = Limits { message_bytes_max: 1 << 20, inbound_total_bytes_max: (1 << 21) - 1, ..Limits::default() };
    assert!(limits.check().is_err_and(|why| why.name() == "inbound_total_bytes_max"));
    let limits = Limits { head_time_max: Duration::ZERO, ..Limits::default() };
    assert!(limits.check().is_err_and(|why| why.name() == "head_time_max"));
    for control_connections_max in [0, 65_537] {
        let limits = Limits { control_connections_max, ..Limits::default() };
        assert!(limits.check().is_err_and(|why| why.name() == "control_connections_max"));
    }
    let limits = Limits { connections_max: Some(u32::MAX), ..Limits::default() };
    assert!(limits.check().is_err_and(|why| why.name() == "connections_max"));
    for address_ipv6_prefix in [0, 129] {
        let limits = Limits { address_ipv6_prefix, ..Limits::default() };
        assert!(limits.check().is_err_and(|why| why.name() == "address_ipv6_prefix"));
    }
    let heartbeat = Heartbeat::Ping { every: Duration::from_secs(1), missed_max: 0 };
    assert!(heartbeat.check().is_err_and(|why| why.name() == "missed_max"));
}

#[test]
fn an_ipv6_client_counts_as_its_network_and_an_ipv4_client_as_its_address() {
    let table = [
        (64, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        (64, "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
        (64, "2001:db8:1:3::1", "2001:db8:1:3::"),
        (56, "2001:db8:1:2ff::1", "2001:db8:1:200::"),
        (48, "2001:db8:1:2::1", "2001:db8:1::"),
        (63, "2001:db8:1:3::1", "2001:db8:1:2::"),
        (1, "ffff::1", "8000::"),
        (128, "2001:db8::1", "2001:db8::1"),
        (127, "2001:db8::1", "2001:db8::"),
        (64, "::1", "::"),
        (64, "203.0.113.9", "203.0.113.9"),
        (1, "203.0.113.9", "203.0.113.9"),
        (64, "::ffff:203.0.113.9", "203.0.113.9"),
        (64, "::ffff:203.0.113.10", "203.0.113.10"),
        (64, "64:ff9b::203.0.113.9", "203.0.113.9"),
        (64, "64:ff9b::1:203.0.113.9", "64:ff9b::"),
    ];
    for (address_ipv6_prefix, ip, counted) in table {
        let limits = Limits { address_ipv6_prefix, ..Limits::default() };
        let found = limits.counted_address(ip.parse().expect("the address is valid"));
        assert_eq!(found.to_string(), counted, "{ip} must count as {counted} with the prefix /{address_ipv6_prefix}");
    }
    let limits = Limits { address_ipv6_prefix: 0, ..Limits::default() };
    assert_eq!(limits.counted_address("2001:db8::1".parse().expect("the address is valid")).to_string(), "::");
}
