//! A desk as data: the connections that the primary has, by their descriptors, and who was handed which.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use allcores_core::handoff::{Handoff, HandoffSaved, Key, Order, Ticket};
use allcores_core::policy::Policy;
use serde::{Deserialize, Serialize};

use super::Desk;
use crate::carry::{FdSaved, Inherited, Manifest};
use crate::ports::LaneId;
use crate::ports::heads::Heads;

/// A desk as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::ports) struct DeskSaved {
    core: HandoffSaved,
    connections: Vec<(u64, FdSaved)>,
    unread: Vec<UnreadSaved>,
    came: u64,
    #[serde(default)]
    short_until: Option<Duration>,
    is_shortage_told: bool,
}

/// A connection whose client is not known so far, as data.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct UnreadSaved {
    lane: u64,
    connection: FdSaved,
    source: u64,
}

impl Desk {
    pub(in crate::ports) fn save(&self, manifest: &mut Manifest) -> DeskSaved {
        let connections = self.connections.iter();
        let unread = self.unread.iter().map(|unread| UnreadSaved {
            lane: unread.lane.0,
            connection: manifest.note(&unread.connection),
            source: unread.source.number(),
        });
        DeskSaved {
            core: self.core.save(),
            unread: unread.collect(),
            connections: connections
                .map(|(ticket, connection)| (ticket.number(), manifest.note(connection.as_ref())))
                .collect(),
            came: self.came,
            short_until: self.short_until,
            is_shortage_told: self.is_shortage_told,
        }
    }

    pub(in crate::ports) fn restore(
        policy: &Policy,
        pending: usize,
        saved: DeskSaved,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let mut desk = Self::new(policy, pending);
        desk.core = Handoff::restore(order(policy), pending, saved.core).map_err(io::Error::other)?;
        for (ticket, connection) in saved.connections {
            desk.connections.insert(Ticket::of_number(ticket), inherited.share(connection)?);
        }
        desk.came = saved.came;
        desk.short_until = saved.short_until;
        desk.is_shortage_told = saved.is_shortage_told;
        for unread in saved.unread {
            let connection = inherited.take(unread.connection)?;
            let source = Key::of_number(unread.source);
            if let Some(by) = &desk.by {
                desk.unread.push(desk.heads.wait(LaneId(unread.lane), connection, source, by));
            }
        }
        Ok(desk)
    }

    /// For so long nobody could hear what workers answered.
    pub(in crate::ports) fn excuse(&mut self, time: Duration) {
        self.core.excuse(time);
    }

    /// Says what contradicts itself, if anything does.
    pub(in crate::ports) fn check(policy: &Policy, saved: &DeskSaved) -> Result<(), String> {
        let pending =
            Handoff::restore(order(policy), 1, saved.core.clone()).map_err(|why| why.to_string())?;
        let connections: BTreeMap<u64, FdSaved> = saved.connections.iter().copied().collect();
        if saved.core.tickets().any(|ticket| !connections.contains_key(&ticket.number())) {
            return Err("a connection that waits for a worker is not there".into());
        }
        if connections.len() != pending.pending() || connections.len() != saved.connections.len() {
            return Err("a connection is there that waits for nobody".into());
        }
        Ok(())
    }

    /// A head that was being read is not, for now.
    pub(in crate::ports) fn give_back(&mut self, unread: super::Unread) {
        self.unread.push(unread);
    }

    /// Whether no head is being read.
    pub(in crate::ports) fn has_all_back(&self) -> bool {
        self.unread.len() == Heads::len(&self.heads)
    }
}

fn order(policy: &Policy) -> Order {
    if matches!(policy, Policy::Sticky(_)) { Order::Sticky } else { Order::Turns }
}
