//! What was read and not taken out as data, with the descriptors that came along.

use std::io;

use allcores_core::channel::Lines;
use serde::{Deserialize, Serialize};

use super::{Inbox, LONGEST, Received};
use crate::carry::{BytesSaved, FdSaved, Inherited, Manifest};

/// What was read and not taken out, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::channel) struct InboxSaved {
    rest: BytesSaved,
    /// Where each piece that a descriptor came with ends, counted from the beginning of the rest, and the descriptor.
    received: Vec<(u64, Option<FdSaved>)>,
}

impl Inbox {
    pub(in crate::channel) fn save(&self, manifest: &mut Manifest) -> InboxSaved {
        let rest = self.lines.rest();
        let taken = self.read - rest.len() as u64;
        let save = |received: &Received| {
            let descriptor = received.descriptor.as_ref().map(|descriptor| manifest.note(descriptor));
            (received.end.saturating_sub(taken), descriptor)
        };
        InboxSaved { rest: rest.into(), received: self.received.iter().map(save).collect() }
    }

    pub(in crate::channel) fn restore(saved: InboxSaved, inherited: &mut Inherited) -> io::Result<Self> {
        let rest = Vec::from(saved.rest);
        let mut lines = Lines::new(LONGEST);
        lines.push(&rest);
        let restore = |(end, descriptor): (u64, Option<FdSaved>)| {
            let descriptor = descriptor.map(|number| inherited.take(number)).transpose()?;
            Ok(Received { end, descriptor })
        };
        Ok(Self {
            lines,
            read: rest.len() as u64,
            received: saved.received.into_iter().map(restore).collect::<io::Result<_>>()?,
            ..Self::default()
        })
    }
}
