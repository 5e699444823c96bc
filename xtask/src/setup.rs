//! Installs what the tests need and the machine lacks.
//!
//! What a machine does not allow (no root, no network) is named and left out: the tests that need it are then
//! skipped. What is ours and does not build is an error. Not to be run twice at the same time.

mod debian;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use allcores_testing::runtimes::{Install, Runtime, is_in_path};

use crate::shell::{self, cargo, program};

/// How one part of the setup went.
enum Outcome {
    /// There already.
    Ready,
    Installed,
    /// Not possible here, and why.
    LeftOut(String),
}

/// What the tests need. The rest is for benchmarks, which have it installed by themselves.
const OF_TESTS: [Install; 6] =
    [Install::Npm, Install::SocketIo, Install::Python, Install::Promtool, Install::Go, Install::Java];

/// Installs and builds everything, and lists the runtimes that cannot be used here.
pub(crate) fn run() -> anyhow::Result<()> {
    part("Debian packages", debian::install)?;
    for what in OF_TESTS {
        part(&format!("{what:?}"), || install(what))?;
    }
    shell::run(&mut cargo(["build", "--quiet", "--package", "axum-hello"]))?;
    for runtime in Runtime::ALL {
        if let Some(why) = runtime.missing() {
            println!("setup: tests of {runtime} will be skipped: {why}");
        }
    }
    Ok(())
}

/// Installs something; gives the reason where that is not possible here.
pub(crate) fn provide(what: Install) -> anyhow::Result<Option<String>> {
    Ok(match install(what)? {
        Outcome::LeftOut(why) => Some(why),
        Outcome::Ready | Outcome::Installed => None,
    })
}

fn part(name: &str, install: impl FnOnce() -> anyhow::Result<Outcome>) -> anyhow::Result<()> {
    let start = Instant::now();
    match install()? {
        Outcome::Ready => {}
        Outcome::Installed => println!("setup: {name}: installed in {:.1?}", start.elapsed()),
        Outcome::LeftOut(why) => println!("setup: {name}: left out: {why}"),
    }
    Ok(())
}

fn install(what: Install) -> anyhow::Result<Outcome> {
    if is_whole(what) {
        return Ok(Outcome::Ready);
    }
    let folder = what.begin()?;
    let outcome = match what {
        Install::Npm | Install::SocketIo | Install::Pm2 | Install::Throng => npm(what, &folder),
        Install::Python => python(&folder),
        Install::Promtool => debian::promtool(&folder),
        Install::Nginx => debian::nginx(&folder),
        Install::Go => go(&folder),
        Install::Java => java(&folder),
    }?;
    if let Outcome::Installed = outcome {
        what.finish()?;
    }
    Ok(outcome)
}

/// Whether nothing is missing. npm succeeds without an optional package that it could not fetch, and those for other
/// architectures must be optional, so here the ones for ours are looked for.
fn is_whole(what: Install) -> bool {
    let from_npm = [Runtime::Node22, Runtime::Node24, Runtime::Node26, Runtime::Bun, Runtime::Deno];
    what.is_complete() && (what != Install::Npm || from_npm.iter().all(|runtime| runtime.missing().is_none()))
}

fn npm(what: Install, folder: &Path) -> anyhow::Result<Outcome> {
    for source in what.sources() {
        if let Some(name) = source.file_name() {
            fs::copy(&source, folder.join(name))?;
        }
    }
    // No package needs its install script, and some of those scripts would download from elsewhere.
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    fetch("npm", &mut [program("npm", arguments).current_dir(folder)])
}

fn python(folder: &Path) -> anyhow::Result<Outcome> {
    let requirements = Install::Python.sources().remove(0);
    let mut pip = program(folder.join("bin/python3"), ["-m", "pip", "install", "--quiet"]);
    pip.args(["--disable-pip-version-check", "--only-binary", ":all:", "--requirement"]).arg(requirements);
    let mut venv = program("python3", ["-m", "venv"]);
    fetch("python3", &mut [venv.arg(folder), &mut pip])
}

/// Runs commands that need the network, and may fail for the lack of it.
fn fetch(tool: &str, commands: &mut [&mut Command]) -> anyhow::Result<Outcome> {
    if let Some(why) = absent(tool) {
        return Ok(why);
    }
    for command in commands {
        let status = shell::status(command)?;
        if !status.success() {
            return Ok(Outcome::LeftOut(format!("`{}` failed: {status}", shell::shown(command))));
        }
    }
    Ok(Outcome::Installed)
}

fn go(folder: &Path) -> anyhow::Result<Outcome> {
    if let Some(why) = absent("go") {
        return Ok(why);
    }
    let mut build = program("go", ["build", "-o"]);
    build.arg(folder.join("hello")).arg(".").current_dir(Runtime::Go.cwd());
    shell::run(build.env("CGO_ENABLED", "0"))?;
    Ok(Outcome::Installed)
}

fn java(folder: &Path) -> anyhow::Result<Outcome> {
    if let Some(why) = absent("javac") {
        return Ok(why);
    }
    shell::run(program("javac", ["-d"]).arg(folder).args(Install::Java.sources()))?;
    Ok(Outcome::Installed)
}

fn absent(tool: &str) -> Option<Outcome> {
    let is_absent = !is_in_path(tool);
    is_absent.then(|| Outcome::LeftOut(format!("{tool} is not installed")))
}
