//! A process that tells what happens to it as JSON lines, watched until its end.
//!
//! Owns the process: it is ended and reaped at the latest when its [`Process`] is dropped. Signals go through a pidfd, so
//! none can reach a stranger that got its number. Waiting means waiting for an event, with a timeout; nothing sleeps.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

/// How long a process that was asked to end may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How many of its last lines an error shows.
const SHOWN_LINES: usize = 30;

/// One JSON line.
#[derive(Clone, Debug)]
pub struct Event {
    /// When the line was read.
    pub at: Instant,
    /// The line.
    pub value: Value,
}

impl Event {
    /// What happened: the field `event`.
    pub fn kind(&self) -> &str {
        self.value["event"].as_str().unwrap_or_default()
    }

    /// The id of the worker that it happened to.
    pub fn worker_id(&self) -> Option<u64> {
        self.value["worker"]["id"].as_u64()
    }

    /// The slot of the worker that it happened to.
    pub fn slot(&self) -> Option<u64> {
        self.value["worker"]["slot"].as_u64().or_else(|| self.value["slot"].as_u64())
    }

    /// The process id of the worker that it happened to.
    pub fn worker_pid(&self) -> Option<u32> {
        self.value["worker"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }
}

/// A process that is watched.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    log: Arc<Log>,
    /// Reaps it. The readers of its output are not joined: descendants may keep the streams open.
    waiter: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    events: Vec<Event>,
    /// Every line of both streams, events included.
    lines: Vec<String>,
    open_streams: usize,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts the command, its two output streams captured.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let pid = child.id();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).inspect_err(|_| {
            // Not reaped yet, so the number is still its own.
            drop(child.kill());
        })?;
        let log = Arc::new(Log::default());
        log.state().open_streams = 2;
        log.read_on_thread(child.stdout.take().context("stdout is a pipe")?);
        log.read_on_thread(child.stderr.take().context("stderr is a pipe")?);
        let waiter = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                log.state().status = child.wait().ok();
                log.changed.notify_all();
            }
        });
        Ok(Self { pid, pidfd, log, waiter: Some(waiter) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.log.state().events.clone()
    }

    /// The number of events so far: where [`Process::wait_for_since`] may begin.
    pub fn position(&self) -> usize {
        self.log.state().events.len()
    }

    /// Every line of its output so far, events included.
    pub fn lines(&self) -> Vec<String> {
        self.log.state().lines.clone()
    }

    /// Waits for an event, which may have happened already.
    ///
    /// # Errors
    ///
    /// If it does not happen in time, or the process ends without it. The error shows the last lines of the output.
    pub fn wait_for(&self, is_it: impl FnMut(&Event) -> bool, timeout: Duration) -> anyhow::Result<Event> {
        self.wait_for_since(0, is_it, timeout)
    }

    /// Waits for an event that happens after a [`Process::position`].
    ///
    /// # Errors
    ///
    /// As [`Process::wait_for`].
    pub fn wait_for_since(
        &self,
        position: usize,
        mut is_it: impl FnMut(&Event) -> bool,
        timeout: Duration,
    ) -> anyhow::Result<Event> {
        let mut next = position;
        let mut found = None;
        self.log.wait(timeout, |state| {
            let new = state.events.get(next..).unwrap_or_default();
            found = new.iter().find(|event| is_it(event)).cloned();
            next = state.events.len().max(position);
            found.is_some() || (state.status.is_some() && state.open_streams == 0)
        });
        found.ok_or_else(|| self.failure("the event did not happen"))
    }

    /// Waits until this many events of a kind (at least one) have happened since the start, and gives them.
    ///
    /// # Errors
    ///
    /// As [`Process::wait_for`].
    pub fn wait_count(&self, kind: &str, count: usize, timeout: Duration) -> anyhow::Result<Vec<Event>> {
        let mut found = Vec::new();
        let enough = self.wait_for(
            |event| {
                found.extend((event.kind() == kind).then(|| event.clone()));
                found.len() >= count
            },
            timeout,
        );
        enough.with_context(|| format!("{} of {count} `{kind}` events within {timeout:?}", found.len()))?;
        Ok(found)
    }

    /// Sends a signal. A process that has ended already is no error.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("send {signal:?} to {}", self.pid)),
        }
    }

    /// Waits for its end.
    pub fn wait(&self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        self.log.wait(timeout, |state| state.status.is_some());
        let status = self.log.state().status;
        status.ok_or_else(|| self.failure(&format!("it did not end within {timeout:?}")))
    }

    /// Waits for its end and for the last of its output, which no descendant may hold open, and gives all of it.
    ///
    /// # Errors
    ///
    /// If the output does not end in time.
    pub fn wait_output(&self, timeout: Duration) -> anyhow::Result<Vec<String>> {
        let is_over = |state: &LogState| state.status.is_some() && state.open_streams == 0;
        self.log.wait(timeout, is_over);
        let state = self.log.state();
        let lines = is_over(&state).then(|| state.lines.clone());
        drop(state);
        lines.ok_or_else(|| self.failure(&format!("its output did not end within {timeout:?}")))
    }

    /// Asks it to end with SIGTERM, and waits for that.
    ///
    /// # Errors
    ///
    /// If it had to be killed.
    pub fn stop(&self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = self.wait(STOP_TIMEOUT);
        if ended.is_err() {
            self.signal(Signal::KILL)?;
            self.wait(STOP_TIMEOUT)?;
        }
        ended.context("it had to be killed")
    }

    fn failure(&self, what: &str) -> anyhow::Error {
        let state = self.log.state();
        let state_now = match state.status {
            Some(status) => format!("it has ended: {status}"),
            None => "it still runs".into(),
        };
        let last = &state.lines[state.lines.len().saturating_sub(SHOWN_LINES)..];
        anyhow!("process {}: {what}; {state_now}; its last lines:\n{}", self.pid, last.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stop that fails has killed; what is left to do is to reap.
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
        if let Some(waiter) = self.waiter.take() {
            drop(waiter.join());
        }
    }
}

impl Log {
    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the condition holds; the caller finds out by itself whether it does.
    fn wait(&self, timeout: Duration, mut is_done: impl FnMut(&LogState) -> bool) {
        drop(self.changed.wait_timeout_while(self.state(), timeout, |state| !is_done(state)));
    }

    fn read_on_thread(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                log.push(String::from_utf8_lossy(&line).trim_end());
                line.clear();
            }
            log.state().open_streams -= 1;
            log.changed.notify_all();
        });
    }

    fn push(&self, line: &str) {
        let value = serde_json::from_str(line).ok().filter(|value: &Value| value["event"].is_string());
        let mut state = self.state();
        state.lines.push(line.to_owned());
        state.events.extend(value.map(|value| Event { at: Instant::now(), value }));
        self.changed.notify_all();
    }
}

/// Finds a TCP port that nobody has.
///
/// Somebody may take it before it is used, but hardly: it lies below the kernel's range of ephemeral ports, so no
/// client gets it by chance (on the wildcard address a client bound to 127.0.0.x would be in the way as well), and two
/// calls in one process never give the same one.
///
/// # Errors
///
/// If there is none.
pub fn free_port() -> anyhow::Result<u16> {
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::atomic::{AtomicU32, Ordering};

    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);

    for _ in 0..COUNT {
        // Far apart for processes that start one after the other, as tests do.
        let offset = std::process::id().wrapping_mul(7919) % COUNT + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + offset % COUNT)?;
        // SO_REUSEADDR, which std sets, passes over what is left of ended connections, and over no listener.
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port in {FIRST}..{}", FIRST + COUNT)
}

#[cfg(test)]
mod tests;
