//! Load shapes whose connections stay open: echo, fan-out, and point to point.

use std::io;
use std::time::{Duration, Instant};

use fdpush_load::epoll::{Epoll, Readiness};

use crate::peer::Peer;
use crate::{Figures, Options, Shape, run};

/// The connections of a shape: senders first, then receivers.
pub struct Rig {
    epoll: Epoll,
    events: Vec<Readiness>,
    pub peers: Vec<Peer>,
    buffer: Vec<u8>,
}

/// Connects the clients of a shape, checks one operation, and measures the shape.
pub fn measure(options: &Options) -> io::Result<Figures> {
    let mut rig = match options.shape {
        Shape::Fanout => Rig::new(fanout(options)?)?,
        Shape::P2p => Rig::new(p2p(options)?)?,
        _ => Rig::new(echo(options)?)?,
    };
    let (connections, depth) = (options.connections, options.depth);
    let senders = if options.shape == Shape::Fanout { 1 } else { connections };
    for sender in 0..senders {
        rig.peers[sender].send(depth)?;
    }
    let (mut deliveries, mut answers) = (0, depth);
    run(options, || {
        let before = deliveries;
        match options.shape {
            // A publish ends with its last delivery. Then the next publish starts.
            Shape::Fanout => {
                rig.turn(|_, index, count| {
                    // Nchan also answers the publisher. This answer is not a delivery.
                    deliveries += if index > 0 { count } else { 0 };
                    Ok(())
                })?;
                let over = depth + deliveries / connections - answers;
                answers += over;
                rig.peers[0].send(over)?;
                Ok(deliveries - before)
            }
            Shape::P2p => rig.turn(|peers, index, count| peers[index - connections].send(count)),
            _ => rig.turn(|peers, index, count| peers[index].send(count)),
        }
    })
}

/// Measures the times from a burst of publishes until its first and until its last delivery.
pub fn bursts(options: &Options) -> io::Result<()> {
    let mut rig = Rig::new(fanout(options)?)?;
    let (mut first_micros, mut last_micros) = (Vec::new(), Vec::new());
    let figures = run(options, || {
        let (sent, mut deliveries) = (Instant::now(), 0);
        rig.peers[0].send(options.depth)?;
        while deliveries < options.depth * options.connections {
            rig.turn(|_, index, count| {
                if index > 0 && deliveries == 0 {
                    first_micros.push(sent.elapsed().as_micros());
                }
                deliveries += if index > 0 { count } else { 0 };
                Ok(())
            })?;
        }
        last_micros.push(sent.elapsed().as_micros());
        Ok(deliveries)
    })?;
    first_micros.sort_unstable();
    last_micros.sort_unstable();
    let (first, last) = (first_micros[first_micros.len() / 2], last_micros[last_micros.len() / 2]);
    print!("first_us={first} last_us={last} ");
    figures.print();
    Ok(())
}

impl Rig {
    pub fn new(mut peers: Vec<Peer>) -> io::Result<Rig> {
        let epoll = Epoll::new()?;
        for (token, peer) in peers.iter_mut().enumerate() {
            peer.start()?;
            epoll.add(&peer.stream, token)?;
        }
        Ok(Rig { epoll, events: Vec::new(), peers, buffer: vec![0; 256 << 10] })
    }

    /// Waits for events, and calls `on_messages` for each connection that received messages. Returns the number of
    /// messages.
    pub fn turn(&mut self, on_messages: impl FnMut(&mut [Peer], usize, usize) -> io::Result<()>) -> io::Result<usize> {
        self.epoll.wait(&mut self.events, None)?;
        self.take(on_messages)
    }

    /// Works like [`turn`](Rig::turn), without waiting.
    pub fn poll(&mut self, on_messages: impl FnMut(&mut [Peer], usize, usize) -> io::Result<()>) -> io::Result<usize> {
        self.poll_for(Duration::ZERO, on_messages)
    }

    /// Works like [`turn`](Rig::turn), and waits at most `timeout`.
    pub fn poll_for(
        &mut self,
        timeout: Duration,
        on_messages: impl FnMut(&mut [Peer], usize, usize) -> io::Result<()>,
    ) -> io::Result<usize> {
        self.epoll.wait(&mut self.events, Some(timeout))?;
        self.take(on_messages)
    }

    fn take(&mut self, mut on_messages: impl FnMut(&mut [Peer], usize, usize) -> io::Result<()>) -> io::Result<usize> {
        let mut messages = 0;
        for event in &self.events {
            if event.is_writable {
                self.peers[event.token].flush()?;
            }
            if event.is_readable {
                let count = self.peers[event.token].receive(&mut self.buffer)?;
                if count > 0 {
                    messages += count;
                    on_messages(&mut self.peers, event.token, count)?;
                }
            }
        }
        Ok(messages)
    }
}

/// Connects clients whose messages the server echoes, and checks one echo of each client.
pub fn echo(options: &Options) -> io::Result<Vec<Peer>> {
    let payload = vec![b'x'; options.payload];
    let frame = fdpush_load::wire::client_frame(&payload);
    let connect = |_| {
        let mut peer = options.connect(Some("/echo"))?;
        peer.set_request(&frame, options.depth);
        peer.send_blocking()?;
        peer.expect(&payload)?;
        Ok(peer)
    };
    (0..options.connections).map(connect).collect()
}

fn fanout(options: &Options) -> io::Result<Vec<Peer>> {
    let payload = if options.json { json(options.payload) } else { vec![b'x'; options.payload] };
    let mut publisher = options.connect(Some("/pub"))?;
    publisher.set_request(&fdpush_load::wire::client_frame(&payload), options.depth);
    let mut peers = vec![publisher];
    for _ in 0..options.connections {
        peers.push(options.connect_receiver("/sub")?);
    }
    peers[0].send_blocking()?;
    for receiver in &mut peers[1..] {
        if options.deflate { receiver.expect_deflated(&payload)? } else { receiver.expect(&payload)? }
    }
    Ok(peers)
}

/// Returns a JSON message of `bytes` bytes.
fn json(bytes: usize) -> Vec<u8> {
    let mut text = "{\"type\":\"prices\",\"items\":[".to_owned();
    for number in 0_u32.. {
        let price = number.wrapping_mul(2_654_435_761) >> 12;
        let item = format!("{{\"id\":{},\"name\":\"item {number}\",\"price\":{price}}},", 10_000 + 7 * number);
        if text.len() + item.len() + 12 > bytes {
            break;
        }
        text.push_str(&item);
    }
    let end = "\"\"]}";
    let filling = "x".repeat(bytes.saturating_sub(text.len() + end.len()));
    format!("{text}\"{filling}\"]}}").into_bytes()
}

fn p2p(options: &Options) -> io::Result<Vec<Peer>> {
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for pair in 0..options.connections {
        let (from, to) = (2 * pair, 2 * pair + 1);
        let mut sender = options.connect(Some(&format!("/p2p?uid={from}")))?;
        let mut receiver = options.connect(Some(&format!("/p2p?uid={to}")))?;
        let around = format!("{{\"to\":{to},\"data\":\"\"}}");
        let filling = "x".repeat(options.payload.saturating_sub(around.len()));
        let payload = format!("{{\"to\":{to},\"data\":\"{filling}\"}}");
        sender.set_request(&fdpush_load::wire::client_frame(payload.as_bytes()), options.depth);
        sender.send_blocking()?;
        receiver.expect(payload.as_bytes())?;
        senders.push(sender);
        receivers.push(receiver);
    }
    senders.append(&mut receivers);
    Ok(senders)
}
