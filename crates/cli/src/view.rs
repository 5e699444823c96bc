//! What goes over the control socket and comes out of `--json`: stable shapes, separate from the engine's own types.

mod orders;
mod reload;
mod upgrade;

use std::time::{Duration, SystemTime};

use allcores::primary::{
    AddressSnapshot, AppSnapshot, HealthSnapshot, LaneSnapshot, LastExit, Policy, ReloadSnapshot, Stream,
    WorkerSnapshot,
};
use allcores::{ExitStatus, Rung, State, UnknownPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::args::{Change, MAX_WORKERS};
use crate::report::Account;

pub(crate) use orders::{ConfigView, DescriptionView, MessageView, ReachedView, SignalView};
pub(crate) use reload::{EndedView, FailureView, FaultView, ReloadNewsView, ReloadView, WorkerRefView};
pub(crate) use upgrade::{UpgradeNewsView, UpgradeView};

/// The answer to `GET /v1/status` and to `POST /v1/scale`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct StatusView {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) upgrades: u32,
    pub(crate) generation: u32,
    pub(crate) reload: Option<UnderWayView>,
    #[serde(default)]
    pub(crate) failed_reload: Option<FailedReloadView>,
    #[schemars(with = "String")]
    pub(crate) policy: PolicyView,
    pub(crate) hint: Option<String>,
    pub(crate) listening: Vec<String>,
    pub(crate) addresses: Vec<AddressView>,
    pub(crate) target: u16,
    #[serde(default)]
    pub(crate) stopping: bool,
    pub(crate) strays: u64,
    pub(crate) health: Option<HealthView>,
    pub(crate) output: OutputView,
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

/// What becomes of what workers write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OutputView {
    pub(crate) log: Option<String>,
    /// Lines in the log.
    pub(crate) written: u64,
    /// Lines that were lost.
    pub(crate) dropped: u64,
    /// Why the log could not be written, the last time.
    pub(crate) reason: Option<String>,
}

/// One address that workers listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AddressView {
    pub(crate) address: String,
    #[schemars(with = "String")]
    pub(crate) policy: PolicyView,
    pub(crate) pending: Option<usize>,
}

/// A reload under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct UnderWayView {
    pub(crate) generation: u32,
    pub(crate) done: u16,
    pub(crate) rolling_back: bool,
    pub(crate) queued: bool,
}

/// The last reload, if it has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FailedReloadView {
    pub(crate) at: String,
    pub(crate) reason: String,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct WorkerView {
    pub(crate) id: u32,
    pub(crate) slot: u16,
    pub(crate) generation: u32,
    pub(crate) pid: Option<u32>,
    pub(crate) state: StateView,
    pub(crate) rung: Option<RungView>,
    pub(crate) since: String,
    pub(crate) restarts: u32,
    #[serde(default)]
    pub(crate) crash_loop: bool,
    /// When the slot gets its next worker, while it waits for one.
    #[serde(default)]
    pub(crate) respawn_at: Option<String>,
    pub(crate) lanes: Vec<LaneView>,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) health: Option<HealthView>,
    pub(crate) said_status: Option<String>,
    pub(crate) last_exit: Option<LastExitView>,
}

/// How health checks go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HealthView {
    /// In a row.
    pub(crate) failures: u32,
    pub(crate) reason: Option<String>,
}

/// One accept queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LaneView {
    pub(crate) address: String,
    pub(crate) depth: Option<u32>,
}

/// How the previous worker of a slot ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LastExitView {
    #[serde(flatten)]
    pub(crate) status: ExitView,
    pub(crate) oom: bool,
    pub(crate) at: String,
}

/// Exactly one of a code or a signal's name, as in node:cluster's `exit` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ExitView {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<String>,
}

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RungView {
    Crate,
    Node,
    Adopted,
    Inherited,
}

/// How connections reach workers, as `--policy` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct PolicyView(pub(crate) Policy);

/// The answer to `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct VersionView {
    pub(crate) version: String,
}

/// The answer to `GET /v1/health/live`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LiveView {
    pub(crate) live: bool,
}

/// The answer to `GET /v1/health/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReadyView {
    pub(crate) ready: usize,
    pub(crate) target: u16,
}

/// The body of `POST /v1/stop`; an empty one is a stop in peace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StopView {
    #[serde(default)]
    pub(crate) now: bool,
}

/// The answer to `POST /v1/stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct StoppingView {
    pub(crate) stopping: bool,
}

/// The body of `POST /v1/scale`: how many workers there are to be, or how many more or fewer than there are to be already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScaleView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workers: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<i16>,
}

impl From<Change> for ScaleView {
    fn from(change: Change) -> Self {
        match change {
            Change::To(workers) => Self { workers: Some(workers), by: None },
            Change::By(difference) => Self { workers: None, by: Some(difference) },
        }
    }
}

impl TryFrom<ScaleView> for Change {
    type Error = String;

    fn try_from(view: ScaleView) -> Result<Self, String> {
        match (view.workers, view.by) {
            (Some(workers), None) if (1..=MAX_WORKERS).contains(&workers) => Ok(Self::To(workers)),
            (Some(workers), None) => Err(format!("{workers} workers: an app has from 1 to {MAX_WORKERS}")),
            (None, Some(difference)) if difference != 0 => Ok(Self::By(difference)),
            _ => Err("give either `workers`, or `by`, which is not 0".into()),
        }
    }
}

/// The body of every answer that isn't a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ErrorView {
    pub(crate) error: String,
}

/// Writes a time as all times here are written, or the last that can be written so.
pub(crate) fn time(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_millis(253_402_300_799_999);
    humantime::format_rfc3339_millis(time.min(last)).to_string()
}

/// What a stream is called.
pub(crate) fn stream(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

impl StatusView {
    /// Puts together what the engine, the reporter, and who follows reloads know.
    pub(crate) fn of(app: AppSnapshot, account: &Account, failed_reload: Option<FailedReloadView>) -> Self {
        Self {
            name: app.name,
            pid: app.pid,
            version: app.version.to_owned(),
            upgrades: app.upgrades,
            generation: app.generation,
            reload: app.reload.map(UnderWayView::from),
            failed_reload,
            policy: PolicyView(app.policy),
            hint: app.hint,
            listening: app.listening,
            addresses: app.addresses.into_iter().map(AddressView::from).collect(),
            target: app.target,
            stopping: app.stopping,
            strays: app.strays,
            health: app.health.map(HealthView::from),
            output: OutputView {
                log: account.log.as_ref().map(|path| path.display().to_string()),
                written: account.written,
                dropped: account.dropped,
                reason: account.reason.clone(),
            },
            since: time(app.since),
            workers: app.workers.into_iter().map(WorkerView::from).collect(),
        }
    }
}

impl From<AddressSnapshot> for AddressView {
    fn from(address: AddressSnapshot) -> Self {
        Self { address: address.address, policy: PolicyView(address.policy), pending: address.pending }
    }
}

impl From<ReloadSnapshot> for UnderWayView {
    fn from(reload: ReloadSnapshot) -> Self {
        Self {
            generation: reload.generation,
            done: reload.done,
            rolling_back: reload.is_rolling_back,
            queued: reload.is_queued,
        }
    }
}

impl From<WorkerSnapshot> for WorkerView {
    fn from(worker: WorkerSnapshot) -> Self {
        Self {
            id: worker.id.0,
            slot: worker.slot.0,
            generation: worker.generation,
            pid: worker.pid,
            state: worker.state.into(),
            rung: worker.rung.map(RungView::from),
            since: time(worker.since),
            restarts: worker.restarts,
            crash_loop: worker.is_crash_looping,
            respawn_at: worker.respawn_at.map(time),
            lanes: worker.lanes.into_iter().map(LaneView::from).collect(),
            rss_bytes: worker.rss_bytes,
            cpu_seconds: worker.cpu.map(|cpu| cpu.as_secs_f64()),
            health: worker.health.map(HealthView::from),
            said_status: worker.said_status,
            last_exit: worker.last_exit.map(LastExitView::from),
        }
    }
}

impl From<HealthSnapshot> for HealthView {
    fn from(health: HealthSnapshot) -> Self {
        Self { failures: health.failures, reason: health.reason }
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

impl TryFrom<String> for PolicyView {
    type Error = UnknownPolicy;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<PolicyView> for String {
    fn from(view: PolicyView) -> Self {
        view.0.to_string()
    }
}

#[cfg(test)]
pub(crate) mod tests;
