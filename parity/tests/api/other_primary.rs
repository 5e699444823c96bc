//! What needs a primary in a process of its own: its death, and its descriptors.

use std::process::Command;
use std::time::Duration;

use allcores_parity::process;
use allcores_testing::machine;
use allcores_testing::process::Process;
use serde_json::{Value, json};

use crate::{WORKER, listen};

const PATIENCE: Duration = Duration::from_secs(15);

fn primary(script: &Value, order: &Value) -> Process {
    let mut whole = json!({ "command": [WORKER, script.to_string()], "workers": 2, "policy": "auto" });
    whole.as_object_mut().unwrap().extend(order.as_object().unwrap().clone());
    Process::spawn(Command::new(env!("CARGO_BIN_EXE_parity-primary")).arg(whole.to_string())).unwrap()
}

/// A primary that ends when its two workers listen: they go as well, be they busy.
fn ends(script: &Value, how: &str, code: i32) {
    let _turn = machine::together();
    let primary = primary(script, &json!({ "ends": how }));
    let events = primary.wait_count("listening", 2, PATIENCE).unwrap();
    let pids: Vec<_> = events.iter().map(|event| event.worker_pid().unwrap()).collect();
    assert_eq!(primary.wait(PATIENCE).unwrap().code(), Some(code));
    for pid in pids {
        assert!(process::ends(pid), "worker {pid} lives on");
    }
}

/// cluster-primary-error
#[test]
fn primary_error() {
    ends(&json!([listen()]), "panic", 101);
}

/// cluster-primary-kill
#[test]
fn primary_kill() {
    ends(&json!([listen(), "spin"]), "exit", 0);
}

/// sequential/child-process-emfile: a fork without descriptors is an error, leaves nothing, and the next may succeed.
#[test]
fn emfile() {
    let _turn = machine::together();
    let output = Command::new(env!("CARGO_BIN_EXE_parity-starved")).arg(WORKER).output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((&*said, output.status.code()), ("Spawn, 1 left\n2 then\n", Some(0)), "{wrong}");
}
