//! `cargo xtask soak`: a long time of everyday life, after which the primary must have no more than at first.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use allcores_testing::runtimes::workspace;
use allcores_testing::soak::{Soak, plot};
use anyhow::{Context, ensure};
use clap::Args;

use crate::chaos::{Tried, program};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For how long new things are begun
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    #[command(flatten)]
    tried: Tried,
    /// Where the samples and the plot go, as soak.json and soak.svg
    #[arg(long)]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { minutes, tried: Tried { seed, policy, binary }, output } = arguments;
    println!("soak: seed {seed}, {minutes} minutes, policy {policy}");
    let soak = Soak {
        binary: program(binary.as_deref())?,
        time: Duration::from_mins(*minutes),
        seed: *seed,
        policy: policy.clone(),
    };
    let soaked = soak.run(|action| println!("  {action}"))?;
    let folder = output.clone().unwrap_or_else(|| workspace().join("target/soak"));
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    for (name, text) in [("soak.json", serde_json::to_string_pretty(&soaked)?), ("soak.svg", plot(&soaked))] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    print!("{soaked}");
    ensure!(soaked.is_clean(), "something has grown, or happened that must not; again: --seed {seed}");
    Ok(())
}
