//! What is said of machines that allow all of it, or less.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{bad, python};

fn doctor(denied: Option<&str>, arguments: &[&str]) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_allcores");
    let mut command = match denied {
        Some(calls) => {
            let mut command = Command::new(python());
            command.arg(bad("deny.py")).arg(calls).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.arg("doctor").args(arguments).env("ALLCORES_RUNTIME_DIR", folder.path()).stdin(Stdio::null());
    (command.output().unwrap(), folder)
}

#[track_caller]
fn finding(output: &Output, what: &str) -> Value {
    let findings: Vec<Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    findings
        .into_iter()
        .find(|finding| finding["what"] == what)
        .unwrap_or_else(|| panic!("no {what}: {output:?}"))
}

#[test]
fn what_was_tried_and_works_is_good_and_nothing_is_left_of_it() {
    let (output, folder) = doctor(None, &["--json", "--", "node", "server.js"]);
    let adoption = finding(&output, "adoption");
    assert_eq!(adoption["grade"], "good", "{adoption}");
    assert!(adoption["found"].as_str().unwrap().contains("each got a lane"), "{adoption}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let (output, _) = doctor(None, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["good  adoption", "kernel", "open files", "`-w auto` means"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn all_that_the_trial_needs_is_the_runtime_folder_and_what_keeps_it_from_beginning_is_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = |runtime: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_allcores"));
        command.args(["doctor", "--json", "--", "sh"]).stdin(Stdio::null());
        command.env("ALLCORES_RUNTIME_DIR", runtime).env("TMPDIR", folder.path().join("none"));
        command.output().unwrap()
    };
    let adoption = finding(&doctor(&folder.path().join("run")), "adoption");
    assert_eq!(adoption["grade"], "good", "{adoption}");

    // No Unix socket has so long a path.
    let output = doctor(&folder.path().join("x".repeat(100)));
    let (adoption, command) = (finding(&output, "adoption"), finding(&output, "command"));
    let found = adoption["found"].as_str().unwrap();
    assert!(found.starts_with("not tried: ") && found.contains("exit code 7: "), "{adoption}");
    assert!(found.contains("control socket's path would have"), "{adoption}");
    assert_eq!((&adoption["grade"], &command["grade"]), (&"less".into(), &"less".into()), "{command}");

    std::fs::write(folder.path().join("file"), "").unwrap();
    let output = doctor(&folder.path().join("file"));
    let grades = ["runtime folder", "adoption"].map(|what| finding(&output, what)["grade"].clone());
    assert_eq!((output.status.code(), grades), (Some(1), ["bad".into(), "less".into()]));
}

#[test]
fn a_command_is_told_by_what_it_will_be_run_and_why() {
    let (output, _) = doctor(None, &["--json", "--", "sh", "-c", "exec ./server"]);
    let command = finding(&output, "command");
    assert!(command["found"].as_str().unwrap().contains("adoption"), "{command}");
    let (output, _) = doctor(None, &["--json", "--", "no-such-program"]);
    let command = finding(&output, "command");
    assert_eq!((output.status.code(), &command["grade"]), (Some(1), &"bad".into()), "{command}");
    assert!(command["found"].as_str().unwrap().contains("no folder of PATH"), "{command}");
}

#[test]
fn where_adoption_cannot_be_had_it_is_said_with_what_to_do() {
    let (output, _) = doctor(Some("seccomp"), &["--json", "--", "sh"]);
    let (adoption, command) = (finding(&output, "adoption"), finding(&output, "command"));
    assert_eq!((output.status.code(), &adoption["grade"]), (Some(1), &"bad".into()), "{adoption}");
    assert!(adoption["found"].as_str().unwrap().contains("adoption is not available"), "{adoption}");
    assert!(adoption["advice"].as_str().unwrap().contains("--listen"), "{adoption}");
    assert_eq!(command["grade"], "bad", "{command}");

    let (output, _) = doctor(Some("pidfd_getfd"), &["--json"]);
    let sockets = finding(&output, "sockets");
    assert_eq!((&sockets["grade"], &finding(&output, "adoption")["grade"]), (&"less".into(), &"good".into()));
    assert!(sockets["found"].as_str().unwrap().starts_with("pidfd_getfd: "), "{sockets}");
}
