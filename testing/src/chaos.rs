//! Everything at once, at random, under load: reloads and upgrades, good and bad, other numbers of workers, workers that are
//! killed, stand still or keep too much memory, loads that come and go.
//!
//! The seed decides what is done, in which order ([`Plan`]); when each thing is over is the app's affair. Two loads run all
//! the while, one with a connection for each request and one that keeps its connections, and a model knows what may be
//! lost. At the end there are no more descriptors, processes or memory than before.

mod model;
mod plan;
mod stage;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

pub(crate) use plan::MOST;
pub use plan::{Action, Fault, Harm, Pick, Plan};
pub(crate) use stage::{Stage, WORKERS, app};

use crate::address;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// The program `allcores`.
    pub binary: PathBuf,
    /// For how long new things are begun.
    pub time: Duration,
    /// What is drawn from.
    pub seed: u64,
    /// How connections reach the workers.
    pub policy: String,
}

/// What was done, and what was lost.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was done, in its order.
    pub actions: Vec<Action>,
    /// Good answers.
    pub answered: u64,
    /// Requests lost with a worker that had accepted their connection and was killed or stopped.
    pub with_worker: u64,
    /// Requests on kept connections that their clients repeat.
    pub repeatable: u64,
    /// What must not have happened: other losses, wrong outcomes, growth.
    pub faults: Vec<String>,
    /// The primary's descriptors before and after.
    pub descriptors: (usize, usize),
    /// Of which kinds there are more after than before, and how many.
    pub more: BTreeMap<String, usize>,
    /// Its own memory in KiB before and after.
    pub memory_kib: (u64, u64),
}

impl Chaos {
    /// Does it.
    ///
    /// # Errors
    ///
    /// If the app can't be started, or stops to answer. What goes wrong otherwise is in the outcome.
    pub fn run(&self, mut tell: impl FnMut(&str)) -> anyhow::Result<Outcome> {
        let address = address::unused();
        let mut stage = Stage::open(app(&self.binary, &self.policy, address)?, address, None)?;
        let end = Instant::now() + self.time;
        let mut outcome = stage.begin()?;
        for action in Plan::new(self.seed).map(|action| action.under(&self.policy)) {
            if Instant::now() >= end {
                break;
            }
            tell(&action.to_string());
            outcome.actions.push(action);
            stage.perform(action).with_context(|| format!("{action}: {:#?}", stage.last_lines()))?;
        }
        stage.end_loads();
        stage.close(&mut outcome)?;
        Ok(outcome)
    }
}

impl Outcome {
    /// Whether nothing happened that must not.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.answered > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actions, answered, with_worker, repeatable, faults, descriptors, more, memory_kib } = self;
        writeln!(f, "{} actions, {answered} requests answered", actions.len())?;
        writeln!(f, "{with_worker} lost with the killed or stopped worker that had accepted them")?;
        writeln!(f, "{repeatable} on kept connections, to be repeated by their clients")?;
        writeln!(f, "the primary's descriptors: {} before, {} after", descriptors.0, descriptors.1)?;
        more.iter().try_for_each(|(kind, number)| writeln!(f, "  {number} more: {kind}"))?;
        writeln!(f, "its own memory: {} KiB before, {} KiB after", memory_kib.0, memory_kib.1)?;
        writeln!(f, "{} faults", faults.len())?;
        faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}
