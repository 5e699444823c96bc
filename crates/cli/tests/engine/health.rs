//! When workers get connections, and when they are replaced though they run.

mod checks;
mod ready;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use allcores_testing::app::{App, Event, RunningApp};
use allcores_testing::runtimes::{Runtime, fixture};
use serde_json::Value;

use crate::app;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An app that runs this server of `tests/fixtures/health` in a folder, where files say what it does.
pub(crate) fn server(runtime: Runtime, folder: &Path, address: SocketAddr) -> App {
    let name = if runtime == Runtime::Python { "health/server.py" } else { "health/server.js" };
    let program = runtime.program().unwrap();
    let app = app::command([program, fixture(name).into_os_string()]).folder(folder);
    app.address(address)
}

fn touch(folder: &Path, name: &str) {
    std::fs::write(folder.join(name), "").unwrap();
}

/// Who answers, if it is a good answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<u32> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let body = body.lines().find(|line| line.len() > 1)?;
    head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| body.parse().ok()).flatten()
}

/// The worker in a slot as the status shows it, the newest if there are two.
pub(crate) fn worker(app: &RunningApp, slot: u64) -> Value {
    let status = app.status().unwrap();
    let mut workers = status["workers"].as_array().unwrap().iter().filter(|worker| worker["slot"] == slot);
    workers.next_back().cloned().unwrap()
}

pub(crate) fn pid(worker: &Value) -> u32 {
    worker["pid"].as_u64().unwrap().try_into().unwrap()
}

/// Waits for an event of one worker.
#[track_caller]
pub(crate) fn wait_for(app: &RunningApp, kind: &str, pid: u32) -> Event {
    app.wait_for(|event| event.kind() == kind && event.worker_pid() == Some(pid), PATIENCE).unwrap()
}

/// How many events of a kind there were.
pub(crate) fn count(app: &RunningApp, kind: &str) -> usize {
    app.events().iter().filter(|event| event.kind() == kind).count()
}
