//! `cargo xtask sanitize`: tests under AddressSanitizer, which stops at the first access that is out of place, wherever `unsafe` is
//! to blame for it.
//!
//! Without arguments these are the unit tests of `allcores`, where all of the project's `unsafe` is, and the tests that start real
//! programs by it. Everything is built with the sanitizer, the program too. Needs a nightly compiler.

use anyhow::ensure;
use clap::Args;

use crate::shell::{self, nightly};

/// Tests that go on "as the next program would" forget what they had, which is no leak of ours; and memory that was freed is
/// kept back no longer than the tests that measure memory allow.
const OPTIONS: &str = "detect_leaks=0:quarantine_size_mb=1";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Parts of the names of the engine's tests to run. Those that measure memory or CPU time fail: the sanitizer takes more than
    /// they allow
    #[arg(default_values = ["addresses::", "cgroup::", "handoff::turns", "primary::", "runtimes::", "unix::", "upgrade::"])]
    tests: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(
        shell::succeeds(&mut nightly(["--version"])),
        "there is no nightly compiler, which alone has sanitizers: `rustup toolchain install nightly`"
    );
    test(&["--package", "allcores", "--lib"], &[])?;
    let names: Vec<&str> = arguments.tests.iter().map(String::as_str).collect();
    test(&["--package", "allcores-cli", "--test", "engine"], &names)
}

fn test(what: &[&str], names: &[&str]) -> anyhow::Result<()> {
    // Where a target is named, be it this machine's own, build scripts are built without the sanitizer.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut test = nightly(["test", "--target", &target]);
    test.args(["--target-dir", "target/sanitize"]).args(what);
    test.args(["--", "--test-threads", "2"]).args(names);
    shell::run(test.env("RUSTFLAGS", "-Zsanitizer=address").env("ASAN_OPTIONS", OPTIONS))
}
