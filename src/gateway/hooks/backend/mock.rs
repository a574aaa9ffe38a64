//! A back end for tests: HTTP/1.1 over blocking sockets, with configurable answers and faults.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::{BackendConfig, BackendUrl};

/// The maximum time that a test waits for an expected result.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A back end on its own port, with a thread for each connection.
pub struct MockBackend {
    address: SocketAddr,
    requests: Receiver<Received>,
    is_over: Arc<AtomicBool>,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method and the target of the request, for example `POST /hook`.
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The reaction of the back end to a request.
pub enum MockReply {
    /// Answers with this status and body. The connection stays open after the answer.
    Answer(u16, &'static str),
    /// Writes these bytes and closes the connection.
    Raw(Vec<u8>),
    /// Writes one byte of this text every 10 ms, and then repeats the last byte until the client closes the connection.
    Trickle(&'static str),
    /// Does not answer. The thread of the connection ends when the client closes the connection.
    Hang,
}

impl MockBackend {
    /// Starts a back end that calls `reply` for each request. `reply` may block.
    pub fn start(reply: impl Fn(&Received) -> MockReply + Send + Sync + 'static) -> MockBackend {
        let reply = Arc::new(reply);
        MockBackend::accept(move |stream, sender| serve(stream, sender, &*reply))
    }

    /// Starts a back end that reads one byte, writes `answer`, and closes the connection.
    pub fn unread(answer: &'static [u8]) -> MockBackend {
        MockBackend::accept(move |mut stream, _| {
            stream.read_exact(&mut [0])?;
            stream.write_all(answer)
        })
    }

    fn accept(
        serve: impl Fn(TcpStream, &Sender<Received>) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> MockBackend {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the port can be bound");
        let address = listener.local_addr().expect("the socket has an address");
        let (sender, requests) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, serve) = (Arc::clone(&is_over), Arc::new(serve));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (sender, serve) = (sender.clone(), Arc::clone(&serve));
                // An error of `serve` is ignored, because the client may close the connection at any time.
                thread::spawn(move || drop(serve(stream, &sender)));
            }
        });
        MockBackend { address, requests, is_over }
    }

    /// Starts a back end that gives the same answer to all requests.
    pub fn always(status: u16, body: &'static str) -> MockBackend {
        MockBackend::start(move |_| MockReply::Answer(status, body))
    }

    /// Returns the configuration of a client of this back end. The client has the node name `node-1` and does not sign
    /// its requests.
    pub fn contact(&self) -> BackendConfig {
        let url = BackendUrl::parse(&format!("http://{}/hook?v=1", self.address)).expect("the URL is valid");
        BackendConfig { url, node: "node-1".to_owned(), secret: None, authorities: None }
    }

    /// Waits for the next request.
    pub fn next(&self) -> Received {
        self.requests.recv_timeout(TEST_TIMEOUT).expect("a request arrives")
    }

    /// Returns the next request, or `None` if no request has arrived.
    pub fn try_next(&self) -> Option<Received> {
        self.requests.try_recv().ok()
    }
}

impl Drop for MockBackend {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // This connection wakes the thread that accepts connections, so that the thread ends.
        drop(TcpStream::connect(self.address));
    }
}

impl Received {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    /// Parses the body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the text is JSON")
    }
}

fn serve(
    stream: TcpStream,
    requests: &Sender<Received>,
    reply: &dyn Fn(&Received) -> MockReply,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(received) = read(&mut reader)? {
        // The test gets the request before the back end answers, so the test can see unanswered requests. An error of
        // `send` is ignored, because the test may have ended and dropped the receiver.
        let _ = requests.send(received.clone());
        match reply(&received) {
            MockReply::Answer(status, body) => {
                let head = format!("HTTP/1.1 {status} Just So\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                writer.write_all(head.as_bytes())?;
            }
            MockReply::Raw(bytes) => return writer.write_all(&bytes),
            MockReply::Trickle(text) => return trickle(&mut reader, &mut writer, text),
            MockReply::Hang => {
                std::io::copy(&mut reader, &mut std::io::sink())?;
                return Ok(());
            }
        }
    }
    Ok(())
}

fn trickle(reader: &mut BufReader<TcpStream>, writer: &mut TcpStream, text: &str) -> std::io::Result<()> {
    writer.set_read_timeout(Some(Duration::from_millis(10)))?;
    let last = text.bytes().last();
    for byte in text.bytes().chain(last.into_iter().cycle()) {
        writer.write_all(&[byte])?;
        // The read timeout is the pause between two bytes. The pause also ends when the client closes the connection.
        match reader.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    Ok(())
}

/// Reads a request. Returns `None` if the client closed the connection.
fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Received>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut received = Received { line, headers, body: Vec::new() };
    let length = received.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    received.body.resize(length, 0);
    reader.read_exact(&mut received.body)?;
    Ok(Some(received))
}
