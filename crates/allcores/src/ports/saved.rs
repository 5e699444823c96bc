//! The port table as data, to go on in the primary's next program. Sockets go by their numbers.
//!
//! What the kernel keeps is not in it: the programs that pick among lanes, the filters, what waits in queues.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use allcores_core::worker::WorkerId;
use serde::{Deserialize, Serialize};

use super::full::Full;
use super::group::{Group, GroupSaved};
use super::lane::{Kind, Lane};
use super::limits::Descriptors;
use super::removals::Removals;
use super::steer::{Steering, SteeringSaved};
use super::table::{Key, Table};
use super::{Ports, Tuning};
use crate::address::Address;
use crate::carry::{BytesSaved, Inherited, Manifest};
use crate::primary::Policy;

/// A number that is beyond all addresses that there can be.
const MOST: u64 = 1 << 35;

/// The port table as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PortsSaved {
    groups: Vec<GroupSaved>,
    serving: Vec<u32>,
    target: u16,
    is_kept: bool,
    is_gated: bool,
    last_group: u64,
    strays: u64,
    steering: SteeringSaved,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AddressSaved {
    Tcp { socket: SocketAddr, is_only_v6: bool },
    Udp { socket: SocketAddr, is_only_v6: bool },
    Unix(BytesSaved),
}

impl Ports {
    /// Takes down all that it is, and what is to be left to the next program. Nothing may be on its way to a worker by a
    /// passage of our own, and heads that are being read must have been given back.
    pub(crate) fn save(&self, manifest: &mut Manifest) -> PortsSaved {
        let mut serving: Vec<u32> = self.serving.iter().map(|worker| worker.0).collect();
        serving.sort_unstable();
        PortsSaved {
            groups: self.groups.iter().map(|group| group.save(manifest)).collect(),
            serving,
            target: self.target,
            is_kept: self.is_kept,
            is_gated: self.is_gated,
            last_group: self.groups.last(),
            strays: self.strays,
            steering: self.steering.save(),
        }
    }

    /// Makes the same table again. For so long as is said with the time nobody could look at it.
    ///
    /// # Errors
    ///
    /// If a socket was not left, or is another; or the table contradicts itself.
    pub(crate) fn restore(
        policy: Policy,
        pending: usize,
        tuning: Tuning,
        saved: PortsSaved,
        inherited: &mut Inherited,
        (now, blind): (Duration, Duration),
    ) -> io::Result<Self> {
        let groups = saved.groups.into_iter().map(|group| Group::restore(group, pending, inherited));
        let groups: Vec<Group> = groups.collect::<io::Result<_>>()?;
        let mut ports = Self {
            policy,
            pending,
            groups: Table::restore(groups, saved.last_group),
            serving: saved.serving.into_iter().map(WorkerId).collect::<HashSet<_>>(),
            target: saved.target,
            is_kept: saved.is_kept,
            steering: Steering::restore(tuning, saved.steering)?,
            strays: saved.strays,
            descriptors: Descriptors::default(),
            unread: Vec::new(),
            shortage: None,
            // Who refused is tried when its pause is over, and watched again when it refuses again.
            full: Full::default(),
            maintained: Key::default(),
            is_closing: false,
            removals: Removals::default(),
            is_gated: saved.is_gated,
            closed: Vec::new(),
            gone: Vec::new(),
            depot: None,
            now,
        };
        for group in ports.groups.iter_mut() {
            group.excuse(blind);
            let is_steered = group.is_handoff() || group.address.is_tcp() && group.is_spread();
            let is_watched = |lane: &Lane| is_steered || lane.kind == Kind::Waiting;
            for lane in group.lanes.iter().filter(|lane| is_watched(lane) && lane.is_listening) {
                let is_desk = group.desk_lane().is_some_and(|desk| desk.id == lane.id);
                if is_desk { ports.steering.watch_desk(lane)? } else { ports.steering.watch(lane)? }
            }
        }
        let keys: Vec<Key> = ports.groups.iter().map(|group| group.key).collect();
        for key in keys {
            ports.follow(key);
            ports.refresh(key);
        }
        Ok(ports)
    }
}

impl PortsSaved {
    /// Says what contradicts itself, if anything does: numbers of lanes, and who is named.
    pub(crate) fn check(&self) -> Result<(), String> {
        let keys: BTreeSet<u64> = self.groups.iter().map(GroupSaved::number).collect();
        if keys.len() != self.groups.len() {
            return Err("two addresses have one number".into());
        }
        if self.last_group > MOST || keys.last().is_some_and(|last| *last > self.last_group) {
            return Err("an address was not numbered yet".into());
        }
        self.groups.iter().try_for_each(GroupSaved::check)
    }

    /// Names its lanes.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = u64> + '_ {
        self.groups.iter().flat_map(GroupSaved::lanes)
    }
}

impl From<&Address> for AddressSaved {
    fn from(address: &Address) -> Self {
        match address {
            Address::Tcp { socket, is_only_v6 } => Self::Tcp { socket: *socket, is_only_v6: *is_only_v6 },
            Address::Udp { socket, is_only_v6 } => Self::Udp { socket: *socket, is_only_v6: *is_only_v6 },
            Address::Unix(name) => Self::Unix(name.as_slice().into()),
        }
    }
}

impl From<AddressSaved> for Address {
    fn from(saved: AddressSaved) -> Self {
        match saved {
            AddressSaved::Tcp { socket, is_only_v6 } => Self::Tcp { socket, is_only_v6 },
            AddressSaved::Udp { socket, is_only_v6 } => Self::Udp { socket, is_only_v6 },
            AddressSaved::Unix(name) => Self::Unix(name.into()),
        }
    }
}

#[cfg(test)]
mod tests;
