//! Runs the tests, and counts them.
//!
//! By nextest where it is installed, which leaves its counts in a file; by `cargo test`, which prints them, elsewhere.
//! A test that skips itself looks like a success to both, and leaves a line in the skip log.

mod counts;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use allcores_testing::runtimes::target;
use allcores_testing::{extent, skip};
use anyhow::{Context, ensure};

use self::counts::Counts;
use crate::setup;
use crate::shell::{self, cargo, status, succeeds, watch};

/// Sets up, runs the tests whose name contains `filter`, and prints the counts as the last line.
pub(crate) fn run(filter: Option<&str>) -> anyhow::Result<ExitCode> {
    let has_nextest = succeeds(&mut cargo(["nextest", "--version"]));
    build_beside(has_nextest, setup::run)?;
    let log = target().join("skipped.log");
    fs::write(&log, "").with_context(|| format!("write {}", log.display()))?;

    let counts = if has_nextest {
        nextest(filter, &log)? + cargo_test(&["--doc"], filter, &log)?
    } else {
        cargo_test(&[], filter, &log)?
    };
    let skips = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    print!("\n{skips}");
    let counts = counts.less_skipped(&skips);
    if counts.total() == 0 {
        println!("no test has run");
    }
    println!("{counts}");
    Ok(if counts.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the tests while something else is done that mostly waits for downloads.
fn build_beside(has_nextest: bool, other: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let of_nextest = ["nextest", "run", "--workspace", "--no-run"];
    let of_cargo = ["test", "--workspace", "--no-run"];
    let mut command = if has_nextest { cargo(of_nextest) } else { cargo(of_cargo) };
    let mut build = shell::start(&mut command)?;
    let done = other();
    let status = build.wait().with_context(|| format!("wait for `{}`", shell::shown(&command)))?;
    done?;
    ensure!(status.success(), "`{}` failed: {status}", shell::shown(&command));
    Ok(())
}

fn nextest(filter: Option<&str>, log: &Path) -> anyhow::Result<Counts> {
    let profile = if extent::is_asked() { "long" } else { "default" };
    let report = target().join("nextest").join(profile).join("junit.xml");
    // An old report must not pass for this run's.
    let _ = fs::remove_file(&report);
    let arguments = ["nextest", "run", "--workspace", "--no-tests=pass", "--profile", profile];
    let status = status(&mut tests(&arguments, filter, log))?;
    let report = fs::read_to_string(&report).unwrap_or_default();
    Ok(Counts::from_junit(&report).unwrap_or_default().confirmed_by(status))
}

fn cargo_test(kind: &[&str], filter: Option<&str>, log: &Path) -> anyhow::Result<Counts> {
    let arguments = [&["test", "--workspace", "--no-fail-fast"], kind].concat();
    let mut counts = Counts::default();
    let status = watch(&mut tests(&arguments, filter, log), |line| {
        counts += Counts::from_libtest(line).unwrap_or_default();
    })?;
    Ok(counts.confirmed_by(status))
}

fn tests(arguments: &[&str], filter: Option<&str>, log: impl AsRef<OsStr>) -> Command {
    let mut command = cargo(arguments.iter().copied().chain(filter));
    command.env(skip::LOG, log);
    command
}
