//! An app at work for a long time, under load that leaves room: reloads, other numbers of workers, workers that are killed, lines
//! that are written, put aside and read, questions for its status. What the primary has must not grow meanwhile.
//!
//! The actions are drawn from a seed. The primary is looked at every two seconds; whether something has grown is decided by
//! medians, so that neither a burst nor the moment of a look counts: see [`Verdict`]. Upgrades are left to `chaos`, as a new
//! program begins anew with most of what could grow.

mod plot;
mod sample;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use serde::Serialize;

use crate::address;
use crate::app::RunningApp;
use crate::chaos::{Action, Harm, MOST, Outcome, Pick, Stage, WORKERS, app};

pub use plot::plot;
pub use sample::{MEASURES, Measure, Sample, Verdict, judge};

/// How many requests each of the two loads makes in a second.
const RATE: f64 = 60.0;

/// How often the primary is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How often something is asked of the app.
const ASK: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The program `allcores`.
    pub binary: PathBuf,
    /// For how long new things are begun.
    pub time: Duration,
    /// What is drawn from.
    pub seed: u64,
    /// How connections reach the workers.
    pub policy: String,
}

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Soaked {
    /// What was drawn from.
    pub seed: u64,
    /// For how long, in seconds.
    pub seconds: u64,
    /// How many things were done.
    pub actions: usize,
    /// How many questions were asked.
    pub questions: usize,
    /// Good answers.
    pub answered: u64,
    /// What must not have happened: losses, wrong outcomes, what was left behind.
    pub faults: Vec<String>,
    /// Whether each measure has grown.
    pub verdicts: Vec<Verdict>,
    /// The primary, every two seconds.
    pub samples: Vec<Sample>,
}

impl Soak {
    /// Does it.
    ///
    /// # Errors
    ///
    /// If the app can't be started, or stops to answer. What goes wrong otherwise is in what was seen.
    ///
    /// # Panics
    ///
    /// If looking or asking does.
    pub fn run(&self, mut tell: impl FnMut(&str)) -> anyhow::Result<Soaked> {
        let address = address::unused();
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("app.log");
        let app = app(&self.binary, &self.policy, address)?
            .env("CHATTY_MS", "50")
            .option(format!("--log-file={}", log.display()))
            .option("--log-size=64K")
            .option("--log-keep=2");
        let mut stage = Stage::open(app, address, Some(RATE))?;
        let mut outcome = stage.begin()?;
        let pid = stage.app.pid();
        let asker = Asker::of(&self.binary, &stage.app);
        let is_over = AtomicBool::new(false);
        let (samples, questions) = thread::scope(|scope| {
            let sampler = scope.spawn(|| sample::every(LOOK, pid, &is_over));
            let asker = scope.spawn(|| asker.ask_on(&is_over));
            let acted = self.act(&mut stage, &mut outcome, &mut tell);
            is_over.store(true, Ordering::Relaxed);
            let joined = (sampler.join().expect("it looks"), asker.join().expect("it asks"));
            acted.map(|()| joined)
        })?;
        let (questions, refused) = questions;
        stage.end_loads();
        stage.close(&mut outcome)?;
        outcome.faults.extend(refused);
        let Outcome { actions, answered, faults, .. } = outcome;
        Ok(Soaked {
            seed: self.seed,
            seconds: self.time.as_secs(),
            actions: actions.len(),
            questions,
            answered,
            faults,
            verdicts: judge(&samples),
            samples,
        })
    }

    /// Does one thing after another until the time is over, and comes back to the usual number of workers each time: what
    /// is looked at is the same app all the while.
    fn act(
        &self,
        stage: &mut Stage,
        outcome: &mut Outcome,
        tell: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let mut rng = Rng::with_seed(self.seed);
        let end = Instant::now() + self.time;
        while Instant::now() < end {
            let actions = match rng.u8(..5) {
                0 | 1 => vec![Action::Reload],
                2 => vec![Action::Scale(rng.u16(1..=MOST)), Action::Scale(WORKERS)],
                _ => vec![Action::Harm(Harm::Kill, Pick(rng.usize(..usize::from(WORKERS))))],
            };
            let pause = Action::Pass(Duration::from_millis(rng.u64(500..3000)));
            for action in actions.into_iter().chain([pause]) {
                tell(&action.to_string());
                stage.perform(action).with_context(|| format!("{action}: {:#?}", stage.last_lines()))?;
                outcome.actions.push(action);
            }
        }
        Ok(())
    }
}

impl Soaked {
    /// Whether nothing has grown, and nothing happened that must not.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.answered > 0 && self.verdicts.iter().all(|verdict| !verdict.has_grown)
    }
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actions, questions, answered, faults, verdicts, samples, .. } = self;
        writeln!(
            f,
            "{actions} actions, {questions} questions, {answered} requests answered, {} looks",
            samples.len()
        )?;
        verdicts.iter().try_for_each(|verdict| writeln!(f, "{verdict}"))?;
        writeln!(f, "{} faults", faults.len())?;
        faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

/// Asks an app how it is, as a person does at a terminal.
struct Asker {
    binary: PathBuf,
    runtime: PathBuf,
    name: String,
}

impl Asker {
    fn of(binary: &Path, app: &RunningApp) -> Self {
        Self {
            binary: binary.to_owned(),
            runtime: app.runtime_folder().to_owned(),
            name: app.name().to_owned(),
        }
    }

    /// Asks one thing after another; says how many, and what was not answered.
    fn ask_on(&self, is_over: &AtomicBool) -> (usize, Vec<String>) {
        let questions: [&[&str]; 5] = [
            &["status", &self.name],
            &["logs", &self.name, "-n", "20"],
            &["status", &self.name, "--json"],
            &["describe", &self.name],
            &["ls"],
        ];
        let (mut asked, mut refused) = (0, Vec::new());
        for words in questions.iter().cycle() {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let mut command = Command::new(&self.binary);
            command.args(*words).env("ALLCORES_RUNTIME_DIR", &self.runtime).stdin(Stdio::null());
            match command.output() {
                Ok(output) if output.status.success() => asked += 1,
                Ok(output) => refused.push(format!("`{}`: {}", words.join(" "), output.status)),
                Err(error) => refused.push(format!("`{}`: {error}", words.join(" "))),
            }
            thread::sleep(ASK);
        }
        (asked, refused)
    }
}
