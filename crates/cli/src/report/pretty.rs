//! Events in words, for people.
//!
//! Workers' lines go where the worker wrote them, with the slot in front; our own go to stderr.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use allcores::primary::{Event, Lack, Reason, ReloadFailure, Stream, WorkerRef};
use allcores::{ExitStatus, Slot};

use super::Level;
use crate::paint::{Paint, Tone};
use crate::readable;
use crate::screen;
use crate::verdict::{self, Verdict};

/// What is said, line by line, each in its tone. Where it is said decides what stands before each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words(Vec<(Tone, String)>);

impl Words {
    /// Words in one tone; there may be several lines of them.
    pub(super) fn new(tone: Tone, text: &str) -> Self {
        Self(text.lines().map(|line| (tone, line.to_owned())).collect())
    }

    fn plain(text: &str) -> Self {
        Self::new(Tone::Plain, text)
    }

    fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// The lines alone.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, line)| line.as_str())
    }
}

/// Puts events of one app into words.
#[derive(Clone, Debug)]
pub(super) struct Pretty {
    app: String,
    slot_width: usize,
    stdout: Paint,
    stderr: Paint,
}

impl Pretty {
    /// Prepares for an app with so many workers.
    pub(super) fn new(app: &str, workers: u16, stdout: Paint, stderr: Paint) -> Self {
        let slot_width = workers.saturating_sub(1).to_string().len();
        Self { app: app.to_owned(), slot_width, stdout, stderr }
    }

    /// A worker's line with its slot in front, and its end.
    pub(super) fn output(&self, slot: Slot, stream: Stream, line: &[u8]) -> Vec<u8> {
        let paint = match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        let prefix = format!("{:>width$} |", slot.0, width = self.slot_width);
        let mut text = format!("{} ", paint.tone(Tone::Slot(slot.0), prefix)).into_bytes();
        text.extend_from_slice(line);
        text.push(b'\n');
        text
    }

    /// Our own lines about an event; `None` for workers' lines.
    pub(super) fn event(event: &Event<'_>) -> Option<(Level, Words)> {
        let said = match event {
            Event::Output { .. } => return None,
            Event::CrashLoop { slot, exits, status, last_output, has_served } => {
                let words = Self::crash_loop(*slot, *exits, *status, last_output);
                // Else it may be given up, and then that is said.
                let next =
                    "  next: correct the cause; as long as the app runs, it is tried again, ever more seldom";
                let words = if *has_served { words.and(Words::plain(next)) } else { words };
                return Some((Level::Error, words));
            }
            Event::Forked { worker } => (Level::Detail, Words::plain(&format!("{} forked", name(worker)))),
            Event::Online { worker } => (Level::Info, Words::plain(&format!("{} online", name(worker)))),
            Event::Listening { worker, address, rung, policy } => {
                let text = format!("{} listening on {address} ({rung}, {policy})", name(worker));
                (Level::Info, Words::plain(&text))
            }
            Event::Ready { worker } => (Level::Detail, Words::plain(&format!("{} ready", name(worker)))),
            Event::Hung { worker, stalled } => {
                let text = format!(
                    "{} hangs: connections wait and it has taken none for {}",
                    name(worker),
                    readable::duration(*stalled)
                );
                (Level::Warning, Words::new(Tone::Warning, &text))
            }
            Event::NotReady { worker, lack, limit } => {
                let lack = match lack {
                    Lack::Listening => "it does not listen",
                    Lack::Word => "it has not said READY=1 (sd_notify) or process.send('ready') (node)",
                    Lack::Health => "it has passed no health check",
                };
                let text =
                    format!("{} was not ready within {}: {lack}", name(worker), readable::duration(*limit));
                (Level::Warning, Words::new(Tone::Warning, &text))
            }
            Event::Unhealthy { worker, reason } => (
                Level::Warning,
                Words::new(Tone::Warning, &format!("{} is unhealthy: {reason}", name(worker))),
            ),
            Event::Renewing { worker, reason, memory } => {
                let reason = match reason {
                    Reason::Unresponsive => "it does not answer",
                    Reason::Unhealthy => "it is not well",
                    Reason::Memory => "it has more memory than --max-memory",
                    Reason::Requests => "it has served --max-requests",
                    Reason::Lifetime => "it has lived for --max-lifetime",
                };
                let figures = memory.map(|(used, limit)| {
                    format!(": {} of {}", readable::bytes(used), readable::bytes(limit))
                });
                let text =
                    format!("{} gets a successor: {reason}{}", name(worker), figures.unwrap_or_default());
                (Level::Info, Words::plain(&text))
            }
            Event::Draining { worker } => (Level::Info, Words::plain(&format!("{} draining", name(worker)))),
            Event::Exited { worker, status, is_oom, is_expected, uptime, .. } => {
                Self::exited(worker, *status, *is_oom, *is_expected, *uptime)
            }
            Event::Respawning { slot, delay: Duration::ZERO } => {
                (Level::Detail, Words::plain(&format!("slot {slot} gets a new worker")))
            }
            Event::Respawning { slot, delay } => {
                let text = format!("slot {slot} gets a new worker in {}", readable::duration(*delay));
                (Level::Info, Words::plain(&text))
            }
            Event::SpawnFailed { slot, reason } => (
                Level::Error,
                Words::new(Tone::Bad, &format!("slot {slot}: no worker could be started: {reason}")),
            ),
            Event::AddressUnavailable { worker, address, reason, holder } => {
                let why = verdict::address_unavailable(address, reason, *holder);
                (Level::Error, Words::new(Tone::Bad, &format!("{}: {why}", name(worker))))
            }
            Event::Notice { text } => (Level::Warning, Words::new(Tone::Warning, text)),
            Event::Scaling { before, workers } => {
                let workers = readable::count(*workers, "worker");
                (Level::Info, Words::plain(&format!("scaling from {before} to {workers}")))
            }
            Event::Stopping => (Level::Info, Words::plain("stopping")),
            Event::Upgrading { executable } => {
                (Level::Info, Words::plain(&format!("upgrading: asks {}", executable.display())))
            }
            Event::UpgradeRefused { reason, .. } => {
                (Level::Error, Words::new(Tone::Bad, &format!("upgrade refused: {reason}")))
            }
            Event::Upgraded { before, .. } => {
                let version = env!("CARGO_PKG_VERSION");
                (Level::Info, Words::plain(&format!("upgraded from allcores {before} to {version}")))
            }
            Event::Reloading { .. }
            | Event::Watching { .. }
            | Event::Replaced { .. }
            | Event::RollingBack { .. }
            | Event::Reloaded { .. }
            | Event::ReloadFailed { .. } => Self::reload(event),
        };
        Some(said)
    }

    fn reload(event: &Event<'_>) -> (Level, Words) {
        match event {
            Event::Reloading { generation, slots } => {
                let slots = readable::count(*slots, "slot");
                (Level::Info, Words::plain(&format!("reloading: generation {generation}, {slots}")))
            }
            Event::Watching { worker, time } => {
                let time = readable::duration(*time);
                (Level::Info, Words::plain(&format!("{} is watched for {time}", name(worker))))
            }
            Event::Replaced { slot, done, slots } => {
                (Level::Detail, Words::plain(&format!("slot {slot} replaced, {done} of {slots}")))
            }
            Event::RollingBack { failure } => {
                (Level::Error, Words::new(Tone::Bad, &format!("{}; rolling back", no_good(failure))))
            }
            Event::Reloaded { generation, took } => {
                let took = readable::duration(*took);
                (
                    Level::Info,
                    Words::plain(&format!("reloaded: generation {generation} serves, after {took}")),
                )
            }
            Event::ReloadFailed { failure, is_rolled_back: true } => {
                let text = format!("reload failed: {}; the old version serves", no_good(failure));
                (Level::Error, Words::new(Tone::Bad, &text))
            }
            Event::ReloadFailed { failure, .. } => {
                let text = format!(
                    "reload failed: {}; what had been replaced could not be put back, each slot keeps what serves",
                    no_good(failure)
                );
                (Level::Error, Words::new(Tone::Bad, &text))
            }
            _ => (Level::Detail, Words::plain("")),
        }
    }

    fn exited(
        worker: &WorkerRef,
        status: ExitStatus,
        is_oom: bool,
        is_expected: bool,
        uptime: Duration,
    ) -> (Level, Words) {
        let memory = if is_oom { ", killed for want of memory" } else { "" };
        let text = format!("{} exited: {status}{memory}, after {}", name(worker), readable::duration(uptime));
        if is_expected {
            (Level::Info, Words::plain(&text))
        } else {
            (Level::Warning, Words::new(Tone::Warning, &text))
        }
    }

    fn crash_loop(slot: Slot, exits: u32, status: ExitStatus, last_output: &[Vec<u8>]) -> Words {
        let head = format!(
            "CRASH LOOP in slot {slot}: {} in a row ended early, the last by {status}",
            readable::count(exits, "worker")
        );
        let wrote = if last_output.is_empty() { "  it wrote nothing" } else { "  its last lines:" };
        let mut words = Words::new(Tone::Bad, &head).and(Words::plain(wrote));
        for line in last_output {
            words = words.and(Words::plain(&format!("  | {}", String::from_utf8_lossy(line))));
        }
        words
    }

    /// The last word about a run.
    pub(super) fn verdict(verdict: &Verdict) -> Words {
        match &verdict.next {
            None => Words::plain(&verdict.message),
            Some(next) => {
                Words::new(Tone::Bad, &verdict.message).and(Words::plain(&format!("  next: {next}")))
            }
        }
    }

    /// Words as they go to stderr, each line with the app's name before it, broken where a terminal has this width.
    pub(super) fn dress(&self, words: &Words, width: Option<usize>) -> String {
        let front = self.stderr.tone(Tone::Dim, "allcores");
        let indent = "allcores  : ".len() + self.app.len();
        let mut text = String::new();
        for (tone, line) in &words.0 {
            let margin = line.len() - line.trim_start().len();
            let line = screen::wrap(line, indent + margin, width);
            // Writing to a string can't fail.
            let _ = writeln!(text, "{front}  {}: {}", self.app, self.stderr.tone(*tone, line));
        }
        text
    }
}

fn no_good(failure: &ReloadFailure) -> String {
    format!(
        "worker {} of generation {} (slot {}) was no good: {}",
        failure.id, failure.generation, failure.slot, failure.reason
    )
}

fn name(worker: &WorkerRef) -> impl Display {
    format!("worker {} (slot {}, pid {})", worker.id, worker.slot, worker.pid)
}

#[cfg(test)]
mod tests;
