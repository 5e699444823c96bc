//! What is installed below `target/fixtures`, where, and from which sources.
//!
//! An install is complete when its stamp holds the hash of its sources. The stamp is written last, so an install that
//! was interrupted, or whose sources have changed since, counts as absent.

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{bail, ensure};

const STAMP: &str = ".complete";

/// Something that `cargo xtask setup` installs or compiles for the fixtures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Install {
    /// `node_modules`: express, bun, deno, and several versions of node.
    Npm,
    /// `node_modules`: socket.io and its client.
    SocketIo,
    /// `node_modules`: PM2, for a benchmark, which installs it itself.
    Pm2,
    /// `node_modules`: throng, for a benchmark, which installs it itself.
    Throng,
    /// nginx and its module for streams, for a benchmark, which unpacks them itself.
    Nginx,
    /// A virtual environment with uvicorn, gunicorn and granian.
    Python,
    /// The binary `hello`.
    Go,
    /// `Server.class`.
    Java,
    /// `promtool`, which reads metrics as Prometheus does and knows its conventions.
    Promtool,
}

impl Install {
    /// Where it is installed.
    pub fn folder(self) -> PathBuf {
        target().join("fixtures").join(match self {
            Self::Npm => "npm",
            Self::SocketIo => "socket-io",
            Self::Pm2 => "pm2",
            Self::Throng => "throng",
            Self::Nginx => "nginx",
            Self::Python => "python",
            Self::Go => "go",
            Self::Java => "java",
            Self::Promtool => "promtool",
        })
    }

    /// The files that determine what is installed.
    pub fn sources(self) -> Vec<PathBuf> {
        let names: &[&str] = match self {
            Self::Npm => &["npm/package.json", "npm/package-lock.json"],
            Self::SocketIo => &["socket-io/package.json", "socket-io/package-lock.json"],
            Self::Pm2 => &["pm2/package.json", "pm2/package-lock.json"],
            Self::Throng => &["throng/package.json", "throng/package-lock.json"],
            Self::Python => &["python/requirements.txt"],
            Self::Go => &["go/go.mod", "go/main.go"],
            Self::Java => &["java/Server.java"],
            // Debian's own, whatever version that is.
            Self::Promtool | Self::Nginx => &[],
        };
        names.iter().map(fixture).collect()
    }

    /// Whether it has been installed from the sources as they are now.
    pub fn is_complete(self) -> bool {
        let stamp = fs::read_to_string(self.folder().join(STAMP));
        stamp.is_ok_and(|stamp| self.hash().is_ok_and(|hash| stamp == hash))
    }

    /// Removes what is there of an earlier install, and returns the empty folder.
    pub fn begin(self) -> io::Result<PathBuf> {
        let folder = self.folder();
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&folder)?,
        }
        Ok(folder)
    }

    /// Marks it as complete.
    pub fn finish(self) -> io::Result<()> {
        fs::write(self.folder().join(STAMP), self.hash()?)
    }

    /// The path of an installed file.
    ///
    /// # Errors
    ///
    /// Fails if the install is not complete, or has no such file.
    pub fn product(self, name: &str) -> anyhow::Result<OsString> {
        let path = self.folder().join(name);
        ensure!(self.is_complete() && path.is_file(), "`cargo xtask setup` has not installed {name}");
        Ok(path.into())
    }

    fn hash(self) -> io::Result<String> {
        let mut hasher = DefaultHasher::new();
        ARCH.hash(&mut hasher);
        for source in self.sources() {
            fs::read(source)?.hash(&mut hasher);
        }
        Ok(format!("{:016x}", hasher.finish()))
    }
}

/// The root folder of the workspace.
#[expect(clippy::missing_panics_doc, reason = "the crate's folder has a parent, so it never does")]
pub fn workspace() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().expect("the crate lies in the workspace").to_owned()
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A path below `tests/fixtures`.
pub fn fixture(path: impl AsRef<Path>) -> PathBuf {
    workspace().join("tests/fixtures").join(path)
}

/// The name that npm packages use for the architecture of this machine.
pub(super) fn npm_arch() -> anyhow::Result<&'static str> {
    match ARCH {
        "x86_64" => Ok("x64"),
        "aarch64" => Ok("arm64"),
        other => bail!("it is not in our npm packages for {other}"),
    }
}
