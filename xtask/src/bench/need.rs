//! What a contender needs besides allcores: whether it can be had here, and in which version.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use allcores_testing::runtimes::{Install, Runtime};
use serde_json::Value;

use crate::setup;

/// Something that has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Installed if it is not there yet.
    Install(Install),
    /// Found or not: `cargo xtask setup` installs it.
    Runtime(Runtime),
}

impl Need {
    /// Has it installed; gives the reason where that is not possible here.
    pub(super) fn provide(self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Install(install) => setup::provide(install),
            Self::Runtime(runtime) => Ok(runtime.missing()),
        }
    }

    /// The versions of what was installed, by name.
    pub(super) fn versions(self) -> BTreeMap<String, String> {
        match self {
            Self::Install(Install::Nginx) => printed("nginx", nginx()),
            Self::Install(install) => pinned(install),
            Self::Runtime(Runtime::Puma) => printed("puma", Some(run("puma", "--version"))),
            Self::Runtime(_) => BTreeMap::new(),
        }
    }
}

/// The versions that stand in the sources of an install, which has exactly these: in a package.json, or line by line as
/// pip reads them.
fn pinned(install: Install) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for text in install.sources().iter().filter_map(|source| fs::read_to_string(source).ok()) {
        if let Ok(package) = serde_json::from_str::<Value>(&text) {
            for (name, version) in package["dependencies"].as_object().into_iter().flatten() {
                versions.extend(version.as_str().map(|version| (name.clone(), version.to_owned())));
            }
        } else {
            let lines = text.lines().filter_map(|line| line.split_once("=="));
            versions.extend(lines.map(|(name, version)| (name.to_owned(), version.to_owned())));
        }
    }
    versions
}

fn nginx() -> Option<String> {
    let program = Install::Nginx.product("content/usr/sbin/nginx").ok()?;
    Some(run(&program.to_string_lossy(), "-v"))
}

fn printed(name: &str, text: Option<String>) -> BTreeMap<String, String> {
    text.map(|text| (name.to_owned(), version_in(&text))).into_iter().collect()
}

/// The version in what a program says of itself: the first word of digits and dots.
pub(super) fn version_in(text: &str) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || letter == '/');
    let mut words = words.map(|word| word.trim_start_matches('v'));
    let version = words.find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()));
    version.unwrap_or("unknown").to_owned()
}

/// Everything that a program prints; nothing if it is not there.
pub(super) fn run(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    output.map_or_else(
        |_| String::new(),
        |output| {
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_a_program_says() {
        for (text, version) in [
            ("v20.20.2\n", "20.20.2"),
            ("rustc 1.95.0 (abc 2026-01-01)", "1.95.0"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("puma version 5.6.5", "5.6.5"),
            ("", "unknown"),
        ] {
            assert_eq!(version_in(text), version, "{text}");
        }
    }

    #[test]
    fn what_is_pinned_is_known() {
        assert_eq!(pinned(Install::Throng), [("throng".to_owned(), "5.0.0".to_owned())].into());
        assert!(pinned(Install::Python).contains_key("granian"));
    }
}
