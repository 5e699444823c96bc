//! How a reload goes on, for eyes and for programs.

use std::io::{IsTerminal as _, stdout};

use anyhow::Context as _;

use super::super::{Printed, write_out};
use crate::failure::Failure;
use crate::readable;
use crate::screen;
use crate::view::{EndedView, FailureView, ReloadNewsView, StateView};

/// How wide the bar is.
const WIDTH: usize = 24;

/// Shows news: as a bar that grows on a terminal, as lines elsewhere, as JSON where asked for.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    name: &'a str,
    kind: Kind,
    done: u16,
    slots: u16,
    /// Nobody reads it any more; the reload goes on, and its outcome is waited for.
    is_unread: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Bar,
    Lines,
}

impl<'a> Progress<'a> {
    pub(super) fn new(name: &'a str, is_json: bool) -> Self {
        let kind = match (is_json, stdout().is_terminal()) {
            (true, _) => Kind::Json,
            (false, true) => Kind::Bar,
            (false, false) => Kind::Lines,
        };
        Self { name, kind, done: 0, slots: 0, is_unread: false }
    }

    pub(super) fn show(&mut self, news: &ReloadNewsView) -> Result<(), Failure> {
        match news {
            ReloadNewsView::Began { slots, .. } => self.slots = *slots,
            ReloadNewsView::Replaced { done, slots, .. } => (self.done, self.slots) = (*done, *slots),
            _ => {}
        }
        if self.is_unread {
            return Ok(());
        }
        let text = match self.kind {
            Kind::Json => Some(serde_json::to_string(news).context("print how the reload goes on")? + "\n"),
            Kind::Lines => Self::words(news).map(|words| format!("{}: {words}\n", self.name)),
            Kind::Bar => Self::words(news).map(|words| {
                let stays = matches!(news, ReloadNewsView::Ended(_) | ReloadNewsView::Notice { .. });
                let end = if stays { "\n" } else { "" };
                let line = format!("{}: {} {words}", self.name, self.bar());
                let width = screen::width(&stdout());
                // One that is broken could not be written over.
                let line = match width.filter(|_| !stays) {
                    Some(width) => screen::cut(&line, width),
                    None => screen::fit(&line, width),
                };
                format!("\r\x1b[K{line}{end}")
            }),
        };
        if let Some(text) = text {
            self.is_unread = write_out(text.as_bytes())? == Printed::ReaderGone;
        }
        Ok(())
    }

    fn bar(&self) -> String {
        let part = WIDTH * usize::from(self.done) / usize::from(self.slots.max(1));
        format!("[{}{}] {}/{}", "#".repeat(part), ".".repeat(WIDTH - part), self.done, self.slots)
    }

    fn words(news: &ReloadNewsView) -> Option<String> {
        Some(match news {
            ReloadNewsView::Notice { text } => text.clone(),
            ReloadNewsView::Queued { behind } => {
                format!("waiting for the reload under way, to generation {behind}")
            }
            ReloadNewsView::Began { generation, slots } => {
                format!("generation {generation}, {}", readable::count(*slots, "slot"))
            }
            ReloadNewsView::Worker { worker, generation, state } => {
                let what = match state {
                    StateView::Starting => "starting",
                    StateView::Ready => "ready",
                    StateView::Draining => "draining",
                    StateView::Exited => "gone",
                    _ => return None,
                };
                format!(
                    "slot {}: worker {} (pid {}, generation {generation}) {what}",
                    worker.slot, worker.id, worker.pid
                )
            }
            ReloadNewsView::Watching { worker, seconds } => {
                format!("slot {}: watching worker {} for {seconds} s", worker.slot, worker.id)
            }
            ReloadNewsView::Replaced { slot, done, slots } => format!("slot {slot} done, {done} of {slots}"),
            ReloadNewsView::RollingBack(FailureView { id, slot, reason, .. }) => {
                format!("slot {slot}: worker {id} was no good ({reason}); rolling back")
            }
            ReloadNewsView::Ended(EndedView::Reloaded { generation, seconds }) => {
                format!("reloaded, generation {generation} serves ({seconds:.1} s)")
            }
            ReloadNewsView::Ended(EndedView::Failed { rolled_back: true, .. }) => {
                "failed, and rolled back".into()
            }
            ReloadNewsView::Ended(EndedView::Failed { .. }) => "failed, and not wholly rolled back".into(),
            ReloadNewsView::Ended(EndedView::Stopped) => "the app stops".into(),
        })
    }
}
