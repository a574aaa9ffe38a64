//! Tests listeners on TCP, IPv6 and unix sockets, the connection limit, and the reuse of slots.

use std::error::Error as _;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use crate::common::{Client, Raw, Scratch, channel, echo, limits_with_long_times, serve, serve_made, serve_on};
use fdpush::{Address, Error, Limits, Peer, Server};

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

#[test]
fn port_0_binds_a_free_port_and_reports_it() {
    let server = serve(|server| server);
    assert_ne!(server.address().port(), 0);
    let _client = server.connect("/");
    let peer =
        server.ask(|ctx| ctx.connections().next().and_then(|fd| ctx.info(fd))).expect("the connection is open").peer;
    assert!(matches!(peer, Peer::V4 { ip: [127, 0, 0, 1], port: 1.. }), "{peer:?}");
}

#[test]
fn the_error_for_an_invalid_or_used_address_names_it() {
    let server = serve(|server| server);
    let taken = server.address().to_string();
    let error = Server::bind(&taken).expect_err("the address is in use");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(matches!(&error, Error::Listen { address, .. } if *address == taken), "{error:?}");
    assert_eq!(error.to_string(), format!("cannot listen on {taken}"));
    assert_eq!(
        error.source().expect("the error has the error of the system as its source").to_string(),
        "Address already in use (os error 98)"
    );
    let error = std::io::Error::from(error);
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert_eq!(error.to_string(), format!("cannot listen on {taken}: Address already in use (os error 98)"));
    for address in ["", "nonsense", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:65536", "unix:/nonexistent/dir/sock"] {
        let error = Server::bind(address).expect_err("the address is invalid");
        assert!(error.to_string().contains(address), "{address}: {error}");
    }
}

#[test]
fn the_error_for_an_invalid_limit_names_it() {
    for (limits, name) in [
        (Limits { queue_bytes_max: 0, ..limits_with_long_times() }, "queue_bytes_max"),
        (Limits { queue_bytes_max: 1 << 20, ..limits_with_long_times() }, "queue_bytes_max"),
        (Limits { connections_max: Some(0), ..limits_with_long_times() }, "connections_max"),
        (Limits { head_time_max: std::time::Duration::ZERO, ..limits_with_long_times() }, "head_time_max"),
    ] {
        let server = Server::bind("127.0.0.1:0").expect("the server can bind the address").catch_signals(false);
        let error = server.limits(limits).run().expect_err("a server with an invalid limit does not run");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(matches!(&error, Error::Limit(fault) if fault.name() == name), "{error:?}");
    }
}

#[test]
fn an_ipv6_client_is_served() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("note: this machine has no IPv6, so this test checks nothing");
        return;
    }
    let server = serve_on("[::1]:0", |server| server.on_message(echo));
    assert!(server.address().is_ipv6());
    let mut client = server.connect("/?uid=ann");
    client.send("over IPv6");
    assert_eq!(client.text(), "over IPv6");
    let fd = client.fd();
    let peer = server.ask(move |ctx| ctx.info(fd)).expect("the connection is open").peer;
    assert!(matches!(peer, Peer::V6 { .. }) && peer.is_loopback(), "{peer:?}");
}

#[test]
fn a_client_of_a_unix_socket_is_served() {
    let scratch = Scratch::new("served");
    let path = scratch.file("sock");
    let server = serve_on(&unix(&path), |server| {
        assert_eq!(server.local_addr(), None);
        server.on_message(echo)
    });
    let mut client = Client::connect_unix(&path, "/?uid=ann").expect("the server accepts the WebSocket");
    client.send("over a file");
    assert_eq!(client.text(), "over a file");
    let fd = client.fd();
    assert_eq!(server.ask(move |ctx| ctx.info(fd)).expect("the connection is open").peer, Peer::Unix);
    assert_eq!(server.ask(|ctx| ctx.push_uid("ann", "pushed").queued), 1);
    assert_eq!(client.text(), "pushed");
    client.close(1000, "");
    assert_eq!(client.closed().0, 1000);
}

#[test]
fn a_socket_file_is_removed_when_the_server_ends() {
    let scratch = Scratch::new("removed");
    let path = scratch.file("sock");
    let server = serve_on(&unix(&path), |server| server);
    assert!(path.exists());
    assert!(server.stop().is_ok());
    assert!(!path.exists());

    // A server that never ran also removes its socket file.
    drop(Server::bind(unix(&path)).expect("the socket can be created"));
    assert!(!path.exists());
}

#[test]
fn a_replaced_socket_file_is_not_removed() {
    let scratch = Scratch::new("replaced");
    let path = scratch.file("sock");
    let server = serve_on(&unix(&path), |server| server);
    fs::remove_file(&path).expect("the file exists");
    let _theirs = UnixListener::bind(&path).expect("the socket can be created");
    assert!(server.stop().is_ok());
    assert!(path.exists());
}

#[test]
fn a_stale_socket_file_is_replaced() {
    let scratch = Scratch::new("stale");
    let path = scratch.file("sock");
    drop(UnixListener::bind(&path).expect("the socket can be created"));
    assert!(path.exists(), "the socket file must still exist after its listener is closed");
    let server = serve_on(&unix(&path), |server| server.on_message(echo));
    let mut client = Client::connect_unix(&path, "/").expect("the server accepts the WebSocket");
    client.send("hello");
    assert_eq!(client.text(), "hello");
    drop(client);
    assert!(server.stop().is_ok());
}

#[test]
fn a_socket_file_on_which_a_server_listens_is_refused() {
    let scratch = Scratch::new("live");
    let path = scratch.file("sock");
    let _server = serve_on(&unix(&path), |server| server);
    let error = Server::bind(unix(&path)).expect_err("the address is in use");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&unix(&path)), "{error}");
    let _client = Client::connect_unix(&path, "/").expect("the first server still accepts connections");
}

#[test]
fn a_file_that_is_not_a_socket_is_refused_and_kept() {
    let scratch = Scratch::new("file");
    let path = scratch.file("letter");
    fs::write(&path, "dear reader").expect("the file can be written");
    let error = Server::bind(unix(&path)).expect_err("the file is not a socket");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&path).expect("the file can be read"), "dear reader");
}

#[test]
fn several_addresses_share_one_server() {
    let scratch = Scratch::new("several");
    let path = scratch.file("sock");
    let third = unix(&path);
    let (tx, rx) = channel();
    let server = serve(move |server| {
        let server = server
            .listen("127.0.0.1:0")
            .and_then(|server| server.listen(third))
            .expect("the server can listen on more addresses");
        tx.send(server.addresses().cloned().collect::<Vec<_>>()).expect("the test waits");
        server.on_message(|ctx, _, message| {
            ctx.broadcast(message);
        })
    });
    let addresses = rx.next();
    let [Address::Tcp(one), Address::Tcp(two), Address::Unix(file)] = addresses.as_slice() else {
        panic!("{addresses:?}")
    };
    assert_eq!((*one, file), (server.address(), &path));
    assert_ne!(one, two);
    let mut clients = [
        Client::connect(*one, "/", &[]).expect("the server accepts the WebSocket"),
        Client::connect(*two, "/", &[]).expect("the server accepts the WebSocket"),
        Client::connect_unix(&path, "/").expect("the server accepts the WebSocket"),
    ];
    clients[2].send("to all");
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.fd().as_u64(), index as u64 + 1);
        assert_eq!(client.text(), "to all");
    }
}

#[test]
fn a_socket_that_already_listens_is_served_and_its_file_is_kept() {
    let scratch = Scratch::new("inherited");
    let path = scratch.file("sock");
    // Both sockets are in blocking mode, as sockets of systemd can be. The server must not block on these sockets.
    let tcp = TcpListener::bind("127.0.0.1:0").expect("the port can be bound");
    let file = UnixListener::bind(&path).expect("the socket can be created");
    let expected = tcp.local_addr().expect("the socket has an address");
    let server = serve_made(move || Server::from_listener(tcp)?.listen_on(file), |server| server.on_message(echo));
    assert_eq!(server.addresses, [Address::Tcp(expected), Address::Unix(path.clone())]);
    for mut client in [
        Client::connect(expected, "/", &[]).expect("the server accepts the WebSocket"),
        Client::connect_unix(&path, "/").expect("the server accepts the WebSocket"),
    ] {
        client.send("hello");
        assert_eq!(client.text(), "hello");
    }
    assert!(server.stop().is_ok());
    assert!(path.exists(), "the server must not remove a socket file that it did not create");
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the port can be bound");
    let stream =
        TcpStream::connect(listener.local_addr().expect("the socket has an address")).expect("the server listens");
    let (one, _other) = UnixStream::pair().expect("the sockets can be created");
    for socket in [OwnedFd::from(stream), OwnedFd::from(one)] {
        let error = Server::from_listener(socket).expect_err("the server refuses a socket that does not listen");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("does not listen"), "{error}");
    }
}

#[test]
fn a_full_server_answers_503_and_accepts_again_after_a_close() {
    let limits = Limits { connections_max: Some(2), ..limits_with_long_times() };
    let server = serve(|server| server.limits(limits));
    let one = server.connect("/");
    let mut other = server.connect("/");
    for refused in 1..=3 {
        let mut third = server.raw();
        let reply = third.reply();
        assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
        assert_eq!(reply.body, "connection limit reached\n");
        third.end();
        let stats = server.ask(|ctx| ctx.stats());
        assert_eq!((stats.connections, stats.connections_max, stats.refused), (2, 2, refused));
    }
    server.ask(|ctx| ctx.broadcast("you are still here"));
    assert_eq!(other.text(), "you are still here");
    drop(one);
    server.wait_until("one of two connections has ended", |ctx| ctx.stats().connections == 1);
    let mut next = server.connect("/");
    server.ask(|ctx| ctx.broadcast("welcome"));
    assert_eq!(next.text(), "welcome");
}

#[test]
fn three_hundred_simultaneous_connects_are_served() {
    const THREADS: usize = 6;
    const EACH: usize = 50;
    let server = serve(|server| server.on_message(echo));
    let address = server.address();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            thread::spawn(move || {
                // All clients of this thread connect before any of them sends.
                let mut raws: Vec<Raw> = (0..EACH).map(|_| Raw::connect(address)).collect();
                for raw in &mut raws {
                    raw.send(crate::common::raw::UPGRADE);
                }
                for (index, raw) in raws.iter_mut().enumerate() {
                    assert_eq!(raw.reply().status, 101);
                    let text = format!("{thread}/{index}").into_bytes();
                    raw.send_frame(crate::common::raw::TEXT, &text);
                    assert_eq!(raw.frame(), (0x81, text));
                }
                raws
            })
        })
        .collect();
    let mut raws: Vec<Raw> =
        threads.into_iter().flat_map(|thread| thread.join().expect("the client thread ends without a panic")).collect();
    let delivery = server.ask(|ctx| ctx.broadcast("calm"));
    assert_eq!((delivery.matched, delivery.queued), (THREADS * EACH, THREADS * EACH));
    for raw in &mut raws {
        assert_eq!(raw.frame(), (0x81, b"calm".to_vec()));
    }
    let stats = server.ask(|ctx| ctx.stats());
    assert_eq!((stats.accepted, stats.opened, stats.refused), (300, 300, 0));
}

#[test]
fn two_thousand_connections_release_all_their_state() {
    const THREADS: usize = 4;
    const EACH: usize = 500;
    let server = serve(|server| server.on_message(echo));
    let address = server.address();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            thread::spawn(move || {
                for index in 0..EACH {
                    let target = format!("/?uid={thread}&group=all&group={thread}-{index}");
                    let mut client = Client::connect(address, &target, &[]).expect("the server accepts the WebSocket");
                    client.send("hello");
                    assert_eq!(client.text(), "hello");
                    if index % 2 == 0 {
                        client.close(1000, "");
                        assert_eq!(client.closed().0, 1000);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the client thread ends without a panic");
    }
    server.wait_until("all connections have ended", |ctx| ctx.stats().connections == 0);
    let stats = server.ask(|ctx| ctx.stats());
    let total = (THREADS * EACH) as u64;
    assert_eq!((stats.accepted, stats.opened, stats.closed), (total, total, total));
    assert_eq!((stats.open, stats.users, stats.groups, stats.queued_bytes), (0, 0, 0, 0));
    assert_eq!((stats.traffic.messages_in, stats.traffic.messages_out), (total, total));
    let fd = server.connect("/").fd();
    assert!(fd.slot().0 < 64, "slots must be reused, so the slot number must stay small: {fd:?}");
    assert!(fd.generation() > 0);
}
