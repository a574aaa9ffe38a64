//! Events of very many sockets in one turn, a simulation of several loops, and schedules of the threads of loops.

#[cfg(fdpush_interleave)]
mod interleave;
mod simulation;

use std::io::Write;
use std::net::TcpStream;

use super::*;

struct Nothing;

impl Handler for Nothing {}

#[test]
fn no_event_is_lost_in_a_turn_with_the_maximum_number_of_waits() {
    const SILENT: usize = EVENTS_MAX * WAITS_PER_TURN_MAX;
    let listener = Listener::bind_all("127.0.0.1:0").expect("port 0 can be bound").remove(0);
    let Address::Tcp(address) = *listener.address() else { panic!("the listener must have a TCP address") };
    let config = Config {
        limits: Limits::default(),
        heartbeat: Heartbeat::default(),
        origins: Origins::default(),
        second_login: SecondLogin::default(),
        proxies: ProxyFilter::default(),
        catches_signals: false,
    };
    let parts = open(1).expect("an epoll instance can be created");
    let prepared = Prepared::new(config, 1 << 20, vec![listener.into()], parts, Fleet::new(1), Epoch::begin());
    let mut turns = EventLoop::new(prepared.expect("the loop can be created"), Nothing);
    let mut clients: Vec<TcpStream> = (0..SILENT + EVENTS_MAX)
        .map(|_| TcpStream::connect(address).expect("the listener's queue has space"))
        .collect();
    for client in &mut clients[SILENT..] {
        client.write_all(b"G").expect("the kernel accepts the byte");
    }
    let mut events = Events::with_capacity(EVENTS_MAX);
    turns.acceptor.handle_event(0);
    turns.acceptor.accept_pending(&mut turns.core, turns.poll.registry()).expect("the listener can accept");
    assert_eq!(turns.core.table().count(), clients.len());
    // The silent sockets are only writable, and their events come first.
    for _ in 0..3 {
        turns.poll.poll(&mut events, Some(Duration::ZERO)).expect("the wait returns");
        turns.handle_events(&mut events).expect("the events are handled");
    }
    assert_eq!(turns.core.ready_len(), EVENTS_MAX, "each client that sent a byte must be listed to be read");
}
