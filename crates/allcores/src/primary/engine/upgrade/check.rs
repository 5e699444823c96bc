//! Asking the new program whether it can go on: as a child, which can do no harm.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use allcores_core::exit::ExitStatus;
use rustix::pipe::PipeFlags;
use tokio::sync::mpsc;

use crate::primary::worker::Seen;
use crate::sys::Watch;
use crate::sys::spawn::{self, Plan};

/// The command by which a program is asked.
const COMMAND: &str = "upgrade-check";

/// As much as is read of what it writes to either stream.
const LONGEST: usize = 64 * 1024;

/// A program that is being asked.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
}

/// What it wrote until it ended.
#[derive(Debug)]
pub(in crate::primary) struct Checked {
    pub(super) pid: u32,
    /// False if it had more time than it may.
    pub(super) is_over: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Check {
    /// Starts the program, with the state as its stdin; tells when it is over.
    pub(super) fn begin(
        executable: &Path,
        state: &OwnedFd,
        patience: Duration,
        seen: mpsc::Sender<Seen>,
    ) -> io::Result<Self> {
        let text = |text: &OsStr| spawn::c_string(text.as_bytes().to_vec());
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let plan = Plan {
            program: text(executable.as_os_str())?,
            args: vec![text(executable.as_os_str())?, text(OsStr::new(COMMAND))?],
            env: environment()?,
            tells_pid: false,
            cwd: None,
            uid: None,
            gid: None,
            groups: None,
            descriptors: vec![state.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()],
            filter: None,
            open_files: None,
            cgroup: None,
        };
        let process = spawn::spawn(&plan).map_err(|error| error.source)?;
        let (pid, end) = (process.pid, Watch::readable(process.pidfd.try_clone()?)?);
        tokio::spawn(async move {
            let is_over = tokio::time::timeout(patience, end.wait_readable()).await.is_ok();
            // What it started may hold the streams open; what it wrote itself is in them by now.
            let checked = Checked { pid, is_over, stdout: drain(&stdout), stderr: drain(&stderr) };
            let _ = seen.send(Seen::Checked(checked)).await;
        });
        Ok(Self { pid, pidfd: process.pidfd })
    }
}

impl Checked {
    /// Why it was no answer, where it ended otherwise than with exit code 0.
    pub(super) fn failure(&self, status: ExitStatus, patience: Duration) -> Option<String> {
        let last = String::from_utf8_lossy(&self.stderr);
        let last = last.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with("next: "));
        let words = last.map(|line| format!(": {line}")).unwrap_or_default();
        if !self.is_over {
            return Some(format!("it has not answered within {patience:?}{words}"));
        }
        (!status.is_success()).then(|| format!("it ended by {status} when it was asked{words}"))
    }
}

/// This process's environment, as it will be the new program's.
pub(super) fn environment() -> io::Result<Vec<CString>> {
    let ours = std::env::vars_os().filter(|(key, _)| key != crate::primary::upgrade::VARIABLE);
    ours.map(|(key, value)| {
        let mut entry = key.as_bytes().to_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        spawn::c_string(entry)
    })
    .collect()
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// What is in a pipe now.
fn drain(pipe: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; LONGEST];
    let mut length = 0;
    while let Ok(count) = rustix::io::read(pipe, &mut bytes[length..])
        && count > 0
    {
        length += count;
    }
    bytes.truncate(length);
    bytes
}
