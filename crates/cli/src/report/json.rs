//! Events as JSON, one object per line, for programs. The shapes are documented in `docs/reference/events.md`.

use std::borrow::Cow;
use std::time::SystemTime;

use allcores::primary::{Event, Holder, Lack, Outcome, Reason};
use serde::Serialize;

use crate::log::{Line, Source};
use crate::verdict::Verdict;
use crate::view::{self, ExitView, FailureView, PolicyView, RungView, WorkerRefView};

#[derive(Serialize)]
struct LineView<'a> {
    /// Only what stands in a log and is none of its lines has no time.
    time: Option<Cow<'a, str>>,
    app: &'a str,
    #[serde(flatten)]
    event: EventView<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum EventView<'a> {
    Forked {
        worker: WorkerRefView,
    },
    Online {
        worker: WorkerRefView,
    },
    Listening {
        worker: WorkerRefView,
        address: &'a str,
        rung: RungView,
        policy: PolicyView,
    },
    Ready {
        worker: WorkerRefView,
    },
    Hung {
        worker: WorkerRefView,
        stalled_seconds: f64,
    },
    NotReady {
        worker: WorkerRefView,
        lack: &'static str,
        limit_seconds: f64,
    },
    Unhealthy {
        worker: WorkerRefView,
        reason: &'a str,
    },
    Renewing {
        worker: WorkerRefView,
        reason: &'static str,
    },
    Draining {
        worker: WorkerRefView,
    },
    Exited {
        worker: WorkerRefView,
        #[serde(flatten)]
        status: ExitView,
        oom: bool,
        expected: bool,
        uptime_seconds: f64,
    },
    Respawning {
        slot: u16,
        delay_seconds: f64,
    },
    CrashLoop {
        slot: u16,
        exits: u32,
        #[serde(flatten)]
        status: ExitView,
        last_output: Vec<Cow<'a, str>>,
    },
    SpawnFailed {
        slot: u16,
        reason: &'a str,
    },
    AddressUnavailable {
        worker: WorkerRefView,
        address: &'a str,
        reason: &'a str,
        holder: Option<HolderView<'a>>,
    },
    Notice {
        text: &'a str,
    },
    Scaling {
        before: u16,
        workers: u16,
    },
    Reloading {
        generation: u32,
        slots: u16,
    },
    Watching {
        worker: WorkerRefView,
        seconds: f64,
    },
    Replaced {
        slot: u16,
        done: u16,
        slots: u16,
    },
    RollingBack(FailureView),
    Reloaded {
        generation: u32,
        seconds: f64,
    },
    ReloadFailed {
        #[serde(flatten)]
        failure: FailureView,
        rolled_back: bool,
    },
    Upgrading {
        executable: Cow<'a, str>,
    },
    UpgradeRefused {
        executable: Cow<'a, str>,
        reason: &'a str,
    },
    Upgraded {
        before: &'a str,
        version: &'static str,
        upgrades: u32,
    },
    Stopping,
    Output {
        worker: WriterView,
        stream: &'static str,
        line: Cow<'a, str>,
        partial: bool,
    },
    Note {
        level: Option<&'static str>,
        text: Cow<'a, str>,
    },
    Dropped {
        lines: u64,
    },
    Stopped {
        outcome: &'static str,
        exit_code: u8,
        message: &'a str,
        next: Option<&'a str>,
    },
}

/// The worker that wrote a line. A log does not know its process.
#[derive(Serialize)]
struct WriterView {
    id: u32,
    slot: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

#[derive(Serialize)]
struct HolderView<'a> {
    pid: u32,
    command: &'a str,
}

/// Writes an event of the engine.
pub(crate) fn event(app: &str, event: &Event<'_>) -> Vec<u8> {
    now(app, event.into())
}

/// Writes that workers' lines were lost.
pub(crate) fn dropped(app: &str, lines: u64) -> Vec<u8> {
    now(app, EventView::Dropped { lines })
}

/// Writes the end of the run, always the last line.
pub(crate) fn stopped(app: &str, outcome: &Outcome, verdict: &Verdict) -> Vec<u8> {
    let outcome = match outcome {
        Outcome::Stopped => "stopped",
        Outcome::NeverReady { .. } => "never_ready",
        Outcome::NeverStarted { .. } => "never_started",
        Outcome::NotAServer => "not_a_server",
        Outcome::AddressUnavailable { .. } => "address_unavailable",
        Outcome::CommandNotFound { .. } => "command_not_found",
        Outcome::NotExecutable { .. } => "not_executable",
    };
    let (message, next) = (verdict.message.as_str(), verdict.next.as_deref());
    now(app, EventView::Stopped { outcome, exit_code: verdict.code.number(), message, next })
}

/// Writes a line of a log.
pub(crate) fn of_line(app: &str, line: &Line<'_>) -> Vec<u8> {
    let text = String::from_utf8_lossy(line.bytes);
    let event = match line.source {
        Source::Worker { slot, id, stream, is_partial: partial } => {
            let (worker, stream) = (WriterView { id, slot, pid: None }, view::stream(stream));
            EventView::Output { worker, stream, line: text, partial }
        }
        Source::Own(level) => EventView::Note { level: Some(level.name()), text },
        Source::Foreign => EventView::Note { level: None, text },
    };
    let time = Some(line.time).filter(|time| !time.is_empty());
    write(&LineView { time: time.map(Cow::Borrowed), app, event })
}

fn now(app: &str, event: EventView<'_>) -> Vec<u8> {
    write(&LineView { time: Some(view::time(SystemTime::now()).into()), app, event })
}

fn write(line: &LineView<'_>) -> Vec<u8> {
    // These shapes have no map with keys that aren't strings, the one thing that can't be written.
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text
}

impl<'a> From<&'a Event<'_>> for EventView<'a> {
    fn from(event: &'a Event<'_>) -> Self {
        match event {
            Event::Forked { worker } => Self::Forked { worker: worker.into() },
            Event::Online { worker } => Self::Online { worker: worker.into() },
            Event::Listening { worker, address, rung, policy } => Self::Listening {
                worker: worker.into(),
                address,
                rung: (*rung).into(),
                policy: PolicyView((*policy).clone()),
            },
            Event::Ready { worker } => Self::Ready { worker: worker.into() },
            Event::Hung { worker, stalled } => {
                Self::Hung { worker: worker.into(), stalled_seconds: stalled.as_secs_f64() }
            }
            Event::NotReady { worker, lack, limit } => Self::NotReady {
                worker: worker.into(),
                lack: match lack {
                    Lack::Listening => "listening",
                    Lack::Word => "word",
                    Lack::Health => "health",
                },
                limit_seconds: limit.as_secs_f64(),
            },
            Event::Unhealthy { worker, reason } => Self::Unhealthy { worker: worker.into(), reason },
            Event::Renewing { worker, reason, .. } => Self::Renewing {
                worker: worker.into(),
                reason: match reason {
                    Reason::Unresponsive => "unresponsive",
                    Reason::Unhealthy => "unhealthy",
                    Reason::Memory => "memory",
                    Reason::Requests => "requests",
                    Reason::Lifetime => "lifetime",
                },
            },
            Event::Draining { worker } => Self::Draining { worker: worker.into() },
            Event::Exited { worker, status, is_oom, is_expected, uptime, .. } => Self::Exited {
                worker: worker.into(),
                status: (*status).into(),
                oom: *is_oom,
                expected: *is_expected,
                uptime_seconds: uptime.as_secs_f64(),
            },
            Event::Respawning { slot, delay } => {
                Self::Respawning { slot: slot.0, delay_seconds: delay.as_secs_f64() }
            }
            Event::CrashLoop { slot, exits, status, last_output, .. } => Self::CrashLoop {
                slot: slot.0,
                exits: *exits,
                status: (*status).into(),
                last_output: last_output.iter().map(|line| String::from_utf8_lossy(line)).collect(),
            },
            Event::SpawnFailed { slot, reason } => Self::SpawnFailed { slot: slot.0, reason },
            Event::AddressUnavailable { worker, address, reason, holder } => Self::AddressUnavailable {
                worker: worker.into(),
                address,
                reason,
                holder: holder.map(|Holder { pid, command }| HolderView { pid: *pid, command }),
            },
            Event::Notice { text } => Self::Notice { text },
            Event::Scaling { before, workers } => Self::Scaling { before: *before, workers: *workers },
            Event::Reloading { generation, slots } => {
                Self::Reloading { generation: *generation, slots: *slots }
            }
            Event::Watching { worker, time } => {
                Self::Watching { worker: worker.into(), seconds: time.as_secs_f64() }
            }
            Event::Replaced { slot, done, slots } => {
                Self::Replaced { slot: slot.0, done: *done, slots: *slots }
            }
            Event::RollingBack { failure } => Self::RollingBack((*failure).into()),
            Event::Reloaded { generation, took } => {
                Self::Reloaded { generation: *generation, seconds: took.as_secs_f64() }
            }
            Event::ReloadFailed { failure, is_rolled_back } => {
                Self::ReloadFailed { failure: (*failure).into(), rolled_back: *is_rolled_back }
            }
            Event::Upgrading { executable } => Self::Upgrading { executable: executable.to_string_lossy() },
            Event::UpgradeRefused { executable, reason, .. } => {
                Self::UpgradeRefused { executable: executable.to_string_lossy(), reason }
            }
            Event::Upgraded { before, count } => {
                Self::Upgraded { before, version: env!("CARGO_PKG_VERSION"), upgrades: *count }
            }
            Event::Stopping => Self::Stopping,
            Event::Output { worker, stream, line, is_partial } => Self::Output {
                partial: *is_partial,
                worker: WriterView { id: worker.id.0, slot: worker.slot.0, pid: Some(worker.pid) },
                stream: view::stream(*stream),
                line: String::from_utf8_lossy(line),
            },
        }
    }
}

#[cfg(test)]
mod tests;
