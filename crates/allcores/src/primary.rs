//! The primary: the process that keeps the workers.
//!
//! One task owns everything; all others hold a [`Handle`]. What happened is told through [`Event`]s, after it is true.

mod answers;
mod census;
mod depot;
mod engine;
mod event;
mod flow;
mod guest;
mod launch;
mod leftovers;
mod probe;
mod recall;
mod relay;
mod reload;
pub mod samples;
mod settings;
mod snapshot;
mod upgrade;
mod upkeep;
mod usage;
mod worker;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use allcores_core::worker::{Slot, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::Signal;
use crate::error::Error;
use engine::{Begun, Command, Engine, Observe, Size, Upgrades};

pub use allcores_core::channel::is_own;
pub use allcores_core::health::HealthSettings;
pub use allcores_core::policy::Policy;
pub use allcores_core::pool::{Fault, Lack, PoolSettings, Reason};
pub(crate) use depot::name_of;
pub use depot::{Depot, was_put_away};
pub use event::{Event, Holder, Outcome, Stream, WorkerRef};
pub(crate) use flow::{Flow, HANDLE_BYTES};
pub(crate) use guest::{Guest, Link, Said};
pub(crate) use launch::Extras;
pub use launch::NODE_OPTIONS_WITH_VALUE;
pub use leftovers::Leftovers;
pub use reload::{Reload, ReloadFailure, ReloadNews, ReloadOutcome, ReloadProgress};
pub use settings::{GivenSocket, Host, Output, Settings};
pub use snapshot::{
    AddressSnapshot, AppSnapshot, HealthSnapshot, LaneSnapshot, LastExit, ReloadSnapshot, WorkerSnapshot,
};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use upgrade::fuzz::state as fuzz_state;
pub use upgrade::{
    Legacy, Program, Unreadable, Upgrade, UpgradeNews, UpgradeProgress, check, own_executable,
};
pub use upkeep::{Health, HealthCheck, Upkeep};

/// Commands a running primary; cheap to clone, usable from any task.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why a primary could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct StartError {
    action: &'static str,
    #[source]
    source: io::Error,
}

impl Handle {
    /// Drains and stops every worker. Always accepted; the primary's `run` returns when it is done.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Kills every worker at once. Always accepted.
    pub fn stop_now(&self) {
        let _ = self.commands.send(Command::StopNow);
    }

    /// Changes the number of workers, and waits until that many are ready and the surplus has drained and gone.
    ///
    /// # Errors
    ///
    /// If the app stops, the new workers keep exiting, or another number is asked for meanwhile.
    pub async fn scale(&self, workers: u16) -> Result<AppSnapshot, Refusal> {
        self.size(Size::To(workers)).await
    }

    /// Changes the number of workers by so many, if that leaves a number within `range`, and waits as [`scale`](Self::scale)
    /// does. Is heard in the order of the calls, whenever it is awaited; of several at once each counts.
    ///
    /// # Errors
    ///
    /// As of [`scale`](Self::scale), and if the number would be another than those of `range`.
    pub fn scale_by(
        &self,
        difference: i16,
        range: RangeInclusive<u16>,
    ) -> impl Future<Output = Result<AppSnapshot, Refusal>> + use<> {
        self.size(Size::By(difference, range))
    }

    fn size(&self, size: Size) -> impl Future<Output = Result<AppSnapshot, Refusal>> + use<> {
        let gone = || Refusal("the app has stopped".into());
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Scale(size, reply));
        async move {
            sent.map_err(|_| gone())?;
            Ok(answer.await.unwrap_or_else(|_| Err(gone()))?.measured().await)
        }
    }

    /// Starts one worker more.
    pub(crate) fn fork(&self, extras: Extras, reply: impl FnOnce(Result<WorkerId, Error>) + Send + 'static) {
        let _ = self.commands.send(Command::Fork(extras, Box::new(reply)));
    }

    /// Takes a worker out of service and asks it to go, as soon as nothing is on its way to it.
    pub(crate) fn disconnect(&self, id: WorkerId) {
        let _ = self.commands.send(Command::Disconnect(id));
    }

    /// The same with all workers; completes when those that there are now are gone.
    pub(crate) async fn disconnect_all(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::DisconnectAll(reply)).is_ok() {
            let _ = answer.await;
        }
    }

    /// Has what is forked from now on made otherwise.
    pub(crate) fn set_up(&self, settings: Settings) {
        let _ = self.commands.send(Command::SetUp(Box::new(settings)));
    }

    /// Replaces every worker, slot by slot, by one that runs what was changed since, and what is asked for here. Who
    /// asks while a reload is under way gets the next one, together with all others who do.
    ///
    /// Goes on whether or not anybody listens to what is told of it.
    pub fn reload(&self, wish: Reload) -> ReloadProgress {
        let (tell, news) = mpsc::unbounded_channel();
        let _ = self.commands.send(Command::Reload(Box::new(wish), tell));
        news.into()
    }

    /// Becomes another program: the same process, with the same workers, which notice nothing.
    ///
    /// Goes on whether or not anybody listens to what is told of it.
    pub fn upgrade(&self, wish: Upgrade) -> UpgradeProgress {
        let (tell, news) = mpsc::unbounded_channel();
        let _ = self.commands.send(Command::Upgrade(wish, tell));
        news.into()
    }

    /// Sends a signal to the workers of a slot, or to all: to each with all its processes. Tells which.
    ///
    /// # Errors
    ///
    /// If no worker runs there.
    pub async fn signal(&self, slot: Option<Slot>, signal: Signal) -> Result<Vec<WorkerRef>, Refusal> {
        self.order(|reply| Command::Signal(slot, signal, reply)).await
    }

    /// Sends a message, one line of JSON, to the workers of a slot, or to all, over their channels. Tells to which: those
    /// that have one.
    ///
    /// # Errors
    ///
    /// If no worker runs there, or none that has a channel.
    pub async fn send(&self, slot: Option<Slot>, message: String) -> Result<Vec<WorkerRef>, Refusal> {
        self.order(|reply| Command::Send(slot, message, reply)).await
    }

    async fn order(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<Vec<WorkerRef>, Refusal>>) -> Command,
    ) -> Result<Vec<WorkerRef>, Refusal> {
        let gone = || Refusal("the app has stopped".into());
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Reads the present state.
    ///
    /// # Errors
    ///
    /// If the app has stopped.
    pub async fn snapshot(&self) -> Result<AppSnapshot, Refusal> {
        let gone = || Refusal("the app has stopped".into());
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Snapshot(reply)).map_err(|_| gone())?;
        Ok(answer.await.map_err(|_| gone())?.measured().await)
    }

    /// Counts the connections that each worker has accepted and not closed, with those of its descendants in its session.
    /// Takes milliseconds where there are thousands, and holds up nothing meanwhile.
    ///
    /// # Errors
    ///
    /// If the app has stopped.
    pub async fn connections(&self) -> Result<BTreeMap<WorkerId, u64>, Refusal> {
        let gone = || Refusal("the app has stopped".into());
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Census(reply)).map_err(|_| gone())?;
        let census = answer.await.map_err(|_| gone())?;
        tokio::task::spawn_blocking(move || census.take()).await.map_err(|_| gone())
    }
}

/// Starts a thread that no signal is delivered to. All threads of a program whose primary may be upgraded are to be such:
/// of a signal that one of them has taken, the next program would not learn.
///
/// # Errors
///
/// As of [`std::thread::Builder::spawn`].
pub fn spawn_deaf(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // A thread begins with the signals blocked that are blocked where it is started.
    let mask = crate::sys::exec::block_signals();
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    mask.restore();
    spawned.map(drop)
}

/// Has no signal delivered to the calling thread, as of [`spawn_deaf`]: for threads that others start.
pub fn deafen() {
    crate::sys::exec::block_signals();
}

/// Has no program that this process starts from now on inherit a descriptor but the standard ones: for who starts something
/// that stays, and was itself left who knows what open.
///
/// # Errors
///
/// Kernels before 5.11 have no call for it.
pub fn keep_descriptors_private() -> io::Result<()> {
    crate::sys::process::close_others_on_exec()
}

/// Whether workers of a command are offered node:cluster's channel: it is node, running a program of its own. All others are
/// adopted, or take sockets that are passed to them.
pub fn is_offered_channel(command: &[OsString]) -> bool {
    launch::is_node_program(command)
}

/// Gives back the memory of code that is not needed all the time: what is needed again is mapped again, from the kernel's cache
/// of the file. For who has done something rare.
pub fn give_back_code() {
    crate::sys::process::release_code();
}

/// How many sightings may wait for the engine; more, and who sees them waits.
const SIGHTINGS: usize = 1024;

/// A primary that has its settings and has not started a worker yet.
#[derive(Debug)]
pub struct Primary {
    settings: Settings,
    /// What the program before has left.
    legacy: Option<Legacy>,
    upgrades: Upgrades,
    depot: Option<Box<dyn Depot>>,
    commands: mpsc::UnboundedSender<Command>,
    received: mpsc::UnboundedReceiver<Command>,
}

impl Primary {
    /// Takes the settings. Nothing is started.
    pub fn new(settings: Settings) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        Self { settings, legacy: None, upgrades: Upgrades::default(), depot: None, commands, received }
    }

    /// Goes on with what the program before has left, after an [upgrade](Upgrade).
    pub fn resume(legacy: Legacy) -> Self {
        let settings = legacy.settings().clone();
        let upgrades = Upgrades::after(&legacy.document);
        Self { legacy: Some(legacy), upgrades, ..Self::new(settings) }
    }

    /// Lets it become another program, of which `program` is around it and `executable` the file, unless another is
    /// named. It must have the process for itself, and be awaited on its main thread.
    #[must_use]
    pub fn upgradable(
        mut self,
        executable: impl Into<PathBuf>,
        program: impl Program + Send + 'static,
    ) -> Self {
        self.upgrades.allow(executable.into(), Box::new(program));
        self
    }

    /// Has listeners put away, for the primary after this one.
    #[must_use]
    pub fn putting_away(mut self, depot: impl Depot + 'static) -> Self {
        self.depot = Some(Box::new(depot));
        self
    }

    /// Gives out a handle.
    pub fn handle(&self) -> Handle {
        Handle { commands: self.commands.clone() }
    }

    /// Runs until it is stopped or can't go on; tells `observe` what happens.
    ///
    /// Where the process is its own, unblocks all signals of the calling thread, since the ends of children are told
    /// by one.
    ///
    /// Must be awaited on a thread that lives as long as the primary, on a current-thread runtime: workers are told of
    /// the primary's death through the thread that forked them. `observe` is called in between everything else and must not block.
    ///
    /// # Errors
    ///
    /// If the kernel refuses what every primary needs (a timer, an epoll descriptor).
    pub async fn run(self, observe: impl FnMut(Event<'_>) + Send + 'static) -> Result<Outcome, StartError> {
        self.run_with(None, Box::new(observe), Box::new(|_| {})).await
    }

    /// The same as a part of a program.
    pub(crate) async fn run_with(
        self,
        guest: Option<Guest>,
        observe: Observe,
        begun: Begun,
    ) -> Result<Outcome, StartError> {
        let failed = |action| move |source| StartError { action, source };
        if self.settings.host == Host::Process {
            crate::sys::process::unblock_signals();
            // Orphans of workers become our children, so that none outlives its worker unseen.
            let own = rustix::process::getpid();
            rustix::process::set_child_subreaper(Some(own))
                .map_err(io::Error::from)
                .map_err(failed("becoming a subreaper"))?;
        }
        // Clients wait for what it does. Where it can't be had, they wait a little longer.
        let _ = crate::sys::scheduling::be_prompt();
        let (seen, sightings) = mpsc::channel(SIGHTINGS);
        let mut engine = match self.legacy {
            None => Engine::new(self.settings, guest, seen, observe).map_err(failed("making timers"))?,
            Some(Legacy { document, mut inherited, .. }) => {
                Engine::resume(self.settings, document.engine, &mut inherited, seen, observe)
                    .map_err(failed("going on with what the program before has left"))?
            }
        };
        engine.upgrades = self.upgrades;
        if let Some(depot) = self.depot {
            engine.put_away_in(depot);
        }
        // A task like those that tell it of something: the runtime looks for events in between whenever the future that it
        // was begun with is woken. It ends with this one.
        let mut task = JoinSet::new();
        task.spawn(engine.run(self.received, sightings, begun));
        match task.join_next().await {
            Some(Ok(outcome)) => Ok(outcome),
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => unreachable!("nobody cancels it"),
            },
            None => unreachable!("there is one"),
        }
    }
}
