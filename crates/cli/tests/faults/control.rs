//! The control API of an app with real workers.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use allcores_testing::address::unused;
use allcores_testing::app::RunningApp;
use allcores_testing::load::Load;
use allcores_testing::siege::{Means, Siege};
use allcores_testing::{extent, machine, skip};
use serde_json::Value;

use crate::support::{as_nobody, bad_python, public, ready, stop};

/// Asks an app's control socket as anybody can who has curl.
fn curl(app: &RunningApp, wrapper: &[std::ffi::OsString], arguments: &[&str]) -> (Option<i32>, String) {
    let socket = app.runtime_folder().join(app.name()).join("control.sock");
    let mut words = wrapper.iter().cloned().chain(["curl".into()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--silent", "--show-error", "--unix-socket"]).arg(socket);
    let output = command.args(["--write-out", "\n%{http_code}"]).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[track_caller]
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn is_time(value: &Value) -> bool {
    // RFC 3339, UTC, milliseconds: 2026-01-02T03:04:05.678Z
    value.as_str().is_some_and(|text| text.len() == 24 && text.ends_with('Z') && text.as_bytes()[10] == b'T')
}

#[test]
fn a_status_has_legal_values_in_every_field() {
    let address = unused();
    let app = bad_python("hang.py", address).workers(2).start().unwrap();
    let events = ready(&app, 2);
    let status = app.status().unwrap();
    let mut fields = keys(&status);
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "addresses",
            "failed_reload",
            "generation",
            "health",
            "hint",
            "listening",
            "name",
            "output",
            "pid",
            "policy",
            "reload",
            "since",
            "stopping",
            "strays",
            "target",
            "upgrades",
            "version",
            "workers"
        ]
    );
    assert_eq!((&status["name"], &status["pid"]), (&app.name().into(), &app.pid().into()));
    assert_eq!((&status["version"], &status["generation"]), (&env!("CARGO_PKG_VERSION").into(), &1.into()));
    assert_eq!(
        (&status["policy"], &status["target"], &status["strays"]),
        (&"auto".into(), &2.into(), &0.into())
    );
    assert_eq!(status["listening"], serde_json::json!([address.to_string()]));
    assert!(is_time(&status["since"]), "{status}");
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    for (slot, worker) in workers.iter().enumerate() {
        let event = events.iter().find(|event| event.slot() == Some(slot as u64)).unwrap();
        assert_eq!((&worker["slot"], &worker["id"]), (&slot.into(), &event.value["worker"]["id"]));
        assert_eq!(worker["pid"], event.value["worker"]["pid"]);
        assert_eq!((&worker["state"], &worker["rung"]), (&"ready".into(), &"adopted".into()));
        assert_eq!((&worker["restarts"], &worker["last_exit"]), (&0.into(), &Value::Null));
        assert_eq!(worker["lanes"], serde_json::json!([{"address": address.to_string(), "depth": 0}]));
        assert!(worker["rss_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{worker}");
        assert!(
            worker["cpu_seconds"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)),
            "{worker}"
        );
        assert!(is_time(&worker["since"]), "{worker}");
    }
    stop(&app);
}

#[test]
fn a_crash_is_in_the_status() {
    let app = bad_python("hang.py", unused()).workers(1).start().unwrap();
    let pid = ready(&app, 1)[0].worker_pid().unwrap();
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    ready(&app, 2);
    let worker = app.status().unwrap()["workers"][0].clone();
    assert_eq!((&worker["id"], &worker["slot"], &worker["restarts"]), (&2.into(), &0.into(), &1.into()));
    let exit = &worker["last_exit"];
    assert_eq!(
        (&exit["code"], &exit["signal"], &exit["oom"]),
        (&Value::Null, &"SIGKILL".into(), &false.into())
    );
    assert!(is_time(&exit["at"]), "{exit}");
    stop(&app);
}

#[test]
fn scaling_is_done_when_it_says_so() {
    let app = bad_python("hang.py", unused()).workers(1).start().unwrap();
    ready(&app, 1);
    for count in [3, 1, 2] {
        let output = app.run(["scale", app.name(), &count.to_string()]).unwrap();
        assert!(output.status.success(), "{output:?}");
        let status = app.status().unwrap();
        let workers = status["workers"].as_array().unwrap();
        assert_eq!(
            (status["target"].as_u64(), workers.len()),
            (Some(count), usize::try_from(count).unwrap())
        );
        assert!(workers.iter().all(|worker| worker["state"] == "ready"), "{status}");
        let slots: Vec<u64> = workers.iter().filter_map(|worker| worker["slot"].as_u64()).collect();
        assert_eq!(slots, (0..count).collect::<Vec<_>>());
    }
    stop(&app);
}

#[test]
fn curl_can_speak_to_it() {
    if public("curl").is_none() {
        skip!("curl is not installed");
    }
    let app = bad_python("hang.py", unused()).workers(1).start().unwrap();
    ready(&app, 1);
    let (code, text) = curl(&app, &[], &["http://x/v1/status"]);
    let (body, http) = text.rsplit_once('\n').unwrap();
    assert_eq!((code, http), (Some(0), "200"), "{text}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["pid"], app.pid());
    let (_, text) = curl(&app, &[], &["--data", r#"{"workers": 2}"#, "http://x/v1/scale"]);
    let (body, http) = text.rsplit_once('\n').unwrap();
    assert_eq!(http, "200", "{text}");
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["target"], 2);
    let (_, text) = curl(&app, &[], &["--request", "POST", "http://x/v1/stop"]);
    assert!(text.ends_with("\n202"), "{text}");
    crate::support::ended(&app, 0);
}

#[test]
fn other_users_are_kept_out() {
    let (Some(wrapper), Some(_)) = (as_nobody(), public("curl")) else {
        skip!("no other user can be tried as")
    };
    let app = bad_python("hang.py", unused()).workers(1).start().unwrap();
    ready(&app, 1);
    let (code, text) = curl(&app, &wrapper, &["http://x/v1/status"]);
    assert_ne!(code, Some(0), "{text}");
    // And if somebody opened the folder and the socket to them: the primary looks who it is.
    let folder = app.runtime_folder().join(app.name());
    for path in [app.runtime_folder(), &folder, &folder.join("control.sock")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let (code, text) = curl(&app, &wrapper, &["--data", "", "http://x/v1/stop"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("\n403") && text.contains("another user"), "{text}");
    let is_said = |event: &allcores_testing::app::Event| {
        event.value["text"]
            .as_str()
            .is_some_and(|text| text.contains("turned away") && text.contains("user 65534"))
    };
    app.wait_for(is_said, Duration::from_secs(30)).unwrap();
    std::fs::set_permissions(app.runtime_folder(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(app.status().unwrap()["workers"][0]["state"], "ready");
    stop(&app);
}

/// Waits for the answer to a request, as a person would.
fn status_in(app: &RunningApp) -> Duration {
    let begin = Instant::now();
    assert_eq!(app.status().unwrap()["workers"][0]["state"], "ready");
    begin.elapsed()
}

#[test]
fn clients_that_never_end_hold_up_neither_the_app_nor_who_commands_it() {
    let address = unused();
    let app = bad_python("hang.py", address).workers(1).start().unwrap();
    ready(&app, 1);
    let socket = app.runtime_folder().join(app.name()).join("control.sock");
    let connect = |begin: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(begin).unwrap();
        stream
    };
    // Some say nothing, some half of something, some never read, one sends a body that does not end.
    let mut held: Vec<UnixStream> = (0..100).map(|_| connect(b"")).collect();
    held.extend((0..50).map(|_| connect(b"POST /v1/scale HTTP/1.1\r\nhost: x\r\ncontent-le")));
    held.extend((0..50).map(|_| connect(b"GET /v1/events?output=true HTTP/1.1\r\nhost: x\r\n\r\n")));
    held.push(connect(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n{"));
    assert!(status_in(&app) < Duration::from_secs(2));
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    }
    // A thousand more find no room, and get it when those that say nothing have had their time.
    held.extend((0..800).map_while(|_| UnixStream::connect(&socket).ok()));
    assert!(held.len() > 300, "{}", held.len());
    let pid = app.pid();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(descriptors < 320, "{descriptors} descriptors");
    drop(held);
    assert!(status_in(&app) < Duration::from_secs(2));
    stop(&app);
}

#[test]
fn who_asks_much_and_reads_nothing_keeps_nobody_else_out() {
    let app = bad_python("hang.py", unused()).workers(1).start().unwrap();
    ready(&app, 1);
    let socket = app.runtime_folder().join(app.name()).join("control.sock");
    let question = "GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(40);
    // More than there is room for at a time.
    let held: Vec<UnixStream> = (0..300)
        .map_while(|_| {
            let mut stream = UnixStream::connect(&socket).ok()?;
            stream.write_all(question.as_bytes()).ok()?;
            Some(stream)
        })
        .collect();
    assert!(held.len() > 256, "{}", held.len());
    assert!(status_in(&app) < Duration::from_secs(2));
    drop(held);
    stop(&app);
}

/// Lays siege to the control socket of an app under load, until so many hostile requests or connections were made.
fn besieged(means: Means, made: u64) {
    let _turn = machine::alone();
    let address = unused();
    let app = at_two(address);
    // What the load and those who lay siege do must not take all of the machine.
    let load = Load::new(address).rate(200.0).spawn();
    assert!(load.wait_ok(100, Duration::from_secs(20)), "the app answers");
    let socket = app.runtime_folder().join(app.name()).join("control.sock");
    let siege = Siege::begin(&socket, means);
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut slowest = Duration::ZERO;
    while siege.made() < made {
        assert!(Instant::now() < deadline, "{} of {made}", siege.made());
        slowest = slowest.max(status_in(&app));
    }
    slowest = slowest.max(status_in(&app));
    assert!(load.wait_ok(load.ok() + 100, Duration::from_secs(20)), "the app still answers");
    let report = load.stop();
    drop(siege);
    eprintln!("{means:?}: the slowest status took {slowest:?}; {report}");
    assert!(report.is_clean(), "{report}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    stop(&app);
}

fn at_two(address: std::net::SocketAddr) -> RunningApp {
    let app = bad_python("hang.py", address).workers(2).start().unwrap();
    ready(&app, 2);
    app
}

#[test]
fn malformed_requests_cost_no_request_of_the_app_and_no_answer() {
    besieged(Means::Malformed(5000), extent::of("MALFORMED", 2000).into());
}

#[test]
fn requests_that_never_end_cost_no_request_of_the_app_and_no_answer() {
    // More than there is room for at a time.
    besieged(Means::Slow(1000), 1000);
}

#[test]
fn a_thousand_silent_connections_cost_no_request_of_the_app_and_no_answer() {
    besieged(Means::Silent(1000), 1000);
}
