//! PM2, to be compared with: its daemon, and a node app in its cluster mode.
//!
//! It has a home of its own, so that no other PM2 of this user is touched, and nothing of it is left when it is dropped.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::runtimes::Install;

/// The app's name there.
const NAME: &str = "web";

/// How long the daemon may take to go when it was told to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon of PM2's with one app.
#[derive(Debug)]
pub struct Pm2 {
    home: TempDir,
    address: SocketAddr,
}

impl Pm2 {
    /// Starts a script, in cluster mode unless these further options of `pm2 start` say otherwise.
    ///
    /// # Errors
    ///
    /// If PM2 is not installed, or says that it failed.
    pub fn start(script: &Path, workers: u16, address: SocketAddr, options: &[&str]) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("allcores-pm2-").tempdir()?;
        let pm2 = Self { home, address };
        let workers = workers.to_string();
        let words = ["start".as_ref(), script.as_os_str(), "-i".as_ref(), workers.as_ref()];
        let mut command = pm2.command()?;
        command.args(words).args(["--name", NAME]).args(options);
        let output = command.output().context("start pm2")?;
        ensure!(output.status.success(), "pm2 start: {}: {}", output.status, text(&output));
        Ok(pm2)
    }

    /// Runs `pm2 reload`, and waits for its end, however it ends.
    ///
    /// # Errors
    ///
    /// If it can't be run.
    pub fn reload(&self) -> anyhow::Result<Output> {
        self.command()?.args(["reload", NAME]).output().context("start pm2")
    }

    /// Runs `pm2 scale`, and waits for its end, however it ends.
    ///
    /// # Errors
    ///
    /// If it can't be run.
    pub fn scale(&self, workers: u16) -> anyhow::Result<Output> {
        self.command()?.args(["scale", NAME, &workers.to_string()]).output().context("start pm2")
    }

    /// Runs `pm2 update`, which has the daemon end and another take over, and waits for its end, however it ends.
    ///
    /// # Errors
    ///
    /// If it can't be run.
    pub fn update(&self) -> anyhow::Result<Output> {
        self.command()?.arg("update").output().context("start pm2")
    }

    /// The process id of the daemon.
    pub fn daemon(&self) -> Option<u32> {
        fs::read_to_string(self.home.path().join("pm2.pid")).ok()?.trim().parse().ok()
    }

    /// Where it keeps what workers write.
    pub fn logs(&self) -> PathBuf {
        self.home.path().join("logs")
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new("node");
        command.arg(Install::Pm2.product("node_modules/pm2/bin/pm2")?).stdin(Stdio::null());
        command.env("PM2_HOME", self.home.path()).env("HOME", self.home.path());
        command.env("PM2_DISABLE_VERSION_CHECK", "true").env("PM2_NO_INTERACTION", "true");
        command.env("HOST", self.address.ip().to_string()).env("PORT", self.address.port().to_string());
        Ok(command)
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        let daemon = self.daemon().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        // Held before it is told, so that its number can't be another's afterwards.
        let Some(pidfd) = daemon.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return };
        if let Ok(mut command) = self.command() {
            let _ = command.arg("kill").output();
        }
        let mut end = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = Timespec::try_from(PATIENCE).ok();
        if !rustix::event::poll(&mut end, limit.as_ref()).is_ok_and(|count| count > 0) {
            // Its workers go when their channel ends.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
