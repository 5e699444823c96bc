//! Whose orphans are.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use allcores_core::worker::Slot;
use tokio::sync::mpsc;

use super::*;
use crate::primary::engine::notify::tests::settings;
use crate::primary::worker::Worker;

#[tokio::test]
async fn an_orphan_is_of_its_worker_whatever_it_becomes_once_that_was_seen() {
    let mut engine = Engine::new(settings(None), None, mpsc::channel(1).0, Box::new(|_| {})).unwrap();
    let id = WorkerId(7);
    let nothing = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    engine.workers.insert(id, Worker::new(Slot(0), id, 1, std::process::id(), nothing));
    let mut orphan = Command::new("sh")
        .args(["-c", "read line; exec env -i sleep 60"])
        .envs([(WORKER_ID, "7"), ("ALLCORES_NAME", "test")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let of_seven = || proc::initial_env(orphan.id(), WORKER_ID).is_some_and(|worker| worker == "7");
    // The kernel says so only some moments after the program was begun.
    while !of_seven() {
        std::thread::yield_now();
    }
    assert!(!engine.is_left_behind(orphan.id()), "its worker is there");
    let mut input = orphan.stdin.take().unwrap();
    input.write_all(b"\n").unwrap();
    while proc::initial_env(orphan.id(), WORKER_ID).is_some() {
        std::thread::yield_now();
    }
    engine.workers.remove(&id);
    let is_left = engine.is_left_behind(orphan.id());
    orphan.kill().unwrap();
    orphan.wait().unwrap();
    assert!(is_left);
}
