//! Sockets that somebody else has bound, by the program with which systemd lets its activation be tried.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use allcores_testing::app::App;
use allcores_testing::runtimes::{Runtime, fixture};
use allcores_testing::{address, proc, skip};

use crate::folder::Folder;
use crate::systemd::Manager;

const ACTIVATE: &str = "/usr/bin/systemd-socket-activate";
const LONG: Duration = Duration::from_secs(30);

/// Runs the program whenever there is a first connection, as systemd does.
fn activated(listen: &str, options: &[&str], command: &[&str], env: &[(&str, String)]) -> App {
    let mut app = App::new(command.iter().copied())
        .binary(env!("CARGO_BIN_EXE_allcores"))
        .wrapper(wrapper(listen))
        .workers(2);
    for option in options {
        app = app.option(*option);
    }
    env.iter().fold(app, |app, (name, value)| app.env(*name, value))
}

fn wrapper(listen: &str) -> Vec<String> {
    let mut words = vec![ACTIVATE.to_owned(), "--fdname=front".to_owned(), format!("--listen={listen}")];
    // What is not named it does not pass on.
    words.extend(["ALLCORES_RUNTIME_DIR", "HOST", "PORT"].map(|name| format!("--setenv={name}")));
    words
}

fn python() -> String {
    Runtime::Python.program().unwrap().into_string().unwrap()
}

/// Waits until somebody listens there.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + LONG;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
    }
}

fn get(address: SocketAddr) -> String {
    answer(connect(address))
}

pub(crate) fn answer(mut stream: impl std::io::Read + std::io::Write) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    body.trim().to_owned()
}

#[test]
fn a_socket_that_was_passed_becomes_the_lanes_of_a_program_that_binds_by_itself() {
    if !Path::new(ACTIVATE).exists() {
        skip!("systemd-socket-activate: it is not installed");
    }
    let address = address::unused();
    let env = [("HOST", address.ip().to_string()), ("PORT", address.port().to_string())];
    let script = fixture("python-http/server.py");
    let app = activated(&address.to_string(), &[], &[&python(), script.to_str().unwrap()], &env);
    let app = app.start().unwrap();
    // The one by which it is started is served, and was in the queue of the socket that was passed.
    let first = get(address);
    app.wait_ready(2).unwrap();
    let answers: BTreeSet<String> = (0..50).map(|_| get(address)).chain([first]).collect();
    assert_eq!(answers.len(), 2, "each worker has a lane: {answers:?}");
    let status = app.status().unwrap();
    assert_eq!(status["addresses"][0]["policy"], "lanes");
    assert_eq!(status["workers"][0]["rung"], "adopted");
    assert!(app.events().iter().all(|event| event.kind() != "notice"), "{:#?}", app.lines());
    app.run(["reload", app.name()]).unwrap();
    let after: BTreeSet<String> = (0..50).map(|_| get(address)).collect();
    assert!(after.len() == 2 && after.is_disjoint(&answers), "{after:?} after {answers:?}");
    assert!(app.stop().unwrap().success());
}

#[test]
fn sockets_are_passed_on_under_their_names_if_that_is_asked_for() {
    if !Path::new(ACTIVATE).exists() {
        skip!("systemd-socket-activate: it is not installed");
    }
    let address = address::unused();
    let script = fixture("operate/takes_sockets.py");
    let command = [python(), script.to_str().unwrap().to_owned()];
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let app = activated(&address.to_string(), &["--pass-sockets"], &command, &[]).start().unwrap();
    let first = get(address);
    assert_eq!(first.split(' ').next(), Some("front"), "{first}");
    let deadline = Instant::now() + LONG;
    let mut answers = BTreeSet::from([first]);
    while answers.len() < 2 {
        assert!(Instant::now() < deadline, "{answers:?}");
        answers.insert(get(address));
    }
    assert_eq!(app.status().unwrap()["workers"][0]["rung"], "inherited");
    assert!(app.stop().unwrap().success());
}

#[test]
fn a_socket_of_another_user_is_shared_by_all_workers_and_that_is_said() {
    if !Path::new(ACTIVATE).exists() || !rustix::process::geteuid().is_root() {
        skip!("systemd-socket-activate, or a second user: we have none");
    }
    let address = address::unused();
    let mut wrapper = wrapper(&address.to_string());
    wrapper.extend(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned));
    let text = address.to_string();
    // A program that anybody can run.
    let app = activated(&text, &[], &[env!("CARGO_BIN_EXE_allcores"), "demo-worker", &text], &[]);
    let app = app.wrapper(wrapper).owner(65534).start().unwrap();
    let first = get(address);
    app.wait_ready(2).unwrap();
    let notice = app.wait_for(|event| event.kind() == "notice", LONG).unwrap();
    assert!(notice.value["text"].as_str().unwrap().contains("was bound by another user"), "{notice:?}");
    assert_eq!(app.status().unwrap()["addresses"][0]["policy"], "shared");
    assert!(!first.is_empty() && !get(address).is_empty());
    assert!(app.stop().unwrap().success());
}

#[test]
fn a_unix_socket_that_was_passed_is_shared_and_stays_when_the_app_goes() {
    if !Path::new(ACTIVATE).exists() {
        skip!("systemd-socket-activate: it is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let text = path.to_str().unwrap();
    let script = fixture("operate/unix_server.py");
    let app = activated(text, &[], &[&python(), script.to_str().unwrap(), text], &[]).start().unwrap();
    let deadline = Instant::now() + LONG;
    let stream = loop {
        match UnixStream::connect(&path) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&path);
    assert!(answer(stream).parse::<u32>().is_ok());
    app.wait_ready(2).unwrap();
    assert!(answer(UnixStream::connect(&path).unwrap()).parse::<u32>().is_ok());
    assert!(app.stop().unwrap().success());
    assert_eq!(inode(&path), before, "its workers unlinked it, and it is not ours");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_socket_that_nobody_uses_is_said_and_one_that_cannot_be_used_refused() {
    if !Path::new(ACTIVATE).exists() {
        skip!("systemd-socket-activate: it is not installed");
    }
    let (address, other) = (address::unused(), address::unused());
    let env = [("HOST", other.ip().to_string()), ("PORT", other.port().to_string())];
    let script = fixture("python-http/server.py");
    let app = activated(&address.to_string(), &[], &[&python(), script.to_str().unwrap()], &env);
    let app = app.start().unwrap();
    let _waits = connect(address);
    app.wait_ready(2).unwrap();
    let notice = app.wait_for(|event| event.kind() == "notice", LONG).unwrap();
    let text = notice.value["text"].as_str().unwrap();
    for part in [&address.to_string(), "front", "--pass-sockets"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(app.stop().unwrap().success());

    let folder = tempfile::tempdir().unwrap();
    let script =
        format!("LISTEN_PID=$$ LISTEN_FDS=1 exec {} run -- true 3</dev/null", env!("CARGO_BIN_EXE_allcores"));
    let mut command = Command::new("sh");
    let output = command.args(["-c", &script]).env("ALLCORES_RUNTIME_DIR", folder.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("descriptor 3") && text.contains("ListenStream="), "{text}");
}

/// Starts the app `web` as systemd would, told of it over its socket, with a socket that stays open there.
pub(crate) fn start(
    folder: &Folder,
    manager: &Manager,
    passed: Option<(&str, &OwnedFd)>,
    (server, address, policy): (Server, SocketAddr, &str),
) -> Child {
    let pass = match passed {
        Some((name, _)) => {
            format!("exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES='{name}' exec \"$@\"")
        }
        None => "exec \"$@\"".to_owned(),
    };
    let words =
        ["-c", &pass, "sh", env!("CARGO_BIN_EXE_allcores"), "run", "--name=web", "-w=2", "--policy", policy];
    let mut command = folder.command_of("sh".as_ref(), &words);
    let (runtime, script) = server;
    command.arg("--").arg(runtime.program().unwrap()).arg(fixture(script));
    command.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
    command.env("NOTIFY_SOCKET", manager.path()).env("FDSTORE", "16");
    if let Some((_, socket)) = passed {
        command.stdin(socket.try_clone().unwrap());
    }
    command.spawn().unwrap()
}

/// What runs a server, and its file.
pub(crate) type Server = (Runtime, &'static str);

pub(crate) const PYTHON: Server = (Runtime::Python, "python-http/server.py");

pub(crate) fn workers(folder: &Folder) -> BTreeSet<u32> {
    let status = folder.status("web");
    let pids = status["workers"].as_array().unwrap().iter().map(|worker| worker["pid"].as_u64().unwrap());
    pids.map(|pid| u32::try_from(pid).unwrap()).collect()
}

#[test]
fn who_connects_while_the_primary_is_dead_waits_in_a_passed_socket_for_the_next_one() {
    for policy in ["lanes", "shared"] {
        let (folder, manager) = (Folder::new(), Manager::new());
        let socket = OwnedFd::from(TcpListener::bind(folder.address).unwrap());
        let begin = || {
            let child = start(&folder, &manager, Some(("front", &socket)), (PYTHON, folder.address, policy));
            manager.hear("READY=1");
            child
        };
        let mut first = begin();
        let old = kill(&folder, &mut first);
        let waiting: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(folder.address).unwrap()).collect();
        let mut second = begin();
        assert_served(&folder, waiting, &old);
        // It stops, and the socket is there for who is next.
        folder.allcores(&["stop", "web"]).code(0);
        manager.hear("STOPPING=1");
        assert!(second.wait().unwrap().success());
        let waiting: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(folder.address).unwrap()).collect();
        manager.hear("STOPPING=1");
        let mut third = begin();
        assert_served(&folder, waiting, &old);
        folder.allcores(&["stop", "web"]).code(0);
        assert!(third.wait().unwrap().success());
    }
}

/// Kills the primary; its workers go with it. Gives these. Who is with one of them until then goes, too.
pub(crate) fn kill(folder: &Folder, primary: &mut Child) -> BTreeSet<u32> {
    let old = workers(folder);
    let processes: Vec<_> = old.iter().map(|pid| proc::Process::open(*pid).unwrap()).collect();
    primary.kill().unwrap();
    primary.wait().unwrap();
    assert!(processes.iter().all(|process| process.has_ended_within(LONG)));
    old
}

/// All of these are answered by workers that there are now.
#[track_caller]
pub(crate) fn assert_served(folder: &Folder, waiting: Vec<TcpStream>, old: &BTreeSet<u32>) {
    let answers: BTreeSet<u32> = waiting.into_iter().map(|stream| answer(stream).parse().unwrap()).collect();
    assert!(!answers.is_empty() && answers.is_subset(&workers(folder)), "{answers:?}");
    assert!(answers.is_disjoint(old), "{answers:?}");
}
