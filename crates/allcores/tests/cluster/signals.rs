//! What SIGTERM does to a program that listens for it: to a primary that serves, and to a worker.

use std::pin::pin;
use std::time::Duration;

use allcores::{Signal, Worker, WorkerState};
use rustix::process::{getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::support::{exists, script, start, until, within};

fn terminate_this_process() {
    kill_process(getpid(), rustix::process::Signal::TERM).unwrap();
}

/// Two tests of one process would have each other's signals, so this is one: first the worker's half.
#[tokio::test]
async fn a_signal_is_heard_by_who_waits_and_not_forgotten_while_nobody_does() {
    let worker = Worker::alone();
    let mut heard = signal(SignalKind::terminate()).unwrap();
    let asked_once = tokio::time::timeout(Duration::from_millis(1), pin!(worker.shutdown())).await;
    assert!(asked_once.is_err(), "nobody has asked it to go");
    terminate_this_process();
    within("the signal", heard.recv()).await.unwrap();
    within("its shutdown", worker.shutdown()).await;
    within("its shutdown, asked again", worker.clone().shutdown()).await;

    let stubborn = "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); process.send('up');";
    let mut cluster = start(script(stubborn).workers(1)).await;
    until(&mut cluster, |event| matches!(event, allcores::Event::Message { .. }).then_some(())).await;
    let worker = cluster.workers()[0].clone();
    let serving = tokio::spawn(cluster.serve());
    let mut events = worker.events();
    // From its first poll on it listens; until then the stream above does, so that nothing ends the test.
    tokio::task::yield_now().await;
    terminate_this_process();
    let has_been_asked = async {
        while worker.exited_after_disconnect() != Some(true) {
            events.next().await.expect("it was not asked to go");
        }
    };
    within("its being asked to go", has_been_asked).await;
    assert!(worker.state() < WorkerState::Dead && exists(worker.pid()), "it takes its time");
    terminate_this_process();
    within("the end", serving).await.unwrap().unwrap();
    assert!(!exists(worker.pid()));
    assert_eq!(within("its end", worker.exited()).await, allcores::ExitStatus::Signal(9));
    worker.kill(Signal::TERM).unwrap();
}
