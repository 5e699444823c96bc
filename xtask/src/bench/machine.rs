//! Where it was measured, and with what: numbers without that can't be compared with any others.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;
use std::{fmt, fs};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::need;

/// The unit of CPU times in /proc/PID/stat. proc(5) has programs ask for it; Linux has given no other answer than 100
/// on any architecture that node runs on.
const TICKS_PER_SECOND: u64 = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cpus: usize,
    pub(super) memory: String,
    pub(super) kernel: String,
    /// Each session has a share of the cores of its own (sched(7), autogroup): what a terminal gives, and no service or
    /// container. allcores starts each worker in a session of its own.
    pub(super) has_session_shares: bool,
    /// Of what is used, by name.
    pub(super) versions: BTreeMap<String, String>,
    pub(super) commit: String,
    /// There were changes that the commit does not have, in what is measured: not in the docs, which runs are stored in.
    pub(super) is_dirty: bool,
    pub(super) date: String,
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
            has_session_shares: fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled")
                .is_ok_and(|enabled| enabled.trim() == "1"),
            versions: ["rustc", "node", "python3"].map(|name| (name.to_owned(), version(name))).into(),
            commit: output("git", &["rev-parse", "HEAD"]),
            is_dirty: !output("git", &["status", "--porcelain", "--", ":!docs"]).is_empty(),
            date: output("date", &["--utc", "+%Y-%m-%d"]),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cpus, memory, kernel, has_session_shares, versions, commit, is_dirty, date } = self;
        let changed = if *is_dirty { " with changes" } else { "" };
        let commit = commit.get(..10).unwrap_or(commit);
        write!(f, "{date}, commit {commit}{changed}; {cpu}, {cpus} cores, {memory}, Linux {kernel}")?;
        write!(f, ", autogroup {}", if *has_session_shares { "on" } else { "off" })?;
        versions.iter().try_for_each(|(name, version)| write!(f, ", {name} {version}"))
    }
}

fn version(program: &str) -> String {
    need::version_in(&need::run(program, "--version"))
}

/// Reads how much CPU time processes have used together; one that is gone counts for nothing.
pub(super) fn cpu_time(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| cpu_time_of(*pid)).sum()
}

fn cpu_time_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
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
