//! A tiny back end for tests: HTTP/1.1 over blocking sockets, which does as it is told, and badly if that is what it is
//! told.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::{Contact, Url};

/// For what must happen: no test waits longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A back end on a port of its own. Each connection has a thread.
pub struct Double {
    address: SocketAddr,
    requests: Receiver<Received>,
    is_over: Arc<AtomicBool>,
}

/// A request, as the back end got it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method and target.
    pub line: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What the back end does with a request.
pub enum Reply {
    /// Answers with this status and body, and keeps the connection.
    Answer(u16, &'static str),
    /// Writes just that, and closes.
    Raw(Vec<u8>),
    /// Writes that, one byte in ten milliseconds.
    Dribble(&'static str),
    /// Never answers, until the other side goes.
    Hang,
}

impl Double {
    /// A back end that does with each request what `reply` says. `reply` may block, to be slow.
    pub fn start(reply: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Double {
        let reply = Arc::new(reply);
        Double::accept(move |stream, sender| serve(stream, sender, &*reply))
    }

    /// A back end that reads a byte of each request, writes `answer`, and closes with the rest unread.
    pub fn unread(answer: &'static [u8]) -> Double {
        Double::accept(move |mut stream, _| {
            stream.read_exact(&mut [0])?;
            stream.write_all(answer)
        })
    }

    fn accept(serve: impl Fn(TcpStream, &Sender<Received>) -> std::io::Result<()> + Send + Sync + 'static) -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, serve) = (Arc::clone(&is_over), Arc::new(serve));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (sender, serve) = (sender.clone(), Arc::clone(&serve));
                // A client that is gone is no failure of the test.
                thread::spawn(move || drop(serve(stream, &sender)));
            }
        });
        Double { address, requests, is_over }
    }

    /// A back end that answers all requests alike.
    pub fn always(status: u16, body: &'static str) -> Double {
        Double::start(move |_| Reply::Answer(status, body))
    }

    /// How to reach it, unsigned, as `node-1`.
    pub fn contact(&self) -> Contact {
        let url = Url::parse(&format!("http://{}/hook?v=1", self.address)).expect("a URL");
        Contact { url, node: "node-1".to_owned(), secret: None, authorities: None }
    }

    /// The next request.
    pub fn next(&self) -> Received {
        self.requests.recv_timeout(PATIENCE).expect("a request")
    }

    /// The next request, if it is there.
    pub fn try_next(&self) -> Option<Received> {
        self.requests.try_recv().ok()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

impl Received {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

fn serve(stream: TcpStream, requests: &Sender<Received>, reply: &dyn Fn(&Received) -> Reply) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Some(received) = read(&mut reader)? {
        // First of all, so that who waits for it knows that nothing was answered. The test may have seen enough.
        let _ = requests.send(received.clone());
        match reply(&received) {
            Reply::Answer(status, body) => {
                let head = format!("HTTP/1.1 {status} Just So\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                writer.write_all(head.as_bytes())?;
            }
            Reply::Raw(bytes) => return writer.write_all(&bytes),
            Reply::Dribble(text) => return dribble(&mut reader, &mut writer, text),
            Reply::Hang => {
                std::io::copy(&mut reader, &mut std::io::sink())?;
                return Ok(());
            }
        }
    }
    Ok(())
}

fn dribble(reader: &mut BufReader<TcpStream>, writer: &mut TcpStream, text: &str) -> std::io::Result<()> {
    writer.set_read_timeout(Some(Duration::from_millis(10)))?;
    for byte in text.bytes() {
        writer.write_all(&[byte])?;
        // It is the read that takes its time; it ends at once when the other side goes.
        match reader.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    Ok(())
}

/// The next request, or `None` where the client closed.
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
