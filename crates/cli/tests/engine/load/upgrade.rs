//! The primary becomes another program under load, again and again, and nobody notices: no client, no worker.

use std::time::Duration;

use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, extent, machine};

use super::{let_pass, start};
use crate::upgrade::{program, upgrade, upgrade_to};
use crate::{app, proc};

const WORKERS: u16 = 2;

/// How many upgrades in a row; `ALLCORES_TEST_UPGRADES` asks for another number.
fn upgrades() -> u32 {
    extent::of("UPGRADES", 3)
}

fn loses_nothing(runtime: Runtime, policy: &str) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).policy(policy).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let (pid, before) = (app.pid(), app.status().unwrap());
    let workers = app::workers(&before);
    let descriptors = proc::descriptors(pid);
    let kept = Load::new(address).clients(4).keep_alive().spawn();
    let load = start(address);
    assert!(kept.wait_ok(100, Duration::from_secs(20)), "the app answers");
    for nth in 1..=upgrades() {
        upgrade(&app);
        let_pass(&load, 20);
        let status = app.status().unwrap();
        assert_eq!((&status["pid"], &status["upgrades"]), (&pid.into(), &nth.into()));
        assert_eq!(status["since"], before["since"]);
        assert_eq!(app::workers(&status), workers);
    }
    let (report, kept) = (load.stop(), kept.stop());
    eprint!("{runtime}, {policy}, {} upgrades: {report}on kept connections: {kept}", upgrades());
    assert!(report.is_clean(), "{report}");
    assert!(kept.is_clean(), "{kept}");
    // A question for the status may have one of its own open, and relief makes a queue of ours.
    let limit = descriptors.len() + 1;
    let after = proc::settled_descriptors(pid, limit);
    eprintln!("the primary's descriptors: {} before, {} after", descriptors.len(), after.len());
    assert!(after.len() <= limit, "{descriptors:#?} {after:#?}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

macro_rules! each {
    ($($name:ident: $runtime:ident, $policy:literal,)+) => {
        $(#[test]
        fn $name() {
            loses_nothing(Runtime::$runtime, $policy);
        })+
    };
}

each! {
    upgrading_the_primary_of_node_loses_nothing: Node, "auto",
    upgrading_the_primary_of_node_by_turns_loses_nothing: Node, "round-robin",
    upgrading_the_primary_of_node_of_sticky_clients_loses_nothing: Node, "sticky:cookie=sid",
    upgrading_the_primary_of_python_loses_nothing: Python, "lanes",
    upgrading_the_primary_of_python_on_one_listener_loses_nothing: Python, "shared",
}

/// A program that is no good, and what is said of it.
struct Bad {
    line: String,
    says: [&'static str; 2],
}

fn bad(line: impl Into<String>, says: [&'static str; 2]) -> Bad {
    Bad { line: line.into(), says }
}

/// Has the primary of an app under load become one after another, and none.
fn are_refused(all: Vec<Bad>) {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(node, address).workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let workers = app::workers(&app.status().unwrap());
    let before = proc::descriptors(app.pid()).len();
    let folder = tempfile::tempdir().unwrap();
    let executable = folder.path().join("allcores-next");
    let load = start(address);
    for Bad { line, says } in all {
        match line.as_str() {
            NOT_THERE => std::fs::remove_file(&executable).unwrap_or_default(),
            NOT_EXECUTABLE => std::fs::write(&executable, "x").unwrap(),
            line => program(&executable, line),
        }
        let (code, _, err) = upgrade_to(&app, &executable, &["--check-timeout", "500ms"]);
        assert_eq!(code, Some(12), "{line}: {err}");
        assert!(says.iter().all(|part| err.contains(part)), "{line}: {err}");
        let status = app.status().unwrap();
        assert_eq!((&status["pid"], &status["upgrades"]), (&app.pid().into(), &0.into()), "{line}");
        assert_eq!(app::workers(&status), workers, "{line}");
        let_pass(&load, 20);
        let _ = std::fs::remove_file(&executable);
    }
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    let after = proc::settled_descriptors(app.pid(), before + 1);
    assert!(after.len() <= before + 1, "{after:?}");
    // What was refused has left nothing behind.
    upgrade(&app);
    assert_eq!(app.status().unwrap()["upgrades"], 1);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

const NOT_THERE: &str = "(not there)";
const NOT_EXECUTABLE: &str = "(not executable)";
const REAL: &str = env!("CARGO_BIN_EXE_allcores");

#[test]
fn a_program_that_is_broken_is_refused_with_the_reason_and_nothing_is_lost() {
    are_refused(vec![
        bad(NOT_THERE, ["No such file", "runs on as it was"]),
        bad(NOT_EXECUTABLE, ["running ", "Permission denied"]),
        bad("echo no such library >&2; exit 1", ["exit code 1", "no such library"]),
        bad("kill -SEGV $$", ["ended by SIGSEGV", ""]),
        bad("echo on my way >&2; exec sleep 60", ["has not answered within 500ms", "on my way"]),
        bad("echo hello", ["hello", "no answer to the question"]),
        bad(format!("{REAL} upgrade-check && echo '#' >> $0"), ["was changed after it had been asked", ""]),
    ]);
}

#[test]
fn a_program_that_can_not_read_the_state_is_refused_with_the_reason_and_nothing_is_lost() {
    are_refused(vec![
        bad(
            format!("sed 's/^{{\"format\":[0-9]*/{{\"format\":99/' | {REAL} upgrade-check"),
            ["wrote it in format 99", "reads up to format"],
        ),
        bad(format!("head -c 1000 | {REAL} upgrade-check"), ["exit code 12", "no state of a primary"]),
        bad(
            format!("sed 's/\"phase\":\"running\"/\"phase\":\"asleep\"/' | {REAL} upgrade-check"),
            ["unknown variant `asleep`", "reading the state of allcores"],
        ),
    ]);
}
