//! A reload as it goes over the control socket: what is asked for, and a line for each piece of news.

use std::collections::BTreeMap;
use std::ffi::OsString;

use allcores::primary::{Fault, Reload, ReloadFailure, ReloadNews, ReloadOutcome, WorkerRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StateView;
use crate::args::seconds;

/// The body of `POST /v1/reload`; an empty one runs the same again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReloadView {
    pub(crate) command: Option<Vec<String>>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) surge: Option<u16>,
    pub(crate) canary_seconds: Option<f64>,
    pub(crate) ready_timeout_seconds: Option<f64>,
    pub(crate) may_move: bool,
    // An app of an older version knows nothing of it, and need not as long as nobody asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<String>,
}

impl TryFrom<ReloadView> for Reload {
    type Error = String;

    fn try_from(view: ReloadView) -> Result<Self, String> {
        if view.command.as_ref().is_some_and(Vec::is_empty) {
            return Err("an empty command: leave it out to run the same again".into());
        }
        if view.env.keys().any(|key| key.is_empty() || key.contains('=')) {
            return Err("a variable whose name is empty, or has a `=` in it".into());
        }
        let words = view.command.iter().flatten().chain(view.env.values()).chain(view.env.keys());
        if words.into_iter().any(|word| word.contains('\0')) {
            return Err("a NUL in a word of the command or in a variable".into());
        }
        Ok(Self {
            // Read anew by the primary itself.
            settings: None,
            command: view.command.map(|command| command.into_iter().map(OsString::from).collect()),
            env: view.env.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            surge: view.surge,
            canary: view.canary_seconds.map(seconds).transpose()?,
            ready_timeout: view.ready_timeout_seconds.map(seconds).transpose()?,
            may_move: view.may_move,
        })
    }
}

/// A line of the answer to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum ReloadNewsView {
    Notice { text: String },
    Queued { behind: u32 },
    Began { generation: u32, slots: u16 },
    Worker { worker: WorkerRefView, generation: u32, state: StateView },
    Watching { worker: WorkerRefView, seconds: f64 },
    Replaced { slot: u16, done: u16, slots: u16 },
    RollingBack(FailureView),
    Ended(EndedView),
}

/// A worker that something is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct WorkerRefView {
    pub(crate) id: u32,
    pub(crate) slot: u16,
    pub(crate) pid: u32,
}

/// Why a reload failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FailureView {
    pub(crate) generation: u32,
    pub(crate) id: u32,
    pub(crate) slot: u16,
    pub(crate) fault: FaultView,
    pub(crate) reason: String,
    // An app of an older version does not say.
    #[serde(default)]
    pub(crate) missing: Vec<String>,
    pub(crate) last_output: Vec<String>,
}

/// What was wrong with a new worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultView {
    NotSpawned,
    Exited,
    NotReady,
    Hung,
    NotListening,
    Unhealthy,
}

/// How a reload ended: always the last line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum EndedView {
    Reloaded {
        generation: u32,
        seconds: f64,
    },
    Failed {
        #[serde(flatten)]
        failure: FailureView,
        rolled_back: bool,
    },
    Stopped,
}

impl From<ReloadNews> for ReloadNewsView {
    fn from(news: ReloadNews) -> Self {
        match news {
            ReloadNews::Queued { behind } => Self::Queued { behind },
            ReloadNews::Began { generation, slots } => Self::Began { generation, slots },
            ReloadNews::Worker { worker, generation, state } => {
                Self::Worker { worker: (&worker).into(), generation, state: state.into() }
            }
            ReloadNews::Watching { worker, time } => {
                Self::Watching { worker: (&worker).into(), seconds: time.as_secs_f64() }
            }
            ReloadNews::Replaced { slot, done, slots } => Self::Replaced { slot: slot.0, done, slots },
            ReloadNews::RollingBack(failure) => Self::RollingBack((&failure).into()),
            ReloadNews::Ended(outcome) => Self::Ended(outcome.into()),
        }
    }
}

impl From<&WorkerRef> for WorkerRefView {
    fn from(worker: &WorkerRef) -> Self {
        Self { id: worker.id.0, slot: worker.slot.0, pid: worker.pid }
    }
}

impl From<&ReloadFailure> for FailureView {
    fn from(failure: &ReloadFailure) -> Self {
        Self {
            generation: failure.generation,
            id: failure.id.0,
            slot: failure.slot.0,
            fault: failure.fault.into(),
            reason: failure.reason.clone(),
            missing: failure.missing.clone(),
            last_output: failure
                .last_output
                .iter()
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect(),
        }
    }
}

impl From<Fault> for FaultView {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotSpawned => Self::NotSpawned,
            Fault::Exited { .. } => Self::Exited,
            Fault::NotReady { .. } => Self::NotReady,
            Fault::Hung => Self::Hung,
            Fault::NotListening => Self::NotListening,
            Fault::Unhealthy => Self::Unhealthy,
        }
    }
}

impl From<ReloadOutcome> for EndedView {
    fn from(outcome: ReloadOutcome) -> Self {
        match outcome {
            ReloadOutcome::Reloaded { generation, took } => {
                Self::Reloaded { generation, seconds: took.as_secs_f64() }
            }
            ReloadOutcome::Failed { failure, is_rolled_back } => {
                Self::Failed { failure: (&failure).into(), rolled_back: is_rolled_back }
            }
            // An app sends all its workers away as it stops, and no sooner.
            ReloadOutcome::Stopped | ReloadOutcome::Disconnected => Self::Stopped,
        }
    }
}

#[cfg(test)]
mod tests;
