//! What can be told about how well the policy fits the program.

use super::Engine;
use crate::primary::{Event, Policy};

/// What was said and measured so far.
#[derive(Debug, Default)]
pub(super) struct Hints {
    pub(super) text: Option<String>,
}

/// Arrivals that must have been counted before anything is concluded.
const ENOUGH: u64 = 500;

/// The share, in percent, of arrivals at a worker that was busy while another was free. A program that takes one
/// connection at a time has half of them under load; an event loop that is held up now and then, or a machine that is
/// short of cores, a quarter at the most.
const TELLING: u64 = 33;

impl<O: FnMut(Event<'_>)> Engine<O> {
    /// Says once if connections keep waiting for busy workers while others are free: the sign of a program that takes
    /// one connection at a time, which one shared listener serves better.
    pub(super) fn hint(&mut self) {
        let is_relieved = self.has_channels();
        if self.hints.text.is_some() || self.settings.policy != Policy::Auto || is_relieved {
            return;
        }
        let misfit = self.ports.misfit();
        if misfit.arrivals < ENOUGH || misfit.misplaced * 100 < misfit.arrivals * TELLING {
            return;
        }
        let text = format!(
            "of {} connections {} came to a worker that was busy with another while a third was free: if the program \
             takes one connection at a time, `--policy shared` serves it better",
            misfit.arrivals, misfit.misplaced
        );
        (self.observe)(Event::Notice { text: &text });
        self.hints.text = Some(text);
    }
}
