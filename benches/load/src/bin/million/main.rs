//! The scale test: `million run` measures `fdpush serve` with many connections, and prints a table.
//!
//! `million run` runs as root in a virtual machine, which `benches/million/run.sh` boots. The clients are one process,
//! and the server is another. The clients connect over loopback. `million draw` draws a picture of the printed points.

mod api;
mod clients;
mod memory;
mod picture;
mod report;
mod run;
mod server;
mod settings;
mod uws;

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use self::clients::Kind;
use self::report::{Report, grouped};
use self::run::Run;

/// The period of pings in runs that do not measure heartbeats.
const LONG_PING: Duration = Duration::from_hours(24);

/// The maximum number of connections to uWebSockets. The values of uWebSockets are for comparison only.
const UWS_COUNT_MAX: usize = 1_000_000;

/// Measures servers with many connections.
#[derive(Parser, Debug)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Measures a server, and prints a table and the points of the picture.
    Run(Options),
    /// Draws an SVG of the points in the output of `run`.
    Draw {
        /// The output of `run`.
        table: PathBuf,
        /// The path of the picture that is written.
        svg: PathBuf,
    },
}

#[derive(Args, Debug)]
struct Options {
    /// The command `fdpush`.
    #[arg(long)]
    server: String,
    /// The command of a uWebSockets server, whose memory and upgrades are measured for comparison.
    #[arg(long)]
    uws: Option<String>,
    /// The number of connections in the largest measurement.
    #[arg(long, default_value_t = 1_000_000)]
    count: usize,
    /// The period of pings in the last run, in seconds. The last run keeps the connections for two periods.
    #[arg(long, default_value_t = 300)]
    heartbeat_seconds: u64,
    /// The time over which the drain spreads its close frames, in seconds.
    #[arg(long, default_value_t = 30)]
    drain_seconds: u64,
    /// The directory of the kernel modules for connection tracking. The settings of the host are checked only if this
    /// option is given, because the check loads these modules into the
    /// kernel.
    #[arg(long)]
    modules: Option<PathBuf>,
    /// The smallest amount of available memory that was sampled, in bytes.
    #[arg(skip = Cell::new(u64::MAX))]
    available_min: Cell<u64>,
}

fn main() -> ExitCode {
    let result = match Command::parse().action {
        Action::Run(options) => measure(&options),
        Action::Draw { table, svg } => picture::draw(&table, &svg),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    let mut report = Report::default();
    let sizes = sizes(options.count);
    let before = memory::available_bytes()?;
    report.head();
    for kind in [Kind::Bare, Kind::Uid] {
        Run::start(options, &mut report, options.count, LONG_PING)?.open(&sizes, kind)?;
        options.sample_memory()?;
    }
    for &size in &sizes {
        let is_last = size == options.count;
        let ping = if is_last { Duration::from_secs(options.heartbeat_seconds) } else { LONG_PING };
        let mut run = Run::start(options, &mut report, size, ping)?;
        run.open(if is_last { &sizes } else { std::slice::from_ref(&size) }, Kind::Groups)?;
        run.measure(is_last)?;
        options.sample_memory()?;
    }
    let used = before.saturating_sub(options.available_min.get()) >> 20;
    let title = "peak memory of the machine: kernel, server and client, MiB";
    report.tell(title, options.count, "", grouped(used as usize));
    if let Some(uws) = &options.uws {
        let sizes: Vec<usize> = sizes.iter().copied().filter(|size| *size <= UWS_COUNT_MAX.max(sizes[0])).collect();
        for kind in [Kind::UwsBare, Kind::UwsUid] {
            uws::measure(uws, &sizes, kind, &mut report)?;
        }
    }
    if let Some(modules) = &options.modules {
        settings::check(options, modules, &mut report)?;
    }
    match report.failures {
        0 => Ok(()),
        count => Err(failure(format!("{count} rows differ from the expected results"))),
    }
}

impl Options {
    /// Samples the available memory.
    fn sample_memory(&self) -> io::Result<()> {
        self.available_min.set(self.available_min.get().min(memory::available_bytes()?));
        Ok(())
    }
}

/// Returns the numbers of connections at which to measure.
///
/// These are the powers of ten from 10,000 on that are less than `count`, and `count` itself.
fn sizes(count: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (4..).map(|power| 10_usize.pow(power)).take_while(|size| *size < count).collect();
    sizes.push(count);
    sizes
}

/// Creates the error of a failed check.
fn failure(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_end_with_the_count() {
        assert_eq!(sizes(50_000), [10_000, 50_000]);
        assert_eq!(sizes(1_000_000), [10_000, 100_000, 1_000_000]);
        assert_eq!(sizes(5), [5]);
    }
}
