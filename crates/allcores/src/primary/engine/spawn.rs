//! Workers come to be: their processes are started, and watched from then on.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use allcores_core::pool::Input;
use allcores_core::worker::{Rung, Slot, WorkerId};

use super::{Engine, exits, notify};
use crate::ports::LaneId;
use crate::primary::launch::{LaunchError, Launcher};
use crate::primary::worker::{self, Flows, Part, ProcessPart, Surroundings, Worker};
use crate::primary::{Event, Outcome, Said};
use crate::sys::Watch;

impl Engine {
    pub(super) fn spawn(&mut self, id: WorkerId, slot: Slot, generation: u32, replaces: Option<WorkerId>) {
        let sockets = match self.inherited_for(id, slot, replaces) {
            Ok(sockets) => sockets,
            Err(reason) => return self.spawn_failed(id, slot, &reason),
        };
        let lanes: Vec<LaneId> = sockets.iter().map(|(lane, _)| *lane).collect();
        let extras = self.extras_for(slot);
        let descriptors: Vec<_> = sockets
            .iter()
            .filter_map(|(lane, name)| Some((self.ports.socket(*lane)?, name.clone())))
            .collect();
        // Without it the worker has nowhere to speak, which is as it was before.
        let ear = notify::Ear::open(id).ok();
        let notify = ear.as_ref().map(|ear| ear.name.as_str());
        let Some(launcher) = self.generations.of(generation) else {
            return self.spawn_failed(id, slot, "what its generation runs is not known any more");
        };
        match launcher.launch((id, slot), &descriptors, self.ports.has_files(), notify, &extras) {
            Ok(made) => self.launched((id, slot, generation), replaces, made, ear, &lanes),
            Err(error) => self.launch_failed(id, slot, error),
        }
    }

    fn launched(
        &mut self,
        (id, slot, generation): (WorkerId, Slot, u32),
        replaces: Option<WorkerId>,
        launched: crate::primary::launch::Launched,
        ear: Option<notify::Ear>,
        lanes: &[LaneId],
    ) {
        let process = launched.process;
        let mut worker = Worker::new(slot, id, generation, process.pid, process.pidfd);
        worker.replaces = replaces;
        worker.user = self.generations.of(generation).and_then(Launcher::user);
        worker.cgroup = launched.cgroup;
        worker.stop_signal = Some(self.settings.stop_signal);
        worker.awaited = self.addresses_before(slot, generation);
        if let Err(error) =
            self.connect(&mut worker, launched.channel, launched.stdout, launched.stderr, process.listener)
        {
            // It runs, and can't be watched: end it, and let the pool try again.
            exits::bury(Arc::clone(&worker.pidfd));
            return self.spawn_failed(id, slot, &format!("watching its process: {error}"));
        }
        if let Some(error) = process.filter_error {
            self.report_no_adoption(&error);
        }
        if let Some(ear) = ear {
            let around = self.around(&worker);
            worker.watch(Part::Ear(ear), around);
        }
        worker.lanes = lanes.iter().map(|lane| (*lane, Rung::Inherited)).collect();
        worker.rung = (!lanes.is_empty()).then_some(Rung::Inherited);
        self.ports.set_process(id, process.pid);
        if !lanes.is_empty() && !self.is_gated() {
            // That it serves can only be seen by what it accepts, so it must be sent something.
            let now = self.now();
            self.ports.serve(id, true, now);
        }
        self.last_ids.insert(slot, id);
        let (about, link) = (worker.about, worker.link());
        self.workers.insert(id, worker);
        self.note_forked(id);
        self.pass_on(about, Said::Linked(&link));
        self.tell(Input::Spawned { id, pid: process.pid });
        if self.owns_process() {
            // `exec` has happened: the spawn returns only then. Node says more than that by itself.
            self.tell(Input::Online { id });
        }
        if !lanes.is_empty() {
            self.begin_checks(id);
        }
    }

    /// Workers are not ready before they have shown it.
    pub(super) fn is_gated(&self) -> bool {
        self.settings.pool.wait_ready || self.settings.pool.wait_healthy
    }

    fn connect(
        &self,
        worker: &mut Worker,
        channel: Option<(crate::channel::Sender, crate::channel::Carrier)>,
        stdout: Option<Watch>,
        stderr: Option<Watch>,
        listener: Option<OwnedFd>,
    ) -> io::Result<()> {
        let process = Watch::readable(worker.pidfd.as_fd().try_clone_to_owned()?)?;
        let around = self.around(worker);
        let (ending, ended) = worker::ending();
        if let Some(listener) = listener {
            let listener = Arc::new(Watch::readable(listener)?);
            worker.watch(Part::Notifications(listener), around.clone());
        }
        if let Some((sender, carrier)) = channel {
            worker.channel = Some(sender);
            worker.watch(Part::Channel(Box::new((carrier, ended))), around.clone());
        }
        worker.watch(Part::Process(ProcessPart::new(process, stdout, stderr, ending)), around);
        Ok(())
    }

    /// What those need that watch a worker.
    pub(super) fn around(&self, worker: &Worker) -> Surroundings {
        let all = self.guest.as_ref().map(|guest| Arc::clone(&guest.flow));
        let flows = Flows { all, own: Arc::clone(&worker.flow) };
        let (share, seen, recall) = (worker.share.clone(), self.seen.clone(), self.recaller.recall());
        Surroundings { flows, share, seen, answers: self.answers.clone(), recall }
    }

    /// Watches a part of a worker from now on.
    pub(super) fn watch_part(&mut self, id: WorkerId, part: Part) {
        let Some(mut worker) = self.workers.remove(&id) else { return };
        let around = self.around(&worker);
        worker.watch(part, around);
        self.workers.insert(id, worker);
    }

    fn report_no_adoption(&mut self, error: &io::Error) {
        let instead = if self.generations.have_channel() {
            "node's own channel is used alone"
        } else {
            "only programs that take sockets by LISTEN_FDS (see --listen) can share a port"
        };
        let reason = match error.raw_os_error() {
            Some(libc::EBUSY) => {
                "another allcores, or what watches this container, answers these calls already".into()
            }
            _ => error.to_string(),
        };
        let text = format!("adoption is not available here ({reason}); {instead}");
        self.report_adoption(&text);
    }

    /// Says what becomes of programs that want the same port when nothing here will share it among them.
    pub(super) fn report_unshared(&mut self) {
        let is_shared =
            self.settings.adopt || self.generations.have_channel() || !self.settings.listen.is_empty();
        if is_shared || self.pool.target() == 1 || !self.owns_process() {
            return;
        }
        let text = "adoption is off (--no-adopt): each worker binds by itself, and all but one will find a port taken \
                    unless the program sets SO_REUSEPORT; addresses given with --listen are shared by LISTEN_FDS";
        (self.observe)(Event::Notice { text });
    }

    fn launch_failed(&mut self, id: WorkerId, slot: Slot, error: LaunchError) {
        self.note_not_forked(&error);
        let (outcome, reason) = match error {
            LaunchError::NotFound { program, reason } => {
                let text = format!("{program} is not there: {reason}");
                (Some(Outcome::CommandNotFound { program, reason }), text)
            }
            LaunchError::NotExecutable { program, reason } => {
                let text = format!("{program}: can't be executed: {reason}");
                (Some(Outcome::NotExecutable { program, reason }), text)
            }
            LaunchError::Impossible(reason) => {
                (Some(Outcome::NeverStarted { reason: reason.clone() }), reason)
            }
            LaunchError::Failed(reason) => (None, reason),
        };
        if let Some(outcome) = outcome.filter(|_| self.last_ids.is_empty() && self.owns_process()) {
            // Nothing was ever started, and trying again would find the same.
            self.outcome.get_or_insert(outcome);
            return;
        }
        self.spawn_failed(id, slot, &reason);
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId, slot: Slot, reason: &str) {
        if self.outcome.is_none() {
            (self.observe)(Event::SpawnFailed { slot, reason });
        }
        reason.clone_into(&mut self.last_spawn_failure);
        self.note_not_forked(&LaunchError::Failed(reason.to_owned()));
        let now = self.now();
        self.ports.release(id, now);
        self.tell(Input::SpawnFailed { id });
        self.forget_extras(slot);
    }
}
