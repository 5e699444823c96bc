//! Notifications: what workers bind and listen on by themselves.

use std::os::fd::AsFd;
use std::time::Duration;

use allcores_core::worker::{Rung, WorkerId};

use super::Engine;
use crate::address::Address;
use crate::adopt::{self, Adopted};
use crate::ports::{LaneId, Unavailable};
use crate::primary::worker::Seen;
use crate::primary::{Event, Outcome};
use crate::proc;
use crate::sys::seccomp::{self, Answer, Notification};

/// How long a caller may wait for another worker to finish what it has begun.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long after `bind` a program calls `listen`, if it does: the next line of any program.
const NEXT_CALL: Duration = Duration::from_millis(100);

impl<O: FnMut(Event<'_>)> Engine<O> {
    pub(super) fn answer(&mut self, id: WorkerId, notification: Notification) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(listener) = worker.listener.clone() else { return };
        match adopt::handle(&mut self.ports, worker.applicant(), listener.as_fd(), notification) {
            Adopted::Nothing => {}
            Adopted::Bound { lane, is_serving } => {
                worker.lanes.entry(lane).or_insert(Rung::Adopted);
                self.unavailable = None;
                if is_serving {
                    let _ = self.ports.listen(lane, 0);
                    self.listens(id, lane);
                } else if self.ports.has_listened(lane) {
                    self.await_listen(id, lane);
                }
            }
            Adopted::Listening { lane, process } => {
                self.ports.set_process(id, process);
                self.listens(id, lane);
                self.retry_deferred();
            }
            Adopted::Forbidden(error) => self.report_forbidden(id, &error),
            Adopted::Unavailable { address, why } => self.address_unavailable(id, &address, why),
            Adopted::Later(notification) => {
                let until = self.now() + PATIENCE;
                self.deferred.push((id, notification, until));
            }
        }
    }

    /// Gives a worker time to call `listen`. A lane that it was given listens already, for those before it or beside
    /// it, and there are programs that see so (`SO_ACCEPTCONN`) and leave the call out: gunicorn.
    fn await_listen(&self, id: WorkerId, lane: LaneId) {
        let seen = self.seen.clone();
        tokio::spawn(async move {
            tokio::time::sleep(NEXT_CALL).await;
            let _ = seen.send(Seen::Settled(id, lane)).await;
        });
    }

    /// A worker has a lane that listens, and has not said so by itself.
    pub(super) fn settled(&mut self, id: WorkerId, lane: LaneId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(inode) = self.ports.inode(lane) else { return };
        let members = proc::session_members(worker.about.pid);
        if worker.lanes.contains_key(&lane)
            && !worker.announced.contains(&lane)
            && proc::open_sockets(&members).contains(&inode)
        {
            self.listens(id, lane);
        }
    }

    /// Looks again at callers whose answer depended on another worker.
    pub(super) fn retry_deferred(&mut self) {
        let now = self.now();
        for (id, notification, until) in std::mem::take(&mut self.deferred) {
            if now < until {
                self.answer(id, notification);
                if let Some(last) = self.deferred.last_mut() {
                    last.2 = until;
                }
            } else if let Some(listener) = self.workers.get(&id).and_then(|worker| worker.listener.clone()) {
                // The other one never listened. Let this one have the kernel's own answer.
                let _ = seccomp::answer(listener.as_fd(), &notification, Answer::Continue);
            }
        }
    }

    /// Says once that a worker can't be adopted though the filter is in place.
    fn report_forbidden(&mut self, id: WorkerId, error: &std::io::Error) {
        if std::mem::replace(&mut self.is_adoption_reported, true) {
            return;
        }
        let Some(worker) = self.workers.get(&id).map(|worker| worker.about) else { return };
        let text = format!(
            "worker {id} (slot {}, pid {}) can't be adopted: looking at what it binds is forbidden ({error}), by a \
             container or by the program itself; it binds by itself, and others that want the same port will fail",
            worker.slot, worker.pid
        );
        (self.observe)(Event::Notice { text: &text });
    }

    /// Tells of an address that a worker could not have, once for each address.
    pub(super) fn address_unavailable(&mut self, id: WorkerId, address: &Address, why: Unavailable) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(reason) = why.reason else { return };
        let address = address.to_string();
        let outcome = Outcome::AddressUnavailable {
            address: address.clone(),
            reason: reason.clone(),
            holder: why.holder,
        };
        if self.unavailable.as_ref() == Some(&outcome) {
            return;
        }
        let Outcome::AddressUnavailable { holder, .. } = &outcome else { return };
        let event = Event::AddressUnavailable {
            worker: worker.about,
            address: &address,
            reason: &reason,
            holder: holder.as_ref(),
        };
        (self.observe)(event);
        self.unavailable = Some(outcome);
    }
}
