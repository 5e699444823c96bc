//! Runs two workers of a small server for a moment, as `allcores run` would run any, and looks what becomes of them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the little app may take to go.
const FAREWELL: Duration = Duration::from_secs(10);

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Both workers have answered on one port.
    Served(Way),
    Failed(String),
}

/// By which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Adopted, a lane for each.
    Lanes,
    Other(String),
}

/// Tries it.
pub(super) fn run() -> Trial {
    try_run().unwrap_or_else(Trial::Failed)
}

fn try_run() -> Result<Trial, String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let program = std::env::current_exe().map_err(failed("find allcores itself"))?;
    let address = free_address().map_err(failed("find a free port"))?;
    let folder = Folder::new().map_err(failed("make a folder for its control socket"))?;
    let mut command = Command::new(&program);
    command
        .args(["run", "--name", "doctor", "-w", "2", "--log-format", "json", "--kill-timeout", "1s", "--"])
        .arg(&program)
        .args(["demo-worker", &address.to_string()])
        .env("ALLCORES_RUNTIME_DIR", &folder.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // What systemd has passed is not for it.
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "NODE_CLUSTER_SCHED_POLICY"] {
        command.env_remove(name);
    }
    let app = App::start(&mut command).map_err(failed("start allcores"))?;
    let way = watch(&app.events)?;
    both_answer(address)?;
    Ok(Trial::Served(way))
}

/// Waits until both workers are ready; says by which way, or why not.
fn watch(events: &mpsc::Receiver<Value>) -> Result<Way, String> {
    let deadline = Instant::now() + PATIENCE;
    let (mut ways, mut ready, mut said) = (BTreeSet::new(), 0, None);
    while ready < 2 {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left).map_err(|_| {
            said.clone().unwrap_or_else(|| format!("{ready} of two workers were ready after {PATIENCE:?}"))
        })?;
        let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str() {
            Some("listening") => drop(ways.insert((word("rung"), word("policy")))),
            Some("ready") => ready += 1,
            Some("notice") => said = Some(word("text")),
            Some("address_unavailable") => return Err(said.unwrap_or_else(|| word("reason"))),
            Some("exited") => return Err(said.unwrap_or_else(|| "a worker could not have the port".into())),
            Some("stopped") => return Err(said.unwrap_or_else(|| word("message"))),
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
}

impl App {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.spawn()?;
        let (tell, events) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            // Ends with the app, whose workers write elsewhere.
            thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(Result::ok);
                let events = lines.filter_map(|line| serde_json::from_str(&line).ok());
                events.map_while(|event| tell.send(event).ok()).for_each(drop);
            });
        }
        Ok(Self { child, events })
    }
}

impl Drop for App {
    fn drop(&mut self) {
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

/// A folder that nobody else can get at, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("allcores-doctor-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        let _ = std::fs::remove_dir_all(path);
    }
}
