//! What users of the library ask for: workers one by one, other settings, everybody gone.
//!
//! An app of the program's has none of these wishes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use allcores_core::pool::Input;
use allcores_core::worker::{Slot, WorkerId};
use tokio::sync::oneshot;

use super::Engine;
use crate::error::{Error, ErrorKind};
use crate::primary::launch::{Extras, LaunchError};
use crate::primary::worker::Seen;
use crate::primary::{Host, Outcome, Said, Settings, WorkerRef};

/// How long a worker may take from its start to its first word, before it is taken for one that does not speak.
const BOOT: Duration = Duration::from_secs(2);

/// What users wait for.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// What each slot's workers get that others do not, for as long as one follows another there.
    extras: BTreeMap<Slot, Extras>,
    /// For the worker that is forked next, whose slot the pool chooses.
    next: Option<Extras>,
    /// What became of the worker that was forked last.
    forked: Option<Result<WorkerId, Error>>,
    /// Workers that have to be gone before somebody is told so.
    departures: Vec<(BTreeSet<WorkerId>, oneshot::Sender<()>)>,
}

impl Engine {
    /// Whether the process is the primary's own.
    pub(super) fn owns_process(&self) -> bool {
        self.settings.host == Host::Process
    }

    /// Tells the program of which we are a part what a worker said.
    pub(super) fn pass_on(&mut self, worker: WorkerRef, said: Said<'_>) {
        if let Some(guest) = &mut self.guest {
            (guest.hear)(worker, said);
        }
    }

    /// Starts one worker more.
    pub(super) fn fork(&mut self, extras: Extras) -> Result<WorkerId, Error> {
        if self.pool.is_stopping() {
            return Err(Error::new(ErrorKind::Stopped, "forking a worker of a cluster that stops"));
        }
        self.wishes.next = Some(extras);
        self.wishes.forked = None;
        self.tell(Input::Fork);
        self.ports.set_target(self.pool.target());
        self.wishes.next = None;
        let full = || Err(Error::new(ErrorKind::Spawn, "forking a worker: there is no slot left"));
        self.wishes.forked.take().unwrap_or_else(full)
    }

    /// What the worker that is about to start in a slot gets that others do not: the same as the one before it there,
    /// if it is its replacement.
    pub(super) fn extras_for(&mut self, slot: Slot) -> Extras {
        if let Some(extras) = self.wishes.next.take() {
            self.wishes.extras.insert(slot, extras);
        }
        self.wishes.extras.get(&slot).cloned().unwrap_or_default()
    }

    /// A worker is gone, or never came to be, and the pool knows. Who has the other end of what it alone was given sees that
    /// end, and another worker of its slot has nothing to do with it.
    pub(super) fn forget_extras(&mut self, slot: Slot) {
        if !self.pool.is_continued(slot) {
            self.wishes.extras.remove(&slot);
        }
    }

    /// There may be fewer slots than before. One that waited for its next worker has none whose end would be seen.
    pub(super) fn forget_extras_of_closed_slots(&mut self) {
        self.wishes.extras.retain(|slot, _| self.pool.is_continued(*slot));
    }

    pub(super) fn note_forked(&mut self, id: WorkerId) {
        self.wishes.forked = Some(Ok(id));
    }

    /// What was said first of a failure says most.
    pub(super) fn note_not_forked(&mut self, error: &LaunchError) {
        self.wishes.forked.get_or_insert_with(|| Err(explain(error)));
    }

    /// Has what is forked from now on made otherwise.
    pub(super) fn set_up(&mut self, settings: Settings) {
        self.generations.amend(&settings);
        self.settings = settings;
    }

    /// Sends all workers away, and tells when those that there are now are gone.
    pub(super) fn disconnect_all(&mut self, reply: oneshot::Sender<()>) {
        let all = self.workers.keys().copied().collect();
        self.wishes.departures.push((all, reply));
        self.tell(Input::DisconnectAll);
        self.forget_extras_of_closed_slots();
        self.settle_departures();
    }

    /// A worker is gone, and everybody has been told.
    pub(super) fn note_departure(&mut self, id: WorkerId) {
        for (awaited, _) in &mut self.wishes.departures {
            awaited.remove(&id);
        }
        self.settle_departures();
    }

    /// Whether the first workers could be started.
    pub(super) fn take_start(&mut self) -> Result<(), Error> {
        match (&self.outcome, self.wishes.forked.take()) {
            (Some(outcome), _) => Err(outcome.clone().into_error()),
            (None, Some(Err(error))) => Err(error),
            (None, _) => Ok(()),
        }
    }

    /// A program that was never heard on its channel may not know of it: then a signal says the same.
    pub(super) fn expect_an_answer(&self, id: WorkerId) {
        if self.workers.get(&id).is_none_or(|worker| worker.has_spoken) || self.owns_process() {
            return;
        }
        let seen = self.seen.clone();
        tokio::spawn(async move {
            tokio::time::sleep(BOOT).await;
            let _ = seen.send(Seen::Mute(id)).await;
        });
    }

    pub(super) fn end_mute(&mut self, id: WorkerId) {
        if self.workers.get(&id).is_some_and(|worker| !worker.has_spoken) {
            self.urge(id);
        }
    }

    fn settle_departures(&mut self) {
        let (done, waiting) = std::mem::take(&mut self.wishes.departures)
            .into_iter()
            .partition(|(awaited, _)| awaited.is_empty());
        self.wishes.departures = waiting;
        let done: Vec<_> = done;
        if done.is_empty() {
            return;
        }
        if self.workers.is_empty() {
            // Nobody has crashed, all were sent away: the addresses are free for others now.
            self.ports.close();
        }
        for (_, reply) in done {
            let _ = reply.send(());
        }
    }
}

/// How a failed launch is told to who asked for it.
fn explain(error: &LaunchError) -> Error {
    match error {
        LaunchError::NotFound { program, reason } => {
            Error::new(ErrorKind::NotFound, format!("executing {program}")).because(reason.as_str())
        }
        LaunchError::NotExecutable { program, reason } => {
            Error::new(ErrorKind::NotExecutable, format!("executing {program}")).because(reason.as_str())
        }
        LaunchError::Impossible(reason) | LaunchError::Failed(reason) => {
            Error::new(ErrorKind::Spawn, "starting a worker").because(reason.as_str())
        }
    }
}

impl Outcome {
    /// Why the engine ended by itself, as an error.
    pub(crate) fn into_error(self) -> Error {
        let new = |kind, what: String| Error::new(kind, what);
        match self {
            Self::Stopped => new(ErrorKind::Stopped, "the cluster has stopped".into()),
            Self::NeverReady { status, .. } => {
                new(ErrorKind::Stopped, format!("no worker ever served; the last ended with {status}"))
            }
            Self::NotAServer => {
                new(ErrorKind::Stopped, "no worker ever served; each ended by itself with exit code 0".into())
            }
            Self::NeverStarted { reason } => new(ErrorKind::Spawn, "starting workers".into()).because(reason),
            Self::AddressUnavailable { address, reason, .. } => {
                new(ErrorKind::AddressUnavailable, format!("listening on {address}")).because(reason)
            }
            Self::CommandNotFound { program, reason } => {
                new(ErrorKind::NotFound, format!("executing {program}")).because(reason)
            }
            Self::NotExecutable { program, reason } => {
                new(ErrorKind::NotExecutable, format!("executing {program}")).because(reason)
            }
        }
    }
}
