//! The command `fdpush`.

mod gateway;

use std::process::ExitCode;

fn main() -> ExitCode {
    match gateway::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fdpush: {error}");
            ExitCode::FAILURE
        }
    }
}
