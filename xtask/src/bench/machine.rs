//! Where it was measured, and with what: numbers without that can't be compared with any others.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::Serialize;

/// The unit of CPU times in /proc/PID/stat. proc(5) has programs ask for it; Linux has given no other answer than 100
/// on any architecture that node runs on.
const TICKS_PER_SECOND: u64 = 100;

#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpu: String,
    cpus: usize,
    memory: String,
    kernel: String,
    rustc: String,
    node: String,
    python: String,
    commit: String,
    /// There were changes that the commit does not have.
    is_dirty: bool,
    /// Seconds since 1970.
    at: u64,
}

impl Machine {
    pub(super) fn read() -> anyhow::Result<Self> {
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism()?.get(),
            memory: field("/proc/meminfo", "MemTotal"),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .context("read the kernel's release")?
                .trim()
                .into(),
            rustc: output("rustc", &["--version"]),
            node: output("node", &["--version"]),
            python: output("python3", &["--version"]),
            commit: output("git", &["rev-parse", "HEAD"]),
            is_dirty: !output("git", &["status", "--porcelain"]).is_empty(),
            at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        })
    }
}

/// Reads how much CPU time a process has used; zero for none, or one that is gone.
pub(super) fn cpu_time(pid: Option<u32>) -> Duration {
    let stat = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok()).unwrap_or_default();
    // After the name, which may hold anything: the state is field 3, user and system time are 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// Gives what a program prints; nothing if it is not there.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
