//! What people read.

use std::time::Duration;

use allcores::primary::{Event, Policy, Reason, Stream, WorkerRef};
use allcores::{ExitStatus, Rung, Slot, WorkerId};

use super::{Level, Pretty};
use crate::paint::Paint;

const WORKER: WorkerRef = WorkerRef { id: WorkerId(1), slot: Slot(0), pid: 123 };

fn pretty() -> Pretty {
    Pretty::new("web", 11, Paint::off(), Paint::off())
}

fn said(event: &Event<'_>) -> (Level, String) {
    let (level, words) = Pretty::event(event).unwrap();
    (level, pretty().dress(&words, None))
}

#[test]
fn workers_lines_carry_their_slot() {
    assert_eq!(pretty().output(Slot(3), Stream::Stdout, b"hi \xff"), b" 3 | hi \xff\n");
    let painted = Pretty::new("web", 2, Paint::on(), Paint::off());
    assert_eq!(painted.output(Slot(0), Stream::Stdout, b"x"), b"\x1b[36m0 |\x1b[0m x\n");
    assert_eq!(painted.output(Slot(0), Stream::Stderr, b"x"), b"0 | x\n");
}

#[test]
fn a_listening_worker_says_where_and_how() {
    let event = Event::Listening {
        worker: WORKER,
        address: "127.0.0.1:8080",
        rung: Rung::Adopted,
        policy: &Policy::Lanes,
    };
    let (level, text) = said(&event);
    assert_eq!(level, Level::Info);
    assert_eq!(
        text,
        "allcores  web: worker 1 (slot 0, pid 123) listening on 127.0.0.1:8080 (adopted, lanes)\n"
    );
}

#[test]
fn an_exit_says_why() {
    let exit = |status, is_oom, is_expected| {
        let uptime = Duration::from_secs(3);
        said(&Event::Exited { worker: WORKER, status, is_oom, is_expected, uptime, cpu: Duration::ZERO })
    };
    let (level, text) = exit(ExitStatus::Signal(9), true, false);
    assert_eq!(level, Level::Warning);
    assert!(text.ends_with("exited: SIGKILL, killed for want of memory, after 3s\n"), "{text}");
    let (level, text) = exit(ExitStatus::Code(0), false, true);
    assert_eq!(level, Level::Info);
    assert!(text.ends_with("exited: exit code 0, after 3s\n"), "{text}");
}

#[test]
fn a_crash_loop_shows_the_last_lines_and_what_to_do() {
    let last_output = [b"Error: boom".to_vec()];
    let event = |has_served| Event::CrashLoop {
        slot: Slot(0),
        exits: 6,
        status: ExitStatus::Code(1),
        last_output: &last_output,
        has_served,
    };
    let (level, text) = said(&event(true));
    assert_eq!(level, Level::Error);
    for part in ["CRASH LOOP", "6 workers", "exit code 1", "| Error: boom", "next:"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.lines().all(|line| line.starts_with("allcores  web: ")), "{text}");
    assert!(!said(&event(false)).1.contains("next:"), "it may be given up");
}

#[test]
fn a_worker_that_has_too_much_memory_is_said_to_have_how_much_of_how_much() {
    let event =
        Event::Renewing { worker: WORKER, reason: Reason::Memory, memory: Some((560_000_000, 536_870_912)) };
    let text = said(&event).1;
    assert!(text.ends_with("it has more memory than --max-memory: 534.0 MiB of 512.0 MiB\n"), "{text}");
}
