//! Listeners that a worker was given and has not said of that it listens on them.
//!
//! What a worker says of its listeners is told to users only where it is about one of these, and once: it can write what it
//! likes, as often as it likes.

use std::collections::VecDeque;

use allcores_core::channel::{AddressKind, Query};

use crate::ports::{LaneId, MOST_OF_WORKER};

/// A longer address is nobody's: it is longer than any path of a socket.
const LONGEST_ADDRESS: usize = 255;

/// What is awaited.
#[derive(Debug, Default)]
pub(in crate::primary) struct Grants(VecDeque<Grant>);

/// A listener that it was given.
#[derive(Debug)]
pub(in crate::primary) struct Grant {
    key: String,
    asked: Asked,
    /// Where; `None` for a descriptor of the operator's.
    pub(in crate::primary) lane: Option<LaneId>,
}

/// What a listener was asked for by, and is named by again when it listens.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::primary) struct Asked {
    pub(in crate::primary) address: Option<String>,
    pub(in crate::primary) kind: AddressKind,
    pub(in crate::primary) fd: Option<i64>,
    pub(in crate::primary) index: u64,
}

impl Grants {
    /// It was given what it asked for, under this key.
    pub(in crate::primary) fn note(&mut self, key: String, query: &Query, lane: Option<LaneId>) {
        let Query { address, kind, fd, index, .. } = query;
        if address.as_ref().is_some_and(|address| address.len() > LONGEST_ADDRESS) {
            return;
        }
        if self.0.len() == MOST_OF_WORKER {
            self.0.pop_front();
        }
        let asked = Asked { address: address.clone(), kind: *kind, fd: *fd, index: *index };
        self.0.push_back(Grant { key, asked, lane });
    }

    /// It listens there, for the first time that it says so. `None` if it was not given that, or has said it before.
    pub(in crate::primary) fn take(&mut self, asked: &Asked) -> Option<Grant> {
        let at = self.0.iter().position(|grant| grant.asked == *asked)?;
        self.0.remove(at)
    }

    /// It has closed what it was given under this key.
    pub(in crate::primary) fn forget(&mut self, key: &str) {
        self.0.retain(|grant| grant.key != key);
    }
}
