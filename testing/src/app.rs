//! Apps: the program `allcores` run on a command, in a runtime folder of its own, and what it tells.
//!
//! Knows the program's command line and its JSON lines, and nothing of what is inside it.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub use crate::process::{Event, Process, free_port};

/// How long workers may take to be ready: a cold runtime on a busy machine takes seconds.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// An app to be started.
///
/// # Examples
///
/// ```no_run
/// # use allcores_testing::app::{App, free_port};
/// # fn main() -> anyhow::Result<()> {
/// let port = free_port()?;
/// let app = App::new(["node", "server.js"]).workers(2).env("PORT", port.to_string()).start()?;
/// app.wait_ready(2)?;
/// assert!(app.stop()?.success());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct App {
    binary: Option<PathBuf>,
    name: String,
    workers: Option<u16>,
    policy: Option<String>,
    options: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    wrapper: Vec<OsString>,
    is_on_screen: bool,
    owner: Option<u32>,
    runtime: Option<Arc<TempDir>>,
    command: Vec<OsString>,
}

impl App {
    /// Describes an app that runs this command, under a name that no other app of this process has.
    pub fn new<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        Self {
            binary: None,
            name: format!("app-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            workers: None,
            policy: None,
            options: Vec::new(),
            environment: Vec::new(),
            folder: None,
            wrapper: Vec::new(),
            is_on_screen: false,
            owner: None,
            runtime: None,
            command: command.into_iter().map(Into::into).collect(),
        }
    }

    /// Sets the program `allcores` to use, e.g. `env!("CARGO_BIN_EXE_allcores")`; else see [`find_binary`].
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Sets the app's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the number of workers.
    #[must_use]
    pub fn workers(mut self, workers: u16) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the policy.
    #[must_use]
    pub fn policy(mut self, policy: impl Into<String>) -> Self {
        self.policy = Some(policy.into());
        self
    }

    /// Adds an option to `allcores run`, as it is.
    #[must_use]
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Sets a variable for the primary, which its workers inherit.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Tells it by the variables `HOST` and `PORT`, which servers of our fixtures go by, where to listen.
    #[must_use]
    pub fn address(self, address: SocketAddr) -> Self {
        self.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string())
    }

    /// Sets the working directory.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Runs `allcores` by another program, which is to execute its last arguments, e.g. `setpriv` or `unshare`.
    #[must_use]
    pub fn wrapper<S: Into<OsString>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    /// Prints what a person would see, instead of events.
    #[must_use]
    pub fn on_screen(mut self) -> Self {
        self.is_on_screen = true;
        self
    }

    /// Gives the runtime folder to this user and group, for a primary that a wrapper runs as such.
    #[must_use]
    pub fn owner(mut self, id: u32) -> Self {
        self.owner = Some(id);
        self
    }

    /// Uses the runtime folder and the name of another app, as one does who starts it again.
    #[must_use]
    pub fn again(mut self, other: &RunningApp) -> Self {
        self.name.clone_from(&other.name);
        self.runtime = Some(Arc::clone(&other.runtime));
        self
    }

    /// Starts it, and does not wait for anything.
    pub fn start(self) -> anyhow::Result<RunningApp> {
        let binary = match self.binary {
            Some(binary) => binary,
            None => find_binary()?,
        };
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => Arc::new(tempfile::Builder::new().prefix("allcores-").tempdir()?),
        };
        if let Some(owner) = self.owner {
            std::os::unix::fs::chown(runtime.path(), Some(owner), Some(owner))?;
        }
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([binary.as_os_str()]);
        let mut command = Command::new(words.next().context("there is always the binary")?);
        let format: &[&str] = if self.is_on_screen { &[] } else { &["--log-format", "json"] };
        command.args(words).arg("run").args(format).args(["--name", &self.name]);
        command.env_remove("ALLCORES_LOG_FORMAT");
        if let Some(workers) = self.workers {
            command.args(["-w", &workers.to_string()]);
        }
        if let Some(policy) = &self.policy {
            command.args(["--policy", policy]);
        }
        command.args(&self.options).arg("--").args(&self.command);
        command.envs(self.environment).envs(folders(runtime.path())).stdin(Stdio::null());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let process = Process::spawn(&mut command)?;
        Ok(RunningApp { process, binary, name: self.name, runtime })
    }
}

/// An app that was started. Dropping it stops it, and kills it if need be.
///
/// Events and signals: see [`Process`], to which it dereferences.
#[derive(Debug)]
pub struct RunningApp {
    // First, so that the process has ended before its folder goes.
    process: Process,
    binary: PathBuf,
    name: String,
    runtime: Arc<TempDir>,
}

impl RunningApp {
    /// The app's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its runtime folder (`ALLCORES_RUNTIME_DIR`).
    pub fn runtime_folder(&self) -> &Path {
        self.runtime.path()
    }

    /// Waits until this many workers have been ready since the start, and gives those events.
    ///
    /// # Errors
    ///
    /// If they are not within 30 s, or the primary ends before; the error shows its last lines.
    pub fn wait_ready(&self, workers: usize) -> anyhow::Result<Vec<Event>> {
        self.process.wait_count("ready", workers, READY_TIMEOUT)
    }

    /// Runs `allcores` with these arguments in the app's runtime folder, and waits for its end, however it ends.
    pub fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<Output> {
        Command::new(&self.binary)
            .args(arguments)
            .envs(folders(self.runtime.path()))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {}", self.binary.display()))
    }

    /// Asks for the app's status.
    ///
    /// # Errors
    ///
    /// If `allcores status` fails, or does not print JSON.
    pub fn status(&self) -> anyhow::Result<Value> {
        let output = self.run(["status", &self.name, "--json"])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "allcores status: {}: {stderr}", output.status);
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the status is no JSON: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Sends SIGHUP, which asks for a reload.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        self.process.signal(Signal::HUP)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    ///
    /// If it had to be killed.
    pub fn stop(&self) -> anyhow::Result<ExitStatus> {
        self.process.stop()
    }
}

impl Deref for RunningApp {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// The variables that have `allcores` keep all its files below a folder.
fn folders(runtime: &Path) -> [(&'static str, PathBuf); 2] {
    [("ALLCORES_RUNTIME_DIR", runtime.to_owned()), ("ALLCORES_STATE_DIR", runtime.join(".state"))]
}

/// Finds the program `allcores`: what `CARGO_BIN_EXE_allcores` names, else the one beside the running program or its
/// folder (`target/debug/deps/…` → `target/debug/allcores`), else `target/release` and `target/debug` of this workspace.
///
/// # Errors
///
/// If it has not been built.
pub fn find_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("CARGO_BIN_EXE_allcores") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(Path::to_owned);
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let candidates = beside.chain([target.join("release"), target.join("debug")]);
    for candidate in candidates.map(|folder| folder.join("allcores")) {
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("the program `allcores` was not found: build it with `cargo build`")
}

/// Finds the program `allcores` as it is delivered: optimized, built by `cargo build --release` of the sources as they are.
/// It takes minutes to build, so that it is not a part of the tests' setup.
///
/// # Errors
///
/// If it has not been built, or not since its sources have changed.
pub fn find_release() -> anyhow::Result<PathBuf> {
    let binary = crate::runtimes::target().join("release/allcores");
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    let built = changed(&binary).context("`cargo build --release` has not built the optimized program")?;
    let sources = std::fs::read_to_string(binary.with_extension("d"))?;
    // "TARGET: SOURCE SOURCE …", spaces in names escaped.
    let sources =
        sources.split_once(": ").context("cargo lists what a program is made of")?.1.replace("\\ ", "\0");
    for source in sources.split_whitespace().map(|name| name.replace('\0', " ")) {
        let is_older = changed(Path::new(&source)).is_ok_and(|changed| changed <= built);
        ensure!(
            is_older,
            "`cargo build --release` has not built the optimized program since {source} changed"
        );
    }
    Ok(binary)
}

#[cfg(test)]
mod tests;
