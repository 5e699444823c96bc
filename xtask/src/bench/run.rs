//! Runs cases: asks what they need, measures in turns, and stores what was found.

use std::fs;
use std::path::Path;
use std::time::Duration;

use allcores_testing::runtimes::{target, workspace};
use anyhow::{Context, ensure};

use super::case::{Case, Plan};
use super::contender::{Contender, Turn};
use super::machine::Machine;
use super::record::{LeftOut, Record, Sample, Series};
use super::{Arguments, NODE_SERVER, PYTHON_SERVER, cases, expected, page, table};
use crate::shell::{self, cargo};

/// With `--quick`: long enough that every contender answers.
const QUICK_SECONDS: f64 = 0.5;

pub(super) fn run(mut arguments: Arguments) -> anyhow::Result<()> {
    if arguments.quick {
        (arguments.given.rounds, arguments.given.seconds) = (1, QUICK_SECONDS);
    }
    if arguments.cases.is_empty() {
        arguments.cases = cases::ALL.to_vec();
    }
    let plans = plans(&arguments)?;
    let estimate: Duration = plans.iter().map(|(_, plan)| plan.time(arguments.given.rounds)).sum();
    println!("about {} minutes, and what has to be built", estimate.as_secs().div_ceil(60));

    let packages = plans.iter().flat_map(|(_, plan)| plan.packages).copied();
    let own = arguments.binary.is_none().then_some("allcores-cli");
    build(packages.chain(own))?;
    let binary = arguments.binary.clone().unwrap_or_else(|| target().join("release/allcores"));
    let machine = Machine::read()?;
    let mut faults = Vec::new();
    for (case, plan) in plans {
        // What a case needs an hour to find must not be lost by the next one.
        if let Err(error) = perform(case, plan, &arguments, &machine, &binary) {
            eprintln!("{}: {error:#}", case.name);
            faults.push(format!("{}: {error:#}", case.name));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Runs a case, stores what was found, and checks it where that is asked for.
fn perform(
    case: &Case,
    plan: Plan,
    arguments: &Arguments,
    machine: &Machine,
    binary: &Path,
) -> anyhow::Result<()> {
    let needs = plan.contenders.iter().flat_map(|contender| &contender.needs);
    let mut machine = machine.clone();
    machine.versions.extend(needs.flat_map(|need| need.versions()));
    let record = Record {
        case: case.name.into(),
        given: arguments.given.clone(),
        machine,
        results: measure(&plan.contenders, arguments.given.rounds, binary)?,
        title: plan.title,
        left_out: plan.left_out,
    };
    record.check(case)?;
    print(case, &record);
    if arguments.is_whole() {
        println!("every sample: {}", record.write(&workspace().join(page::FOLDER))?.display());
        for page in page::pages(&workspace())? {
            let path = workspace().join(&page.path);
            fs::write(&path, page.text).with_context(|| format!("write {}", path.display()))?;
        }
    } else {
        println!("every sample: {}", record.write(&target().join("bench"))?.display());
    }
    if arguments.quick {
        let broken = expected::broken(case, &record);
        ensure!(broken.is_empty(), "not as expected: {}", broken.join("; "));
        println!("as expected");
    }
    Ok(())
}

impl Arguments {
    /// Whether this is what the page is about: everyone, in the usual way, for as long as it takes.
    fn is_whole(&self) -> bool {
        let Self { quick, only, binary, node_server, python_server, .. } = self;
        let is_usual = node_server == Path::new(NODE_SERVER) && python_server == Path::new(PYTHON_SERVER);
        !quick && only.is_empty() && binary.is_none() && is_usual
    }
}

fn plans(arguments: &Arguments) -> anyhow::Result<Vec<(&'static Case, Plan)>> {
    let plan = |case: &&'static Case| {
        let mut plan = (case.plan)(arguments);
        if arguments.quick {
            expected::keep_asked(case, &mut plan.contenders);
        }
        plan.contenders.retain(|contender| {
            arguments.only.is_empty() || arguments.only.iter().any(|only| contender.name.contains(only))
        });
        ensure!(!plan.contenders.is_empty(), "{}: no contender is left by --only", case.name);
        for left_out in plan.provide()? {
            println!("{}: {} is left out: {}", case.name, left_out.contender, left_out.why);
        }
        Ok((*case, plan))
    };
    arguments.cases.iter().map(plan).collect()
}

impl Plan {
    /// Has everything installed, and leaves out who can't be had.
    fn provide(&mut self) -> anyhow::Result<&[LeftOut]> {
        let mut contenders = Vec::new();
        for contender in self.contenders.drain(..) {
            let missing = contender.needs.iter().map(|need| need.provide());
            match missing.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().next() {
                Some(why) => self.left_out.push(LeftOut { contender: contender.name, why }),
                None => contenders.push(contender),
            }
        }
        self.contenders = contenders;
        Ok(&self.left_out)
    }

    fn time(&self, rounds: u64) -> Duration {
        let turns = self.contenders.len() as u64 * rounds;
        self.each * u32::try_from(turns).unwrap_or(u32::MAX)
    }
}

/// Measures every contender once in each round: A B C A B C ….
fn measure(contenders: &[Contender], rounds: u64, binary: &Path) -> anyhow::Result<Vec<Series>> {
    let mut results = Vec::new();
    for seed in 1..=rounds {
        for contender in contenders {
            eprintln!("round {seed} of {rounds}: {}", contender.name);
            for sample in contender.measure(Turn { seed, binary })? {
                add(&mut results, contender, sample);
            }
        }
    }
    Ok(results)
}

/// Adds a sample to the series of a contender under this load; begins it where there is none.
fn add(results: &mut Vec<Series>, contender: &Contender, Sample { load, metrics }: Sample) {
    let words = [contender.group.as_str(), load.as_str()];
    let group = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join("; ");
    let values = metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let is_it = |series: &&mut Series| series.contender == contender.name && series.group == group;
    match results.iter_mut().find(is_it) {
        Some(series) => series.samples.push(values),
        None => results.push(Series {
            contender: contender.name.clone(),
            role: contender.role,
            group,
            samples: vec![values],
        }),
    }
}

fn print(case: &Case, record: &Record) {
    println!("\n{}: {}", case.name, record.title);
    for group in record.groups() {
        if !group[0].group.is_empty() {
            println!("\n{}", group[0].group);
        }
        println!("\n{}", table::align(&table::rows(case.metrics, &group)));
    }
}

fn build<'a>(packages: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
    let packages: Vec<_> = packages.into_iter().flat_map(|package| ["--package", package]).collect();
    if packages.is_empty() {
        return Ok(());
    }
    shell::run(cargo(["build", "--release"]).args(packages))
}
