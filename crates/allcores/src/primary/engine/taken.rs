//! Addresses that workers could not have, and who has them.
//!
//! A worker is told at once. The search for the holder goes on beside the engine, which serves meanwhile, and the operator
//! is told when it is over. Where the app never came up, the exits of its workers are taken after that: the holder belongs to
//! the reason why it ends.

use std::time::{Duration, Instant};

use allcores_core::worker::WorkerId;
use tokio::sync::oneshot;

use super::Engine;
use crate::address::Address;
use crate::ports::Unavailable;
use crate::primary::worker::Seen;
use crate::primary::{Event, Holder, Outcome, WorkerRef, spawn_deaf};
use crate::proc::Taken;

/// How long the search may take; then the address is said to be in use, and not by whom.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How many addresses that it could not have are told of one worker.
const MOST_TOLD: usize = 16;

/// What is being searched for, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Searches {
    under_way: Vec<Address>,
    /// Workers that have ended, and whose exits are to be taken afterwards.
    postponed: Vec<WorkerId>,
}

/// An address, who wanted it, and who has it.
#[derive(Debug)]
pub(in crate::primary) struct Found {
    worker: WorkerRef,
    address: Address,
    holder: Option<Holder>,
}

impl Searches {
    /// Whether somebody waits for one.
    pub(super) fn are_under_way(&self) -> bool {
        !self.under_way.is_empty() || !self.postponed.is_empty()
    }
}

impl Engine {
    /// Takes note of an address that a worker could not have, and finds out who has it.
    pub(super) fn address_unavailable(&mut self, id: WorkerId, address: &Address, why: Unavailable) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let about = worker.about;
        if let (true, Some(reason)) = (why.is_limit, &why.reason) {
            if !std::mem::replace(&mut worker.refused.is_limit_told, true) {
                self.report_limit(about, address, reason);
            }
            return;
        }
        if why.taken.is_none() && why.reason.is_none() {
            return;
        }
        // Once for each address, and not of so many that nothing else would be heard.
        let told = &mut worker.refused.addresses;
        if told.len() >= MOST_TOLD || !told.insert(address.to_string()) {
            return;
        }
        match (why.taken, why.reason) {
            (Some(taken), _) if !self.searches.under_way.contains(address) => {
                self.search(about, address.clone(), taken);
            }
            (None, Some(reason)) => self.tell_unavailable(about, address, reason, None),
            _ => {}
        }
    }

    /// Says that a worker was refused an address because it, or all together, have enough.
    fn report_limit(&mut self, worker: WorkerRef, address: &Address, reason: &str) {
        let WorkerRef { id, slot, pid } = worker;
        let text = format!("worker {id} (slot {slot}, pid {pid}) can't listen on {address}: {reason}");
        (self.observe)(Event::Notice { text: &text });
    }

    fn search(&mut self, worker: WorkerRef, address: Address, taken: Taken) {
        let (found, finding) = oneshot::channel();
        let until = Instant::now() + PATIENCE;
        // Without a thread nothing is sent, and so nobody found.
        let _ = spawn_deaf("allcores-search", move || drop(found.send(taken.holder(until))));
        self.searches.under_way.push(address.clone());
        let seen = self.seen.clone();
        tokio::spawn(async move {
            let holder = tokio::time::timeout(PATIENCE, finding).await.ok().and_then(Result::ok).flatten();
            let _ = seen.send(Seen::Found(Found { worker, address, holder })).await;
        });
    }

    /// A search is over.
    pub(super) fn take_found(&mut self, found: Found) {
        let Found { worker, address, holder } = found;
        self.searches.under_way.retain(|other| *other != address);
        let reason = Taken::reason(holder.as_ref()).to_owned();
        self.tell_unavailable(worker, &address, reason, holder);
    }

    /// Whether a worker's exit is to be taken later: it may have gone for want of an address, and then the app ends.
    pub(super) fn postpones_exit(&mut self, id: WorkerId) -> bool {
        let is_awaited = self.is_searching();
        if is_awaited {
            self.searches.postponed.push(id);
        }
        is_awaited
    }

    /// Takes the exits that have waited for a search, if they need to no longer.
    pub(super) fn take_postponed_exits(&mut self) {
        if !self.searches.postponed.is_empty() && !self.is_searching() {
            for id in std::mem::take(&mut self.searches.postponed) {
                self.take_exit(id);
            }
        }
    }

    fn is_searching(&self) -> bool {
        let is_coming_up =
            !self.pool.has_ever_been_ready() && !self.pool.is_stopping() && self.owns_process();
        is_coming_up && !self.searches.under_way.is_empty()
    }

    /// Tells of an address that a worker could not have, once for each address.
    fn tell_unavailable(
        &mut self,
        worker: WorkerRef,
        address: &Address,
        reason: String,
        holder: Option<Holder>,
    ) {
        let outcome = Outcome::AddressUnavailable { address: address.to_string(), reason, holder };
        if self.unavailable.as_ref() == Some(&outcome) {
            return;
        }
        let Outcome::AddressUnavailable { address, reason, holder } = &outcome else { return };
        let event = Event::AddressUnavailable { worker, address, reason, holder: holder.as_ref() };
        (self.observe)(event);
        self.unavailable = Some(outcome);
    }
}
