//! What goes on in the primary's next program: everything that was known, and everything that happened in between.
//!
//! What happens in the very moment in which there is no program is made to happen by one that is a script at first: it is
//! executed in the primary's place, does its deed, and executes the real one.

mod control;
mod meanwhile;
mod service;

use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use allcores_testing::app::{App, RunningApp};
use allcores_testing::process::Event;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use rustix::process::Signal;

use crate::{app, proc};

const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a program of a line for a shell.
pub(crate) fn program(path: &Path, line: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Upgrades to a program; the exit code, and what was printed to stdout and stderr.
pub(crate) fn upgrade_to(app: &RunningApp, path: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let words = ["upgrade", app.name(), "--executable", path.to_str().unwrap()];
    ended(app.run(words.iter().chain(more)).unwrap())
}

/// Upgrades to the program under test, the one that runs.
#[track_caller]
pub(crate) fn upgrade(app: &RunningApp) {
    let (code, out, err) = ended(app.run(["upgrade", app.name()]).unwrap());
    assert_eq!(code, Some(0), "{out}{err}\n{:#?}", app.lines());
    assert!(out.contains("upgraded from allcores"), "{out}");
}

/// Upgrades to the program under test, by way of a script that does something in the primary's place.
#[track_caller]
pub(crate) fn upgrade_after(app: &RunningApp, deed: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allcores-next");
    let real = env!("CARGO_BIN_EXE_allcores");
    program(&path, &format!("[ \"$1\" = upgrade-check ] || {{ {deed}; }}\nexec {real} \"$@\""));
    let (code, out, err) = upgrade_to(app, &path, &[]);
    assert_eq!(code, Some(0), "{out}{err}\n{:#?}", app.lines());
}

fn ended(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Has an app listen where nobody else does.
fn somewhere(app: App) -> App {
    let address = address::unused();
    app.address(address)
}

/// An app of node, by its source.
fn node(source: &str) -> Option<App> {
    let node = require(Runtime::Node)?;
    Some(app::command([node.program().unwrap(), "-e".into(), source.into()]))
}

/// The same, run from a file, so that it is started with a channel.
fn node_script(folder: &Path, source: &str) -> Option<App> {
    let node = require(Runtime::Node)?;
    let path = folder.join("server.js");
    std::fs::write(&path, source).unwrap();
    Some(app::command([node.program().unwrap(), path.into()]))
}

fn python(source: &str) -> Option<App> {
    let python = require(Runtime::Python)?;
    Some(app::command([python.program().unwrap(), "-u".into(), "-c".into(), source.into()]))
}

fn is_line(event: &Event, line: &str) -> bool {
    event.kind() == "output" && event.value["line"] == line
}

#[track_caller]
fn wait_line(app: &RunningApp, line: &str) {
    app.wait_for(|event| is_line(event, line), PATIENCE).unwrap();
}

fn signal(pid: u32, signal: Signal) {
    proc::Process::open(pid).expect("it runs").signal(signal);
}

const SERVER: &str =
    "require('http').createServer((q, s) => s.end('ok')).listen(process.env.PORT, process.env.HOST)";

#[test]
fn workers_that_crash_after_an_upgrade_or_in_between_are_replaced_once() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node_script(folder.path(), SERVER) else { return };
    let app = somewhere(app.workers(2)).start().unwrap();
    app.wait_ready(2).unwrap();
    let workers = app::workers(&app.status().unwrap());
    upgrade_after(&app, &format!("kill -9 {}", workers[&0]));
    let end = app.wait_for(|event| event.kind() == "exited", PATIENCE).unwrap();
    assert_eq!((end.worker_pid(), &end.value["signal"]), (Some(workers[&0]), &"SIGKILL".into()));
    app.wait_ready(3).unwrap();
    signal(workers[&1], Signal::KILL);
    app.wait_ready(4).unwrap();
    let after = app::workers(&app.status().unwrap());
    assert!(after.values().all(|pid| !workers.values().any(|old| old == pid)), "{workers:?} {after:?}");
    let exits = app.events().iter().filter(|event| event.kind() == "exited").count();
    assert_eq!(exits, 2, "each was reaped once");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

/// Listens on two ports, and on one of them no more from the first connection to the other on.
const GIVES_ONE_UP: &str = "
import os, socket
def listen(port):
    s = socket.socket()
    s.bind((os.environ['HOST'], int(os.environ[port])))
    s.listen(16)
    return s
kept, other = listen('PORT'), listen('PORT2')
kept.accept()
other.close()
print('closed')
while True:
    kept.accept()";

#[test]
fn an_app_goes_on_whose_program_has_closed_one_of_its_listeners() {
    let _turn = machine::together();
    let Some(app) = python(GIVES_ONE_UP) else { return };
    let (kept, other) = (address::unused(), address::unused());
    let app = app.env("HOST", kept.ip().to_string()).env("PORT", kept.port().to_string());
    let app = app.env("PORT2", other.port().to_string()).workers(1).start().unwrap();
    let is_second = |event: &Event| event.value["address"] == other.to_string().as_str();
    app.wait_for(is_second, PATIENCE).unwrap();
    let _first = TcpStream::connect(kept).unwrap();
    wait_line(&app, "closed");
    let until = Instant::now() + PATIENCE;
    let mut waiting = Vec::new();
    while let Ok(connection) = TcpStream::connect(other) {
        assert!(Instant::now() < until, "nobody has seen that it is closed");
        waiting.push(connection);
        std::thread::sleep(Duration::from_millis(50));
    }
    upgrade(&app);
    TcpStream::connect(kept).unwrap();
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_signal_that_comes_in_between_is_obeyed_by_the_next_program() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node_script(folder.path(), SERVER) else { return };
    let app = somewhere(app.workers(1)).start().unwrap();
    app.wait_ready(1).unwrap();
    upgrade_after(&app, "kill -TTIN $$");
    app.wait_ready(2).unwrap();
    assert_eq!(app.status().unwrap()["target"], 2);
    upgrade_after(&app, "kill -HUP $$");
    app.wait_for(|event| event.kind() == "reloaded", PATIENCE).unwrap();
    assert_eq!(app.status().unwrap()["upgrades"], 2);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn sigusr2_upgrades_and_tells_so() {
    let _turn = machine::together();
    let Some(app) = node(SERVER) else { return };
    let app = somewhere(app.workers(1)).start().unwrap();
    app.wait_ready(1).unwrap();
    for count in 1..=3 {
        app.signal(Signal::USR2).unwrap();
        let is_it = |event: &Event| event.kind() == "upgraded" && event.value["upgrades"] == count;
        app.wait_for(is_it, PATIENCE).unwrap();
    }
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn scaling_and_reloading_go_on_and_node_is_still_told_to_disconnect() {
    const SOURCE: &str = "process.on('disconnect', () => console.log('told to go'));
        require('http').createServer((q, s) => s.end('ok')).listen(process.env.PORT, process.env.HOST)";
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node_script(folder.path(), SOURCE) else { return };
    let app = somewhere(app.workers(1)).start().unwrap();
    app.wait_ready(1).unwrap();
    let first = app::workers(&app.status().unwrap())[&0];
    upgrade(&app);
    app::scale(&app, 2);
    app.wait_ready(2).unwrap();
    upgrade(&app);
    let (code, out, err) = ended(app.run(["reload", app.name()]).unwrap());
    assert_eq!(code, Some(0), "{out}{err}");
    let told = |event: &Event| is_line(event, "told to go") && event.worker_pid() == Some(first);
    app.wait_for(told, PATIENCE).unwrap();
    let status = app.status().unwrap();
    assert_eq!((&status["generation"], &status["upgrades"]), (&2.into(), &2.into()));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_worker_that_leaves_by_itself_and_does_not_go_is_signalled_after_an_upgrade_too() {
    const SOURCE: &str = "setInterval(() => {}, 1000);
        process.on('SIGUSR2', () => require('cluster').worker.disconnect());
        require('http').createServer((q, s) => s.end('ok')).listen(process.env.PORT, process.env.HOST)";
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node_script(folder.path(), SOURCE) else { return };
    let app = somewhere(app.workers(1)).start().unwrap();
    app.wait_ready(1).unwrap();
    let first = app::workers(&app.status().unwrap())[&0];
    signal(first, Signal::USR2);
    upgrade(&app);
    app.wait_for(|event| event.kind() == "exited" && event.worker_pid() == Some(first), PATIENCE).unwrap();
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn what_a_program_binds_after_an_upgrade_or_in_between_is_answered() {
    const SOURCE: &str = "\
import os, signal, socket
def listen(name):
    listener = socket.socket()
    host, port = os.environ[name].split(':')
    listener.bind((host, int(port)))
    listener.listen()
    print('listens on ' + name)
    return listener
first = listen('FIRST')
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
signal.sigwait([signal.SIGUSR1])
second = listen('SECOND')
signal.sigwait([signal.SIGUSR1])
third = listen('THIRD')
signal.pause()
";
    let _turn = machine::together();
    let Some(mut app) = python(SOURCE) else { return };
    for name in ["FIRST", "SECOND", "THIRD"] {
        app = app.env(name, address::unused().to_string());
    }
    // Two workers, so that each address has to be shared between them.
    let app = app.workers(2).start().unwrap();
    app.wait_ready(2).unwrap();
    let workers = app::workers(&app.status().unwrap());
    for _ in 0..2 {
        wait_line(&app, "listens on FIRST");
    }
    upgrade(&app);
    for pid in workers.values() {
        signal(*pid, Signal::USR1);
    }
    let both = |line: &str| {
        let mut seen = 0;
        let count = |event: &Event| {
            seen += usize::from(is_line(event, line));
            seen == 2
        };
        app.wait_for(count, PATIENCE).unwrap();
    };
    both("listens on SECOND");
    let all: Vec<String> = workers.values().map(ToString::to_string).collect();
    upgrade_after(&app, &format!("kill -USR1 {}", all.join(" ")));
    both("listens on THIRD");
    let status = app.status().unwrap();
    assert_eq!(status["listening"].as_array().unwrap().len(), 3, "{status:#}");
    assert_eq!(app::workers(&status), workers);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_worker_on_its_way_up_is_heard_by_the_next_program() {
    const SOURCE: &str = "\
import os, signal, socket
listener = socket.socket()
listener.bind((os.environ['HOST'], int(os.environ['PORT'])))
listener.listen()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print('half a li', end='')
print('waits')
signal.sigwait([signal.SIGUSR1])
name = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1\\nSTATUS=at last', name)
print('ne')
signal.pause()
";
    let _turn = machine::together();
    let source = SOURCE.replace("print('waits')\n", "");
    let Some(app) = python(&source) else { return };
    let app = somewhere(app.workers(1).option("--wait-ready")).start().unwrap();
    app.wait_for(|event| event.kind() == "listening", PATIENCE).unwrap();
    let worker = app::workers(&app.status().unwrap())[&0];
    upgrade(&app);
    assert_eq!(app.status().unwrap()["workers"][0]["state"], "listening");
    upgrade_after(&app, &format!("kill -USR1 {worker}"));
    app.wait_ready(1).unwrap();
    wait_line(&app, "half a line");
    let status = app.status().unwrap();
    assert_eq!(status["workers"][0]["said_status"], "at last");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn health_that_was_seen_is_remembered_and_sickness_is_found() {
    const SOURCE: &str = "let code = 200; process.on('SIGUSR2', () => { code = 500 });
        require('http').createServer((q, s) => { s.statusCode = code; s.end() }).listen(process.env.PORT, process.env.HOST)";
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node_script(folder.path(), SOURCE) else { return };
    let options = ["--health-http=/", "--health-interval=100ms", "--health-threshold=2", "--watchdog=60s"];
    let app = options.into_iter().fold(app.workers(1), App::option);
    let app = somewhere(app).start().unwrap();
    app.wait_ready(1).unwrap();
    let worker = app::workers(&app.status().unwrap())[&0];
    upgrade_after(&app, &format!("kill -USR2 {worker}"));
    app.wait_for(|event| event.kind() == "unhealthy", PATIENCE).unwrap();
    let end = app.wait_for(|event| event.kind() == "exited", PATIENCE).unwrap();
    assert_eq!((end.worker_pid(), &end.value["expected"]), (Some(worker), &true.into()));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn an_upgrade_waits_for_a_reload_and_ends_with_the_app() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node_script(folder.path(), SERVER) else { return };
    let app = somewhere(app.workers(1)).start().unwrap();
    app.wait_ready(1).unwrap();
    let watching = |nth: usize| {
        app.wait_count("watching", nth, PATIENCE).unwrap();
    };
    std::thread::scope(|scope| {
        let reload = |canary: &'static str| {
            let app = &app;
            scope.spawn(move || app.run(["reload", app.name(), "--canary", canary]).unwrap())
        };
        let reloading = reload("500ms");
        watching(1);
        let (code, out, err) = ended(app.run(["upgrade", app.name()]).unwrap());
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(out.contains("waits: a reload is under way"), "{out}");
        assert_eq!(reloading.join().unwrap().status.code(), Some(0), "the reload was over before");
        let reloading = reload("60s");
        watching(2);
        let upgrading = scope.spawn(|| ended(app.run(["upgrade", app.name()]).unwrap()));
        // It is refused whether it came before the stop or after.
        assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
        let (code, out, err) = upgrading.join().unwrap();
        assert!(matches!(code, Some(12 | 5)), "{code:?} {out}{err}");
        reloading.join().unwrap();
    });
}

#[test]
fn a_unix_socket_that_is_shared_stays_where_it_is() {
    use std::io::{Read as _, Write as _};
    const SOURCE: &str =
        "require('net').createServer(s => s.resume().end(process.pid + '')).listen(process.env.SOCKET)";
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let socket = app::socket_in(folder.path());
    let Some(app) = node_script(folder.path(), SOURCE) else { return };
    let app = app.workers(2).env("SOCKET", socket.clone()).start().unwrap();
    app.wait_ready(2).unwrap();
    upgrade(&app);
    app::scale(&app, 3);
    let mut client = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    client.write_all(b"?").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    drop(client);
    assert!(app::workers(&app.status().unwrap()).values().any(|pid| pid.to_string() == text), "{text}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    assert!(!Path::new(&socket).exists());
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "only the script is left");
}

#[test]
fn what_the_app_will_need_and_has_gone_is_seen_before_anything_happens() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let (logs, log) = (folder.path().join("logs"), folder.path().join("logs/web.log"));
    std::fs::create_dir(&logs).unwrap();
    let Some(app) = node(SERVER) else { return };
    let app = app.workers(1).option(format!("--log-file={}", log.display()));
    let app = somewhere(app).start().unwrap();
    app.wait_ready(1).unwrap();
    let workers = app::workers(&app.status().unwrap());
    std::fs::remove_dir_all(&logs).unwrap();
    let (code, out, err) = ended(app.run(["upgrade", app.name()]).unwrap());
    assert_eq!(code, Some(12), "{out}{err}");
    assert!(err.contains(&format!("open the log {}: No such file", log.display())), "{err}");
    let status = app.status().unwrap();
    assert_eq!((&status["pid"], app::workers(&status)), (&app.pid().into(), workers.clone()));

    // One that goes when the next program has been asked is done without.
    std::fs::create_dir(&logs).unwrap();
    upgrade_after(&app, &format!("rm -r '{}'", logs.display()));
    let is_told = |event: &Event| {
        event.value["text"]
            .as_str()
            .is_some_and(|text| text.contains("nothing is logged until the next upgrade"))
    };
    app.wait_for(is_told, PATIENCE).unwrap();
    assert_eq!(app::workers(&app.status().unwrap()), workers);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    assert!(!app.events().iter().any(|event| event.kind() == "exited" && event.value["expected"] == false));
}

#[test]
fn an_app_whose_name_could_not_be_had_again_is_not_upgraded() {
    let _turn = machine::together();
    let Some(app) = node(SERVER) else { return };
    let app = somewhere(app.workers(1)).start().unwrap();
    app.wait_ready(1).unwrap();
    std::fs::remove_dir_all(app.runtime_folder().join(app.name())).unwrap();
    app.signal(Signal::USR2).unwrap();
    let refused = app.wait_for(|event| event.kind() == "upgrade_refused", PATIENCE).unwrap();
    assert!(refused.value["reason"].as_str().unwrap().contains("the lock of the app's name"), "{refused:?}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    assert!(!app.events().iter().any(|event| event.kind() == "exited" && event.value["expected"] == false));
}

#[test]
fn an_app_whose_folder_has_gone_is_upgraded_all_the_same() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node(SERVER) else { return };
    let app = somewhere(app.workers(1).folder(folder.path())).start().unwrap();
    app.wait_ready(1).unwrap();
    let describe = || {
        let (code, out, err) = ended(app.run(["describe", app.name(), "--json"]).unwrap());
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap()["folder"].clone()
    };
    let (workers, described) = (app::workers(&app.status().unwrap()), describe());
    folder.close().unwrap();
    for _ in 0..2 {
        upgrade(&app);
        assert_eq!(describe(), described);
    }
    assert_eq!(app::workers(&app.status().unwrap()), workers);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn what_a_person_sees_goes_on_with_the_exit_code() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) =
        node_script(folder.path(), "console.log('hello'); setTimeout(() => process.exit(7), 3000)")
    else {
        return;
    };
    // It never listens: the next program comes to the same verdict as this one would have.
    let app =
        app.workers(1).option("--max-restarts=0").option("--min-uptime=60s").on_screen().start().unwrap();
    while !app.lines().iter().any(|line| line == "0 | hello") {
        std::thread::yield_now();
    }
    upgrade(&app);
    assert_eq!(app.wait(PATIENCE).unwrap().code(), Some(3), "{:#?}", app.lines());
    let lines = app.wait_output(PATIENCE).unwrap();
    for part in ["upgraded from allcores", "exited: exit code 7", "gave up"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
}
