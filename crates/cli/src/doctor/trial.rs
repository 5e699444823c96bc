//! Runs two workers of a small server for a moment, as `allcores run` would run any, and looks what becomes of them.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::runtime_folder::RuntimeFolder;

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the little app may take to go.
const FAREWELL: Duration = Duration::from_secs(10);

/// How many lines are told of what it has said last.
const LAST_LINES: usize = 4;

/// What the little app and its folder are called: their names are part of the path of a Unix socket, which can't be long.
const NAME: &str = "d";

/// How many folders that were left are looked past.
const MOST_LEFT: u32 = 1000;

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Both workers have answered on one port.
    Served(Way),
    Failed(String),
    /// It could not be begun, which says nothing about what was to be tried.
    NotTried(String),
}

/// By which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Adopted, a lane for each.
    Lanes,
    Other(String),
}

/// Tries it, with a control socket in this folder.
pub(super) fn run(folder: &Folder) -> Trial {
    try_run(folder).unwrap_or_else(|trial| trial)
}

fn try_run(folder: &Folder) -> Result<Trial, Trial> {
    let hindered = |what: &'static str| move |error: io::Error| Trial::NotTried(format!("{what}: {error}"));
    let program = std::env::current_exe().map_err(hindered("find allcores itself"))?;
    let address = free_address().map_err(hindered("find a free port"))?;
    let mut command = Command::new(&program);
    command
        .args(["run", "--name", NAME, "-w", "2", "--log-format", "json", "--kill-timeout", "1s", "--"])
        .arg(&program)
        .args(["demo-worker", &address.to_string()])
        .env("ALLCORES_RUNTIME_DIR", &folder.0);
    // What systemd has passed is not for it.
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "NODE_CLUSTER_SCHED_POLICY"] {
        command.env_remove(name);
    }
    let mut app = App::start(&mut command).map_err(hindered("start allcores"))?;
    let way = app.watch()?;
    both_answer(address).map_err(Trial::Failed)?;
    Ok(Trial::Served(way))
}

/// Asks until each worker has answered.
fn both_answer(address: SocketAddr) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let mut answers = BTreeSet::new();
    while answers.len() < 2 {
        if Instant::now() >= deadline {
            return Err(format!("only {} of two workers got connections", answers.len()));
        }
        let answer = ask(address).map_err(|error| format!("a connection to {address} failed: {error}"))?;
        answers.insert(answer);
    }
    Ok(())
}

/// Who answers.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: doctor\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default();
    // "worker 1 (slot 0, pid 7): …"
    Ok(body.split(':').next().unwrap_or_default().to_owned())
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The little app. It does not outlive this.
struct App {
    child: Child,
    /// What it tells, until it has ended.
    events: mpsc::Receiver<Value>,
    /// What it says of itself.
    words: mpsc::Receiver<String>,
}

impl App {
    fn start(command: &mut Command) -> io::Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let events = lines(child.stdout.take(), |line| serde_json::from_str(&line).ok());
        let words = lines(child.stderr.take(), Some);
        Ok(Self { child, events, words })
    }

    /// Waits until both workers are ready; says by which way, or why not.
    fn watch(&mut self) -> Result<Way, Trial> {
        let deadline = Instant::now() + PATIENCE;
        let (mut ways, mut ready, mut said) = (BTreeSet::new(), 0, None);
        while ready < 2 {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = match self.events.recv_timeout(left) {
                Ok(event) => event,
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) => {
                    let late = || format!("{ready} of two workers were ready after {PATIENCE:?}");
                    return Err(Trial::Failed(said.unwrap_or_else(late)));
                }
            };
            let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let failed = |said: Option<String>, else_: String| Err(Trial::Failed(said.unwrap_or(else_)));
            match event["event"].as_str() {
                Some("listening") => drop(ways.insert((word("rung"), word("policy")))),
                Some("ready") => ready += 1,
                Some("notice") => said = Some(word("text")),
                Some("address_unavailable") => return failed(said, word("reason")),
                Some("exited") => return failed(said, "a worker could not have the port".into()),
                Some("stopped") => return failed(said, word("message")),
                _ => {}
            }
        }
        let lanes = ("adopted".to_owned(), "lanes".to_owned());
        if ways.iter().all(|way| *way == lanes) {
            return Ok(Way::Lanes);
        }
        let ways: Vec<String> = ways.into_iter().map(|(rung, policy)| format!("{rung}, {policy}")).collect();
        Ok(Way::Other(ways.join("; ")))
    }

    /// Says why it has ended without a word about its workers.
    fn ended(&mut self) -> Trial {
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => return Trial::Failed(format!("wait for its end: {error}")),
        };
        let how = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
        let words: Vec<String> = self.words.iter().map(|line| line.trim().to_owned()).collect();
        let last = words[words.len().saturating_sub(LAST_LINES)..].join("; ");
        let why = format!("allcores ended by itself, {how}: {last}");
        // Such as a folder whose path is too long for a socket in it.
        if status.code() == Some(ExitCode::RuntimeFolder.number().into()) {
            return Trial::NotTried(why);
        }
        Trial::Failed(why)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Its number may be another's once its end was taken.
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + FAREWELL;
        let next = || self.events.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let end = std::iter::repeat_with(next).find_map(Result::err);
        if end == Some(RecvTimeoutError::Timeout) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// What is read there, line by line, until it ends with the app, whose workers write elsewhere.
fn lines<T: Send + 'static>(
    output: Option<impl Read + Send + 'static>,
    read: impl Fn(String) -> Option<T> + Send + 'static,
) -> mpsc::Receiver<T> {
    let (tell, told) = mpsc::channel();
    if let Some(output) = output {
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.filter_map(read).map_while(|line| tell.send(line).ok()).for_each(drop);
        });
    }
    told
}

/// A runtime folder of its own that nobody else can get at, hidden in the one that there is, and gone at the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it, as apps' folders are made.
    pub(super) fn new(runtime: &RuntimeFolder) -> Result<Self, Failure> {
        runtime.prepare()?;
        // One that was killed has left its own. By its process's number it would soon be another's, in a container.
        let mut number = 0;
        loop {
            let path = runtime.hidden(&format!("{NAME}{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST_LEFT => {
                    number += 1;
                }
                made => {
                    let made = made.with_context(|| format!("make the folder {}", path.display()));
                    return made
                        .map(|()| Self(path))
                        .map_err(|error| Failure::new(ExitCode::RuntimeFolder, error));
                }
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn watched(script: &str) -> Result<Way, Trial> {
        App::start(Command::new("sh").args(["-c", script])).unwrap().watch()
    }

    #[test]
    fn an_app_that_ends_by_itself_is_told_with_its_code_and_its_last_words() {
        let failed = watched("echo one two three four five | tr ' ' '\\n' >&2; exit 3");
        let why = "allcores ended by itself, exit code 3: two; three; four; five";
        assert_eq!(failed, Err(Trial::Failed(why.into())));
        let not_tried = watched("echo no room >&2; exit 7");
        assert_eq!(not_tried, Err(Trial::NotTried("allcores ended by itself, exit code 7: no room".into())));
        let killed = watched("kill -9 $$");
        assert!(matches!(&killed, Err(Trial::Failed(why)) if why.contains("signal: 9")), "{killed:?}");
    }

    #[test]
    fn what_another_has_left_is_in_nobodys_way() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = RuntimeFolder::at(parent.path().join("run"), false);
        let left = Folder::new(&runtime).unwrap();
        let folder = Folder::new(&runtime).unwrap();
        assert_ne!(left.0, folder.0);
        assert_eq!(std::fs::metadata(&folder.0).unwrap().permissions().mode() & 0o777, 0o700);
        drop((left, folder));
        assert_eq!(std::fs::read_dir(parent.path().join("run")).unwrap().count(), 0);
    }
}
