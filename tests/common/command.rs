//! Runs the binary with a command line and an environment.
//!
//! All tests start the binary through this module, so that no test binds a default address of `serve`. Only one process
//! at a time can bind such an address, and tests run at the same time. `tests/tidy.rs` checks that no other module
//! names the binary.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Scratch;

const BINARY: &str = env!("CARGO_BIN_EXE_fdpush");

/// An environment with free ports for `serve`. A flag overrides these addresses, and a settings file does not.
pub const FREE_PORTS: [(&str, &str); 2] = [("FDPUSH_LISTEN", "127.0.0.1:0"), ("FDPUSH_API", "127.0.0.1:0")];

/// The exit code and output of one run of the binary.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Returns a command that runs the binary with these arguments and only these environment variables.
///
/// # Panics
/// This function panics if the command is `serve` and would bind a default address.
pub fn command(line: &[&str], environment: &[(&str, &str)]) -> Command {
    complete(Command::new(BINARY), line, environment)
}

/// Works like [`command`], but starts the binary from a shell script. The script runs
/// the command with `exec "$0" "$@"`.
pub fn command_in_shell(script: &str, line: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, BINARY]);
    complete(shell, line, environment)
}

fn complete(mut command: Command, line: &[&str], environment: &[(&str, &str)]) -> Command {
    if let Some((&"serve", flags)) = line.split_first() {
        assert_no_default_address(flags, environment);
    }
    command.args(line).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Panics if `serve` would bind a default address. The command `config` prints which settings have their default.
fn assert_no_default_address(flags: &[&str], environment: &[(&str, &str)]) {
    let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let keys = [("listen", "--listen", "FDPUSH_LISTEN"), ("api", "--api", "FDPUSH_API")];
    if keys.iter().all(|(_, flag, name)| flags.contains(flag) || variable(name).is_some()) {
        return;
    }
    // If `config` refuses the settings, `serve` ends before it binds an address.
    let settings = call(&[&["config"], flags].concat(), environment).out;
    let inherited = variable("LISTEN_FDNAMES").unwrap_or_default();
    for (key, flag, _) in keys {
        let is_default =
            settings.lines().any(|line| line.starts_with(&format!("{key} = ")) && line.ends_with("# default"));
        // Inherited sockets replace a default address.
        let is_replaced = inherited.split(':').any(|name| !name.is_empty() && (name == "api") == (key == "api"));
        assert!(!is_default || is_replaced, "serve {flags:?} would bind the default address of {flag}: give {flag}");
    }
}

pub fn call(line: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    let output = command(line, environment).output().expect("the binary can run");
    let text = |bytes| String::from_utf8(bytes).expect("the text is UTF-8");
    CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Returns the errors of `check` for a settings file with this text. In the errors, `FILE` replaces the path.
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
