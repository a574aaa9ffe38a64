//! Tests of datagram receivers. The senders are sockets of the standard library.

use std::net::UdpSocket;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::gateway::runtime::{clock, files};

/// The maximum time that a test waits for an event. The time is long enough for a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A path for a socket file. Dropping a `TemporaryPath` removes the file at the path.
struct TemporaryPath(PathBuf);

impl TemporaryPath {
    fn new() -> TemporaryPath {
        TemporaryPath(files::unused_path())
    }

    fn address(&self) -> String {
        format!("unixgram:{}", self.0.display())
    }
}

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn bind(address: &str) -> DatagramSocket {
    DatagramSocket::bind_all(address).expect("the socket can be bound").pop().expect("one socket is bound")
}

/// Starts a receiver that sends each datagram to the returned channel.
///
/// The content of a datagram determines the status of the datagram.
fn start(socket: DatagramSocket) -> (DatagramReceiver, mpsc::Receiver<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel();
    let handle = move |datagram: &[u8]| {
        // The error of `send` is ignored, because a test that has ended has dropped its end of the channel.
        let _ = sender.send(datagram.to_vec());
        match datagram {
            b"malformed" => DatagramStatus::Malformed,
            b"unauthorized" => DatagramStatus::Unauthorized,
            b"overflowed" => DatagramStatus::Overflowed,
            b"panic" => panic!("panic of the test"),
            _ => DatagramStatus::Done,
        }
    };
    (DatagramReceiver::start(socket, handle).expect("the thread can start"), receiver)
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = clock::now() + TEST_TIMEOUT;
    while !is_so() {
        assert!(clock::now() < end, "{what}");
        thread::yield_now();
    }
}

fn udp_of(address: &DatagramAddress) -> SocketAddr {
    match address {
        DatagramAddress::Udp(address) => *address,
        DatagramAddress::Unixgram(_) => panic!("the address is not UDP"),
    }
}

#[test]
fn udp_datagrams_are_received_and_counted() {
    for (address, client) in [("udp:127.0.0.1:0", "127.0.0.1:0"), ("udp:[::1]:0", "[::1]:0")] {
        let socket = match DatagramSocket::bind_all(address) {
            Ok(mut sockets) => sockets.pop().expect("one socket is bound"),
            Err(error) => {
                // The receiver cannot bind an IPv6 address on a machine without IPv6. Then the client cannot bind an
                // IPv6 address either.
                assert!(address.contains("::1"), "{error}");
                assert!(UdpSocket::bind(client).is_err(), "{error}");
                continue;
            }
        };
        let client = UdpSocket::bind(client).expect("the client can bind a socket");
        client.connect(udp_of(socket.address())).expect("the socket can be connected");
        // A datagram that arrives before the start of the receiver waits in the kernel.
        client.send(b"early").expect("the bytes can be sent");
        let (ingress, received) = start(socket);
        let longest = vec![b'x'; 65_507];
        for datagram in [&b""[..], b"malformed", b"unauthorized", b"overflowed", &longest[..], b"panic", b"last"] {
            client.send(datagram).expect("the bytes can be sent");
        }
        for wanted in
            [&b"early"[..], b"", b"malformed", b"unauthorized", b"overflowed", &longest[..], b"panic", b"last"]
        {
            assert_eq!(received.recv_timeout(TEST_TIMEOUT).as_deref(), Ok(wanted));
        }
        let wanted = DatagramCounts { done: 4, malformed: 2, unauthorized: 1, overflowed: 1, lost: 0 };
        wait_for("all datagrams must be counted", || ingress.counts() == wanted);
    }
}

#[test]
fn a_unix_socket_refuses_datagrams_over_the_length_limit() {
    let path = TemporaryPath::new();
    let socket = bind(&path.address());
    assert_eq!(socket.address().to_string(), path.address());
    let (ingress, received) = start(socket);
    let client = UnixDatagram::unbound().expect("the client can bind a socket");
    let send = |len: usize| client.send_to(&vec![b'x'; len], &path.0).expect("the bytes can be sent");
    for len in [DATAGRAM_BYTES_MAX + 1, DATAGRAM_BYTES_MAX, 2 * DATAGRAM_BYTES_MAX, 1] {
        send(len);
    }
    // The receiver passes only the datagrams within the limit to the closure.
    for len in [DATAGRAM_BYTES_MAX, 1] {
        assert_eq!(received.recv_timeout(TEST_TIMEOUT).map(|datagram| datagram.len()), Ok(len));
    }
    let wanted = DatagramCounts { done: 2, malformed: 2, ..DatagramCounts::default() };
    wait_for("all datagrams must be counted", || ingress.counts() == wanted);
}

#[test]
fn a_dropped_receiver_ends_its_thread_and_removes_its_socket_file() {
    let path = TemporaryPath::new();
    // No other test uses the address 127.0.0.82, so no other test gets the port between the two calls of `bind`.
    for address in ["udp:127.0.0.82:0", &path.address()] {
        let socket = bind(address);
        let again = socket.address().to_string();
        let (ingress, received) = start(socket);
        drop(ingress);
        assert_eq!(received.recv_timeout(TEST_TIMEOUT), Err(mpsc::RecvTimeoutError::Disconnected));
        assert!(!path.0.exists());
        // A new socket can bind the address, because the dropped receiver has closed its socket.
        drop(start(bind(&again)));
    }
}

#[test]
fn datagrams_dropped_by_the_kernel_are_counted() {
    let socket = bind("udp:127.0.0.1:0");
    let address = udp_of(socket.address());
    let (let_go, gate) = mpsc::channel::<()>();
    // The receiver reads one datagram and then waits until the test drops `let_go`.
    let ingress = DatagramReceiver::start(socket, move |_| {
        let _ = gate.recv();
        DatagramStatus::Done
    })
    .expect("the thread can start");
    let client = UdpSocket::bind("127.0.0.1:0").expect("the client can bind a socket");
    let mut sent = 0;
    wait_for("the receive buffer must become full", || {
        client.send_to(&[0; 60_000], address).expect("the bytes can be sent");
        sent += 1;
        ingress.counts().lost > 0
    });
    drop(let_go);
    let all = |counts: DatagramCounts| counts.done + counts.lost;
    wait_for("each datagram must be counted as done or lost", || all(ingress.counts()) == sent);
}

#[test]
fn the_count_of_drops_is_read_from_the_row_with_the_inode_of_the_socket() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n\
        \x20 315: 0100007F:2521 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4711 2 0000000000000000 17          \n\
        16384: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   991        0 23568 2 0000000000000000 0         \n\
        torn";
    assert_eq!(drops_of(4711, table), Some(17));
    assert_eq!(drops_of(23568, table), Some(0));
    assert_eq!(drops_of(17, table), None);
    assert_eq!(drops_of(4711, ""), None);
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_socket_file_in_use_is_not() {
    let path = TemporaryPath::new();
    drop(UnixDatagram::bind(&path.0).expect("the socket can be bound"));
    assert!(path.0.exists(), "the standard library must not remove the socket file");
    let first = bind(&path.address());
    let kind =
        |address: &str| DatagramSocket::bind_all(address).map(|_| ()).expect_err("the address cannot be bound").kind();
    assert_eq!(kind(&path.address()), io::ErrorKind::AddrInUse);
    // Another socket now owns the file at the path, so dropping `first` must not remove that file.
    fs::remove_file(&path.0).expect("the file can be removed");
    let second = UnixDatagram::bind(&path.0).expect("the socket can be bound");
    drop(first);
    assert!(path.0.exists());
    drop(second);

    let (stream, file) = (TemporaryPath::new(), TemporaryPath::new());
    let listener = UnixListener::bind(&stream.0).expect("the socket can be bound");
    assert!(DatagramSocket::bind_all(&stream.address()).is_err(), "a stream socket in use must not be replaced");
    drop(listener);
    fs::write(&file.0, "precious").expect("the file can be written");
    assert_eq!(kind(&file.address()), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&file.0).expect("the file still exists"), b"precious");
}

#[test]
fn a_bind_error_names_the_address() {
    let taken = bind("udp:127.0.0.1:0");
    let long = format!("unixgram:/tmp/{}", "x".repeat(200));
    for address in
        [&taken.address().to_string(), "udp:127.0.0.1", "udp:127.0.0.1:port", "unixgram:/nowhere/x", &long, "tcp:a:1"]
    {
        let error = DatagramSocket::bind_all(address).expect_err("the address cannot be bound");
        assert!(error.to_string().starts_with(&format!("cannot receive on {address}: ")), "{error}");
    }
}

#[test]
fn the_sum_of_datagram_counts_has_the_sum_of_each_status() {
    let one = DatagramCounts { done: 1, malformed: 2, unauthorized: 3, overflowed: 4, lost: 5 };
    let two = DatagramCounts { done: 2, malformed: 4, unauthorized: 6, overflowed: 8, lost: 10 };
    assert_eq!([one, one].into_iter().sum::<DatagramCounts>(), two);
}
