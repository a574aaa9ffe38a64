//! Runs the binary with a command line and an environment, and returns its output.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Scratch;

/// The exit code and output of one run of the binary.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Returns a command that runs the binary with these arguments and only these environment variables.
pub fn command(line: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fdpush"));
    command.args(line).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn call(line: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    let output = command(line, environment).output().expect("the binary can run");
    let text = |bytes| String::from_utf8(bytes).expect("the text is UTF-8");
    CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Returns the errors of `check` for a settings file with this text.
pub fn error_output(text: &str) -> String {
    let scratch = Scratch::new("error_output");
    let file = write(&scratch, text);
    let printed = call(&["check", "--config", &file], &[]);
    assert_eq!(printed.code, Some(1), "{text}: {printed:?}");
    assert!(printed.err.starts_with("fdpush: "), "{printed:?}");
    printed.err.replace(&file, "FILE")
}

/// Writes a settings file that only its owner can read, and returns its path.
pub fn write(scratch: &Scratch, text: &str) -> String {
    let path = scratch.file("fdpush.toml");
    fs::write(&path, text).expect("the file can be written");
    make_private(&path);
    path.to_str().expect("the text is UTF-8").to_owned()
}

pub fn make_private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the test owns the file");
}
