//! The files of unix sockets. A new socket replaces a stale file, on which no process listens. A file is removed when
//! its socket is closed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a unix socket. Dropping this value removes the file, unless another process has replaced the file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The numbers of the device and of the inode of the file.
    identity: (u64, u64),
}

impl SocketFile {
    /// Creates a socket of `kind` and binds it to `path`.
    ///
    /// A socket file at `path` is replaced if no process listens on it.
    ///
    /// # Errors
    /// The error is `AlreadyExists` if the file at `path` is not a socket, and `AddrInUse` if a process listens on the
    /// socket. All other errors are errors of the system calls.
    pub fn bind(path: &Path, kind: Type) -> io::Result<(Socket, SocketFile)> {
        let address = SockAddr::unix(path)?;
        remove_stale(path, kind)?;
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        socket.bind(&address)?;
        let metadata = fs::symlink_metadata(path)?;
        Ok((socket, SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Removes a socket file on which no process listens.
fn remove_stale(path: &Path, kind: Type) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket"));
    }
    let connected = match kind {
        Type::DGRAM => UnixDatagram::unbound()?.connect(path),
        _ => UnixStream::connect(path).map(drop),
    };
    match connected {
        Ok(()) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process uses this socket")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}
