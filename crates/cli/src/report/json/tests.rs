//! The shapes that programs rely on.

use std::time::Duration;

use allcores::primary::{Event, Holder, Lack, Outcome, Policy, Reason, Stream, WorkerRef};
use allcores::{ExitStatus, Rung, Slot, WorkerId};
use serde_json::{Value, json};

use super::{dropped, event, of_line, stopped};
use crate::log::Line;
use crate::verdict::Verdict;

const WORKER: WorkerRef = WorkerRef { id: WorkerId(7), slot: Slot(2), pid: 123 };

/// The object without its time, which is checked to be there.
fn object(line: &[u8]) -> Value {
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    let mut object: Value = serde_json::from_slice(line).unwrap();
    let time = object.as_object_mut().unwrap().remove("time").unwrap();
    humantime::parse_rfc3339(time.as_str().unwrap()).unwrap();
    object
}

fn told(of: &Event<'_>) -> Value {
    object(&event("web", of))
}

#[test]
fn steps_of_a_worker_name_it() {
    let worker = json!({"id": 7, "slot": 2, "pid": 123});
    for (event, name) in [
        (Event::Forked { worker: WORKER }, "forked"),
        (Event::Online { worker: WORKER }, "online"),
        (Event::Ready { worker: WORKER }, "ready"),
        (Event::Draining { worker: WORKER }, "draining"),
    ] {
        assert_eq!(told(&event), json!({"app": "web", "event": name, "worker": worker}));
    }
    let hung = Event::Hung { worker: WORKER, stalled: Duration::from_millis(1500) };
    assert_eq!(told(&hung), json!({"app": "web", "event": "hung", "worker": worker, "stalled_seconds": 1.5}));
    let limit = Duration::from_mins(1);
    let late = Event::NotReady { worker: WORKER, lack: Lack::Word, limit };
    let shape =
        json!({"app": "web", "event": "not_ready", "worker": worker, "lack": "word", "limit_seconds": 60.0});
    assert_eq!(told(&late), shape);
    let unhealthy = Event::Unhealthy { worker: WORKER, reason: "it answered 500" };
    let shape = json!({"app": "web", "event": "unhealthy", "worker": worker, "reason": "it answered 500"});
    assert_eq!(told(&unhealthy), shape);
    let renewing = Event::Renewing { worker: WORKER, reason: Reason::Memory, memory: None };
    assert_eq!(
        told(&renewing),
        json!({"app": "web", "event": "renewing", "worker": worker, "reason": "memory"})
    );
    let listening =
        Event::Listening { worker: WORKER, address: "[::]:80", rung: Rung::Adopted, policy: &Policy::Lanes };
    let shape = json!({"app": "web", "event": "listening", "worker": worker, "address": "[::]:80",
        "rung": "adopted", "policy": "lanes"});
    assert_eq!(told(&listening), shape);
}

#[test]
fn an_exit_has_a_code_or_a_signal() {
    let exit = |status| {
        let (is_oom, is_expected, uptime) = (false, true, Duration::from_secs(2));
        told(&Event::Exited { worker: WORKER, status, is_oom, is_expected, uptime, cpu: Duration::ZERO })
    };
    let shape = |code: Option<i32>, signal: Option<&str>| {
        json!({"app": "web", "event": "exited", "worker": {"id": 7, "slot": 2, "pid": 123}, "code": code,
            "signal": signal, "oom": false, "expected": true, "uptime_seconds": 2.0})
    };
    assert_eq!(exit(ExitStatus::Code(3)), shape(Some(3), None));
    assert_eq!(exit(ExitStatus::Signal(9)), shape(None, Some("SIGKILL")));
}

#[test]
fn troubles_say_what_is_known() {
    let respawning = Event::Respawning { slot: Slot(2), delay: Duration::from_millis(200) };
    let shape = json!({"app": "web", "event": "respawning", "slot": 2, "delay_seconds": 0.2});
    assert_eq!(told(&respawning), shape);

    let last_output = [b"a".to_vec(), b"\xff".to_vec()];
    let status = ExitStatus::Code(1);
    let crash_loop =
        Event::CrashLoop { slot: Slot(2), exits: 6, status, last_output: &last_output, has_served: true };
    let shape = json!({"app": "web", "event": "crash_loop", "slot": 2, "exits": 6, "code": 1, "signal": null,
        "last_output": ["a", "\u{fffd}"]});
    assert_eq!(told(&crash_loop), shape);

    let spawn_failed = Event::SpawnFailed { slot: Slot(2), reason: "no memory" };
    let shape = json!({"app": "web", "event": "spawn_failed", "slot": 2, "reason": "no memory"});
    assert_eq!(told(&spawn_failed), shape);

    let holder = Holder { pid: 5, command: "nginx".into() };
    let unavailable = Event::AddressUnavailable {
        worker: WORKER,
        address: "[::]:80",
        reason: "in use",
        holder: Some(&holder),
    };
    let shape = json!({"app": "web", "event": "address_unavailable", "address": "[::]:80", "reason": "in use",
        "worker": {"id": 7, "slot": 2, "pid": 123}, "holder": {"pid": 5, "command": "nginx"}});
    assert_eq!(told(&unavailable), shape);
}

#[test]
fn workers_lines_are_text() {
    let output =
        Event::Output { worker: WORKER, stream: Stream::Stderr, line: b"a\"b\xff", is_partial: true };
    let shape = json!({"app": "web", "event": "output", "worker": {"id": 7, "slot": 2, "pid": 123},
        "stream": "stderr", "line": "a\"b\u{fffd}", "partial": true});
    assert_eq!(told(&output), shape);
}

#[test]
fn lines_of_a_log_are_what_they_were_and_name_no_process() {
    let line = |text: &str| String::from_utf8(of_line("web", &Line::read(text.as_bytes()))).unwrap();
    assert_eq!(
        line("2026-01-02T03:04:05.678Z 0:17 err+ GET /"),
        "{\"time\":\"2026-01-02T03:04:05.678Z\",\"app\":\"web\",\"event\":\"output\",\"worker\":{\"id\":17,\"slot\":0},\
         \"stream\":\"stderr\",\"line\":\"GET /\",\"partial\":true}\n"
    );
    assert_eq!(
        line("2026-01-02T03:04:05.702Z - warning x"),
        "{\"time\":\"2026-01-02T03:04:05.702Z\",\"app\":\"web\",\"event\":\"note\",\"level\":\"warning\",\"text\":\"x\"}\n"
    );
    assert_eq!(
        line("panicked"),
        "{\"time\":null,\"app\":\"web\",\"event\":\"note\",\"level\":null,\"text\":\"panicked\"}\n"
    );
}

#[test]
fn the_rest_is_short() {
    assert_eq!(told(&Event::Notice { text: "x" }), json!({"app": "web", "event": "notice", "text": "x"}));
    assert_eq!(told(&Event::Stopping), json!({"app": "web", "event": "stopping"}));
    assert_eq!(object(&dropped("web", 3)), json!({"app": "web", "event": "dropped", "lines": 3}));
    let outcome = Outcome::NotAServer;
    let verdict = Verdict::of(&outcome, "true");
    let shape = json!({"app": "web", "event": "stopped", "outcome": "not_a_server", "exit_code": 3,
        "message": verdict.message, "next": verdict.next});
    assert_eq!(object(&stopped("web", &outcome, &verdict)), shape);
}

#[test]
fn every_event_is_in_the_reference() {
    let page = include_str!("../../../../../docs/reference/events.md");
    for event in [
        "forked",
        "online",
        "listening",
        "ready",
        "hung",
        "draining",
        "exited",
        "respawning",
        "crash_loop",
        "spawn_failed",
        "address_unavailable",
        "notice",
        "stopping",
        "output",
        "dropped",
        "stopped",
    ] {
        assert!(page.contains(&format!("| `{event}` |")), "docs/reference/events.md lacks {event}");
    }
}
