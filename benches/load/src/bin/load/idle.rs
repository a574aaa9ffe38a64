//! Measures the memory of an idle connection.

use std::io;

use fdpush_load::process;
use fdpush_load::wire::client_frame;

use crate::Options;
use crate::peer::Peer;
use crate::shapes::Rig;

/// The number of messages that each connection sends and receives before the second memory measurement.
const MESSAGES: usize = 100;
/// The maximum number of messages that a connection has sent and that are not answered yet.
const DEPTH: usize = 10;

/// The number of connections that open and close before the memory of the server without connections is measured.
///
/// These connections load the server's code into memory and make its shared buffers grow.
const WARM_UP_CONNECTIONS: usize = 64;
const WARM_UP_MESSAGES: usize = 60;
const WARM_UP_MESSAGE_BYTES: usize = 1000;

pub fn measure(options: &Options) -> io::Result<()> {
    let payload = vec![b'x'; options.payload];
    let request = client_frame(&payload);
    let connect = |number: usize| {
        let path = if options.bound { format!("/echo?uid={number:08}") } else { "/echo".to_owned() };
        let mut peer = options.connect_receiver(&path)?;
        peer.set_request(&request, DEPTH);
        Ok(peer)
    };
    let mut first: Vec<Peer> = (0..WARM_UP_CONNECTIONS).map(connect).collect::<io::Result<_>>()?;
    for peer in &mut first {
        peer.send_blocking()?;
        peer.expect(&payload)?;
    }
    if let Some(peer) = first.first_mut() {
        fill_buffers(peer)?;
    }
    drop(first);
    // The server accepts this connection after it has processed the ends of the earlier connections. So the next
    // measurement of its memory includes no connection.
    drop(connect(0)?);

    let empty = Memory::of(options)?;
    let peers: Vec<Peer> = (0..options.connections).map(connect).collect::<io::Result<_>>()?;
    let idle = Memory::of(options)?;
    let mut rig = Rig::new(peers)?;
    for _ in 0..MESSAGES / DEPTH {
        for peer in &mut rig.peers {
            peer.send(DEPTH)?;
        }
        let mut answered = 0;
        while answered < rig.peers.len() * DEPTH {
            answered += rig.turn(|_, _, _| Ok(()))?;
        }
    }
    let used = Memory::of(options)?;
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / options.connections as f64;
    println!(
        "idle_bytes={:.1} used_bytes={:.1} idle_anonymous={:.1} used_anonymous={:.1} empty_kib={}",
        each(idle.resident, empty.resident),
        each(used.resident, empty.resident),
        each(idle.anonymous, empty.anonymous),
        each(used.anonymous, empty.anonymous),
        empty.resident / 1024,
    );
    Ok(())
}

/// Sends bursts of messages and reads their echoes, so that the server's buffers grow.
fn fill_buffers(peer: &mut Peer) -> io::Result<()> {
    let payload = vec![b'x'; WARM_UP_MESSAGE_BYTES];
    peer.set_request(&client_frame(&payload), WARM_UP_MESSAGES);
    for _ in 0..MESSAGES / DEPTH {
        peer.send(WARM_UP_MESSAGES)?;
        for _ in 0..WARM_UP_MESSAGES {
            // The echo may be deflated.
            peer.expect_any()?;
        }
    }
    Ok(())
}

struct Memory {
    resident: u64,
    anonymous: u64,
}

impl Memory {
    fn of(options: &Options) -> io::Result<Memory> {
        Ok(Memory {
            resident: process::resident_bytes(options.pid)?,
            anonymous: process::anonymous_bytes(options.pid)?,
        })
    }
}
