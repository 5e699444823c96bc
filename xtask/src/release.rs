//! `cargo xtask release`: the program as it is given away. One static binary, the same bytes in whatever folder it is built, and beside
//! it what it is made of (SBOM).

use std::fs;
use std::path::{Path, PathBuf};

use allcores_testing::runtimes::{target, workspace};
use anyhow::{Context, ensure};
use clap::Args;

use crate::shell::{self, cargo, output, program};

/// A C library that is linked in, so that any Linux of the architecture can run it.
const ABI: &str = "unknown-linux-musl";

pub(crate) const PACKAGE: &str = "allcores-cli";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Build the last commit once more, in another folder, and see that every byte is the same
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let triple = installed_target()?;
    let binary = build(&workspace(), &target(), &triple)?;
    is_static(&binary)?;
    let sum = sum(&binary)?;
    let size = fs::metadata(&binary).with_context(|| format!("look at {}", binary.display()))?.len();
    println!("{}: {size} bytes, static, sha256 {sum}", binary.display());
    if shell::succeeds(&mut cargo(["cyclonedx", "--version"])) {
        let inventory = binary.with_extension("cdx.json");
        println!("{}: {} packages in it", inventory.display(), take_inventory(&triple, &inventory)?);
    } else {
        println!("skipped: SBOM: cargo-cyclonedx is not installed (`cargo install cargo-cyclonedx`)");
    }
    if arguments.check {
        check(&triple, &sum)?;
    }
    Ok(())
}

/// The target, whose standard library is installed if it is not there.
pub(crate) fn installed_target() -> anyhow::Result<String> {
    let triple = format!("{}-{ABI}", std::env::consts::ARCH);
    let has_library = |triple: &str| {
        let folder = output(&mut program("rustc", ["--print", "target-libdir", "--target", triple]));
        folder.is_some_and(|folder| Path::new(&folder).is_dir())
    };
    if !has_library(&triple) {
        shell::run(&mut program("rustup", ["target", "add", &triple]))?;
    }
    Ok(triple)
}

/// Builds what is in one folder into another. Of neither, nor of where cargo keeps its things, is anything in the program.
fn build(source: &Path, target: &Path, triple: &str) -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("there is no CARGO_HOME")?;
    let hidden = [(source, "/allcores"), (target, "/target"), (&home, "/cargo")];
    let flags = hidden.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let mut build = cargo(["build", "--release", "--locked", "--target", triple, "--package", PACKAGE]);
    build.arg("--target-dir").arg(target).current_dir(source);
    // Separated by what no path has in it.
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    shell::run(&mut build)?;
    Ok(target.join(triple).join("release/allcores"))
}

/// It asks for no interpreter, which is who would find its libraries: `PT_INTERP`, elf(5).
fn is_static(binary: &Path) -> anyhow::Result<()> {
    let headers = program("readelf", ["--wide", "--program-headers"]).arg(binary).output();
    let headers = headers.context("start readelf, of the package binutils")?;
    ensure!(headers.status.success(), "readelf can't read {}", binary.display());
    let is_dynamic = String::from_utf8_lossy(&headers.stdout).contains("INTERP");
    ensure!(!is_dynamic, "{} needs libraries of the machine that it runs on", binary.display());
    Ok(())
}

fn sum(file: &Path) -> anyhow::Result<String> {
    let line = output(program("sha256sum", ["--"]).arg(file));
    let sum = line.as_deref().and_then(|line| line.split(' ').next()).context("run sha256sum")?;
    Ok(sum.trim_start_matches('\\').to_owned())
}

/// Writes what the last commit's program is made of, in CycloneDX: the same bytes in whatever folder. Gives the number of packages.
///
/// Features that other packages of the workspace ask for are counted in, so there may be more than is in the program, and
/// never less.
fn take_inventory(triple: &str, into: &Path) -> anyhow::Result<usize> {
    // The tool leaves a file beside each manifest.
    let folder = target().join("release-inventory");
    let source = cloned_into(&folder)?;
    let time = output(program("git", ["log", "-1", "--format=%ct"]).current_dir(&source));
    let mut tool = cargo(["cyclonedx", "--quiet", "--describe", "binaries", "--format", "json"]);
    tool.args(["--spec-version", "1.5", "--no-build-deps", "--target", triple]).current_dir(&source);
    tool.env("SOURCE_DATE_EPOCH", time.context("when was the last commit?")?.trim());
    shell::run(&mut tool)?;
    let written = source.join("crates/cli/allcores_bin.cdx.json");
    let text = fs::read_to_string(&written).with_context(|| format!("read {}", written.display()))?;
    let text = text.replace(&source.display().to_string(), "/allcores");
    let inventory: serde_json::Value = serde_json::from_str(&text).context("read the inventory")?;
    let packages = inventory["components"].as_array().context("an inventory without components")?.len();
    fs::write(into, text).with_context(|| format!("write {}", into.display()))?;
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    Ok(packages)
}

/// Clones the last commit into a folder that holds nothing else.
fn cloned_into(folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let source = folder.join("clone");
    shell::run(program("git", ["clone", "--quiet", "."]).arg(&source))?;
    Ok(source)
}

/// Builds the last commit in a folder of its own, and compares.
fn check(triple: &str, expected: &str) -> anyhow::Result<()> {
    let folder = target().join("release-again");
    let source = cloned_into(&folder)?;
    let again = build(&source, &folder.join("target"), triple)?;
    let sum = sum(&again)?;
    ensure!(
        sum == expected,
        "{} differs: sha256 {sum}; are there changes that are not committed?",
        again.display()
    );
    println!("the same bytes from {}", source.display());
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))
}
