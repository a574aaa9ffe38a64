//! The API while clients take all descriptors, or all of its connections: probes and back ends are answered all the same.
#![cfg(feature = "gateway")]

mod common;

use std::io::Write;
use std::net::TcpStream;

use common::Raw;
use common::gateway::{Gateway, request, until};
use common::raw::UPGRADE;

/// The status that a probe gets at this path.
fn probe(gateway: &Gateway, path: &str) -> u16 {
    gateway.call("GET", path, &[], "").status
}

#[test]
fn probes_are_answered_while_clients_have_all_descriptors() {
    // The soft limit of the parent and the hard one are the same in the child: it cannot raise it.
    let gateway = Gateway::start_with_descriptors(64, &["--connections-max", "1000"]);
    let mut clients: Vec<TcpStream> = Vec::new();
    let mut offer = || {
        let mut client = TcpStream::connect(gateway.address).expect("a place in the queue");
        client.write_all(UPGRADE.as_bytes()).expect("bytes sent");
        clients.push(client);
    };
    (0..200).for_each(|_| offer());
    gateway.logged("out of descriptors");
    for _ in 0..20 {
        assert_eq!((probe(&gateway, "/healthz"), probe(&gateway, "/readyz")), (200, 200));
        // More come all the time, and take what the probes give back.
        (0..10).for_each(|_| offer());
    }
    // Back ends are served too, several at a time.
    let mut back_ends: Vec<Raw> = (0..10).map(|_| Raw::connect(gateway.api)).collect();
    for back_end in &mut back_ends {
        back_end.send(request("GET", "/api/stats", &[], ""));
        assert_eq!(back_end.reply().status, 200);
    }
    assert_eq!(probe(&gateway, "/healthz"), 200);
    drop((clients, back_ends));
    until("clients come in again", || common::Client::connect(gateway.address, "/", &[]).is_ok());
}
