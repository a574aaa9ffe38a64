//! The program `fdpush`: runs the command line of the gateway.

mod gateway;

use std::process::ExitCode;

use gateway::operations::logging;

fn main() -> ExitCode {
    let _flush = logging::Flush;
    gateway::run()
}
