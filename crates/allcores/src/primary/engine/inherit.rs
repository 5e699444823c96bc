//! The lowest rung: sockets that the operator named, passed to workers by number.

use std::net::SocketAddr;
use std::time::Instant;

use allcores_core::worker::{Rung, Slot, WorkerId};

use super::Engine;
use super::taken::PATIENCE;
use crate::address::Address;
use crate::ports::{Applicant, LaneId, Profile};
use crate::primary::{Depot, Event, GivenSocket, Outcome, was_put_away};
use crate::proc::Taken;

/// What a listener gets where nobody names a number; the kernel caps it.
const BACKLOG: i32 = 4096;

impl Engine {
    /// Has listeners put away from now on.
    pub(in crate::primary) fn put_away_in(&mut self, depot: Box<dyn Depot>) {
        self.ports.put_away_in(depot);
    }

    /// Takes in the sockets that we were given, and binds the named addresses, before the first worker starts.
    pub(super) fn bind_inherited(&mut self) -> Option<Outcome> {
        for given in self.settings.given.clone() {
            if let Err(reason) = self.take_given(&given) {
                return Some(Outcome::AddressUnavailable { address: given.name, reason, holder: None });
            }
        }
        for socket in self.settings.listen.clone() {
            let address = address_of(socket);
            if let Err(why) = self.ports.prepare(&address) {
                // Nobody is served yet who could wait for the search to end.
                let holder = why.taken.and_then(|taken| taken.holder(Instant::now() + PATIENCE));
                let reason = match (why.taken, why.reason) {
                    (Some(_), _) => Taken::reason(holder.as_ref()).to_owned(),
                    (None, Some(reason)) => reason,
                    (None, None) => std::io::Error::from_raw_os_error(why.errno).to_string(),
                };
                return Some(Outcome::AddressUnavailable { address: address.to_string(), reason, holder });
            }
        }
        None
    }

    fn take_given(&mut self, given: &GivenSocket) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("taking in the socket that was passed to us: {error}");
        let address = Address::of_socket(&given.socket).map_err(failed)?;
        // The caller's own copy stays as it is.
        let socket = given.socket.try_clone().map_err(failed)?;
        let name = (!was_put_away(&given.name)).then(|| given.name.clone());
        let obstacle = self.ports.take_in(&address, socket, name).map_err(failed)?;
        if let Some(error) = obstacle {
            let why = match error.raw_os_error() {
                Some(libc::EADDRINUSE | libc::EACCES) => {
                    "was bound by another user: the kernel lets us add no lanes".to_owned()
                }
                _ => format!("can't be bound once more, so there are no lanes ({error})"),
            };
            let text = format!(
                "{address}, which was passed to us as {}, {why}, and all workers accept from it",
                given.name
            );
            (self.observe)(Event::Notice { text: &text });
        }
        Ok(())
    }

    /// Says which of the sockets that we were given no worker has taken when the first of them is ready: its clients would
    /// wait for ever. Those that were put away are closed when all are ready.
    pub(super) fn note_unused(&mut self) {
        // Looked at once; and the port table has descriptors of its own.
        let given = std::mem::take(&mut self.settings.given);
        let (ours, others): (Vec<_>, Vec<_>) = given.into_iter().partition(|given| was_put_away(&given.name));
        if self.pool.is_settled() {
            for address in ours.iter().filter_map(|ours| Address::of_socket(&ours.socket).ok()) {
                self.ports.close_if_unused(&address);
            }
        } else {
            // Who listens on several addresses does so one after the other.
            self.settings.given = ours;
        }
        if others.is_empty() || self.settings.pass_given {
            return;
        }
        for (address, name, _) in self.ports.given().filter(|(_, _, is_used)| !is_used) {
            let text = format!(
                "{address}, which was passed to us as {name}, is used by no worker: have the program listen there; if it \
                 takes sockets by LISTEN_FDS, say --pass-sockets"
            );
            (self.observe)(Event::Notice { text: &text });
        }
    }

    /// The sockets that a new worker is to be given, with their names.
    pub(super) fn inherited_for(
        &mut self,
        id: WorkerId,
        slot: Slot,
        replaces: Option<WorkerId>,
    ) -> Result<Vec<(LaneId, String)>, String> {
        // What the app itself was given is not a version's.
        let applicant =
            Applicant { worker: id, slot, replaces, is_by_channel: false, policy: None, is_on_trial: false };
        let mut sockets = Vec::new();
        let given = self.ports.given().filter(|_| self.settings.pass_given);
        let given: Vec<(Address, String)> =
            given.map(|(address, name, _)| (address.clone(), name.to_owned())).collect();
        let named = self.settings.listen.iter().map(|socket| {
            let address = address_of(*socket);
            let name = address.to_string().replace(':', "_");
            (address, name)
        });
        // One that is named and was given is one.
        let named: Vec<_> =
            named.filter(|(address, _)| given.iter().all(|(other, _)| other != address)).collect();
        for (address, name) in given.into_iter().chain(named) {
            let profile = Profile { is_nonblocking: Some(false), ..Profile::default() };
            let failed = |why: String| format!("making a socket for {address}: {why}");
            let lane = self
                .ports
                .obtain_named(&applicant, &address, &profile)
                .map_err(|why| failed(why.reason.unwrap_or_else(|| format!("error {}", why.errno))))?;
            self.ports.dress(lane, &profile);
            // Connections wait in it until the program takes them: that is what passing sockets is for.
            self.ports.listen(lane, BACKLOG).map_err(|error| failed(error.to_string()))?;
            sockets.push((lane, name));
        }
        Ok(sockets)
    }

    /// A program that was given its sockets need not call `listen`: it is known to serve by what it accepts.
    pub(super) fn note_first_accepts(&mut self) {
        for lane in self.ports.take_emptied() {
            let is_unannounced = |id: &WorkerId| {
                self.workers.get(id).is_some_and(|worker| {
                    worker.lanes.get(&lane) == Some(&Rung::Inherited) && !worker.announced.contains(&lane)
                })
            };
            let unannounced = self.ports.users(lane).find(is_unannounced);
            if let Some(id) = unannounced {
                self.listens(id, lane);
            }
        }
    }
}

fn address_of(socket: SocketAddr) -> Address {
    Address::Tcp { socket, is_only_v6: false }
}
