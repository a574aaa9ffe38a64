//! Reads files that the settings name. This module reads only regular files, with a bound on the size of a file and on
//! the time of a read.
//!
//! A FIFO, a device or a file system that does not answer must not block the start or a reload. So this module opens a
//! file without blocking, checks that the file is regular, and reads the file on a new thread.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::fs::OFlags;

use super::threads;

/// The maximum size of a certificate file, in bytes. The file of the root certificates of Mozilla has about 230,000
/// bytes.
pub const CERTIFICATE_BYTES_MAX: u64 = 8 << 20;

/// The maximum time to read a file.
const READ_TIME_MAX: Duration = Duration::from_secs(5);

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// The error text states the reason, without the path.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let path: PathBuf = path.to_owned();
    within(READ_TIME_MAX, move || read_now(&path, bytes_max))
}

/// Reads a file as UTF-8, and removes a byte order mark at the start of the text.
///
/// # Errors
/// Returns an error if the file cannot be read (see [`read`]) or is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let text = String::from_utf8(read(path, bytes_max)?).map_err(|_| "file is not UTF-8".to_owned())?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn read_now(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    // With these flags, `open` does not wait for a writer of a FIFO, and a terminal does not become the controlling
    // terminal.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.kind() {
        // The kernel returns `ENXIO` if the file is a socket.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => not_regular(),
        ErrorKind::IsADirectory => not_regular(),
        _ => error.to_string(),
    })?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err(not_regular());
    }
    let too_long = || format!("file exceeds {bytes_max} bytes");
    if metadata.len() > bytes_max {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max { Err(too_long()) } else { Ok(bytes) }
}

fn not_regular() -> String {
    "not a regular file".to_owned()
}

/// Runs `read` on a new thread. Returns the result of `read`, or an error if `read` takes longer than `time_max`.
///
/// After a timeout, the new thread may still be reading the file.
fn within<T: Send + 'static>(
    time_max: Duration,
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = channel();
    let mut read = Some(read);
    let started = threads::spawn("fdpush-file", move || {
        // If `read` panics, `threads::spawn` runs this closure again. The second run does nothing, because the first
        // run took `read`. So the thread ends.
        if let Some(read) = read.take() {
            // An error of `sender.send` is ignored: `within` drops the receiver after `time_max`, and then the result
            // is not needed.
            let _ = sender.send(read());
        }
        Ok(())
    });
    started.map_err(|error| format!("cannot start a thread to read the file: {error}"))?;
    receiver.recv_timeout(time_max).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(format!("file not readable within {time_max:?}")),
        RecvTimeoutError::Disconnected => Err("the thread that reads the file panicked".to_owned()),
    })
}

/// Returns the path of a temporary file for a test. No other test and no earlier test run uses this path.
#[cfg(test)]
pub fn unused_path() -> PathBuf {
    use std::hash::{BuildHasher, RandomState};
    std::env::temp_dir().join(format!("fdpush-test-{:016x}", RandomState::new().hash_one(())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    #[test]
    fn only_regular_files_within_the_size_limit_are_read() {
        let folder = unused_path();
        fs::create_dir(&folder).expect("the directory can be created");
        let at = |name: &str| folder.join(name);
        fs::write(at("ten"), "0123456789").expect("the file can be written");
        std::os::unix::fs::symlink(at("ten"), at("link")).expect("the link can be created");
        for name in ["ten", "link"] {
            assert_eq!(read(&at(name), 10).as_deref(), Ok(b"0123456789".as_slice()));
            assert_eq!(read(&at(name), 9), Err("file exceeds 9 bytes".to_owned()));
        }
        fs::write(at("bom"), "\u{feff}a\u{feff}").expect("the file can be written");
        assert_eq!(read_text(&at("bom"), 10).as_deref(), Ok("a\u{feff}"));
        fs::write(at("latin"), b"\xe4").expect("the file can be written");
        assert_eq!(read_text(&at("latin"), 10), Err("file is not UTF-8".to_owned()));

        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RWXU, 0).expect("the FIFO can be created");
        let _listener = UnixListener::bind(at("socket")).expect("the socket can be created");
        // The file is sparse, so the file takes no space on the disk.
        fs::File::create(at("huge")).and_then(|file| file.set_len(10 << 30)).expect("the file can be created");
        assert_eq!(read(&at("huge"), 1 << 20), Err("file exceeds 1048576 bytes".to_owned()));
        for path in [at("fifo"), at("socket"), folder.clone(), "/dev/zero".into(), "/dev/null".into()] {
            assert_eq!(read(&path, 10), Err("not a regular file".to_owned()), "{}", path.display());
        }
        // The size of a file in `/proc` is 0, although the file contains bytes.
        assert!(read(Path::new("/proc/self/status"), 10).is_err_and(|why| why.contains("exceeds 10")));
        assert!(read(&at("none"), 10).is_err_and(|why| why.contains("No such file")));
        fs::remove_dir_all(&folder).expect("the directory can be removed");
    }

    #[test]
    fn a_file_that_is_not_read_in_time_is_an_error() {
        let (_held, never) = channel::<Result<(), String>>();
        let read = move || never.recv().unwrap_or(Ok(()));
        assert_eq!(within(Duration::from_millis(10), read), Err("file not readable within 10ms".to_owned()));
        assert_eq!(
            within(READ_TIME_MAX, || panic!("panic of the test")),
            Err::<(), _>("the thread that reads the file panicked".into())
        );
    }
}
