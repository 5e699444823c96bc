//! The language runtimes that come as Debian packages.

use std::fs;

use allcores_testing::runtimes::{Install, is_in_path};

use super::Outcome;
use crate::shell::{program, status, succeeds};

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
    let mut command = program("apt-get", ["--quiet=2"]);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    Ok(status(&mut command)?.success())
}
