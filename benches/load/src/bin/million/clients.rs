//! WebSocket clients in one thread on one epoll instance, with 16 bytes of memory each.
//!
//! No connection has its own buffer. All connections are read into one shared buffer. Only the bytes of an incomplete
//! frame are stored until its end arrives. Each client checks that it receives each broadcast exactly once, and in
//! order.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use fdpush_load::epoll::{Epoll, Readiness};
use fdpush_load::wire;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::failure;

/// The number of connections to one address of the server. The kernel's search for a free port takes longer if more
/// ports are in use.
const CLIENTS_PER_ADDRESS: usize = 5_000;

/// The maximum number of unanswered upgrades. This number is less than a listener's backlog.
const UPGRADES_IN_FLIGHT: usize = 256;

/// The length of the read buffer.
const BUFFER_BYTES: usize = 256 << 10;

/// The first byte of the text of a broadcast. The number of the broadcast follows this byte.
pub const BROADCAST: u8 = b'#';
/// The first byte of the text of a message to one uid. The number of the message follows this byte.
pub const DIRECT: u8 = b'@';

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

const _: () = assert!(size_of::<Client>() == 16);

/// The state of a client.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum ClientState {
    /// The client has sent its upgrade request, and the response has not arrived.
    Upgrading,
    Open,
    Ended,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    socket: Option<OwnedFd>,
    /// The number of the last broadcast that the client received.
    broadcast: u16,
    state: ClientState,
    /// Whether the client leaves pings unanswered.
    is_silent: bool,
    /// The fd in the server's welcome frame.
    pub fd: u64,
}

/// The kinds of clients. The kind of a client selects the path of its upgrade, and the first frames that it sends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Clients without a uid.
    Bare,
    /// Clients with a uid of eight bytes.
    Uid,
    /// Clients with a uid, in groups of 10, 30 and 100 members.
    Groups,
    /// Clients of the uWebSockets server, without a uid.
    UwsBare,
    /// Clients of the uWebSockets server, with a uid.
    UwsUid,
}

/// Events since [`Clients::reset`].
#[derive(Debug, Default)]
pub struct Counts {
    /// The number of upgraded connections.
    pub opened: usize,
    /// The number of received broadcasts.
    pub broadcasts: usize,
    /// The number of pings that clients received and answered.
    pub pings: usize,
    /// The number of received notices and other JSON frames.
    pub notices: usize,
    /// The number of ended connections of silent clients.
    pub silent_ends: usize,
    /// The numbers of ended connections of clients that are not silent, by close code. The code 0 stands for an end
    /// without a close frame.
    pub ends: BTreeMap<u16, usize>,
    /// The last received message to one uid: the client that received the message, and the number in the message.
    pub direct: Option<(usize, u32)>,
    /// The time at which the last connection ended.
    pub last_end: Option<Instant>,
}

/// All clients of one server.
pub struct Clients {
    epoll: Epoll,
    events: Vec<Readiness>,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    /// The bytes of incomplete frames, by client.
    partial: HashMap<usize, Vec<u8>>,
    port: u16,
    /// The number of connections opened so far, ended ones included. This number selects the server's address for the
    /// next connection.
    connected: usize,
    in_flight: usize,
    /// The number of the last broadcast that was sent.
    pub broadcast: u16,
    pub counts: Counts,
}

impl Clients {
    pub fn new(port: u16) -> io::Result<Clients> {
        Ok(Clients {
            epoll: Epoll::new()?,
            events: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            clients: Vec::new(),
            partial: HashMap::new(),
            port,
            connected: 0,
            in_flight: 0,
            broadcast: 0,
            counts: Counts::default(),
        })
    }

    pub fn reset(&mut self) {
        self.counts = Counts::default();
    }

    pub fn client(&self, index: usize) -> &Client {
        &self.clients[index]
    }

    /// Returns the clients whose WebSocket is open.
    pub fn open(&self) -> impl Iterator<Item = usize> + '_ {
        let clients = self.clients.iter().enumerate();
        clients.filter(|(_, client)| client.state == ClientState::Open).map(|(index, _)| index)
    }

    /// Returns whether some upgrades are not answered yet.
    pub fn has_upgrades(&self) -> bool {
        self.in_flight > 0
    }

    /// Opens connections until there are `total`, and waits for their upgrades.
    pub fn open_until(&mut self, total: usize, kind: Kind) -> io::Result<()> {
        while self.clients.len() < total || self.in_flight > 0 {
            while self.in_flight < UPGRADES_IN_FLIGHT && self.clients.len() < total {
                let index = self.clients.len();
                self.clients.push(Client {
                    socket: None,
                    broadcast: self.broadcast,
                    state: ClientState::Ended,
                    is_silent: false,
                    fd: 0,
                });
                self.connect(index, kind)?;
            }
            self.turn_until_ready(kind)?;
        }
        Ok(())
    }

    /// Reconnects clients whose connection has ended.
    pub fn reopen(&mut self, indices: &[usize], kind: Kind) -> io::Result<()> {
        let mut left = indices.iter().copied();
        let mut is_done = false;
        while !is_done || self.in_flight > 0 {
            while self.in_flight < UPGRADES_IN_FLIGHT && !is_done {
                match left.next() {
                    Some(index) => self.connect(index, kind)?,
                    None => is_done = true,
                }
            }
            self.turn_until_ready(kind)?;
        }
        Ok(())
    }

    fn turn_until_ready(&mut self, kind: Kind) -> io::Result<()> {
        let before = self.in_flight;
        self.turn(Duration::from_secs(30))?;
        if self.in_flight == before && self.events.is_empty() {
            return Err(failure(format!("{before} upgrades of {kind:?} had no answer for 30 s")));
        }
        Ok(())
    }

    /// Connects a client, and sends its request in one write.
    fn connect(&mut self, index: usize, kind: Kind) -> io::Result<()> {
        let address = u32::from(Ipv4Addr::LOCALHOST) + (self.connected / CLIENTS_PER_ADDRESS) as u32;
        let address = SocketAddrV4::new(Ipv4Addr::from(address), self.port);
        let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        net::connect(&socket, &address)?;
        net::send(&socket, &kind.request(index), SendFlags::NOSIGNAL)?;
        self.epoll.add_readable(&socket, index)?;
        let client = &mut self.clients[index];
        *client = Client { socket: Some(socket), broadcast: self.broadcast, state: ClientState::Upgrading, ..*client };
        self.connected += 1;
        self.in_flight += 1;
        Ok(())
    }

    /// Closes the sockets of clients, without a close frame.
    pub fn leave(&mut self, indices: impl Iterator<Item = usize>) {
        for index in indices {
            let client = &mut self.clients[index];
            (client.socket, client.state) = (None, ClientState::Ended);
        }
    }

    /// Makes clients silent: they answer no pings from now on.
    pub fn silence(&mut self, indices: impl Iterator<Item = usize>) {
        indices.for_each(|index| self.clients[index].is_silent = true);
    }

    /// Waits for events up to the timeout, and handles them.
    pub fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        self.epoll.wait(&mut events, Some(timeout))?;
        let result = events.iter().try_for_each(|event| self.receive(event.token));
        self.events = events;
        result
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let mut start = 0;
        if !self.partial.is_empty()
            && let Some(bytes) = self.partial.remove(&index)
        {
            start = bytes.len();
            self.buffer[..start].copy_from_slice(&bytes);
        }
        let Some(socket) = &self.clients[index].socket else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = match net::recv(socket, &mut buffer[start..], RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => {
                self.end(index, 0);
                Ok(())
            }
            Ok((count, _)) => self.handle(index, &buffer[..start + count]),
            Err(Errno::AGAIN) => self.handle(index, &buffer[..start]),
            Err(error) => Err(error.into()),
        };
        self.buffer = buffer;
        result
    }

    /// Handles all complete frames, and stores the bytes of an incomplete frame.
    fn handle(&mut self, index: usize, mut bytes: &[u8]) -> io::Result<()> {
        if self.clients[index].state == ClientState::Upgrading {
            match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) if bytes.starts_with(b"HTTP/1.1 101") => {
                    bytes = &bytes[end + 4..];
                    self.clients[index].state = ClientState::Open;
                    self.counts.opened += 1;
                    self.in_flight -= 1;
                }
                Some(_) => return Err(failure(format!("upgrade refused: {}", String::from_utf8_lossy(bytes)))),
                None => {}
            }
        }
        while self.clients[index].state == ClientState::Open
            && let Some((opcode, payload, len)) = wire::read_server_frame(bytes)
        {
            self.handle_frame(index, opcode, payload)?;
            bytes = &bytes[len..];
        }
        if !bytes.is_empty() && self.clients[index].state != ClientState::Ended {
            self.partial.insert(index, bytes.to_vec());
        }
        Ok(())
    }

    fn handle_frame(&mut self, index: usize, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let client = &mut self.clients[index];
        match (opcode, payload.split_first()) {
            (TEXT, Some((&BROADCAST, rest))) => {
                let number: u16 = number(rest)?;
                if number != client.broadcast.wrapping_add(1) {
                    let before = client.broadcast;
                    return Err(failure(format!("client {index}: broadcast {number} arrived after {before}")));
                }
                client.broadcast = number;
                self.counts.broadcasts += 1;
            }
            (TEXT, Some((&DIRECT, rest))) => self.counts.direct = Some((index, number(rest)?)),
            (TEXT, _) => {
                let welcome = br#"{"type":"welcome","fd":"#;
                match payload.strip_prefix(welcome) {
                    Some(rest) => client.fd = number(rest)?,
                    None => self.counts.notices += 1,
                }
            }
            (PING, _) if client.is_silent => {}
            (PING, _) => {
                self.counts.pings += 1;
                self.reply(index, PONG, payload)?;
            }
            (CLOSE, _) => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                self.reply(index, CLOSE, payload)?;
                self.end(index, code);
            }
            (opcode, _) => {
                return Err(failure(format!("client {index}: unexpected frame with first byte {opcode:#x}")));
            }
        }
        Ok(())
    }

    /// Answers a control frame of the server with a control frame that has the same payload.
    fn reply(&self, index: usize, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = wire::client_frame(payload);
        frame[0] = opcode;
        let Some(socket) = &self.clients[index].socket else { return Ok(()) };
        match net::send(socket, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            // The server may already have closed the connection. A later read finds the end of the stream.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn end(&mut self, index: usize, code: u16) {
        let client = &mut self.clients[index];
        if client.state == ClientState::Upgrading {
            self.in_flight -= 1;
        }
        if client.is_silent {
            self.counts.silent_ends += 1;
        } else {
            *self.counts.ends.entry(code).or_default() += 1;
        }
        (client.socket, client.state) = (None, ClientState::Ended);
        self.counts.last_end = Some(Instant::now());
    }
}

impl Kind {
    /// Returns the upgrade request and the first frames of a client.
    fn request(self, index: usize) -> Vec<u8> {
        match self {
            Kind::Bare => wire::upgrade_request("/"),
            Kind::UwsBare => wire::upgrade_request("/echo"),
            Kind::UwsUid => wire::upgrade_request(&format!("/echo?uid={index}")),
            Kind::Uid => wire::upgrade_request(&format!("/?uid={}", uid(index))),
            Kind::Groups => {
                let mut request = Kind::Uid.request(index);
                for members in [10, 30, 100] {
                    let join = format!(r#"{{"type":"join","group":"{members}-{}"}}"#, index / members);
                    request.extend(wire::client_frame(join.as_bytes()));
                }
                request
            }
        }
    }
}

/// Returns the uid of a client, which has eight bytes.
pub fn uid(index: usize) -> String {
    format!("{index:08}")
}

/// Parses the decimal number at the start of a text.
fn number<T: std::str::FromStr>(text: &[u8]) -> io::Result<T> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&text[..digits]).ok();
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| failure("a message without a number"))
}
