//! Notifications: what workers bind and listen on by themselves.

use std::os::fd::AsFd;
use std::time::Duration;

use allcores_core::worker::{State, WorkerId};

use super::Engine;
use crate::address::Address;
use crate::adopt::{self, Adopted};
use crate::ports::{LaneId, Touched};
use crate::primary::worker::{Seen, Worker};
use crate::primary::{Event, WorkerRef};
use crate::proc;
use crate::sys::seccomp::{Call, Notification};

#[cfg(test)]
mod tests;

/// How long after `bind` a program calls `listen`, if it does: the next line of any program.
const NEXT_CALL: Duration = Duration::from_millis(100);

/// How long after its start a program has bound what it binds, if it is one that is worth waiting for.
const SOON: Duration = Duration::from_secs(5);

/// How long who binds a path waits for others that have started with it.
const TOGETHER: Duration = Duration::from_millis(500);

impl Engine {
    /// Answers a call, at once or together with others. Programs unlink a path before they bind it, and some give its file
    /// another mode or owner as soon as they have: the file must be there then, so nobody goes on while another that
    /// has just been started may still unlink it.
    pub(super) fn answer(&mut self, id: WorkerId, notification: Notification) {
        let binds_a_file = adopt::binds_a_file(&notification);
        if binds_a_file && self.has_companions_to_come(id) {
            if self.together.is_empty() {
                let seen = self.seen.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(TOGETHER).await;
                    let _ = seen.send(Seen::Together).await;
                });
            }
            self.together.push((id, notification));
            return;
        }
        self.handle(id, notification);
        if binds_a_file {
            self.answer_together();
        }
    }

    /// Whether a worker that was started as lately has not bound anything yet.
    fn has_companions_to_come(&self, id: WorkerId) -> bool {
        let now = self.now();
        self.pool.workers().any(|view| {
            let is_starting = matches!(view.state, State::Starting | State::Online);
            let has_bound = self.workers.get(&view.id).is_none_or(|worker| !worker.lanes.is_empty());
            let is_there =
                view.id == id || has_bound || self.together.iter().any(|(other, _)| *other == view.id);
            is_starting && !is_there && now.saturating_sub(view.started) < SOON
        })
    }

    /// Lets those go on who waited for each other.
    pub(super) fn answer_together(&mut self) {
        for (id, notification) in std::mem::take(&mut self.together) {
            self.handle(id, notification);
        }
    }

    fn handle(&mut self, id: WorkerId, notification: Notification) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(listener) = worker.listener.clone() else { return };
        let leader = worker.about.pid;
        let is_aside =
            !matches!(notification.call, Call::Unlink { .. }) && is_beside_its_program(notification.thread);
        let applicant = worker.applicant(self.pool.is_on_trial(worker.generation));
        let adopted = adopt::handle(&mut self.ports, &applicant, leader, listener.as_fd(), notification);
        self.forget_closed();
        let now = self.now();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match adopted {
            Adopted::Nothing => {}
            Adopted::Bound { lane, is_serving } => {
                worker.adopt(lane, is_aside, now);
                self.unavailable = None;
                if is_serving {
                    let _ = self.ports.listen(lane, 0);
                    self.listens(id, lane);
                } else if self.ports.has_listened(lane) {
                    self.await_listen(id, lane);
                }
                self.look_later(id);
            }
            Adopted::Listening { lane, process } => {
                // It may be another than the one that it has bound.
                if self.ports.users(lane).any(|user| user == id) {
                    worker.adopt(lane, is_aside, now);
                }
                self.ports.set_process(id, process);
                self.listens_unless_it_tries(id, lane);
                let has_bound = |(other, worker): (&WorkerId, &Worker)| {
                    (*other != id && worker.lanes.contains_key(&lane)).then_some(*other)
                };
                self.workers.iter().filter_map(has_bound).for_each(|other| self.await_listen(other, lane));
            }
            Adopted::OfDevice(address) => self.report_of_device(id, &address),
            Adopted::Watched(address, error) => self.report_watched(id, &address, &error),
            Adopted::Unseen(error) => self.report_unseen(id, &error),
            Adopted::Unavailable { address, why } => self.address_unavailable(id, &address, why),
        }
    }

    /// No calls of a worker are received any more. Without its listener the kernel answers them, ENOSYS: those that wait, too.
    pub(super) fn close_listener(&mut self, id: WorkerId, error: &std::io::Error) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.listener = None;
        // Mostly no process of it is left to call.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            let WorkerRef { slot, pid, .. } = worker.about;
            let text = format!(
                "worker {id} (slot {slot}, pid {pid}) can't be adopted any more: its calls can't be received ({error}); what it \
                 binds from now on fails"
            );
            (self.observe)(Event::Notice { text: &text });
        }
    }

    /// Something was done to the files of Unix sockets.
    pub(super) fn take_touched(&mut self, touched: &[Touched]) {
        if let Some(address) = self.ports.put_back(touched) {
            let text = format!(
                "the file of {address} is changed or removed again and again: from now on it is put back once a second, \
                 and clients may not find it meanwhile"
            );
            (self.observe)(Event::Notice { text: &text });
        }
    }

    /// Gives a worker time to call `listen`. What it was given listens, for those beside it, and there are programs that see
    /// so (`SO_ACCEPTCONN`) and leave the call out: gunicorn. Lanes of TCP mostly don't listen by then.
    pub(super) fn await_listen(&self, id: WorkerId, lane: LaneId) {
        self.see_later(NEXT_CALL, Seen::Settled(id, lane));
    }

    pub(super) fn see_later(&self, after: Duration, sighting: Seen) {
        let seen = self.seen.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = seen.send(sighting).await;
        });
    }

    /// Says once that a worker is left to itself as what it binds is only to be reached by one network device.
    fn report_of_device(&mut self, id: WorkerId, address: &Address) {
        let text = format!(
            "worker {id} binds {address} on one network device (SO_BINDTODEVICE): it does so by itself, and others that \
             want the same will fail; instead, have it bind an address of that device"
        );
        self.report_adoption(&text);
    }

    /// Says once that a worker is left to itself as an event loop watches what it binds.
    fn report_watched(&mut self, id: WorkerId, address: &Address, error: &std::io::Error) {
        let text = format!(
            "worker {id} has an event loop (epoll) watch its socket before it binds {address}, and the loop can't be had watch \
             the one that allcores has for it ({error}): it binds by itself, and others that want the same will fail; \
             where pidfd_getfd is forbidden, allow it (in a container by its seccomp profile, or by CAP_SYS_PTRACE)"
        );
        self.report_adoption(&text);
    }

    /// Says once that a worker can't be adopted though the filter is in place.
    fn report_unseen(&mut self, id: WorkerId, error: &std::io::Error) {
        let Some(worker) = self.workers.get(&id).map(|worker| worker.about) else { return };
        let why = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("is forbidden ({error}), by a container or by the program itself")
            }
            _ => format!("failed ({error})"),
        };
        let text = format!(
            "worker {id} (slot {}, pid {}) can't be adopted: looking at what it binds {why}; it binds by itself, and others \
             that want the same port will fail",
            worker.slot, worker.pid
        );
        self.report_adoption(&text);
    }

    /// Says what is in the way of adoption, unless something was before.
    pub(super) fn report_adoption(&mut self, text: &str) {
        if !std::mem::replace(&mut self.is_adoption_reported, true) {
            (self.observe)(Event::Notice { text });
        }
    }
}

/// Whether a thread of node's that is not the one on which its program runs waits: the inspector has its own.
fn is_beside_its_program(thread: u32) -> bool {
    let Ok(process) = proc::process_of(thread) else { return false };
    let is_node =
        || std::fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe.ends_with("node"));
    thread != process && is_node()
}
