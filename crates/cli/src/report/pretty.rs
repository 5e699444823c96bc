//! Events in words, for people.
//!
//! Workers' lines go where the worker wrote them, with the slot in front; our own go to stderr.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use allcores::primary::{Event, Policy, Stream, WorkerRef};
use allcores::{ExitStatus, Slot};

use super::Level;
use crate::paint::{Paint, Tone};
use crate::readable;
use crate::verdict::{self, Verdict};

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
    pub(super) fn event(&self, event: &Event<'_>) -> Option<(Level, String)> {
        let said = match event {
            Event::Output { .. } => return None,
            Event::CrashLoop { slot, exits, status, last_output } => {
                return Some((Level::Error, self.crash_loop(*slot, *exits, *status, last_output)));
            }
            Event::Forked { worker } => (Level::Detail, self.own(&format!("{} forked", name(worker)))),
            Event::Online { worker } => (Level::Info, self.own(&format!("{} online", name(worker)))),
            Event::Listening { worker, address, rung, policy } => {
                let text =
                    format!("{} listening on {address} ({rung}, {})", name(worker), policy_name(*policy));
                (Level::Info, self.own(&text))
            }
            Event::Ready { worker } => (Level::Detail, self.own(&format!("{} ready", name(worker)))),
            Event::Hung { worker, stalled } => {
                let text = format!(
                    "{} hangs: connections wait and it has taken none for {}",
                    name(worker),
                    readable::duration(*stalled)
                );
                (Level::Warning, self.toned(Tone::Warning, &text))
            }
            Event::Draining { worker } => (Level::Info, self.own(&format!("{} draining", name(worker)))),
            Event::Exited { worker, status, is_oom, is_expected, uptime } => {
                self.exited(worker, *status, *is_oom, *is_expected, *uptime)
            }
            Event::Respawning { slot, delay: Duration::ZERO } => {
                (Level::Detail, self.own(&format!("slot {slot} gets a new worker")))
            }
            Event::Respawning { slot, delay } => {
                let text = format!("slot {slot} gets a new worker in {}", readable::duration(*delay));
                (Level::Info, self.own(&text))
            }
            Event::SpawnFailed { slot, reason } => (
                Level::Error,
                self.toned(Tone::Bad, &format!("slot {slot}: no worker could be started: {reason}")),
            ),
            Event::AddressUnavailable { worker, address, reason, holder } => {
                let why = verdict::address_unavailable(address, reason, *holder);
                (Level::Error, self.toned(Tone::Bad, &format!("{}: {why}", name(worker))))
            }
            Event::Notice { text } => (Level::Warning, self.toned(Tone::Warning, text)),
            Event::Stopping => (Level::Info, self.own("stopping")),
        };
        Some(said)
    }

    fn exited(
        &self,
        worker: &WorkerRef,
        status: ExitStatus,
        is_oom: bool,
        is_expected: bool,
        uptime: Duration,
    ) -> (Level, String) {
        let memory = if is_oom { ", killed for want of memory" } else { "" };
        let text = format!("{} exited: {status}{memory}, after {}", name(worker), readable::duration(uptime));
        if is_expected {
            (Level::Info, self.own(&text))
        } else {
            (Level::Warning, self.toned(Tone::Warning, &text))
        }
    }

    fn crash_loop(&self, slot: Slot, exits: u32, status: ExitStatus, last_output: &[Vec<u8>]) -> String {
        let head = format!(
            "CRASH LOOP in slot {slot}: {} in a row ended early, the last by {status}",
            readable::count(exits.try_into().unwrap_or(usize::MAX), "worker")
        );
        let mut text = self.toned(Tone::Bad, &head);
        if last_output.is_empty() {
            text.push_str(&self.own("  it wrote nothing"));
        } else {
            text.push_str(&self.own("  its last lines:"));
        }
        for line in last_output {
            text.push_str(&self.own(&format!("  | {}", String::from_utf8_lossy(line))));
        }
        text.push_str(
            &self.own(
                "  next: correct the cause; as long as the app runs, it is tried again, ever more seldom",
            ),
        );
        text
    }

    /// The last word about a run.
    pub(super) fn verdict(&self, verdict: &Verdict) -> String {
        let Some(next) = &verdict.next else {
            return self.own(&verdict.message);
        };
        let mut text = self.toned(Tone::Bad, &verdict.message);
        text.push_str(&self.own(&format!("  next: {next}")));
        text
    }

    /// Tells how many workers' lines were lost.
    pub(super) fn dropped(&self, lines: u64) -> Vec<u8> {
        let lines = readable::count(usize::try_from(lines).unwrap_or(usize::MAX), "line");
        self.toned(Tone::Warning, &format!("\u{2026} {lines} dropped: output is not being read")).into_bytes()
    }

    /// A good piece of news.
    pub(super) fn good(&self, text: &str) -> String {
        self.toned(Tone::Good, text)
    }

    /// A line of our own; each further line of it gets the same front.
    pub(super) fn own(&self, text: &str) -> String {
        self.toned(Tone::Plain, text)
    }

    fn toned(&self, tone: Tone, text: &str) -> String {
        let front = self.stderr.tone(Tone::Dim, "allcores");
        let mut lines = String::new();
        for line in text.lines() {
            // Writing to a string can't fail.
            let _ = writeln!(lines, "{front}  {}: {}", self.app, self.stderr.tone(tone, line));
        }
        lines
    }
}

fn name(worker: &WorkerRef) -> impl Display {
    format!("worker {} (slot {}, pid {})", worker.id, worker.slot, worker.pid)
}

/// The policy's name as `--policy` takes it.
pub(super) fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Auto => "auto",
        Policy::Lanes => "lanes",
        Policy::Shared => "shared",
    }
}

#[cfg(test)]
mod tests;
