//! Connections whose client is told by the head of its first request, until that has come.
//!
//! The bytes are looked at and left where they are (MSG_PEEK), for the worker to read. Nobody waits for long, or for
//! many bytes, and one that does makes room for others when there is little: it goes by its source address then.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use allcores_core::handoff::Key;
use allcores_core::handoff::head::{self, Found};
use allcores_core::policy::StickyBy;
use rustix::net::RecvFlags;
use tokio::sync::oneshot;

use super::LaneId;
use crate::sys::Watch;

/// How much of a request is looked at. Node itself takes no longer head than this.
const LONGEST: usize = 16 * 1024;

/// How long a head may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection whose client is not known so far.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) lane: LaneId,
    number: u64,
    pub(super) connection: OwnedFd,
    pub(super) source: Key,
    by: StickyBy,
    /// Ends when somebody else needs the room.
    hurry: oneshot::Receiver<()>,
}

/// A connection whose client is known.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) lane: LaneId,
    pub(super) number: u64,
    pub(super) connection: OwnedFd,
    pub(super) key: Key,
}

/// What became of reading one.
#[derive(Debug)]
pub(crate) enum Looked {
    Known(Read),
    /// It was called back before it was known.
    Back(Unread),
}

/// Those of one address that are not known so far.
#[derive(Debug, Default)]
pub(super) struct Heads {
    next: u64,
    /// By number, and so by age. Dropping the sender hurries one up.
    waiting: BTreeMap<u64, Option<oneshot::Sender<()>>>,
}

impl Heads {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Has a connection wait for its head.
    pub(super) fn wait(&mut self, lane: LaneId, connection: OwnedFd, source: Key, by: &StickyBy) -> Unread {
        let (sender, hurry) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Some(sender));
        Unread { lane, number, connection, source, by: by.clone(), hurry }
    }

    /// Waits no longer for the oldest. One at a time, as it takes a moment to come back.
    pub(super) fn hurry(&mut self) {
        if self.waiting.values().all(Option::is_some)
            && let Some(mut oldest) = self.waiting.first_entry()
        {
            drop(oldest.get_mut().take());
        }
    }

    pub(super) fn forget(&mut self, number: u64) {
        self.waiting.remove(&number);
    }
}

/// What is known of a connection's client by what has come so far. `Incomplete` is only said if more may come.
pub(super) fn look(connection: impl AsFd, by: &StickyBy) -> Found {
    let mut bytes = [0; LONGEST];
    match rustix::net::recv(connection, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, length)) if length > 0 => match head::find(&bytes[..length.min(LONGEST)], by) {
            Found::Incomplete if length >= LONGEST => Found::Nothing,
            found => found,
        },
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Found::Incomplete,
        // It has closed its side without a word, or is gone.
        Ok(_) | Err(_) => Found::Nothing,
    }
}

impl Unread {
    /// Waits until it is known, for as long as that may take, or until it is called back.
    pub(crate) async fn read(self, called_back: impl Future<Output = ()>) -> Looked {
        let Self { lane, number, connection, source, by, mut hurry } = self;
        let known = |connection, key| Looked::Known(Read { lane, number, connection, key });
        let watch = match Watch::try_readable(connection) {
            Ok(watch) => watch,
            Err(connection) => return known(connection, source),
        };
        // Each arrival wakes it once, though what came before is still there: it does not spin on half a head.
        let found = watch.read(|connection| match look(connection, &by) {
            Found::Incomplete => Err(io::ErrorKind::WouldBlock.into()),
            found => Ok(found),
        });
        let key = tokio::select! {
            found = found => match found {
                Ok(Found::Client(key)) => key,
                _ => source,
            },
            () = tokio::time::sleep(PATIENCE) => source,
            _ = &mut hurry => source,
            () = called_back => {
                let connection = watch.into_inner();
                return Looked::Back(Self { lane, number, connection, source, by, hurry });
            }
        };
        known(watch.into_inner(), key)
    }
}
