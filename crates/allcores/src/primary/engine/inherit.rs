//! The lowest rung: sockets that the operator named, passed to workers by number.

use std::net::SocketAddr;

use allcores_core::worker::{Rung, Slot, WorkerId};

use super::Engine;
use crate::address::Address;
use crate::ports::{Applicant, LaneId, Profile};
use crate::primary::{Event, Outcome};

/// What a listener gets where nobody names a number; the kernel caps it.
const BACKLOG: i32 = 4096;

impl<O: FnMut(Event<'_>)> Engine<O> {
    /// Binds the named addresses before the first worker starts.
    pub(super) fn bind_inherited(&mut self) -> Option<Outcome> {
        for socket in self.settings.listen.clone() {
            let address = address_of(socket);
            if let Err(why) = self.ports.prepare(&address) {
                let reason =
                    why.reason.unwrap_or_else(|| std::io::Error::from_raw_os_error(why.errno).to_string());
                return Some(Outcome::AddressUnavailable {
                    address: address.to_string(),
                    reason,
                    holder: why.holder,
                });
            }
        }
        None
    }

    /// The sockets that a new worker is to be given, with their names.
    pub(super) fn inherited_for(
        &mut self,
        id: WorkerId,
        slot: Slot,
        replaces: Option<WorkerId>,
    ) -> Result<Vec<(LaneId, String)>, String> {
        let applicant = Applicant { worker: id, slot, replaces };
        let mut sockets = Vec::new();
        for socket in self.settings.listen.clone() {
            let address = address_of(socket);
            let profile = Profile { is_nonblocking: Some(false), ..Profile::default() };
            let failed = |why: String| format!("making a socket for {address}: {why}");
            let lane = self
                .ports
                .obtain(applicant, &address, 0, &profile, |_| true)
                .map_err(|why| failed(why.reason.unwrap_or_else(|| format!("error {}", why.errno))))?;
            self.ports.dress(lane, &profile);
            // Connections wait in it until the program takes them: that is what passing sockets is for.
            self.ports.listen(lane, BACKLOG).map_err(|error| failed(error.to_string()))?;
            sockets.push((lane, address.to_string().replace(':', "_")));
        }
        Ok(sockets)
    }

    /// A program that was given its sockets need not call `listen`: it is known to serve by what it accepts.
    pub(super) fn note_first_accepts(&mut self) {
        for lane in self.ports.take_emptied() {
            let unannounced = self.workers.values().find(|worker| {
                worker.lanes.get(&lane) == Some(&Rung::Inherited) && !worker.announced.contains(&lane)
            });
            if let Some(id) = unannounced.map(|worker| worker.about.id) {
                self.listens(id, lane);
            }
        }
    }
}

fn address_of(socket: SocketAddr) -> Address {
    Address::Tcp { socket, is_only_v6: false }
}
