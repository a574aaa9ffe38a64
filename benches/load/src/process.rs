//! Reads the CPU time and the memory of a process from `/proc`.

use std::fs;
use std::io;
use std::time::Duration;

/// Returns the CPU time of all threads of a process. The source is `schedstat`, which counts nanoseconds.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(task?.path().join("schedstat")) {
            Ok(text) => nanos += first_number(&text)?,
            // A thread has ended after the list of threads was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// Returns the private resident bytes of a process. The source is `smaps_rollup`, which is exact: `statm` may lag
/// behind by a few hundred pages.
pub fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).ok_or(io::ErrorKind::InvalidData)?;
    Ok(first_number(line)? * 1024)
}

/// Returns the peak of the resident bytes of a process.
pub fn peak_resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or(io::ErrorKind::InvalidData)?;
    Ok(first_number(line)? * 1024)
}

/// Returns the resident bytes of a process, including the pages of the program and its libraries.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).ok_or(io::ErrorKind::InvalidData)?;
    Ok(first_number(line)? * 1024)
}

fn first_number(text: &str) -> io::Result<u64> {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
