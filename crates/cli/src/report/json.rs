//! Events as JSON, one object per line, for programs. The shapes are documented in `docs/reference/events.md`.

use std::borrow::Cow;
use std::time::SystemTime;

use allcores::primary::{Event, Holder, Outcome, Stream, WorkerRef};
use serde::Serialize;

use crate::verdict::Verdict;
use crate::view::{self, ExitView, PolicyView, RungView};

#[derive(Serialize)]
struct LineView<'a> {
    time: String,
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
    Stopping,
    Output {
        worker: WorkerRefView,
        stream: &'static str,
        line: Cow<'a, str>,
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

#[derive(Serialize)]
struct WorkerRefView {
    id: u32,
    slot: u16,
    pid: u32,
}

#[derive(Serialize)]
struct HolderView<'a> {
    pid: u32,
    command: &'a str,
}

/// Writes an event of the engine.
pub(super) fn event(app: &str, event: &Event<'_>) -> Vec<u8> {
    line(app, event.into())
}

/// Writes that workers' lines were lost.
pub(super) fn dropped(app: &str, lines: u64) -> Vec<u8> {
    line(app, EventView::Dropped { lines })
}

/// Writes the end of the run, always the last line.
pub(super) fn stopped(app: &str, outcome: &Outcome, verdict: &Verdict) -> Vec<u8> {
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
    line(app, EventView::Stopped { outcome, exit_code: verdict.code.number(), message, next })
}

fn line(app: &str, event: EventView<'_>) -> Vec<u8> {
    let line = LineView { time: view::time(SystemTime::now()), app, event };
    // These shapes have no map with keys that aren't strings, the one thing that can't be written.
    let mut text = serde_json::to_vec(&line).unwrap_or_default();
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
                policy: (*policy).into(),
            },
            Event::Ready { worker } => Self::Ready { worker: worker.into() },
            Event::Hung { worker, stalled } => {
                Self::Hung { worker: worker.into(), stalled_seconds: stalled.as_secs_f64() }
            }
            Event::Draining { worker } => Self::Draining { worker: worker.into() },
            Event::Exited { worker, status, is_oom, is_expected, uptime } => Self::Exited {
                worker: worker.into(),
                status: (*status).into(),
                oom: *is_oom,
                expected: *is_expected,
                uptime_seconds: uptime.as_secs_f64(),
            },
            Event::Respawning { slot, delay } => {
                Self::Respawning { slot: slot.0, delay_seconds: delay.as_secs_f64() }
            }
            Event::CrashLoop { slot, exits, status, last_output } => Self::CrashLoop {
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
            Event::Stopping => Self::Stopping,
            Event::Output { worker, stream, line } => Self::Output {
                worker: worker.into(),
                stream: match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                },
                line: String::from_utf8_lossy(line),
            },
        }
    }
}

impl From<&WorkerRef> for WorkerRefView {
    fn from(worker: &WorkerRef) -> Self {
        Self { id: worker.id.0, slot: worker.slot.0, pid: worker.pid }
    }
}

#[cfg(test)]
mod tests;
