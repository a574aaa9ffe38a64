//! A back end for tests. The back end passes each request to the test and answers as the test decides.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::{TestReceiver, channel};

/// A back end for one test, which listens until the test ends.
pub struct Backend {
    pub address: SocketAddr,
    /// The received requests, in order.
    pub requests: TestReceiver<HookRequest>,
}

/// A request that the server sent.
#[derive(Clone, Debug)]
pub struct HookRequest {
    pub head: String,
    pub body: String,
}

/// The answer of the back end to a request.
pub enum Answer {
    /// Responds with a status and a body.
    Status(u16, String),
    /// Reads the request and never responds.
    Hang,
}

impl Backend {
    pub fn start(answer: impl Fn(&HookRequest) -> Answer + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the back end can bind a free port");
        let address = listener.local_addr().expect("the socket has an address");
        let (tx, requests) = channel();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tx, answer) = (tx.clone(), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &tx, &*answer));
            }
        });
        Backend { address, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

impl HookRequest {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Returns whether the request is signed with this secret.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("the key is valid");
        mac.update(self.body.as_bytes());
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.header("x-fdpush-signature") == Some(&format!("sha256={hex}"))
    }
}

/// Serves the requests of one connection until it ends.
fn serve(stream: TcpStream, tx: &Sender<HookRequest>, answer: &dyn Fn(&HookRequest) -> Answer) {
    let mut writer = stream.try_clone().expect("the descriptor can be duplicated");
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let answer = answer(&request);
        let _ = tx.send(request);
        match answer {
            Answer::Status(status, body) => {
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", body.len());
                if writer.write_all(format!("{head}{body}").as_bytes()).is_err() {
                    return;
                }
            }
            Answer::Hang => {
                let _ = reader.read_to_end(&mut Vec::new());
                return;
            }
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<HookRequest> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut request = HookRequest { head, body: String::new() };
    let length =
        request.header("content-length").map_or(0, |length| length.parse().expect("Content-Length is a number"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).expect("the body is UTF-8");
    Some(request)
}
