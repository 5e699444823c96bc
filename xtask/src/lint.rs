//! What is checked without running anything: formatting, lints, documentation.

use crate::shell::{self, cargo};

/// Runs all checks, until one fails.
pub(crate) fn run() -> anyhow::Result<()> {
    shell::run(&mut cargo(["fmt", "--all", "--check"]))?;
    shell::run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    shell::run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"))
}
