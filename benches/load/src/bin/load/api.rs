//! Load shapes of back ends: pushes by HTTP requests, pushes by a batch, and pushes at a constant rate.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use fdpush_load::process;

use crate::peer::Peer;
use crate::shapes::Rig;
use crate::{Dialect, Options, WARM_UP, run};

/// The number of batch lines in one write.
const BATCH_LINES: usize = 256;

/// The maximum number of undelivered posts in a run with a constant rate. A server with more undelivered posts is too
/// slow for the rate.
const UNDELIVERED_MAX: usize = 10_000;

/// Measures the cost or the delivery time of posts. For each receiver, a back end has one keep-alive connection.
pub fn push(options: &Options) -> io::Result<()> {
    let mut rig = Rig::new(pairs(options)?)?;
    match options.pace {
        Some(per_second) => paced(options, &mut rig, per_second),
        None => unpaced(options, &mut rig),
    }
}

fn unpaced(options: &Options, rig: &mut Rig) -> io::Result<()> {
    let (pairs, depth) = (options.connections, options.depth);
    for sender in 0..pairs {
        rig.peers[sender].send(depth)?;
    }
    let (mut deliveries, mut answers) = (0, 0);
    let figures = run(options, || {
        let before = answers;
        rig.turn(|peers, index, count| {
            if index >= pairs {
                deliveries += count;
                return Ok(());
            }
            answers += count;
            peers[index].send(count)
        })?;
        Ok(answers - before)
    })?;
    figures.print();
    // The message of every post that was answered with 2xx must arrive.
    let deadline = Instant::now() + Duration::from_secs(5);
    while deliveries < answers && Instant::now() < deadline {
        rig.poll(|_, index, count| {
            if index < pairs {
                answers += count
            } else {
                deliveries += count
            };
            Ok(())
        })?;
    }
    match answers.saturating_sub(deliveries) {
        0 => Ok(()),
        lost => {
            Err(io::Error::other(format!("the messages of all {answers} answered posts must arrive; missing: {lost}")))
        }
    }
}

/// Sends posts at a constant rate. A delivery time starts at the scheduled time of a post, so it includes the time that
/// the post waits for a slow server.
fn paced(options: &Options, rig: &mut Rig, per_second: u32) -> io::Result<()> {
    let pairs = options.connections;
    let mut due: Vec<VecDeque<Instant>> = vec![VecDeque::new(); pairs];
    let mut took: Vec<Duration> = Vec::new();
    let gap = Duration::from_secs(1) / per_second;
    let started = Instant::now();
    let measured_from = started + WARM_UP;
    let until = measured_from + Duration::from_secs_f64(options.seconds);
    let (mut next, mut sender, mut waiting) = (started, 0, 0);
    let mut cpu = None;
    loop {
        let now = Instant::now();
        if now >= measured_from && cpu.is_none() {
            cpu = Some((now, process::cpu_time(options.pid)?));
        }
        if now >= until && waiting == 0 {
            break;
        }
        if now >= next && now < until {
            rig.peers[sender].send(1)?;
            // The delivery time starts at the scheduled time of the post.
            due[sender].push_back(next);
            waiting += 1;
            next += gap;
            sender = (sender + 1) % pairs;
        }
        rig.poll(|_, index, count| {
            let Some(receiver) = index.checked_sub(pairs) else { return Ok(()) };
            let arrived = Instant::now();
            for sent in due[receiver].drain(..count) {
                waiting -= 1;
                if sent >= measured_from {
                    took.push(arrived - sent);
                }
            }
            Ok(())
        })?;
        if waiting > UNDELIVERED_MAX {
            return Err(io::Error::other("too many undelivered posts: server too slow for the rate of --pace"));
        }
    }
    let (since, before) = cpu.unwrap_or((started, Duration::ZERO));
    let cpu = process::cpu_time(options.pid)? - before;
    took.sort_unstable();
    let percentile = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "rate={:.0} cpu_us={:.3} p50_us={:.1} p99_us={:.1} busy={:.0}%",
        took.len() as f64 / options.seconds,
        cpu.as_secs_f64() * 1e6 / took.len() as f64,
        percentile(0.5),
        percentile(0.99),
        cpu.as_secs_f64() / since.elapsed().as_secs_f64() * 100.0,
    );
    Ok(())
}

/// Sends one endless request with one push command per line. The commands address each receiver in turn. At any time,
/// `depth` chunks of [`BATCH_LINES`] commands are unanswered.
pub fn batch(options: &Options) -> io::Result<()> {
    let payload = "x".repeat(options.payload);
    let lines: String = (0..BATCH_LINES)
        .map(|line| format!("{{\"uid\":\"{}\",\"data\":\"{payload}\"}}\n", line % options.connections))
        .collect();
    let mut sender = Peer::connect(options.api.unwrap_or(options.address), options.tls, None)?;
    sender.set_request(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes(), options.depth);
    sender.begin_batch(
        "POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
    )?;
    let mut peers = vec![sender];
    for uid in 0..options.connections {
        peers.push(subscriber(options, uid)?);
    }
    let mut rig = Rig::new(peers)?;
    rig.peers[0].send(options.depth)?;
    let (mut answers, mut messages, mut chunks) = (0, 0, 0);
    let figures = run(options, || {
        let before = messages;
        rig.turn(|peers, index, count| {
            if index > 0 {
                messages += count;
                return Ok(());
            }
            answers += count;
            let over = answers / BATCH_LINES - chunks;
            chunks += over;
            peers[0].send(over)
        })?;
        Ok(messages - before)
    })?;
    let peak = process::peak_resident_bytes(options.pid)? as f64 / f64::from(1 << 20);
    print!("peak_mib={peak:.1} ");
    figures.print();
    Ok(())
}

/// Connects the back ends, and one receiver for each back end.
///
/// The back ends are first in the list, and the receivers follow in the same order.
fn pairs(options: &Options) -> io::Result<Vec<Peer>> {
    let payload = "x".repeat(options.payload);
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for uid in 0..options.connections {
        let mut receiver = subscriber(options, uid)?;
        let mut sender = Peer::connect(options.api.unwrap_or(options.address), options.tls, None)?;
        let (path, body, message) = match options.dialect {
            Dialect::Bench => (format!("/push?uid={uid}"), payload.clone(), payload.clone()),
            Dialect::Nchan => (format!("/pub?id={uid}"), payload.clone(), payload.clone()),
            Dialect::Fdpush => (
                "/api/push".to_owned(),
                format!("{{\"uid\":\"{uid}\",\"data\":\"{payload}\"}}"),
                format!("{{\"type\":\"message\",\"data\":\"{payload}\"}}"),
            ),
        };
        let kind = if options.dialect == Dialect::Fdpush { "application/json" } else { "text/plain" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        sender.set_request(format!("{head}{body}").as_bytes(), options.depth);
        sender.send_blocking()?;
        sender.expect_response()?;
        receiver.expect(message.as_bytes())?;
        senders.push(sender);
        receivers.push(receiver);
    }
    senders.append(&mut receivers);
    Ok(senders)
}

fn subscriber(options: &Options, uid: usize) -> io::Result<Peer> {
    match options.dialect {
        Dialect::Bench => options.connect(Some(&format!("/p2p?uid={uid}"))),
        Dialect::Nchan => options.connect(Some(&format!("/sub?id={uid}"))),
        Dialect::Fdpush => {
            let mut peer = options.connect(Some(&format!("/?uid={uid}")))?;
            // Before other frames, the server sends a welcome frame.
            peer.expect_any()?;
            Ok(peer)
        }
    }
}
