//! Who started this process, as what: read from its environment.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use allcores_core::channel::Serialization;
use allcores_core::worker::{Slot, WorkerId};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::rendezvous::{self, Greeting};
use crate::sys::process::take_inherited;
use crate::{Error, ErrorKind};

/// How long a primary may take to greet; it does so at once unless it is stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of the variables that make a worker of a process, once they have: they are not for what it starts. Node takes
/// out its own, too. `ALLCORES_SLOT` stays for the program to read; that no channel is named says that it is somebody else's.
pub(super) const TAKEN: [(&str, Option<&str>); 4] = [
    ("NODE_CHANNEL_FD", None),
    ("NODE_CHANNEL_SERIALIZATION_MODE", None),
    ("NODE_UNIQUE_ID", None),
    (rendezvous::VARIABLE, Some("")),
];

/// What this process is.
#[derive(Debug)]
pub(super) enum Origin {
    /// A worker with a channel.
    Connected { socket: OwnedFd, serialization: Serialization, id: WorkerId, slot: Slot },
    /// A worker whose system calls are answered.
    Adopted { id: WorkerId, slot: Slot },
    /// A worker without a primary, as somebody wishes.
    Alone,
    /// No worker.
    Primary,
}

/// Reads the environment, and takes what it names.
pub(super) fn find(variable: impl Fn(&str) -> Option<OsString>) -> Result<Origin, Error> {
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let wish = text("ALLCORES_ROLE");
    if let Some(other) = wish.as_deref().filter(|wish| !["worker", "primary"].contains(wish)) {
        let attempt = format!("reading ALLCORES_ROLE={other}: it may be worker or primary");
        return Err(Error::new(ErrorKind::Settings, attempt));
    }
    if wish.as_deref() == Some("primary") {
        return Ok(Origin::Primary);
    }
    let id = text("NODE_UNIQUE_ID");
    let inherited = || take_channel(&text("NODE_CHANNEL_FD")?);
    if let Some(id) = &id
        && let Some(socket) = inherited()
    {
        let serialization = serialization(text("NODE_CHANNEL_SERIALIZATION_MODE").as_deref())?;
        // As Node reads it.
        let id = WorkerId(id.parse().unwrap_or(0));
        let slot = ["ALLCORES_SLOT", "NODE_APP_INSTANCE"].iter().find_map(|name| text(name)?.parse().ok());
        let by_id = || u16::try_from(id.0.saturating_sub(1)).unwrap_or(u16::MAX);
        let slot = Slot(slot.unwrap_or_else(by_id));
        return Ok(Origin::Connected { socket, serialization, id, slot });
    }
    let place = text(rendezvous::VARIABLE);
    let mut is_taken = place.as_deref() == Some("");
    match place.filter(|_| !is_taken).and_then(|name| meet(&name).ok()) {
        Some(Met::Worker(socket, Greeting { id, slot })) => {
            return Ok(Origin::Connected { socket, serialization: Serialization::Json, id, slot });
        }
        Some(Met::NoWorker) => is_taken = true,
        None => {}
    }
    let slot = text("ALLCORES_SLOT").and_then(|slot| slot.parse().ok()).map(Slot);
    Ok(match slot {
        // With an id of Node's that is not ours, or without any: we are what a worker has started, and no worker.
        Some(slot) if id.is_none() && !is_taken => {
            let id = text("ALLCORES_WORKER_ID").and_then(|id| id.parse().ok()).unwrap_or(0);
            Origin::Adopted { id: WorkerId(id), slot }
        }
        _ if wish.is_some() => Origin::Alone,
        _ => Origin::Primary,
    })
}

fn serialization(mode: Option<&str>) -> Result<Serialization, Error> {
    match mode {
        None | Some("json") => Ok(Serialization::Json),
        Some("advanced") => Ok(Serialization::Advanced),
        Some(other) => {
            let attempt =
                format!("reading NODE_CHANNEL_SERIALIZATION_MODE={other}: it may be json or advanced");
            Err(Error::new(ErrorKind::Settings, attempt))
        }
    }
}

/// Takes the descriptor of this number, if it is a channel. It is not for what a worker has started, which finds the
/// variable and perhaps something else at that number.
fn take_channel(number: &str) -> Option<OwnedFd> {
    let is_channel = |socket: BorrowedFd<'_>| {
        sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
            && rustix::net::getpeername(socket).is_ok()
    };
    take_inherited(number.parse::<RawFd>().ok()?, is_channel).ok()
}

/// Who we are to a primary that was met.
enum Met {
    Worker(OwnedFd, Greeting),
    /// Somebody whom a worker has started.
    NoWorker,
}

/// Goes to the primary, and hears who we are to it.
fn meet(name: &str) -> io::Result<Met> {
    let mut socket = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    loop {
        // Byte by byte: what follows belongs to the channel.
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        line.push(byte[0]);
        if line.len() > rendezvous::LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    if line == rendezvous::NO_WORKER.as_bytes() {
        return Ok(Met::NoWorker);
    }
    socket.set_read_timeout(None)?;
    let greeting = Greeting::read(&line).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Met::Worker(socket.into(), greeting))
}

#[cfg(test)]
mod tests;
