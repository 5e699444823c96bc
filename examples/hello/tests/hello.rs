//! The example in each of the ways that a program can be a worker: by its own primary, by `allcores run`, and alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use allcores_testing::app::{App, Event, RunningApp};
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use rustix::process::{Pid, Signal};
use serde_json::json;

const HELLO: &str = env!("CARGO_BIN_EXE_hello");

/// Longer than anything here takes on the slowest machine.
const BOUND: Duration = Duration::from_secs(30);

/// The program, started by hand, and what it says.
struct Hello {
    child: Child,
    lines: Receiver<String>,
}

impl Hello {
    fn start(address: SocketAddr, env: &[(&str, &str)]) -> Self {
        Self::run(Command::new(HELLO), address, env)
    }

    fn run(mut command: Command, address: SocketAddr, env: &[(&str, &str)]) -> Self {
        command.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
        let mut child =
            command.envs(env.iter().copied()).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let (said, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines }
    }

    /// Waits for lines with this in them.
    fn wait(&self, what: &str, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < count {
            let line = self.lines.recv_timeout(BOUND).unwrap_or_else(|_| panic!("{what:?} after {found:?}"));
            found.extend(line.contains(what).then_some(line));
        }
        found
    }

    /// Asks it to go, and waits until all that it said has been heard: until its workers have gone too.
    fn stop(mut self, signal: Signal) -> Vec<String> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(BOUND) {
            rest.push(line);
        }
        rest
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(address: SocketAddr, requests: u64) -> BTreeMap<String, u64> {
    let report = Load::new(address).requests(requests).run_blocking();
    assert!(report.is_clean() && report.ok == requests, "{report}");
    report.by_body
}

/// What a client of one address is told.
fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn run(command: &[&str], address: SocketAddr, policy: &str) -> RunningApp {
    let app = App::new(command.iter().copied()).workers(3).policy(policy);
    let app = app.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
    let app = app.start().unwrap();
    app.wait_ready(3).unwrap();
    app
}

#[test]
fn by_itself_it_is_a_primary_whose_workers_all_answer() {
    let _turn = machine::together();
    let address = address::unused();
    let hello = Hello::start(address, &[]);
    let cores = std::thread::available_parallelism().unwrap().get();
    let started = hello.wait(") started", cores);
    // Each has said so when it listens, which is a little before the last of them may be reached.
    let answers = answers(address, 200);
    assert_eq!(answers.len(), cores, "{answers:?} of {started:?}");
    assert!(answers.keys().all(|answer| answer.starts_with("hello from worker ")), "{answers:?}");
    let pid: i32 = started[0].split(['(', ')']).nth(1).unwrap().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    hello.wait("died", 1);
    hello.stop(Signal::TERM);
}

#[test]
fn under_allcores_run_it_is_a_worker_by_the_crate() {
    let _turn = machine::together();
    for policy in ["auto", "shared", "round-robin", "sticky"] {
        let address = address::unused();
        let app = run(&[HELLO], address, policy);
        let status = app.status().unwrap();
        assert_eq!(status["listening"], json!([address.to_string()]), "{status:#}");
        let workers = status["workers"].as_array().unwrap();
        assert!(workers.iter().all(|worker| worker["rung"] == "crate"), "{status:#}");
        let by_worker = answers(address, 90);
        // Chance may leave one out where the kernel wakes whom it likes.
        assert!(by_worker.len() == 3 || policy == "shared", "{policy}: {by_worker:?}");
        let mine: BTreeSet<String> = (0..10).map(|_| ask(address)).collect();
        assert!(mine.len() == 1 || policy != "sticky", "{mine:?}");
        assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    }
}

#[test]
fn a_worker_that_goes_is_replaced_and_the_next_is_of_the_crate_too() {
    let _turn = machine::together();
    for signal in [Signal::KILL, Signal::TERM] {
        let address = address::unused();
        let app = run(&[HELLO], address, "auto");
        let position = app.position();
        let pid = app.status().unwrap()["workers"][1]["pid"].as_i64().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
        let exited = app.wait_for_since(position, |event| event.kind() == "exited", BOUND).unwrap();
        // One that is asked to go finishes what it has.
        let (code, killed_by) = (&exited.value["code"], &exited.value["signal"]);
        assert!(
            if signal == Signal::KILL { killed_by == "SIGKILL" } else { code == 0 },
            "{:#}",
            exited.value
        );
        let is_ready = |event: &Event| event.kind() == "ready" && event.slot() == Some(1);
        app.wait_for_since(position, is_ready, BOUND).unwrap();
        assert_eq!(app.status().unwrap()["workers"][1]["rung"], "crate");
        let answers = answers(address, 90);
        assert!(answers.contains_key("hello from worker 4"), "{answers:?}");
        assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    }
}

#[test]
fn it_is_heard_by_the_primarys_next_program_too_and_those_that_come_find_that() {
    let _turn = machine::together();
    for policy in ["auto", "round-robin"] {
        let address = address::unused();
        let app = run(&[HELLO], address, policy);
        let command = |words: &[&str]| {
            let output = app.run(words).unwrap();
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        command(&["upgrade", app.name()]);
        assert_eq!(answers(address, 90).len(), 3);
        command(&["scale", app.name(), "4"]);
        let status = app.status().unwrap();
        assert!(
            status["workers"].as_array().unwrap().iter().all(|worker| worker["rung"] == "crate"),
            "{status:#}"
        );
        assert_eq!(answers(address, 120).len(), 4);
        // Each is told to go by its channel, and takes its time for that.
        assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
        assert!(
            app.events().iter().filter(|event| event.kind() == "exited").all(|end| end.value["code"] == 0)
        );
    }
}

#[test]
fn it_finds_its_primary_from_behind_wrappers() {
    let _turn = machine::together();
    for wrapper in
        ["\"$0\"; true", "setsid \"$0\" & wait", "env -u ALLCORES_SLOT -u ALLCORES_WORKER_ID \"$0\"; true"]
    {
        let address = address::unused();
        let app = run(&["sh", "-c", wrapper, HELLO], address, "auto");
        let status = app.status().unwrap();
        assert!(
            status["workers"].as_array().unwrap().iter().all(|worker| worker["rung"] == "crate"),
            "{status:#}"
        );
        assert_eq!(answers(address, 90).len(), 3);
        app.stop().unwrap();
    }
}

#[test]
fn one_that_does_not_find_it_is_adopted() {
    let _turn = machine::together();
    let address = address::unused();
    let app = run(&["env", "-u", "ALLCORES_CHANNEL", HELLO], address, "auto");
    let status = app.status().unwrap();
    assert!(
        status["workers"].as_array().unwrap().iter().all(|worker| worker["rung"] == "adopted"),
        "{status:#}"
    );
    assert_eq!(answers(address, 90).len(), 3);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_program_that_a_wrapper_starts_again_is_let_in_again() {
    let _turn = machine::together();
    let address = address::unused();
    // The first is killed, as by a wrapper that watches files; the second stays.
    let again = r#""$0" & echo "first $!"; wait $!; exec "$0""#;
    let app = App::new(["sh", "-c", again, HELLO]).workers(1);
    let app = app.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
    let app = app.start().unwrap();
    app.wait_ready(1).unwrap();
    let position = app.position();
    let first =
        app.lines().iter().find_map(|line| Some(line.split_once("first ")?.1[..].to_owned())).unwrap();
    let first = first.trim_end_matches(|end: char| !end.is_ascii_digit()).parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    app.wait_for_since(position, |event| event.kind() == "listening", BOUND).unwrap();
    assert_eq!(answers(address, 5), BTreeMap::from([("hello from worker 1".into(), 5)]));
    assert_eq!(app.status().unwrap()["workers"][0]["rung"], "crate");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_stranger_is_hung_up_on() {
    let _turn = machine::together();
    let address = address::unused();
    let app = run(&[HELLO], address, "auto");
    let pid = app.status().unwrap()["workers"][0]["pid"].as_u64().unwrap();
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environ = String::from_utf8(environ).unwrap();
    let name = environ.split('\0').find_map(|entry| entry.strip_prefix("ALLCORES_CHANNEL=")).unwrap();
    let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    for _ in 0..3 {
        let mut stranger = UnixStream::connect_addr(&name).unwrap();
        stranger.set_read_timeout(Some(BOUND)).unwrap();
        assert_eq!(stranger.read(&mut [0]).unwrap(), 0, "it is greeted");
    }
    assert_eq!(answers(address, 90).len(), 3);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn alone_it_is_one_server_that_ctrl_c_ends() {
    let _turn = machine::together();
    let address = address::unused();
    let hello = Hello::start(address, &[("ALLCORES_ROLE", "worker")]);
    hello.wait("worker 0", 1);
    assert_eq!(answers(address, 5), BTreeMap::from([("hello from worker 0".into(), 5)]));
    hello.stop(Signal::INT);
}

/// Node's own primary does not know that its workers are no node.
fn serves_a_primary_of_nodes(runtime: Runtime) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::together();
    for policy in ["rr", "none"] {
        let address = address::unused();
        let mut command = Command::new(runtime.program().unwrap());
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/primary.cjs")).arg(HELLO);
        let hello = Hello::run(command, address, &[("NODE_CLUSTER_SCHED_POLICY", policy)]);
        let listening = hello.wait("listening", 2);
        assert!(listening.iter().all(|line| line.contains(&address.to_string())), "{listening:?}");
        let by_worker = answers(address, 40);
        assert!(by_worker.len() == 2 || policy == "none", "{by_worker:?}");
        let said = hello.stop(Signal::TERM);
        // Both left because they were told to, in peace.
        let left = said.iter().filter(|line| line.contains("left 0 true")).count();
        assert_eq!(left, 2, "{said:?}");
    }
}

#[test]
fn it_serves_a_primary_of_node() {
    serves_a_primary_of_nodes(Runtime::Node);
}

#[test]
fn it_serves_a_primary_of_node22() {
    serves_a_primary_of_nodes(Runtime::Node22);
}

#[test]
fn it_serves_a_primary_of_node24() {
    serves_a_primary_of_nodes(Runtime::Node24);
}

#[test]
fn it_serves_a_primary_of_node26() {
    serves_a_primary_of_nodes(Runtime::Node26);
}
