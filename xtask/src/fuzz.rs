//! `cargo xtask fuzz`: the channel's decoder against arbitrary bytes, for as long as one likes.
//!
//! First spoils real messages by itself, optimized; then, where a nightly compiler and cargo-fuzz are installed, has
//! libFuzzer look for what is left. The suite does the first with a fixed number of inputs.

use std::process::Command;
use std::time::Duration;

use allcores_testing::fuzz::{Target, Until, drive, seeds};
use allcores_testing::runtimes::workspace;
use anyhow::Context;
use clap::Args;

use crate::shell::{self, cargo, program};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long each target is tried in each way, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// What the inputs are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        let own = std::env::args_os().skip(1);
        return shell::run(cargo(["run", "--quiet", "--release", "--package", "xtask", "--"]).args(own));
    }
    let time = Duration::from_secs(arguments.seconds);
    for target in Target::ALL {
        let tried = drive(target, arguments.seed, Until::Elapsed(time));
        println!(
            "{}: {} inputs of {} bytes on average, {} of them well-formed; the slowest took {:?}; no claim was broken",
            target.name(),
            tried.inputs,
            tried.bytes / tried.inputs.max(1),
            tried.accepted,
            tried.slowest
        );
    }
    if !shell::succeeds(&mut nightly(&["--version"])) {
        println!("libFuzzer: left out: no nightly compiler, or no cargo-fuzz (`cargo install cargo-fuzz`)");
        return Ok(());
    }
    Target::ALL.into_iter().try_for_each(|target| by_libfuzzer(target, time))
}

fn by_libfuzzer(target: Target, time: Duration) -> anyhow::Result<()> {
    let corpus = workspace().join("fuzz/corpus").join(target.name());
    std::fs::create_dir_all(&corpus).with_context(|| format!("make {}", corpus.display()))?;
    for (nth, seed) in seeds().into_iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{nth}")), seed)?;
    }
    let mut fuzz = nightly(&["run", target.name(), "--"]);
    fuzz.arg(format!("-max_total_time={}", time.as_secs()));
    fuzz.args(["-timeout=5", "-rss_limit_mb=512", "-max_len=4096", "-print_final_stats=1"]);
    shell::run(&mut fuzz)
}

fn nightly(arguments: &[&str]) -> Command {
    let mut fuzz = program("rustup", ["run", "nightly", "cargo", "fuzz"]);
    // What names the compiler that we are made with would hide the nightly one.
    fuzz.args(arguments).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    fuzz
}
