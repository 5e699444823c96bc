//! What goes over the control socket and comes out of `--json`: stable shapes, separate from the engine's own types.

use std::time::SystemTime;

use allcores::primary::{AppSnapshot, LaneSnapshot, LastExit, Policy, WorkerSnapshot};
use allcores::{ExitStatus, Rung, State};
use serde::{Deserialize, Serialize};

/// The answer to `GET /v1/status` and to `POST /v1/scale`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatusView {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) generation: u32,
    pub(crate) policy: PolicyView,
    pub(crate) hint: Option<String>,
    pub(crate) listening: Vec<String>,
    pub(crate) target: u16,
    pub(crate) strays: u64,
    /// RFC 3339, UTC, milliseconds; as all times here.
    pub(crate) since: String,
    pub(crate) workers: Vec<WorkerView>,
}

impl StatusView {
    /// Counts the workers that get connections.
    pub(crate) fn ready(&self) -> usize {
        self.workers.iter().filter(|worker| worker.state == StateView::Ready).count()
    }
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerView {
    pub(crate) id: u32,
    pub(crate) slot: u16,
    pub(crate) pid: Option<u32>,
    pub(crate) state: StateView,
    pub(crate) rung: Option<RungView>,
    pub(crate) since: String,
    pub(crate) restarts: u32,
    pub(crate) lanes: Vec<LaneView>,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) last_exit: Option<LastExitView>,
}

/// One accept queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LaneView {
    pub(crate) address: String,
    pub(crate) depth: Option<u32>,
}

/// How the previous worker of a slot ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LastExitView {
    #[serde(flatten)]
    pub(crate) status: ExitView,
    pub(crate) oom: bool,
    pub(crate) at: String,
}

/// Exactly one of a code or a signal's name, as in node:cluster's `exit` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitView {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<String>,
}

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StateView {
    Starting,
    Online,
    Listening,
    Ready,
    Hung,
    Draining,
    Exited,
}

/// How a program became a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RungView {
    Crate,
    Node,
    Adopted,
    Inherited,
}

/// How connections reach workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PolicyView {
    Auto,
    Lanes,
    Shared,
}

/// The answer to `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionView {
    pub(crate) version: String,
}

/// The body of `POST /v1/stop`; an empty one is a stop in peace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StopView {
    #[serde(default)]
    pub(crate) now: bool,
}

/// The answer to `POST /v1/stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoppingView {
    pub(crate) stopping: bool,
}

/// The body of `POST /v1/scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScaleView {
    pub(crate) workers: u16,
}

/// The body of every answer that isn't a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorView {
    pub(crate) error: String,
}

/// Writes a time as all times here are written.
pub(crate) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

impl From<AppSnapshot> for StatusView {
    fn from(app: AppSnapshot) -> Self {
        Self {
            name: app.name,
            pid: app.pid,
            version: app.version.to_owned(),
            generation: app.generation,
            policy: app.policy.into(),
            hint: app.hint,
            listening: app.listening,
            target: app.target,
            strays: app.strays,
            since: time(app.since),
            workers: app.workers.into_iter().map(WorkerView::from).collect(),
        }
    }
}

impl From<WorkerSnapshot> for WorkerView {
    fn from(worker: WorkerSnapshot) -> Self {
        Self {
            id: worker.id.0,
            slot: worker.slot.0,
            pid: worker.pid,
            state: worker.state.into(),
            rung: worker.rung.map(RungView::from),
            since: time(worker.since),
            restarts: worker.restarts,
            lanes: worker.lanes.into_iter().map(LaneView::from).collect(),
            rss_bytes: worker.rss_bytes,
            cpu_seconds: worker.cpu.map(|cpu| cpu.as_secs_f64()),
            last_exit: worker.last_exit.map(LastExitView::from),
        }
    }
}

impl From<LaneSnapshot> for LaneView {
    fn from(lane: LaneSnapshot) -> Self {
        Self { address: lane.address, depth: lane.depth }
    }
}

impl From<LastExit> for LastExitView {
    fn from(exit: LastExit) -> Self {
        Self { status: exit.status.into(), oom: exit.is_oom, at: time(exit.at) }
    }
}

impl From<ExitStatus> for ExitView {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Code(code) => Self { code: Some(code), signal: None },
            ExitStatus::Signal(_) => Self { code: None, signal: Some(status.to_string()) },
        }
    }
}

impl From<State> for StateView {
    fn from(state: State) -> Self {
        match state {
            State::Starting => Self::Starting,
            State::Online => Self::Online,
            State::Listening => Self::Listening,
            State::Ready => Self::Ready,
            State::Hung => Self::Hung,
            State::Draining => Self::Draining,
            State::Exited => Self::Exited,
        }
    }
}

impl From<Rung> for RungView {
    fn from(rung: Rung) -> Self {
        match rung {
            Rung::Crate => Self::Crate,
            Rung::Node => Self::Node,
            Rung::Adopted => Self::Adopted,
            Rung::Inherited => Self::Inherited,
        }
    }
}

impl From<Policy> for PolicyView {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Auto => Self::Auto,
            Policy::Lanes => Self::Lanes,
            Policy::Shared => Self::Shared,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
