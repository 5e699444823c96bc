//! The ends of processes: workers', and those of their descendants that nobody else waits for.

use allcores_core::exit::ExitStatus;
use allcores_core::pool::Input;
use allcores_core::worker::WorkerId;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
use std::os::fd::AsFd;

use super::Engine;
use crate::primary::Event;
use crate::proc;

impl<O: FnMut(Event<'_>)> Engine<O> {
    pub(super) fn take_exit(&mut self, id: WorkerId) {
        // Before its exit is taken, while its process group's number can't be another's.
        self.signal(id, Signal::KILL);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let status = take_status(&worker.pidfd);
        self.last_tail = std::mem::take(&mut worker.tail).into();
        let now = self.now();
        self.ports.release(id, now);
        self.drains.forget(id);
        self.take_back(id);
        self.deferred.retain(|(waiting, ..)| *waiting != id);
        if self.unavailable.is_some() && !self.pool.has_ever_been_ready() {
            // It went because it could not have its address; the next would fare no better.
            self.tell(Input::StopNow);
        }
        self.tell(Input::Exited { id, status });
        self.workers.remove(&id);
        self.retry_deferred();
        self.reap_orphans();
    }

    /// Takes the exits of descendants whose parents are gone, and ends those whose worker is.
    pub(super) fn reap_orphans(&mut self) {
        let is_worker = |pid: u32| self.workers.values().any(|worker| worker.about.pid == pid);
        for pid in proc::our_children().into_iter().filter(|pid| !is_worker(*pid)) {
            let Some(child) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
            let is_running = matches!(rustix::process::waitpid(Some(child), WaitOptions::NOHANG), Ok(None));
            if is_running && self.is_left_behind(pid) {
                let _ = rustix::process::kill_process(child, Signal::KILL);
            }
        }
    }

    fn is_left_behind(&self, pid: u32) -> bool {
        let is_ours = proc::initial_env(pid, "ALLCORES_NAME").is_some_and(|name| name == self.settings.name);
        let worker =
            proc::initial_env(pid, "ALLCORES_WORKER_ID").and_then(|id| id.parse().ok()).map(WorkerId);
        is_ours && worker.is_some_and(|id| !self.workers.contains_key(&id))
    }
}

fn take_status(pidfd: impl AsFd) -> ExitStatus {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).ok().flatten();
    let signal = status.as_ref().and_then(rustix::process::WaitIdStatus::terminating_signal);
    let code = status.as_ref().and_then(rustix::process::WaitIdStatus::exit_status);
    signal.map(ExitStatus::Signal).or(code.map(ExitStatus::Code)).unwrap_or(ExitStatus::Code(255))
}
