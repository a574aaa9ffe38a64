//! The command `fdpush`.

mod gateway;

use std::process::ExitCode;

use gateway::logging;

fn main() -> ExitCode {
    let _flush = logging::Flush;
    match gateway::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::print_error(&format!("fdpush: {error}\n"));
            ExitCode::FAILURE
        }
    }
}
