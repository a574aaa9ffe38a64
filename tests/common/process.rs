//! A child process that a test starts.

use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, ExitStatus};

/// A child process. When the value is dropped, the process is killed.
pub struct ChildProcess(Child);

impl ChildProcess {
    pub fn spawn(command: &mut Command) -> ChildProcess {
        ChildProcess(command.spawn().expect("the child process can be started"))
    }

    /// Sends a signal, for example `-TERM`.
    pub fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        // A small Debian has no program `kill`, but each shell has the command.
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill \"$0\" \"$1\"", signal, &id]);
        assert!(kill.status().expect("the shell can run").success());
    }

    /// Waits for the end of the process.
    pub fn exit_status(&mut self) -> ExitStatus {
        self.0.wait().expect("the process ends")
    }
}

impl Deref for ChildProcess {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for ChildProcess {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
