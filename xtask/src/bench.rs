//! `cargo xtask bench`: contenders side by side on one machine, in turns, so that whatever else the machine does meets all
//! of them alike.
//!
//! Each contender is started anew for each round, warmed up, measured and stopped. A whole run is stored beside
//! `docs/benchmarks.md`, and anything else below `target/bench`.

mod case;
mod cases;
mod contender;
mod expected;
mod load;
mod loads;
mod losses;
mod machine;
mod managed;
mod metric;
mod need;
mod page;
mod plot;
mod record;
mod run;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use allcores_testing::runtimes::workspace;
use anyhow::ensure;
use clap::Args;

use self::case::Case;
use self::record::Given;
use crate::shell::{self, cargo};

const NODE_SERVER: &str = "tests/fixtures/node-http/server.js";
const PYTHON_SERVER: &str = "tests/fixtures/python-http/server.py";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to measure; everything if none is named
    cases: Vec<&'static Case>,
    /// Measure for a moment only, those of whom something is expected, and see whether the direction is as expected
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "only"])]
    quick: bool,
    #[command(flatten)]
    given: Given,
    /// Only contenders whose name contains this, e.g. `node:cluster`; can be given again
    #[arg(long)]
    only: Vec<String>,
    /// The program to measure; built in release mode if not given
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The node server
    #[arg(long, default_value = NODE_SERVER)]
    node_server: PathBuf,
    /// The python server
    #[arg(long, default_value = PYTHON_SERVER)]
    python_server: PathBuf,
}

/// Runs the cases, one after the other.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    std::env::set_current_dir(workspace())?;
    if cfg!(debug_assertions) {
        return run_in_release();
    }
    run::run(arguments)
}

/// Runs the same command line with an optimized load generator: it shares the cores with what it measures.
fn run_in_release() -> anyhow::Result<()> {
    let arguments = std::env::args_os().skip(1);
    let status = shell::status(cargo(["run", "--release", "--package", "xtask", "--"]).args(arguments))?;
    ensure!(status.success(), "the optimized xtask failed: {status}");
    Ok(())
}

fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
