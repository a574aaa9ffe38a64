//! The reference server: `raw ADDRESS` upgrades every client, and then does the minimum of work.
//!
//! - `/echo`: all frames of one read are converted in place, and written with one write.
//! - `/sub`, `/pub`: the frames of one read from a `/pub` are encoded once, and written to each `/sub` with one write.
//! - `/p2p?uid=N`: a frame `{"to":M,…}` goes to uid M. The frames of one read to the same uid are written with one
//!   write.
//!
//! The server has no checks, no bounds and no heartbeat. The benchmarks compare complete servers with this server.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use fdpush_load::epoll::{Epoll, Readiness};
use fdpush_load::wire;
use slab::Slab;

const LISTENER: usize = usize::MAX;

/// The maximum number of bytes of one read, as in the measured servers.
const READ_BYTES: usize = 64 << 10;

struct Connection {
    socket: TcpStream,
    role: Role,
    /// The received bytes of an incomplete head or frame.
    kept: Vec<u8>,
    /// Bytes that are not sent yet, because the socket was full.
    unsent: Vec<u8>,
}

#[derive(Copy, Clone)]
enum Role {
    Http,
    Echo,
    Sub,
    Pub,
    P2p,
}

struct Raw {
    epoll: Epoll,
    listener: TcpListener,
    connections: Slab<Connection>,
    subs: Vec<usize>,
    uids: HashMap<u64, usize>,
    buffer: Vec<u8>,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9500".to_owned());
    let listener = TcpListener::bind(address)?;
    // The backlog of the standard library, 128, is too short for thousands of simultaneous connects.
    rustix::net::listen(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(&listener, LISTENER)?;
    let raw = Raw {
        epoll,
        listener,
        connections: Slab::new(),
        subs: Vec::new(),
        uids: HashMap::new(),
        buffer: vec![0; READ_BYTES],
    };
    raw.run()
}

impl Raw {
    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::new();
        loop {
            self.epoll.wait(&mut events, None)?;
            for event in &events {
                if event.token == LISTENER {
                    self.accept()?;
                } else if self.handle(event).is_err() {
                    self.drop(event.token);
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                    let entry = self.connections.vacant_entry();
                    self.epoll.add(&socket, entry.key())?;
                    entry.insert(Connection { socket, role: Role::Http, kept: Vec::new(), unsent: Vec::new() });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn drop(&mut self, token: usize) {
        if self.connections.try_remove(token).is_some() {
            self.subs.retain(|sub| *sub != token);
            self.uids.retain(|_, of| *of != token);
        }
    }

    /// Handles an event of a connection. An error ends the connection.
    fn handle(&mut self, event: &Readiness) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(event.token) else { return Ok(()) };
        if event.is_writable && !connection.unsent.is_empty() {
            let unsent = std::mem::take(&mut connection.unsent);
            connection.send(&unsent)?;
        }
        if event.is_readable {
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = self.read(event.token, &mut buffer);
            self.buffer = buffer;
            read?;
        }
        Ok(())
    }

    fn read(&mut self, token: usize, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
            let kept = std::mem::take(&mut connection.kept);
            let count = match connection.socket.read(&mut buffer[kept.len()..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.kept = kept;
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            buffer[..kept.len()].copy_from_slice(&kept);
            let filled = kept.len() + count;
            let used = self.answer(token, &mut buffer[..filled])?;
            if let Some(connection) = self.connections.get_mut(token) {
                connection.kept.extend_from_slice(&buffer[used..filled]);
            }
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Answers the complete frames in `bytes`, and returns the number of used bytes.
    fn answer(&mut self, token: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(bytes.len()) };
        match connection.role {
            Role::Http => self.upgrade(token, bytes),
            Role::Echo => {
                let (written, read) = wire::answer_in_place(bytes, |_| {});
                connection.send(&bytes[..written])?;
                Ok(read)
            }
            Role::Sub => Ok(bytes.len()),
            Role::Pub => {
                let (written, read) = wire::answer_in_place(bytes, |_| {});
                for sub in &self.subs {
                    // An error is ignored: a `/sub` with a broken socket is dropped when epoll reports the error.
                    let _ = self.connections[*sub].send(&bytes[..written]);
                }
                Ok(read)
            }
            Role::P2p => {
                let mut runs: Vec<(u64, usize)> = Vec::new();
                let (written, read) = wire::answer_in_place(bytes, |answer| {
                    let uid = addressee(answer.payload);
                    if runs.last().is_none_or(|(last, _)| *last != uid) {
                        runs.push((uid, answer.start));
                    }
                });
                for (index, (uid, start)) in runs.iter().enumerate() {
                    let end = runs.get(index + 1).map_or(written, |(_, next)| *next);
                    if let Some(to) = self.uids.get(uid) {
                        let _ = self.connections[*to].send(&bytes[*start..end]);
                    }
                }
                Ok(read)
            }
        }
    }

    fn upgrade(&mut self, token: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(|_| ErrorKind::InvalidData)?;
        let Some(end) = text.find("\r\n\r\n") else { return Ok(0) };
        let path = text.split(' ').nth(1).unwrap_or_default();
        let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
        let connection = &mut self.connections[token];
        connection.role = match path.split('?').next() {
            Some("/sub") => Role::Sub,
            Some("/pub") => Role::Pub,
            Some("/p2p") => Role::P2p,
            _ => Role::Echo,
        };
        if let Role::Sub = connection.role {
            self.subs.push(token);
        }
        if let Some(uid) = path.split_once("uid=").and_then(|(_, uid)| uid.parse().ok()) {
            self.uids.insert(uid, token);
        }
        connection.send(&wire::upgrade_response(key))?;
        Ok(end + 4)
    }
}

impl Connection {
    /// Writes as many bytes as the socket accepts, and stores the unsent bytes.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let mut left = bytes;
        while !left.is_empty() {
            match self.socket.write(left) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(left);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Returns the number M of a message `{"to":M,…}`.
fn addressee(payload: &[u8]) -> u64 {
    let digits = payload.get(6..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
