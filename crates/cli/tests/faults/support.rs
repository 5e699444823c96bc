//! What these tests share: apps of this build, single requests, and the search for what was left behind.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use allcores_testing::app::{App, RunningApp};
use allcores_testing::process::Event;
use allcores_testing::runtimes::{self, Runtime};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Long enough for anything on a busy machine; no test passes by waiting for it.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// The user that nobody is.
pub(crate) const NOBODY: u32 = 65_534;

/// An app that runs this command with the program under test.
pub(crate) fn app<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> App {
    App::new(command).binary(env!("CARGO_BIN_EXE_allcores"))
}

/// An app of a python script in `tests/fixtures/bad`, told to listen at `address`.
pub(crate) fn bad_python(script: &str, address: SocketAddr) -> App {
    app([python(), bad(script).into()]).address(address)
}

/// An app of a node script in `tests/fixtures/bad`, told to listen at `address`.
pub(crate) fn bad_node(script: &str, address: SocketAddr) -> App {
    app([OsString::from("node"), bad(script).into()]).address(address)
}

/// A file of `tests/fixtures/bad`.
pub(crate) fn bad(file: &str) -> PathBuf {
    runtimes::fixture("bad").join(file)
}

/// Python itself, without what version managers put in front of it.
pub(crate) fn python() -> OsString {
    Runtime::Python.program().expect("python3 is there: every fixture needs it")
}

/// A program that every user may execute.
pub(crate) fn public(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/local/bin", "/bin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.exists())
}

/// What it takes to run allcores as [`NOBODY`]; `None` where that can't be done.
pub(crate) fn as_nobody() -> Option<Vec<OsString>> {
    let setpriv = public("setpriv").filter(|_| rustix::process::geteuid().is_root())?;
    let words = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let mut wrapper = vec![setpriv.into_os_string()];
    wrapper.extend(words.map(OsString::from));
    let mut probe = std::process::Command::new(&wrapper[0]);
    probe.args(&wrapper[1..]).arg(env!("CARGO_BIN_EXE_allcores")).arg("--version");
    probe.output().is_ok_and(|output| output.status.success()).then_some(wrapper)
}

/// Makes one request on a connection of its own and gives the body.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LONG)?;
    stream.set_read_timeout(Some(LONG))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) if !body.is_empty() => Ok(body.trim().to_owned()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Makes requests until one is served by this process.
#[track_caller]
pub(crate) fn get_from(address: SocketAddr, path: &str, pid: u32) {
    let deadline = Instant::now() + LONG;
    while get(address, path).ok() != Some(pid.to_string()) {
        assert!(Instant::now() < deadline, "process {pid} never answered {path}");
    }
}

/// Makes requests until so many processes have answered some.
#[track_caller]
pub(crate) fn served_by_each(address: SocketAddr, processes: usize) {
    let deadline = Instant::now() + LONG;
    let mut seen = BTreeSet::new();
    while seen.len() < processes {
        seen.extend(get(address, "/"));
        assert!(Instant::now() < deadline, "{seen:?} of {processes} answered");
    }
}

/// Waits for an event after `position`.
#[track_caller]
pub(crate) fn wait_since(app: &RunningApp, position: usize, is_it: impl FnMut(&Event) -> bool) -> Event {
    app.wait_for_since(position, is_it, LONG).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Waits until so many workers were ready.
#[track_caller]
pub(crate) fn ready(app: &RunningApp, workers: usize) -> Vec<Event> {
    app.wait_ready(workers).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Stops an app as an operator would, and looks at how it went.
#[track_caller]
pub(crate) fn stop(app: &RunningApp) -> String {
    app.signal(rustix::process::Signal::TERM).unwrap();
    ended(app, 0)
}

/// Waits for an app's end and gives everything that it printed.
///
/// The claims that hold of every end: this exit code, no panic, and nothing left behind.
#[track_caller]
pub(crate) fn ended(app: &RunningApp, code: i32) -> String {
    let status = app.wait(LONG).unwrap_or_else(|error| panic!("{error:#}"));
    let lines = app.wait_output(LONG).unwrap_or_else(|error| panic!("{error:#}"));
    let text = lines.join("\n");
    assert_eq!(status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    nothing_is_left(app);
    text
}

/// Claims that an app left no process and no entry of its runtime folder.
#[track_caller]
pub(crate) fn nothing_is_left(app: &RunningApp) {
    let mark = format!("ALLCORES_RUNTIME_DIR={}", app.runtime_folder().display());
    for pid in processes_with(&mark) {
        // It may be on its way out: whether it is, its descriptor tells.
        assert!(ends(pid), "process {pid} was left: {}", command_line(pid));
    }
    let entries: Vec<_> =
        fs::read_dir(app.runtime_folder()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(entries.is_empty(), "left in the runtime folder: {entries:?}");
}

/// All processes that were started with this entry in their environment.
fn processes_with(mark: &str) -> Vec<u32> {
    let has_mark = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    all_processes().into_iter().filter(has_mark).collect()
}

pub(crate) fn all_processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Waits for the end of any process.
pub(crate) fn ends(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&limit)).is_ok_and(|count| count > 0)
}

/// What a process was started as.
pub(crate) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// A line of `/proc/PID/status`.
pub(crate) fn status_line(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

/// Claims that a text has all these parts.
#[track_caller]
pub(crate) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}
