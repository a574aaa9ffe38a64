//! A WebSocket client that is independent of fdpush: tungstenite, with a deadline for every wait.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use fdpush::Fd;
use socket2::{Domain, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::{DEADLINE, tls};

/// A byte stream that a client can use.
pub trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A WebSocket client.
pub struct Client {
    socket: WebSocket<Box<dyn Stream>>,
    response: Response,
}

impl Client {
    /// Connects over TCP.
    pub fn connect(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Client, Error> {
        let stream = TcpStream::connect(address).expect("the server listens");
        Client::over_tcp(stream, address, target, headers)
    }

    /// Connects over TCP from this local address.
    pub fn connect_from(from: IpAddr, address: SocketAddr, target: &str) -> Result<Client, Error> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("the socket can be created");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("the address belongs to this machine");
        socket.connect(&address.into()).expect("the server listens");
        Client::over_tcp(socket.into(), address, target, &[])
    }

    /// Connects over TCP, with a receive buffer of this size.
    pub fn connect_with_buffer(bytes: usize, address: SocketAddr, target: &str) -> Result<Client, Error> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("the socket can be created");
        // The kernel uses the size from the TCP handshake on, so the size is set before the connect.
        socket.set_recv_buffer_size(bytes).expect("the size can be set");
        socket.connect(&address.into()).expect("the server listens");
        Client::over_tcp(socket.into(), address, target, &[])
    }

    /// Connects over TLS, with these TLS settings of the client, to a server named `localhost`.
    pub fn connect_tls(
        address: SocketAddr,
        config: rustls::ClientConfig,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Client, Error> {
        let stream = tls::Socket::connect_secure(address, config, "localhost");
        Client::over(Box::new(stream), &format!("wss://localhost:{}{target}", address.port()), headers)
    }

    /// Connects over a unix socket.
    pub fn connect_unix(path: &Path, target: &str) -> Result<Client, Error> {
        let stream = UnixStream::connect(path).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("the read timeout can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("the write timeout can be set");
        Client::over(Box::new(stream), &format!("ws://localhost{target}"), &[])
    }

    fn over_tcp(
        stream: TcpStream,
        address: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Client, Error> {
        Client::over(Box::new(tls::Socket::over(stream, address)), &format!("ws://{address}{target}"), headers)
    }

    fn over(stream: Box<dyn Stream>, url: &str, headers: &[(&str, &str)]) -> Result<Client, Error> {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("the header name is valid");
            request.headers_mut().append(name, HeaderValue::from_str(value).expect("the header value is valid"));
        }
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => Ok(Client { socket, response }),
            Err(HandshakeError::Failure(error)) => Err(error),
            Err(HandshakeError::Interrupted(_)) => panic!("expected a response to the upgrade before the deadline"),
        }
    }

    /// Returns the value of a header of the 101 response.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the fd that the server sent in the 101 response.
    pub fn fd(&self) -> Fd {
        let number = self.header("X-Fd").and_then(|value| value.parse().ok()).expect("the response has a header X-Fd");
        Fd::from_u64(number).expect("the fd is valid")
    }

    pub fn send(&mut self, text: &str) {
        self.send_message(Message::text(text));
    }

    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send_message(Message::binary(bytes.to_vec()));
    }

    pub fn ping(&mut self, payload: &[u8]) {
        self.send_message(Message::Ping(payload.to_vec().into()));
    }

    /// Sends one fragment of a message.
    pub fn send_fragment(&mut self, kind: Data, payload: &[u8], is_last: bool) {
        self.send_message(Message::Frame(Frame::message(payload.to_vec(), OpCode::Data(kind), is_last)));
    }

    /// Starts the close handshake.
    pub fn close(&mut self, code: u16, reason: &str) {
        self.close_with(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() }));
    }

    /// Starts the close handshake, with or without a close code.
    pub fn close_with(&mut self, frame: Option<CloseFrame>) {
        self.socket.close(frame).expect("the client can start the close handshake");
        self.socket.flush().expect("the client can send its close frame");
    }

    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).expect("the client can send the message");
    }

    /// Returns the next message of any kind and answers pings.
    pub fn next(&mut self) -> Message {
        self.socket.read().expect("a message arrives")
    }

    /// Returns the next message, which must be text.
    pub fn text(&mut self) -> String {
        match self.next_except_pings() {
            Message::Text(text) => text.as_str().to_owned(),
            other => panic!("expected a text message, got {other:?}"),
        }
    }

    /// Returns the next message, which must be binary.
    pub fn binary(&mut self) -> Vec<u8> {
        match self.next_except_pings() {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("expected a binary message, got {other:?}"),
        }
    }

    /// Returns the code and the reason of the next message, which must be a close frame.
    pub fn close_frame(&mut self) -> Option<(u16, String)> {
        match self.next_except_pings() {
            Message::Close(frame) => frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned())),
            other => panic!("expected a close frame, got {other:?}"),
        }
    }

    /// Returns the code and the reason of the close frame. The end of the stream must follow the close frame.
    pub fn closed(&mut self) -> (u16, String) {
        let frame = self.close_frame().expect("the close frame has a code");
        self.end();
        frame
    }

    /// Reads all messages up to the end of the connection, and answers pings.
    pub fn read_to_end(&mut self) {
        while self.socket.read().is_ok() {}
    }

    /// Expects the end of the stream after a close frame.
    pub fn end(&mut self) {
        let ended = self.socket.read();
        assert!(matches!(ended, Err(Error::ConnectionClosed)), "{ended:?}");
    }

    /// Expects the end of the stream without a close frame.
    pub fn lost(&mut self) {
        let ended = loop {
            match self.socket.read() {
                Ok(Message::Ping(_)) => {}
                ended => break ended,
            }
        };
        let is_lost = match &ended {
            Err(Error::Protocol(error)) => {
                matches!(error, tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)
            }
            Err(Error::Io(error)) => {
                // Through TLS, the end of the stream without `close_notify` is an error, too.
                use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
                matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
            }
            _ => false,
        };
        assert!(is_lost, "{ended:?}");
    }

    fn next_except_pings(&mut self) -> Message {
        loop {
            match self.next() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }
}

/// Returns the status and the body of the response to a refused upgrade.
pub fn refusal(connected: Result<Client, Error>) -> (u16, String) {
    match connected {
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8_lossy(body).into_owned())
        }
        Err(error) => panic!("expected an HTTP response, got {error:?}"),
        Ok(_) => panic!("expected a refusal, got a WebSocket"),
    }
}
