//! Lines as entries of systemd's journal, with fields, by its own protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Chosen where what we would print goes to the journal anyway, and nowhere else. Sending may wait, and is done by the thread of
//! a queue. The libraries that speak this protocol take text, and a message may be any bytes.

mod entry;

use std::env;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr, sendto,
};

pub(crate) use entry::{own, worker};

use crate::report::{Level, Loss, Out, Sink};

/// Where journald listens, in each of its namespaces.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Names another one.
const SOCKET_VARIABLE: &str = "ALLCORES_JOURNAL_SOCKET";

/// Which socket is the journal's, as `DEVICE:INODE`; set by systemd where one of our streams goes there.
const STREAM_VARIABLE: &str = "JOURNAL_STREAM";

/// The journal, to be written to.
#[derive(Debug)]
pub(crate) struct Journal {
    app: String,
    socket: UnixDatagram,
    address: SocketAddrUnix,
    loss: Loss,
}

impl Journal {
    /// Finds the journal that both stdout and stderr go to.
    pub(crate) fn find(app: &str) -> Option<Self> {
        let stream = env::var(STREAM_VARIABLE).ok()?;
        if !is_stream(&io::stderr(), &stream) || !is_stream(&io::stdout(), &stream) {
            return None;
        }
        let path = env::var_os(SOCKET_VARIABLE).map_or_else(|| SOCKET.into(), PathBuf::from);
        Self::at(app, &SocketAddrUnix::new(path).ok()?).ok()
    }

    fn at(app: &str, address: &SocketAddrUnix) -> io::Result<Self> {
        Ok(Self {
            app: app.to_owned(),
            // The standard library has it closed in children.
            socket: UnixDatagram::unbound()?,
            address: address.clone(),
            loss: Loss::default(),
        })
    }

    /// Sends an entry. Says before it how many were lost.
    fn put(&mut self, entry: &[u8]) {
        let mut sent = Ok(());
        if let Some(dropped) = self.loss.untold() {
            let note = own(&self.app, Level::Warning, &dropped.to_string());
            sent = entry::each(&note).try_for_each(|note| self.send(note));
            if sent.is_ok() {
                self.loss.told();
            }
        }
        if let Err(reason) = sent.and_then(|()| self.send(entry)) {
            self.loss.lose(1, reason.to_string());
        }
    }

    fn send(&self, entry: &[u8]) -> rustix::io::Result<()> {
        let sent =
            rustix::io::retry_on_intr(|| sendto(&self.socket, entry, SendFlags::empty(), &self.address));
        match sent {
            Err(Errno::MSGSIZE | Errno::NOBUFS) => self.send_large(entry),
            sent => sent.map(drop),
        }
    }

    /// Sends what is too large for a datagram: as a file in memory that can't be changed any more, which is what journald asks for.
    fn send_large(&self, entry: &[u8]) -> rustix::io::Result<()> {
        let file = memfd_create(c"allcores-entry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = std::fs::File::from(file);
        file.write_all(entry).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        let descriptors = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let nothing = [IoSlice::new(&[])];
        rustix::io::retry_on_intr(|| {
            sendmsg_addr(&self.socket, &self.address, &nothing, &mut control, SendFlags::empty())
        })
        .map(drop)
    }
}

impl Out for Journal {
    fn write(&mut self, _: Sink, entries: &[u8]) {
        for entry in entry::each(entries) {
            self.put(entry);
        }
    }

    fn lost(&self) -> Arc<AtomicU64> {
        self.loss.all()
    }
}

/// Whether a stream is the socket that systemd has named.
fn is_stream(stream: &impl AsFd, name: &str) -> bool {
    fstat(stream).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == name)
}

#[cfg(test)]
mod tests;
