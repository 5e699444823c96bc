//! Unix sockets: one for all workers, whoever unlinks its path.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use allcores_testing::app::App;
use allcores_testing::machine;
use allcores_testing::runtimes::{Runtime, fixture, require};

use crate::{app, proc};

const WORKERS: u16 = 4;

/// Asks at a Unix socket; gives the pid in the answer.
fn ask(path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(answer.clone()))?;
    assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200"), "{answer}");
    // Chunked or not, one line of it is the pid.
    let pid = body.lines().find(|line| line.len() > 1 && line.parse::<u32>().is_ok());
    Ok(pid.ok_or_else(|| io::Error::other(answer.clone()))?.to_owned())
}

/// Each worker answers at the socket when no other can, and the socket's file goes with the app.
fn shares_a_socket(runtime: Runtime, describe: impl FnOnce(&str) -> App) {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let path = app::socket_in(folder.path());
    let app = describe(&path).workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let status = app.status().unwrap();
    assert_eq!(status["listening"], serde_json::json!([path]), "{status:#}");
    let workers = app::workers(&status);
    let mut answered = BTreeMap::new();
    for (slot, worker) in &workers {
        let others = || workers.values().filter(|other| *other != worker);
        others().for_each(|other| proc::stop_group(*other));
        let pid = ask(&path);
        others().for_each(|other| proc::resume_group(*other));
        let pid = pid.unwrap_or_else(|error| panic!("the worker of slot {slot} is not reached: {error}"));
        answered.insert(app::slot_of(&workers, pid.parse().unwrap()), pid);
    }
    eprintln!("{runtime}: answered at the Unix socket: {answered:?}");
    let expected: Vec<_> = workers.keys().copied().map(Some).collect();
    assert_eq!(answered.keys().copied().collect::<Vec<_>>(), expected);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    let left: Vec<_> = folder.path().read_dir().unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [] as [OsString; 0], "files are left");
    assert!(!Path::new(&path).exists());
}

#[test]
fn node_workers_share_a_unix_socket() {
    let Some(node) = require(Runtime::Node) else { return };
    shares_a_socket(node, |path| app::script(node, "node-unix/server.js").env("SOCKET", path));
}

#[test]
fn python_workers_share_a_unix_socket_that_each_unlinks_first() {
    let Some(python) = require(Runtime::Python) else { return };
    shares_a_socket(python, |path| app::script(python, "python-unix/server.py").env("SOCKET", path));
}

#[test]
fn workers_that_start_together_find_the_file_that_they_have_bound_though_others_unlink_it() {
    let Some(python) = require(Runtime::Python) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = app::socket_in(folder.path());
    let app = app::script(python, "python-unix/server.py").env("SOCKET", &path).env("PAUSE", "0.04");
    let app = app.workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    assert!(ask(&path).is_ok());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    let exits: Vec<_> = app.events().into_iter().filter(|event| event.kind() == "exited").collect();
    let is_early = exits.iter().any(|event| event.value["expected"] == false);
    assert!(exits.len() == usize::from(WORKERS) && !is_early, "{:#?}", app.lines());
}

#[test]
fn the_file_is_there_for_those_that_stay_though_one_that_goes_removes_it() {
    let Some(python) = require(Runtime::Python) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = app::socket_in(folder.path());
    let app = app::script(python, "python-unix/server.py").env("SOCKET", &path).env("REMOVES", "1");
    let app = app.workers(2).start().unwrap();
    app.wait_ready(2).unwrap();
    let output = app.run(["scale", app.name(), "1"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    app.wait_count("exited", 1, Duration::from_secs(30)).unwrap();
    ask(&path).unwrap();
    app.stop().unwrap();
    assert!(!Path::new(&path).exists());
}

#[test]
fn gunicorn_workers_share_a_unix_socket_that_each_unlinks_first() {
    let Some(gunicorn) = require(Runtime::Gunicorn) else { return };
    shares_a_socket(gunicorn, |path| {
        let options = ["--no-control-socket".into(), "--bind".into(), format!("unix:{path}").into()];
        let command = [gunicorn.program().unwrap()].into_iter().chain(options).chain(["app:app".into()]);
        app::command(command).folder(fixture("gunicorn")).env("PYTHONDONTWRITEBYTECODE", "1")
    });
}

#[test]
fn uvicorn_workers_share_a_unix_socket_that_each_unlinks_first() {
    let Some(uvicorn) = require(Runtime::Uvicorn) else { return };
    shares_a_socket(uvicorn, |path| {
        let command = [uvicorn.program().unwrap(), "--uds".into(), path.into(), "app:app".into()];
        app::command(command).folder(fixture("uvicorn")).env("PYTHONDONTWRITEBYTECODE", "1")
    });
}
