//! The ends of processes: workers', and those of their descendants that nobody else waits for.

use std::os::fd::AsFd;
use std::time::Duration;

use allcores_core::exit::ExitStatus;
use allcores_core::pool::Input;
use allcores_core::worker::WorkerId;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use tokio::signal::unix::Signal as Signals;

use super::Engine;
use crate::channel::End;
use crate::primary::worker::Seen;
use crate::primary::{Event, Said, WorkerRef};
use crate::proc;

/// How long those that were sent SIGKILL may take to go, at the end. They do so at once unless the kernel
/// keeps them.
pub(super) const BURIAL: Duration = Duration::from_secs(2);

/// The variable by which a process knows its worker.
const WORKER_ID: &str = "ALLCORES_WORKER_ID";

/// How long what a program has started for itself alone may be there after it: Python's keeper of shared resources goes when it
/// sees that its program has gone.
const AFTER_IT: Duration = Duration::from_millis(300);

/// How often it is looked whether one has gone that can't be waited for.
const LOOK: Duration = Duration::from_millis(20);

impl Engine {
    pub(super) fn take_exit(&mut self, id: WorkerId) {
        // Before its exit is taken, while its process group's number can't be another's.
        if self.postpones_exit(id) || self.looks_again(id) {
            return;
        }
        let leaves_others = self.owns_process() && self.leaves_others(id);
        self.signal(id, Signal::KILL);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (about, is_retired) = (worker.about, worker.is_retired);
        // The kernel tells until the exit is taken.
        worker.cpu = proc::Stat::read(about.pid).map_or(Duration::ZERO, |stat| stat.cpu);
        let status = take_status(&worker.pidfd);
        self.last_tail = std::mem::take(&mut worker.tail).into();
        if worker.channel.take().is_some() {
            // Somebody else holds its other end.
            self.pass_on(about, Said::Disconnected { end: &End::Closed });
        }
        if leaves_others && status.is_success() && !is_retired {
            self.report_background(about);
        }
        let now = self.now();
        self.ports.release(id, now);
        self.drains.forget(id);
        self.care.forget(id);
        self.hearts.forget(id);
        self.inquiries.forget(id);
        self.take_back_all(id);
        if self.unavailable.is_some() && !self.pool.has_ever_been_ready() && self.owns_process() {
            // It went because it could not have its address; the next would fare no better.
            self.tell(Input::StopNow);
        }
        self.tell(Input::Exited { id, status });
        self.workers.remove(&id);
        self.forget_extras(about.slot);
        self.note_departure(id);
        self.reap_orphans();
    }

    /// Takes the exits of descendants whose parents are gone, and ends those whose worker is; says whether any such
    /// is still on its way out.
    pub(super) fn reap_orphans(&mut self) -> bool {
        if !self.owns_process() {
            // Other children are the program's, to be waited for by it.
            return false;
        }
        let mut has_reaped = true;
        while has_reaped {
            has_reaped = false;
            let is_kept = |pid: &u32| {
                self.workers.values().any(|worker| worker.about.pid == *pid)
                    || self.care.is_exam(*pid)
                    || self.upgrades.is_check(*pid)
            };
            let orphans: Vec<u32> = proc::our_children().into_iter().filter(|pid| !is_kept(pid)).collect();
            for pid in orphans {
                let Some(child) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
                if let Ok(Some(_)) = rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
                    self.condemned.remove(&pid);
                    self.orphans.remove(&pid);
                    // Its children, if it had any, are ours now and not in the list.
                    has_reaped = true;
                } else if !self.condemned.contains(&pid) && self.is_left_behind(pid) {
                    // Its descendants with it: they may be known by it alone.
                    for (_, pidfd) in proc::hold(|| proc::family(pid)) {
                        let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
                    }
                    // It has no environment to be known by from when it begins to go until it has gone.
                    self.condemned.insert(pid);
                }
            }
        }
        !self.condemned.is_empty()
    }

    /// Ends what workers left behind, to the last: children of children come to us when their parents have gone.
    pub(super) async fn end_descendants(&mut self, children: &mut Option<Signals>) {
        let all_gone = async {
            while self.reap_orphans() {
                child_changed(children).await;
            }
        };
        let _ = tokio::time::timeout(BURIAL, all_gone).await;
    }

    /// Whether a worker that has ended has descendants that have not.
    fn leaves_others(&self, id: WorkerId) -> bool {
        let Some(pid) = self.workers.get(&id).map(|worker| worker.about.pid) else { return false };
        let is_orphan_of = |child: &u32| {
            *child != pid
                && match proc::initial_env(*child, WORKER_ID) {
                    Some(worker) => worker == id.to_string(),
                    None => self.has_lane_of(*child, |users| users.eq([id])),
                }
        };
        proc::session_members(pid).iter().any(|member| *member != pid)
            || proc::our_children().iter().any(is_orphan_of)
    }

    /// Whether a worker's exit is to be taken later as it looks as if it had gone to the background: what it has left may go by
    /// itself.
    fn looks_again(&mut self, id: WorkerId) -> bool {
        if let Some(at) = self.lingering.iter().position(|lingering| *lingering == id) {
            self.lingering.swap_remove(at);
            return false;
        }
        let Some(worker) = self.workers.get(&id) else { return false };
        let is_to_be_told = !self.is_background_reported && !worker.is_retired && self.owns_process();
        if !is_to_be_told || !has_succeeded(&worker.pidfd) || !self.leaves_others(id) {
            return false;
        }
        self.lingering.push(id);
        self.see_later(AFTER_IT, Seen::Ended(id));
        true
    }

    fn report_background(&mut self, worker: WorkerRef) {
        if std::mem::replace(&mut self.is_background_reported, true) {
            return;
        }
        let text = format!(
            "worker {} (slot {}, pid {}) went to the background: it exited and left processes, which were ended with \
             it; give the program the option that keeps it in the foreground",
            worker.id, worker.slot, worker.pid
        );
        (self.observe)(Event::Notice { text: &text });
    }

    /// Whether the worker that a child of ours came of has gone.
    fn is_left_behind(&mut self, pid: u32) -> bool {
        if let Some(id) = self.orphans.get(&pid) {
            return !self.workers.contains_key(id);
        }
        let Some(worker) = proc::initial_env(pid, WORKER_ID) else {
            return self.has_lane_of(pid, |users| users.next().is_none());
        };
        let is_ours = proc::initial_env(pid, "ALLCORES_NAME").is_some_and(|name| name == self.settings.name);
        let Some(id) = worker.parse().ok().map(WorkerId).filter(|_| is_ours) else { return false };
        self.orphans.insert(pid, id);
        !self.workers.contains_key(&id)
    }

    /// Whether a process has one of our listeners, of such workers: nobody else can be who has overwritten the environment
    /// that it was started with, as nginx does.
    fn has_lane_of(&self, pid: u32, are_meant: impl Fn(&mut dyn Iterator<Item = WorkerId>) -> bool) -> bool {
        proc::sockets_of(pid)
            .filter_map(|(_, inode)| self.ports.users_of_socket(inode))
            .any(|mut users| are_meant(&mut users))
    }
}

/// Waits until some child has ended; for ever where that can't be learnt.
pub(super) async fn child_changed(children: &mut Option<Signals>) {
    match children {
        Some(children) => {
            children.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Kills a process that can't be watched, and takes its exit: nobody else would in a program of which we are a part.
pub(super) fn bury(pidfd: impl AsFd + Send + Sync + 'static) {
    let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    tokio::spawn(async move {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Ok(None) = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            tokio::time::sleep(LOOK).await;
        }
    });
}

/// Whether a process has ended well; its exit can still be taken.
fn has_succeeded(pidfd: impl AsFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options).ok().flatten();
    status.is_some_and(|status| status.exit_status() == Some(0))
}

pub(super) fn take_status(pidfd: impl AsFd) -> ExitStatus {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).ok().flatten();
    let signal = status.as_ref().and_then(rustix::process::WaitIdStatus::terminating_signal);
    let code = status.as_ref().and_then(rustix::process::WaitIdStatus::exit_status);
    signal.map(ExitStatus::Signal).or(code.map(ExitStatus::Code)).unwrap_or(ExitStatus::Code(255))
}

#[cfg(test)]
mod tests;
