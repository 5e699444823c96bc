//! What may be asked of a reload, and what is told of it.

use std::ffi::OsString;
use std::task::{Context, Poll};
use std::time::Duration;

use allcores_core::pool::{Fault, ReloadPlan};
use allcores_core::worker::{Slot, State, WorkerId};
use tokio::sync::mpsc;

use super::{Settings, WorkerRef};

/// A reload as it is asked for. By default the same command is run again, in the folder that the app's path leads to
/// now.
#[derive(Clone, Debug, Default)]
pub struct Reload {
    /// What the app is to be from now on, where that was read anew. Of it, what a worker is started with is taken up:
    /// command, folder, environment, user and group. What is asked for below, now or earlier, lies over it.
    pub settings: Option<Box<Settings>>,
    /// What to run instead, from now on.
    pub command: Option<Vec<OsString>>,
    /// Variables to set besides, from now on.
    pub env: Vec<(OsString, OsString)>,
    /// How many slots may be under replacement at a time (1).
    pub surge: Option<u16>,
    /// For how long the first new worker must stay ready before anything is taken away (not at all).
    pub canary: Option<Duration>,
    /// How long a new worker may take to be ready (that of [`PoolSettings`](super::PoolSettings)).
    pub ready_timeout: Option<Duration>,
    /// A new worker is ready when it listens anywhere. Else it must listen wherever the old one does.
    pub may_move: bool,
}

impl Reload {
    pub(super) fn plan(&self, ready_timeout: Duration) -> ReloadPlan {
        let default = ReloadPlan::default();
        ReloadPlan {
            surge: self.surge.unwrap_or(default.surge),
            canary: self.canary.unwrap_or(default.canary),
            ready_timeout: self.ready_timeout.unwrap_or(ready_timeout),
        }
    }

    /// Takes in a later wish, to be fulfilled together with this one.
    pub(super) fn join(&mut self, later: Self) {
        self.settings = later.settings.or(self.settings.take());
        self.command = later.command.or(self.command.take());
        self.env.extend(later.env);
        self.surge = later.surge.or(self.surge);
        self.canary = later.canary.or(self.canary);
        self.ready_timeout = later.ready_timeout.or(self.ready_timeout);
        self.may_move |= later.may_move;
    }
}

/// What is told of a reload to who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadNews {
    /// Another reload is under way; this one follows.
    Queued {
        /// The other's generation.
        behind: u32,
    },
    /// It began.
    Began {
        /// What it is to bring.
        generation: u32,
        /// How many slots there are.
        slots: u16,
    },
    /// A worker, old or new, has come this far.
    Worker {
        /// Which.
        worker: WorkerRef,
        /// What it belongs to.
        generation: u32,
        /// `Starting`, `Ready`, `Draining` or `Exited`.
        state: State,
    },
    /// The first new worker is ready, and is watched.
    Watching {
        /// Which.
        worker: WorkerRef,
        /// For how long.
        time: Duration,
    },
    /// A slot has what it is to have, and nothing else.
    Replaced {
        /// Which.
        slot: Slot,
        /// How many slots are like that.
        done: u16,
        /// Of so many.
        slots: u16,
    },
    /// A new worker is no good, and what was replaced is put back.
    RollingBack(ReloadFailure),
    /// It is over. Nothing follows.
    Ended(ReloadOutcome),
}

/// Why a reload failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadFailure {
    /// What it was to bring.
    pub generation: u32,
    /// The worker that was no good.
    pub id: WorkerId,
    /// Its slot.
    pub slot: Slot,
    /// What was wrong with it.
    pub fault: Fault,
    /// The same in words.
    pub reason: String,
    /// Addresses on which it did not listen, as the worker before it does, if that was it.
    pub missing: Vec<String>,
    /// The last lines of its output, without line ends.
    pub last_output: Vec<Vec<u8>>,
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Every worker is of the new generation, and ready.
    Reloaded {
        /// The new generation.
        generation: u32,
        /// How long it took.
        took: Duration,
    },
    /// The new generation was no good.
    Failed {
        /// Why.
        failure: ReloadFailure,
        /// Every worker is of the old generation, and ready. Else that could not be started again either, and each slot
        /// has kept what served.
        is_rolled_back: bool,
    },
    /// The app stops.
    Stopped,
    /// All workers were disconnected, old and new, and the app goes on without.
    Disconnected,
}

/// Tells how a reload goes on. Dropping it changes nothing about the reload.
#[derive(Debug)]
pub struct ReloadProgress {
    news: mpsc::UnboundedReceiver<ReloadNews>,
}

impl From<mpsc::UnboundedReceiver<ReloadNews>> for ReloadProgress {
    fn from(news: mpsc::UnboundedReceiver<ReloadNews>) -> Self {
        Self { news }
    }
}

impl ReloadProgress {
    /// Waits for the next piece of news; `None` after [`ReloadNews::Ended`], or when the app has gone without a word.
    ///
    /// # Cancel safety
    ///
    /// Safe: no news is lost.
    pub async fn next(&mut self) -> Option<ReloadNews> {
        self.news.recv().await
    }

    /// As [`next`](Self::next), for those who poll.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<ReloadNews>> {
        self.news.poll_recv(context)
    }
}
