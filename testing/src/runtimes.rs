//! The ordinary servers below `tests/fixtures`, one for each language runtime, and how each is started.
//!
//! Knows what to run and what is missing for it. Starts and installs nothing: `cargo xtask setup` installs, by the
//! [`Install`]s that this module defines, and whoever asks for a command runs it.

mod install;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fmt};

use anyhow::{Context, bail};

pub use self::install::{Install, fixture, target, workspace};
use crate::skip;

/// A runtime, with its server below `tests/fixtures`, which answers `GET /` with its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// `python3 server.py`, on the single-threaded `http.server.HTTPServer`. Has `/burn?ms=` and `/sleep?ms=`.
    Python,
    /// `node server.js`, on `node:http`, by the node that is installed on this machine. Has `/burn?ms=`.
    Node,
    /// As [`Node`](Self::Node), by node 22.
    Node22,
    /// As [`Node`](Self::Node), by node 24.
    Node24,
    /// As [`Node`](Self::Node), by node 26.
    Node26,
    /// `npm start` of an express server: npm and a shell stand between the command and the server.
    Npm,
    /// `bun server.js`, on `Bun.serve`.
    Bun,
    /// `deno run -A server.js`, on `Deno.serve`.
    Deno,
    /// A static binary on `net/http`. Has `/burn?ms=`.
    Go,
    /// `java Server`, on `com.sun.net.httpserver`.
    Java,
    /// `puma config.ru`, in single mode.
    Puma,
    /// `php -S`.
    Php,
    /// `uvicorn app:app`, one process.
    Uvicorn,
    /// `gunicorn app:app`: a master that listens and one sync worker that accepts and answers.
    Gunicorn,
    /// The binary of `examples/axum`, multi-threaded. Has `/burn?ms=`.
    Axum,
}

impl Runtime {
    /// Every runtime.
    pub const ALL: [Self; 15] = [
        Self::Python,
        Self::Node,
        Self::Node22,
        Self::Node24,
        Self::Node26,
        Self::Npm,
        Self::Bun,
        Self::Deno,
        Self::Go,
        Self::Java,
        Self::Puma,
        Self::Php,
        Self::Uvicorn,
        Self::Gunicorn,
        Self::Axum,
    ];

    /// The command that starts the server at `address`, to be run in [`cwd`](Self::cwd) with [`env`](Self::env).
    ///
    /// # Errors
    ///
    /// Fails with the reason if the runtime is [missing](Self::missing).
    pub fn command(self, address: SocketAddr) -> anyhow::Result<Vec<OsString>> {
        let mut command = vec![self.program()?];
        let arguments: Vec<String> = match self {
            Self::Python => words("server.py"),
            Self::Node | Self::Node22 | Self::Node24 | Self::Node26 | Self::Bun => words("server.js"),
            Self::Npm => words("start"),
            Self::Deno => words("run -A server.js"),
            Self::Java => {
                vec!["-cp".to_owned(), Install::Java.folder().display().to_string(), "Server".to_owned()]
            }
            Self::Puma => words(&format!("-b tcp://{address} config.ru")),
            Self::Php => words(&format!("-S {address} router.php")),
            Self::Uvicorn => words(&format!("app:app --host {} --port {}", address.ip(), address.port())),
            // Its control socket would lie in the home folder.
            Self::Gunicorn => words(&format!("--no-control-socket --bind {address} app:app")),
            Self::Go | Self::Axum => Vec::new(),
        };
        command.extend(arguments.into_iter().map(OsString::from));
        Ok(command)
    }

    /// The folder in which the command is to be run.
    pub fn cwd(self) -> PathBuf {
        fixture(match self {
            Self::Python => "python-http",
            Self::Node | Self::Node22 | Self::Node24 | Self::Node26 => "node-http",
            Self::Npm => "express",
            Self::Bun => "bun",
            Self::Deno => "deno",
            Self::Go => "go",
            Self::Java => "java",
            Self::Puma => "puma",
            Self::Php => "php",
            Self::Uvicorn => "uvicorn",
            Self::Gunicorn => "gunicorn",
            Self::Axum => return workspace().join("examples/axum"),
        })
    }

    /// The variables to add to the environment of the command: `HOST`, `PORT`, and what keeps the runtime from
    /// the network and from writing into the source tree.
    pub fn env(self, address: SocketAddr) -> Vec<(&'static str, OsString)> {
        let mut env = vec![
            ("HOST", OsString::from(address.ip().to_string())),
            ("PORT", OsString::from(address.port().to_string())),
        ];
        match self {
            Self::Npm => env.extend([
                ("NODE_PATH", Install::Npm.folder().join("node_modules").into()),
                ("npm_config_update_notifier", "false".into()),
                ("npm_config_logs_max", "0".into()),
            ]),
            Self::Deno => env.extend([
                ("DENO_DIR", target().join("fixtures/deno-cache").into()),
                ("DENO_NO_UPDATE_CHECK", "1".into()),
            ]),
            Self::Uvicorn | Self::Gunicorn => env.push(("PYTHONDONTWRITEBYTECODE", "1".into())),
            _ => {}
        }
        env
    }

    /// The command with its folder and environment, ready to be spawned.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the runtime is [missing](Self::missing).
    pub fn process(self, address: SocketAddr) -> anyhow::Result<Command> {
        let words = self.command(address)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.cwd()).envs(self.env(address));
        Ok(command)
    }

    /// The program that interprets other scripts of this runtime, such as those in `tests/fixtures/bad`.
    ///
    /// What comes from the machine is a bare name to be found in `PATH`, what is installed below the target folder
    /// an absolute path.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the runtime is [missing](Self::missing).
    pub fn program(self) -> anyhow::Result<OsString> {
        match self {
            Self::Python => Install::Python.product("bin/python3").or_else(|_| on_machine("python3")),
            Self::Node => on_machine("node"),
            Self::Node22 => packaged(&format!("node22-{}/bin/node", install::npm_arch()?)),
            Self::Node24 => packaged(&format!("node24-{}/bin/node", install::npm_arch()?)),
            Self::Node26 => packaged(&format!("node26-{}/bin/node", install::npm_arch()?)),
            Self::Npm => packaged("express/package.json").and_then(|_| on_machine("npm")),
            Self::Bun => {
                let arch = if cfg!(target_arch = "aarch64") { "aarch64" } else { install::npm_arch()? };
                packaged(&format!("@oven/bun-linux-{arch}/bin/bun"))
            }
            Self::Deno => packaged(&format!("@deno/linux-{}-glibc/deno", install::npm_arch()?)),
            Self::Go => Install::Go.product("hello"),
            Self::Java => Install::Java.product("Server.class").and_then(|_| on_machine("java")),
            Self::Puma => on_machine("puma"),
            Self::Php => on_machine("php"),
            Self::Uvicorn => Install::Python.product("bin/uvicorn"),
            Self::Gunicorn => Install::Python.product("bin/gunicorn"),
            Self::Axum => {
                let binary = target().join("debug/axum-hello");
                binary
                    .is_file()
                    .then(|| binary.into())
                    .context("`cargo xtask setup` has not built axum-hello")
            }
        }
    }

    /// Why the runtime cannot be used here, if so.
    pub fn missing(self) -> Option<String> {
        self.program().err().map(|error| format!("{error:#}"))
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

/// Returns the runtime if it can be used here; records a skipped test otherwise.
///
/// # Examples
///
/// ```no_run
/// use allcores_testing::runtimes::{Runtime, require};
///
/// let Some(bun) = require(Runtime::Bun) else { return };
/// let mut server = bun.process(([127, 0, 0, 1], 8000).into()).unwrap().spawn().unwrap();
/// ```
pub fn require(runtime: Runtime) -> Option<Runtime> {
    let Some(why) = runtime.missing() else { return Some(runtime) };
    skip::report(&format!("{runtime}: {why}"));
    None
}

/// Whether a program of this name is found in `PATH`.
pub fn is_in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn packaged(path: &str) -> anyhow::Result<OsString> {
    Install::Npm.product(&format!("node_modules/{path}"))
}

fn on_machine(program: &str) -> anyhow::Result<OsString> {
    if is_in_path(program) {
        Ok(program.into())
    } else if rustix::process::geteuid().is_root() {
        bail!("{program} is not installed (`cargo xtask setup` does, where apt-get works)")
    } else {
        bail!("{program} is not installed and we are not root")
    }
}
