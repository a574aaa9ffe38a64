//! Reads the files that settings name: regular files only, bounded in size and in time.
//!
//! A FIFO, a device or a file system that does not answer must stop neither the start nor a reload. So a file is opened
//! without waiting, is read only if it is a regular file, and is read on a thread of its own.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::fs::OFlags;

use super::threads;

/// The longest read of one file.
const READ_TIME_MAX: Duration = Duration::from_secs(5);

/// The bytes of a regular file of at most `bytes_max`.
///
/// # Errors
/// Says what is wrong, without the path.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let path: PathBuf = path.to_owned();
    within(READ_TIME_MAX, move || read_now(&path, bytes_max))
}

/// The same as text, without a byte-order mark.
///
/// # Errors
/// As [`read`], and where it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let text = String::from_utf8(read(path, bytes_max)?).map_err(|_| "it is not UTF-8".to_owned())?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn read_now(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    // Without waiting for the other end of a FIFO, or becoming a terminal's process.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.kind() {
        // The kernel's answer for a socket.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => not_regular(),
        ErrorKind::IsADirectory => not_regular(),
        _ => error.to_string(),
    })?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err(not_regular());
    }
    let too_long = || format!("it has more than {bytes_max} bytes");
    if metadata.len() > bytes_max {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max { Err(too_long()) } else { Ok(bytes) }
}

fn not_regular() -> String {
    "it is not a regular file".to_owned()
}

/// Returns the result of `read`, unless it takes longer than `time_max`. Its thread is then left to end by itself.
fn within<T: Send + 'static>(
    time_max: Duration,
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = channel();
    let mut read = Some(read);
    let started = threads::spawn("fdpush-file", move || {
        // Taken once: after a panic there is nothing left to do.
        if let Some(read) = read.take() {
            // The receiver is gone once the time is over.
            let _ = sender.send(read());
        }
        Ok(())
    });
    started.map_err(|error| format!("no thread to read it: {error}"))?;
    receiver.recv_timeout(time_max).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => Err(format!("it could not be read within {time_max:?}")),
        RecvTimeoutError::Disconnected => Err("its reader panicked".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    #[test]
    fn regular_files_within_their_size_are_read() {
        let folder = std::env::temp_dir().join(format!("fdpush-files-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let at = |name: &str| folder.join(name);
        fs::write(at("ten"), "0123456789").expect("a file");
        std::os::unix::fs::symlink(at("ten"), at("link")).expect("a link");
        for name in ["ten", "link"] {
            assert_eq!(read(&at(name), 10).as_deref(), Ok(b"0123456789".as_slice()));
            assert_eq!(read(&at(name), 9), Err("it has more than 9 bytes".to_owned()));
        }
        fs::write(at("bom"), "\u{feff}a\u{feff}").expect("a file");
        assert_eq!(read_text(&at("bom"), 10).as_deref(), Ok("a\u{feff}"));
        fs::write(at("latin"), b"\xe4").expect("a file");
        assert_eq!(read_text(&at("latin"), 10), Err("it is not UTF-8".to_owned()));

        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
        let _listener = UnixListener::bind(at("socket")).expect("a socket");
        // A sparse file takes no room.
        fs::File::create(at("huge")).and_then(|file| file.set_len(10 << 30)).expect("a file");
        assert_eq!(read(&at("huge"), 1 << 20), Err("it has more than 1048576 bytes".to_owned()));
        for path in [at("fifo"), at("socket"), folder.clone(), "/dev/zero".into(), "/dev/null".into()] {
            assert_eq!(read(&path, 10), Err("it is not a regular file".to_owned()), "{}", path.display());
        }
        // The kernel says 0 bytes of these, and there are more.
        assert!(read(Path::new("/proc/self/status"), 10).is_err_and(|why| why.contains("more than 10")));
        assert!(read(&at("none"), 10).is_err_and(|why| why.contains("No such file")));
        fs::remove_dir_all(&folder).expect("a folder");
    }

    #[test]
    fn a_file_that_does_not_come_is_an_error() {
        let (_held, never) = channel::<Result<(), String>>();
        let read = move || never.recv().unwrap_or(Ok(()));
        assert_eq!(within(Duration::from_millis(10), read), Err("it could not be read within 10ms".to_owned()));
        assert_eq!(within(READ_TIME_MAX, || panic!("a test panics here")), Err::<(), _>("its reader panicked".into()));
    }
}
