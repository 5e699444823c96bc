//! The language runtimes that come as Debian packages.

use std::fs;
use std::path::Path;

use allcores_testing::runtimes::{Install, is_in_path, workspace};

use super::Outcome;
use crate::shell::{self, program, status, succeeds};

/// Programs, and the packages that bring them.
const PACKAGES: [(&str, &[&str]); 7] = [
    ("python3", &["python3", "python3-venv"]),
    ("node", &["nodejs"]),
    ("npm", &["npm"]),
    ("go", &["golang-go"]),
    ("javac", &["default-jdk-headless"]),
    ("puma", &["ruby", "puma"]),
    ("php", &["php-cli"]),
];

/// Installs the packages of the programs that are not in `PATH`.
pub(super) fn install() -> anyhow::Result<Outcome> {
    let absent = PACKAGES.iter().filter(|(program, _)| !is_in_path(program));
    let mut packages: Vec<&str> = absent.flat_map(|(_, packages)| packages.iter().copied()).collect();
    if packages.is_empty() && lacks_venv() {
        packages.push("python3-venv");
    }
    if packages.is_empty() {
        return Ok(Outcome::Ready);
    }
    let list = packages.join(" ");
    if !is_in_path("apt-get") {
        return Ok(Outcome::LeftOut(format!("no apt-get here; wanted: {list}")));
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::LeftOut(format!("we are not root; run `apt-get install {list}` as root")));
    }
    let is_installed = if has_package_lists() { apt_get_install(&packages)? } else { false };
    if is_installed || (apt_get(&["update"])? && apt_get_install(&packages)?) {
        return Ok(Outcome::Installed);
    }
    Ok(Outcome::LeftOut(format!("apt-get failed; wanted: {list}")))
}

/// Takes `promtool` out of Debian's package.
pub(super) fn promtool(folder: &Path) -> anyhow::Result<Outcome> {
    let outcome = unpack(folder, &["prometheus"])?;
    if let Outcome::Installed = outcome {
        let content = folder.join("content");
        fs::rename(content.join("usr/bin/promtool"), folder.join("promtool"))?;
        fs::remove_dir_all(content)?;
    }
    Ok(outcome)
}

/// Takes nginx, and its module for streams, out of Debian's packages.
pub(super) fn nginx(folder: &Path) -> anyhow::Result<Outcome> {
    unpack(folder, &["nginx", "libnginx-mod-stream"])
}

/// Unpacks packages into `content`. Installed, they would also start a server.
fn unpack(folder: &Path, packages: &[&str]) -> anyhow::Result<Outcome> {
    let list = packages.join(" ");
    for tool in ["apt-get", "dpkg-deb"] {
        if !is_in_path(tool) {
            return Ok(Outcome::LeftOut(format!("no {tool} here; wanted: {list}")));
        }
    }
    let download = || apt_get_in(folder, &[&["download"], packages].concat());
    let is_root = rustix::process::geteuid().is_root();
    let is_there = if has_package_lists() { download()? } else { false };
    let is_there = is_there || (is_root && apt_get(&["update"])? && download()?);
    if !is_there {
        return Ok(Outcome::LeftOut(format!("apt-get could not download {list}")));
    }
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "deb") {
            shell::run(program("dpkg-deb", ["--extract"]).arg(&path).arg(folder.join("content")))?;
            fs::remove_file(path)?;
        }
    }
    Ok(Outcome::Installed)
}

/// Debian's python comes without what makes virtual environments; looked at only if one is to be made.
fn lacks_venv() -> bool {
    !Install::Python.is_complete() && !succeeds(&mut program("python3", ["-c", "import ensurepip, venv"]))
}

fn has_package_lists() -> bool {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    lists.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn apt_get_install(packages: &[&str]) -> anyhow::Result<bool> {
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<bool> {
    apt_get_in(&workspace(), arguments)
}

fn apt_get_in(folder: &Path, arguments: &[&str]) -> anyhow::Result<bool> {
    let mut command = program("apt-get", ["--quiet=2"]);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").current_dir(folder);
    Ok(status(&mut command)?.success())
}
