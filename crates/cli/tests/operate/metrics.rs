//! Metrics: as Prometheus reads them, growing whatever becomes of workers, and nothing else on their address.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use allcores_testing::app::{App, RunningApp};
use allcores_testing::runtimes::Install;
use allcores_testing::{address, extent, skip};
use rustix::process::{Pid, Signal, kill_process};

use crate::folder::{Folder, Run};

const LONG: Duration = Duration::from_secs(30);

/// An app of two fast workers, that can be read at an address.
fn start(options: &[&str]) -> (RunningApp, SocketAddr) {
    start_by(&[], options)
}

fn start_by(shell: &[&str], options: &[&str]) -> (RunningApp, SocketAddr) {
    let (served, metrics) = (address::unused().to_string(), address::unused());
    let command = [shell, &[env!("CARGO_BIN_EXE_allcores"), "demo-worker", &served]].concat();
    let mut app = App::new(command).binary(env!("CARGO_BIN_EXE_allcores")).workers(2);
    for option in options.iter().map(|option| (*option).to_owned()).chain([format!("--metrics={metrics}")]) {
        app = app.option(option);
    }
    let running = app.start().unwrap();
    running.wait_ready(2).unwrap();
    (running, metrics)
}

fn get(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Every counter is still there, and no smaller.
#[track_caller]
fn assert_none_shrank(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
    for (name, value) in before {
        let now = after.get(name);
        assert!(now.is_some_and(|now| now >= value), "{name}: {value}, then {now:?}");
    }
}

/// Every sample that is a counter's.
fn counters(address: SocketAddr) -> BTreeMap<String, f64> {
    let (status, text) = get(address, "GET /metrics");
    assert_eq!(status, 200, "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| line.rsplit_once(' ').unwrap());
    let counters = samples.filter(|(name, _)| name.split('{').next().unwrap().ends_with("_total"));
    counters.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

#[test]
fn counters_only_grow_while_workers_are_killed() {
    // Each of its ends is early, and none of them is to be held against it.
    let (app, metrics) = start(&["--min-uptime=1ms"]);
    let respawns = extent::of("RESPAWNS", 50) as usize;
    let mut before = counters(metrics);
    for number in 1..=respawns {
        let worker =
            app.events().iter().rev().find(|event| event.kind() == "ready").unwrap().worker_pid().unwrap();
        kill_process(Pid::from_raw(worker.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
        app.wait_count("ready", 2 + number, LONG).unwrap();
        let after = counters(metrics);
        assert_none_shrank(&before, &after);
        before = after;
    }
    let sum = |name: &str| {
        let meant = before.iter().filter(|(key, _)| key.contains(name));
        meant.map(|(_, value)| value).sum::<f64>().to_string()
    };
    assert_eq!(sum("worker_starts_total"), (2 + respawns).to_string());
    assert_eq!(sum("reason=\"signalled\""), respawns.to_string());
    assert!(app.stop().unwrap().success());
}

#[test]
fn counters_and_the_log_go_on_over_upgrades_of_the_primary() {
    let folder = Folder::new();
    let log = folder.path().join("web.log");
    let (app, metrics) = start(&["--min-uptime=1ms", &format!("--log-file={}", log.display())]);
    let mut before = counters(metrics);
    for number in 1..=3 {
        let worker = app.events().iter().rev().find(|event| event.kind() == "ready").unwrap().worker_pid();
        kill_process(Pid::from_raw(worker.unwrap().try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
        app.wait_count("ready", 2 + number, LONG).unwrap();
        let upgraded = app.run(["upgrade", app.name()]).unwrap();
        Run::from(upgraded).code(0);
        app.wait_count("upgraded", number, LONG).unwrap();
        let after = counters(metrics);
        assert_none_shrank(&before, &after);
        before = after;
        let written = std::fs::read_to_string(&log).unwrap();
        assert_eq!(
            written.lines().filter(|line| line.contains("upgraded from allcores")).count(),
            number,
            "{written}"
        );
    }
    let signalled: f64 =
        before.iter().filter(|(key, _)| key.contains("signalled")).map(|(_, value)| value).sum();
    assert_eq!(signalled.to_string(), "3");
    assert!(app.stop().unwrap().success());
}

#[test]
fn what_a_worker_has_used_is_known_when_it_has_ended() {
    // Some hundred milliseconds of a core before it serves.
    let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; exec \"$@\"";
    let (app, metrics) = start_by(&["sh", "-c", burn, "sh"], &[]);
    app.run(["scale", app.name(), "1"]).unwrap();
    let used =
        counters(metrics)[&format!("allcores_worker_cpu_seconds_total{{app=\"{}\",slot=\"1\"}}", app.name())];
    assert!(used >= 0.05, "{used} s");
    assert!(app.stop().unwrap().success());
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let promtool = match Install::Promtool.product("promtool") {
        Ok(program) => program,
        Err(why) => skip!("promtool: {why:#}"),
    };
    let (app, metrics) = start(&["--health-tcp"]);
    app.run(["reload", app.name()]).unwrap();
    let (_, text) = get(metrics, "GET /metrics");
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let Run { code, out, err } = check.wait_with_output().unwrap().into();
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""), "{text}");
    assert!(app.stop().unwrap().success());
}

#[test]
fn the_address_of_metrics_tells_how_the_app_is_and_commands_nothing() {
    let (app, metrics) = start(&[]);
    // What waits in no queue is held by somebody.
    let served = app.status().unwrap()["listening"][0].as_str().unwrap().parse::<SocketAddr>().unwrap();
    let mut held: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(served).unwrap()).collect();
    for connection in &mut held {
        connection.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        connection.read_exact(&mut [0]).unwrap();
    }
    let (_, text) = get(metrics, "GET /metrics");
    let is_held = |line: &&str| line.starts_with("allcores_worker_connections{");
    let connections = text.lines().filter(is_held).map(|line| line.rsplit_once(' ').unwrap().1);
    assert_eq!(
        connections.map(|count| count.parse::<f64>().unwrap()).sum::<f64>().to_string(),
        "4",
        "{text}"
    );
    assert_eq!(get(metrics, "GET /live"), (200, r#"{"live":true}"#.into()));
    assert_eq!(get(metrics, "GET /ready"), (200, r#"{"ready":2,"target":2}"#.into()));
    drop(held);
    for request in ["GET /v1/status", "POST /v1/stop", "POST /metrics", "GET /"] {
        assert!(matches!(get(metrics, request).0, 404 | 405), "{request}");
    }
    let open =
        get(metrics, "GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0\r\nx: ");
    assert!(open.1.ends_with("# EOF\n"), "{}", open.1);
    assert!(app.stop().unwrap().success());
}

#[test]
fn an_address_for_metrics_that_is_taken_is_said_and_nothing_is_begun() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = Folder::new();
    let run = |metrics: &str| folder.allcores(&["run", "--name=web", "--metrics", metrics, "--", "false"]);
    run(&port).code(6).has(&[&format!("serve metrics on 127.0.0.1:{port}"), "in use", "--metrics"]);
    run("localhost:1").code(2).has(&["127.0.0.1:1"]);
    folder.allcores(&["status", "web"]).code(5);
}
