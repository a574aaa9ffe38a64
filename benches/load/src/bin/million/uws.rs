//! Measures memory and upgrades of uWebSockets, in the same machine and with the same clients.

use std::io;
use std::time::Instant;

use fdpush_load::process;

use crate::clients::{Clients, Kind};
use crate::memory::Memory;
use crate::report::{Report, grouped};
use crate::server::{PORT, Server};

/// Opens connections up to each number in `sizes`, and measures memory and upgrades at each number.
pub fn measure(program: &str, sizes: &[usize], kind: Kind, report: &mut Report) -> io::Result<()> {
    let server = Server::start(program, &[format!("0.0.0.0:{PORT}")], PORT)?;
    let mut clients = Clients::new(PORT)?;
    let base = 100.min(sizes[0]);
    clients.open_until(base, kind)?;
    let empty = Memory::of(server.pid())?;
    let mut opened = base;
    for &size in sizes {
        let (cpu, started) = (process::cpu_time(server.pid())?, Instant::now());
        clients.open_until(size, kind)?;
        let new = (size - opened) as f64;
        let micros = (process::cpu_time(server.pid())? - cpu).as_secs_f64() * 1e6 / new;
        let rate = new / started.elapsed().as_secs_f64();
        let user = Memory::of(server.pid())?.user.saturating_sub(empty.user) as f64 / (size - base) as f64;
        let (_, expected) = kind.user_bytes_max(size);
        report.tell(&format!("user space, {}, bytes each", kind.name()), size, expected, format!("{user:.0}"));
        let title = format!("upgrades a second from {} on, {}", grouped(opened), kind.name());
        report.tell(&title, size, "flat", format!("{rate:.0}, {micros:.1} µs of the server's CPU time each"));
        report.point(&format!("upgrade, {}", kind.name()), size, micros);
        opened = size;
    }
    let peak = process::peak_resident_bytes(server.pid())? >> 20;
    report.tell(&format!("peak of the server's resident memory, MiB, {}", kind.name()), opened, "", peak);
    Ok(())
}
