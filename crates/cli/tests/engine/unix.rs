//! Unix sockets: one for all workers, whoever unlinks its path.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use allcores_testing::app::{App, RunningApp};
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

/// An app whose workers remove things, and one of which serves at first.
fn remover(folder: &Path, describe: impl FnOnce(App) -> App) -> Option<(RunningApp, PathBuf)> {
    let python = require(Runtime::Python)?;
    let path = folder.join("server.sock");
    let app = app::script(python, "python-unix/remover.py").env("SOCKET", &path).workers(1);
    let app = describe(app).start().unwrap();
    app.wait_ready(1).unwrap();
    Some((app, path))
}

/// Waits until something has come about.
#[track_caller]
fn wait_until(has_come: impl Fn() -> bool, app: &RunningApp) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !has_come() {
        assert!(Instant::now() < deadline, "{:#?}", app.lines());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_worker_may_remove_everything_but_the_file_of_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("result");
    let Some((app, path)) = remover(folder.path(), |app| app.env("RESULT", &result)) else { return };
    app::scale(&app, 2);
    wait_until(|| result.exists(), &app);
    // What became of each: what it was told, and whether it was there afterwards.
    let results: BTreeMap<String, (String, bool)> =
        serde_json::from_slice(&std::fs::read(&result).unwrap()).unwrap();
    let expected = [
        ("another file", "done", false),
        ("a file of that name elsewhere", "done", false),
        ("a symbolic link of that name", "done", false),
        ("one that is not there", "FileNotFoundError", false),
        ("a relative path", "done", false),
        ("through a symbolic link", "done", false),
        ("relative to a descriptor", "done", false),
        ("the socket", "done", true),
        ("the socket by a relative path", "done", true),
        ("the socket by dots", "done", true),
        ("the socket through a symbolic link", "done", true),
        ("the socket relative to a descriptor", "done", true),
        ("the socket with a slash", "NotADirectoryError", false),
        ("a folder", "IsADirectoryError", true),
        ("rmdir", "done", false),
        ("rmdir of the socket", "NotADirectoryError", true),
        ("bound twice", "OSError", true),
        ("bound through a symbolic link", "done", true),
        ("renamed", "done", true),
        ("removed until it is gone", "done", false),
    ];
    let expected = expected.map(|(what, said, is_there)| (what.into(), (said.into(), is_there)));
    assert_eq!(results, BTreeMap::from(expected), "{:#?}", app.lines());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    assert!(!path.exists());
}

#[test]
fn an_address_whose_only_worker_removes_and_closes_it_for_good_is_closed() {
    // With the first one's removal nobody is asked about; with the second one's the primary is.
    for is_asked in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let Some((app, path)) = remover(folder.path(), |app| app) else { return };
        if is_asked {
            let output = app.run(["reload", app.name()]).unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        UnixStream::connect(&path).unwrap();
        let worker = *app::workers(&app.status().unwrap()).values().next().unwrap();
        proc::Process::open(worker).unwrap().signal(rustix::process::Signal::USR1);
        wait_until(|| !path.exists(), &app);
        // Not only for a moment, until it is put back.
        std::thread::sleep(Duration::from_secs(2));
        assert!(!path.exists(), "asked: {is_asked}, {:#?}", app.lines());
        assert_eq!(app::workers(&app.status().unwrap()).values().next(), Some(&worker), "it goes on");
        app.stop().unwrap();
        assert!(!path.exists());
    }
}
