//! `cargo xtask chaos`: everything at once, at random, under load.

use std::path::{Path, PathBuf};
use std::time::Duration;

use allcores_testing::app::find_binary;
use allcores_testing::chaos::Chaos;
use anyhow::ensure;
use clap::Args;

use crate::shell::{self, cargo};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For how long new things are begun, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[command(flatten)]
    tried: Tried,
}

/// What is tried, and by which sequence of actions.
#[derive(Debug, Args)]
pub(crate) struct Tried {
    /// What the sequence of actions is drawn from; the same again for the same
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How connections reach the workers
    #[arg(long, default_value = "auto")]
    pub(crate) policy: String,
    /// The program to be tried; built if not given
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { seconds, tried: Tried { seed, policy, binary } } = arguments;
    let binary = program(binary.as_deref())?;
    println!("chaos: seed {seed}, {seconds} s, policy {policy}");
    let (time, policy) = (Duration::from_secs(*seconds), policy.clone());
    let chaos = Chaos { binary, time, seed: *seed, policy };
    let outcome = chaos.run(|action| println!("  {action}"))?;
    print!("{outcome}");
    ensure!(outcome.is_clean(), "something happened that must not; again: --seed {seed}");
    Ok(())
}

/// The program that is to be tried; built if none is given.
pub(crate) fn program(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    shell::run(&mut cargo(["build", "--quiet", "--package", "allcores-cli"]))?;
    find_binary()
}
