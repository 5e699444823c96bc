//! `cargo xtask fuzz`: what reads the bytes of others against arbitrary bytes, for as long as one likes.
//!
//! First spoils good inputs of the core's targets by itself, optimized; then, where a nightly compiler and cargo-fuzz are
//! installed, has libFuzzer look for what is left, of all targets. The suite does the first with a fixed number of inputs, and
//! of all targets: those about what is private to a crate are tests of that crate.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use allcores_testing::fuzz::{Folder, Target, Until, drive};
use allcores_testing::runtimes::workspace;
use anyhow::{Context, ensure};
use clap::Args;

use crate::shell::{self, cargo, nightly};

/// An input is no longer than this, or than twice the longest in fuzz/seeds.
const LONGEST: u64 = 4096;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What is tried, by the names below fuzz/fuzz_targets; everything if not given
    targets: Vec<String>,
    /// How long each target is tried in each way, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// What the inputs are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep in fuzz/found what libFuzzer found to lead somewhere else
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        let own = std::env::args_os().skip(1);
        return shell::run(cargo(["run", "--quiet", "--release", "--package", "xtask", "--"]).args(own));
    }
    let all = names()?;
    let unknown = arguments.targets.iter().find(|name| !all.contains(name));
    ensure!(unknown.is_none(), "there is no target {}: there are {}", unknown.unwrap(), all.join(", "));
    let is_wanted =
        |name: &str| arguments.targets.is_empty() || arguments.targets.iter().any(|it| it == name);
    let time = Duration::from_secs(arguments.seconds);
    for target in Target::CORE.iter().filter(|target| is_wanted(target.name())) {
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
    if !shell::succeeds(&mut fuzzer(&["--version"])) {
        println!("libFuzzer: left out: no nightly compiler, or no cargo-fuzz (`cargo install cargo-fuzz`)");
        println!("what is private to a crate: `ALLCORES_TEST_INPUTS=1000000 cargo xtask test fuzz`");
        return Ok(());
    }
    for name in all.iter().filter(|name| is_wanted(name)) {
        by_libfuzzer(name, time)?;
        if arguments.keep {
            keep(name)?;
        }
    }
    Ok(())
}

/// The names of all targets.
fn names() -> anyhow::Result<Vec<String>> {
    let folder = workspace().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let name = |path: PathBuf| path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| name(entry.path())).collect();
    names.sort();
    Ok(names)
}

fn by_libfuzzer(name: &str, time: Duration) -> anyhow::Result<()> {
    let corpus = corpus(name);
    fs::create_dir_all(&corpus).with_context(|| format!("make {}", corpus.display()))?;
    let made = Target::CORE.iter().find(|target| target.name() == name).map(Target::made_seeds);
    for (nth, seed) in made.unwrap_or_default().into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{nth}")), seed)?;
    }
    let kept = kept(name)?;
    let mut fuzz = fuzzer(&["run", name]);
    fuzz.arg(&corpus).args(&kept);
    fuzz.args(["--", &format!("-max_total_time={}", time.as_secs()), &longest(&kept)?]);
    fuzz.args(["-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    shell::run(&mut fuzz)
}

/// Adds to what was found before what leads somewhere else than that: the few of it that lead everywhere, however often.
fn keep(name: &str) -> anyhow::Result<()> {
    let kept = kept(name)?;
    let mut merge = fuzzer(&["run", name]);
    merge.args(&kept).arg(corpus(name));
    merge.args(["--", "-set_cover_merge=1", "-use_counters=0", &longest(&kept)?]);
    shell::run(&mut merge)
}

fn corpus(name: &str) -> PathBuf {
    workspace().join("fuzz/corpus").join(name)
}

/// Where inputs of a target are kept: what was found first.
fn kept(name: &str) -> anyhow::Result<[PathBuf; 2]> {
    let kept = [Folder::Found, Folder::Seeds].map(|folder| folder.of(name));
    for folder in &kept {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    Ok(kept)
}

/// The option that says how long inputs may be.
fn longest([_, seeds]: &[PathBuf; 2]) -> anyhow::Result<String> {
    let lengths = fs::read_dir(seeds)?.flatten().filter_map(|entry| fs::metadata(entry.path()).ok());
    let longest = lengths.map(|metadata| 2 * metadata.len()).fold(LONGEST, u64::max);
    Ok(format!("-max_len={longest}"))
}

fn fuzzer(arguments: &[&str]) -> Command {
    nightly(std::iter::once(&"fuzz").chain(arguments))
}
