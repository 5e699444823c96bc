//! How a reload goes on, for eyes and for programs.

use std::io::{IsTerminal, Write as _, stdout};

use anyhow::Context as _;

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
        Self { name, kind, done: 0, slots: 0 }
    }

    pub(super) fn show(&mut self, news: &ReloadNewsView) -> Result<(), Failure> {
        match news {
            ReloadNewsView::Began { slots, .. } => self.slots = *slots,
            ReloadNewsView::Replaced { done, slots, .. } => (self.done, self.slots) = (*done, *slots),
            _ => {}
        }
        let mut out = stdout().lock();
        let written = match self.kind {
            Kind::Json => serde_json::to_string(news)
                .map_err(std::io::Error::other)
                .and_then(|line| writeln!(out, "{line}")),
            Kind::Lines => match Self::words(news) {
                Some(words) => writeln!(out, "{}: {words}", self.name),
                None => Ok(()),
            },
            Kind::Bar => match Self::words(news) {
                Some(words) => {
                    let stays = matches!(news, ReloadNewsView::Ended(_) | ReloadNewsView::Notice { .. });
                    let end = if stays { "\n" } else { "" };
                    let line = format!("{}: {} {words}", self.name, self.bar());
                    let width = screen::width(&out);
                    // One that is broken could not be written over.
                    let line = match width.filter(|_| !stays) {
                        Some(width) => screen::cut(&line, width),
                        None => screen::fit(&line, width),
                    };
                    write!(out, "\r\x1b[K{line}{end}")
                }
                None => Ok(()),
            },
        };
        Ok(written.and_then(|()| out.flush()).context("print how the reload goes on")?)
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
                format!("generation {generation}, {}", readable::count(usize::from(*slots), "slot"))
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
