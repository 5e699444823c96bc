//! What is checked without running anything: formatting, lints, documentation, what is depended on, and what a release promised.

use crate::release;
use crate::shell::{self, cargo, output, program, succeeds};

/// The crates that others build on.
const PUBLISHED: [&str; 2] = ["allcores-core", "allcores"];

/// Runs all checks, until one fails.
pub(crate) fn run() -> anyhow::Result<()> {
    shell::run(&mut cargo(["fmt", "--all", "--check"]))?;
    shell::run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let doc = ["doc", "--workspace", "--all-features", "--no-deps"];
    shell::run(cargo(doc).env("RUSTDOCFLAGS", "-Dwarnings"))?;
    other_c_library()?;
    packages()?;
    dependencies()?;
    semver()
}

/// Whoever gets a package gets what it is licensed by: the root's files are no part of any.
fn packages() -> anyhow::Result<()> {
    for package in PUBLISHED.into_iter().chain([release::PACKAGE]) {
        let list = cargo(["package", "--list", "--allow-dirty", "--package", package]).output()?;
        anyhow::ensure!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
        let list = String::from_utf8_lossy(&list.stdout);
        for file in ["LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
            anyhow::ensure!(list.lines().any(|line| line == file), "the package {package} lacks {file}");
        }
    }
    Ok(())
}

/// The program that is given away is linked with another C library than the one that is tested, which lacks some functions.
fn other_c_library() -> anyhow::Result<()> {
    match release::installed_target() {
        Ok(triple) => {
            shell::run(&mut cargo(["check", "--quiet", "--package", release::PACKAGE, "--target", &triple]))
        }
        Err(error) => {
            println!("skipped: the static program: {error:#}");
            Ok(())
        }
    }
}

/// Looks at the licences and sources of what is depended on, and at what is known against it where that can be had:
/// deny.toml says what may be.
fn dependencies() -> anyhow::Result<()> {
    if !succeeds(&mut cargo(["deny", "--version"])) {
        println!("skipped: dependencies: `cargo install --locked cargo-deny` brings what it takes");
        return Ok(());
    }
    // That two versions of something are used by others is theirs to change.
    shell::run(&mut cargo(["deny", "check", "--allow", "duplicate", "bans", "licenses", "sources"]))?;
    if !succeeds(&mut cargo(["deny", "fetch", "db"])) {
        println!("skipped: advisories: the database of RustSec can't be fetched");
        return Ok(());
    }
    shell::run(&mut cargo(["deny", "check", "advisories"]))
}

/// Compares the API with that of the last release: a change that breaks it needs a version that says so.
fn semver() -> anyhow::Result<()> {
    if !succeeds(&mut cargo(["semver-checks", "--version"])) {
        println!("skipped: semver: `cargo install cargo-semver-checks` brings what it takes");
        return Ok(());
    }
    let Some(release) = last_release() else {
        println!("skipped: semver: no release is tagged yet that the API could be compared with");
        return Ok(());
    };
    let packages = PUBLISHED.iter().flat_map(|package| ["--package", package]);
    let arguments = ["semver-checks", "--all-features", "--baseline-rev", &release];
    shell::run(&mut cargo(arguments.into_iter().chain(packages)))
}

/// The tag of the last release, such as `v0.1.0`.
fn last_release() -> Option<String> {
    output(&mut program("git", ["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]))
}
