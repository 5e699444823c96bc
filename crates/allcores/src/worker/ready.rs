//! Saying that this worker is ready: sd_notify(3), as any program may.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::Worker;
use crate::Error;

/// How long whoever is told may take to make room for it. A primary does at once unless it is stopped.
const PATIENCE: Duration = Duration::from_secs(5);

impl Worker {
    /// Says that this worker is ready to serve, where that is waited for: by a primary that
    /// [waits](crate::Builder::wait_ready) (`allcores run --wait-ready`), which gives it no connections before. Elsewhere it
    /// changes nothing.
    ///
    /// To listen may come before or after; a worker is ready when it has done both. It says `READY=1` by sd_notify(3), at the
    /// `NOTIFY_SOCKET` that is in the environment, so that a worker which is [alone](Self::is_alone) tells a service manager, if
    /// there is one. Where the environment names none, nobody is told, and that is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if nobody is there any more to be told.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(worker: allcores::Worker) -> Result<(), allcores::Error> {
    /// let listener = worker.listen("0.0.0.0:8080").await?;
    /// # async fn fill_the_cache() {}
    /// fill_the_cache().await;
    /// worker.ready()?;
    /// # Ok(()) }
    /// ```
    pub fn ready(&self) -> Result<(), Error> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => notify(&name, b"READY=1")
                .map_err(|error| Error::io("saying that this worker is ready", error)),
            _ => Ok(()),
        }
    }
}

/// Sends a word to a socket that is named as in `NOTIFY_SOCKET`: a path, or an abstract name behind an `@`.
fn notify(name: &OsStr, word: &[u8]) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(word, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_reaches_a_path_and_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify.sock");
        let name = format!("allcores-test-ready-{}", std::process::id());
        let at_path = UnixDatagram::bind(&path).unwrap();
        let at_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notify(path.as_os_str(), b"READY=1").unwrap();
        notify(OsStr::new(&format!("@{name}")), b"READY=1").unwrap();
        for socket in [at_path, at_name] {
            let mut word = [0; 16];
            let length = socket.recv(&mut word).unwrap();
            assert_eq!(&word[..length], b"READY=1");
        }
        assert_eq!(
            notify(path.as_os_str(), b"READY=1").unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
