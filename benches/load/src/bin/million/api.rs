//! A blocking client of the server's HTTP API, with one connection at a time.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::failure;

/// The time in which a response of the API must arrive.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The time after which an idle connection is replaced. This time is shorter than the idle timeout of the server.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);

/// A keep-alive connection to the API. [`Api::send`] replaces a connection that was idle for [`IDLE_TIME_MAX`].
pub struct Api {
    address: SocketAddr,
    stream: TcpStream,
    received: Vec<u8>,
    /// The time of the last request. The server's idle timeout begins after its response, which the caller may read late.
    used: Instant,
}

/// The histogram of the loop's turns: for each upper bound in microseconds, the number of turns up to this duration.
#[derive(Clone, Debug, Default)]
pub struct Turns(BTreeMap<u64, u64>);

impl Api {
    pub fn connect(port: u16) -> io::Result<Api> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Api { address, stream: connect(address)?, received: Vec::new(), used: Instant::now() })
    }

    /// Sends a request: a GET if `body` is empty, else a POST.
    pub fn send(&mut self, path: &str, body: &str) -> io::Result<()> {
        if self.used.elapsed() > IDLE_TIME_MAX {
            (self.stream, self.received) = (connect(self.address)?, Vec::new());
        }
        self.used = Instant::now();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes())
    }

    /// Receives the body of a response.
    ///
    /// # Errors
    /// Returns an error if the status is not 200.
    pub fn receive(&mut self) -> io::Result<String> {
        let head = loop {
            match self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.read()?,
            }
        };
        let text = String::from_utf8_lossy(&self.received[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let length: usize = length.ok_or_else(|| failure(format!("response has no Content-Length: {text}")))?;
        while self.received.len() < head + length {
            self.read()?;
        }
        let body = String::from_utf8_lossy(&self.received[head..head + length]).into_owned();
        self.received.drain(..head + length);
        if text.starts_with("http/1.1 200") { Ok(body) } else { Err(failure(format!("{text}{body}"))) }
    }

    pub fn call(&mut self, path: &str, body: &str) -> io::Result<String> {
        self.send(path, body)?;
        self.receive()
    }

    /// Returns the number of open WebSockets.
    pub fn open(&mut self) -> io::Result<usize> {
        let metrics = self.call("/metrics", "")?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(r#"fdpush_connections{state="open"} "#));
        value.and_then(|value| value.parse().ok()).ok_or_else(|| failure("/metrics has no fdpush_connections"))
    }

    pub fn turns(&mut self) -> io::Result<Turns> {
        let metrics = self.call("/metrics", "")?;
        let bucket = |line: &str| {
            let (end, count) =
                line.strip_prefix(r#"fdpush_turn_duration_seconds_bucket{le=""#)?.split_once(r#""} "#)?;
            let micros = if end == "+Inf" { u64::MAX } else { (end.parse::<f64>().ok()? * 1e6).round() as u64 };
            Some((micros, count.parse().ok()?))
        };
        Ok(Turns(metrics.lines().filter_map(bucket).collect()))
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 1 << 16];
        let count = self.stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

impl Turns {
    /// Returns the upper bound, in milliseconds, of the histogram bucket that contains the longest turn since `before`.
    pub fn longest_since(&self, before: &Turns) -> f64 {
        let mut longest = 0;
        let (mut now_below, mut before_below) = (0, 0);
        for (micros, count) in &self.0 {
            let earlier = before.0.get(micros).copied().unwrap_or(0);
            if count - now_below > earlier - before_below {
                longest = *micros;
            }
            (now_below, before_below) = (*count, earlier);
        }
        longest as f64 / 1000.0
    }

    /// Returns the number of turns since `before` that took longer than 32.8 ms.
    pub fn long_since(&self, before: &Turns) -> u64 {
        let long = |turns: &Turns| {
            let all = turns.0.get(&u64::MAX).copied().unwrap_or(0);
            all - turns.0.get(&32_768).copied().unwrap_or(0)
        };
        long(self) - long(before)
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Returns the number in a member of a flat JSON object.
pub fn member(body: &str, name: &str) -> io::Result<usize> {
    let rest = body.split_once(&format!(r#""{name}":"#)).map(|(_, rest)| rest);
    let digits = rest.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| failure(format!("no number {name} in {body}")))
}
