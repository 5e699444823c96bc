//! A worker from its fork to its end, and what each side knows of it.

use allcores::{Event, ExitStatus, Signal, WorkerId, WorkerState};
use allcores_parity::stage::Seen;
use allcores_parity::{Stage, process};
use serde_json::{Value, json};

use crate::{builder, listen, play, stage};

/// How often a worker has been seen to disconnect and to exit.
fn ends(stage: &Stage, worker: WorkerId) -> (usize, usize) {
    let count = |is: &dyn Fn(&Seen) -> bool| stage.seen().iter().filter(|seen| is(seen)).count();
    let disconnects = count(&|seen| *seen == Seen::Disconnect(worker));
    (disconnects, count(&|seen| matches!(seen, Seen::Exit(id, _) if *id == worker)))
}

/// cluster-basic
#[test]
fn basic() {
    play(async {
        let mut stage = stage(json!([listen(), { "variable": "NODE_CHANNEL_FD" }, "tell"])).await;
        let worker = stage.fork().await;
        assert_eq!(worker.id(), WorkerId(1));
        // It does not wait for us to look.
        let begun = [WorkerState::Starting, WorkerState::Online, WorkerState::Listening];
        assert!(begun.contains(&worker.state()), "{:?}", worker.state());
        stage.online(&worker).await;
        let address = stage.listening(&worker).await;
        assert_eq!((address.address.as_deref(), address.fd), (Some("127.0.0.1"), None));
        let said = stage.message(&worker).await;
        assert_eq!(said["listening"], address.port);
        stage.message(&worker).await;
        let about = stage.message(&worker).await;
        assert_eq!((&about["id"], &about["pid"]), (&json!(1), &json!(worker.pid())));
        assert_eq!(worker.state(), WorkerState::Listening);
        worker.send(&json!({ "exit": 0 })).unwrap();
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
        assert_eq!(worker.state(), WorkerState::Dead);
        let mut kinds = stage.kinds(&worker);
        kinds.retain(|kind| ["fork", "online", "listening", "exit"].contains(kind));
        assert_eq!(kinds, ["fork", "online", "listening", "exit"]);
        assert_eq!(stage.fork().await.id(), WorkerId(2), "numbers are not used again");
    });
}

/// cluster-worker-init
#[test]
fn worker_init() {
    play(async {
        let mut stage = stage(json!([])).await;
        let worker = stage.fork().await;
        stage.online(&worker).await;
        worker.send("begin").unwrap();
        assert_eq!(stage.message(&worker).await, json!({ "heard": "begin" }));
        assert_eq!(worker.disconnect().await, ExitStatus::Code(0));
    });
}

/// cluster-worker-events: what is written before the worker runs is not lost, and comes once.
#[test]
fn worker_events() {
    play(async {
        let mut stage = stage(json!([])).await;
        let worker = stage.fork().await;
        assert!(worker.send("early").unwrap());
        worker.send("end").unwrap();
        stage.gone(&worker).await;
        assert_eq!(stage.message(&worker).await, json!({ "heard": "early" }));
        assert_eq!(stage.unread(), 0);
    });
}

/// cluster-worker-isconnected
#[test]
fn worker_is_connected() {
    play(async {
        let script = json!({ "now": ["tell"], "at_end": ["disconnect", "tell"] });
        let mut stage = stage(script).await;
        let worker = stage.fork().await;
        assert!(worker.is_connected());
        assert_eq!(stage.message(&worker).await["is_connected"], true);
        drop(worker.disconnect());
        stage.disconnect(&worker).await;
        assert!(!worker.is_connected());
        stage.gone(&worker).await;
        assert_eq!(stage.unread(), 0, "a worker that is not connected can say nothing");
    });
}

/// cluster-worker-isdead
#[test]
fn worker_is_dead() {
    play(async {
        let mut stage = stage(json!([])).await;
        let worker = stage.fork().await;
        assert!(!worker.is_dead());
        assert_eq!(worker.exit_status(), None);
        stage.online(&worker).await;
        worker.kill(Signal::KILL).unwrap();
        assert_eq!(stage.exit(&worker).await, ExitStatus::Signal(9));
        assert!(worker.is_dead());
        assert_eq!(worker.exit_status(), Some(ExitStatus::Signal(9)));
        assert_eq!(worker.exited().await, ExitStatus::Signal(9), "whoever asks later learns the same");
    });
}

/// Ends a worker that listens, and looks at what was told of it.
async fn ends_once(script: Value, end: impl AsyncFnOnce(&mut Stage, u32), status: ExitStatus) {
    let mut stage = stage(script).await;
    let worker = stage.fork().await;
    stage.online(&worker).await;
    let mut own = worker.events();
    end(&mut stage, worker.pid()).await;
    stage.disconnect(&worker).await;
    assert!(worker.state() >= WorkerState::Disconnected);
    assert_eq!(stage.gone(&worker).await, status);
    assert_eq!(worker.exited_after_disconnect(), Some(false));
    assert_eq!(ends(&stage, worker.id()), (1, 1));
    assert!(!process::exists(worker.pid()), "its process is gone");
    assert!(stage.cluster.workers().is_empty());
    let mut told = (0, 0);
    while let Some(event) = own.next().await {
        match event {
            Event::Disconnect { worker: one } if one == worker => told.0 += 1,
            Event::Exit { worker: one, status: how } if one == worker && how == status => told.1 += 1,
            _ => {}
        }
    }
    assert_eq!(told, (1, 1), "the worker's own events");
}

/// cluster-worker-exit
#[test]
fn worker_exit() {
    let exit = async |stage: &mut Stage, _| {
        stage.anybody().await;
        stage.cluster.workers()[0].send(&json!({ "exit": 42 })).unwrap();
    };
    play(ends_once(json!([listen()]), exit, ExitStatus::Code(42)));
}

/// cluster-worker-death
#[test]
fn worker_death() {
    play(async {
        let mut stage = stage(json!([{ "exit": 42 }])).await;
        let worker = stage.fork().await;
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42));
        assert_eq!(worker.exited().await, ExitStatus::Code(42));
        assert_eq!(ends(&stage, worker.id()), (1, 1));
    });
}

/// cluster-worker-kill
#[test]
fn worker_kill() {
    let kill = async |stage: &mut Stage, pid| {
        stage.anybody().await;
        process::kill(pid);
    };
    play(ends_once(json!([listen()]), kill, ExitStatus::Signal(9)));
}

/// cluster-worker-kill-signal
#[test]
fn worker_kill_signal() {
    let kill = async |stage: &mut Stage, _| {
        stage.anybody().await;
        stage.cluster.workers()[0].kill(Signal::KILL).unwrap();
    };
    play(ends_once(json!([listen()]), kill, ExitStatus::Signal(9)));
}

/// cluster-kill-infinite-loop
#[test]
fn kill_infinite_loop() {
    play(async {
        let mut stage = stage(json!(["spin"])).await;
        let worker = stage.fork().await;
        stage.online(&worker).await;
        worker.kill(Signal::TERM).unwrap();
        assert_eq!(stage.gone(&worker).await, ExitStatus::Signal(15));
        assert_eq!(worker.exited_after_disconnect(), Some(false), "a signal is no wish");
    });
}

/// cluster-kill-disconnect, cluster-worker-destroy: it is known before either event.
#[test]
fn kill_disconnect() {
    play(async {
        for script in [
            json!([listen(), "disconnect", "end"]),
            json!([listen(), "kill"]),
            json!([listen(), "disconnect", "kill", "disconnect", "end"]),
        ] {
            let mut stage = stage(script).await;
            let worker = stage.fork().await;
            stage.disconnect(&worker).await;
            assert_eq!(worker.exited_after_disconnect(), Some(true));
            assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
            assert_eq!(worker.exited_after_disconnect(), Some(true));
        }
    });
}

/// cluster-call-and-destroy
#[test]
fn call_and_destroy() {
    play(async {
        let mut stage = stage(json!(["disconnect", "end"])).await;
        let worker = stage.fork().await;
        stage.disconnect(&worker).await;
        assert!(!worker.is_connected());
        worker.kill(Signal::KILL).unwrap();
        stage.exit(&worker).await;
        worker.kill(Signal::KILL).unwrap();
    });
}

/// cluster-worker-forced-exit: nothing of ours ends a process. Who was told takes its time; who lost its channel learns
/// of it, and goes as it likes.
#[test]
fn worker_forced_exit() {
    play(async {
        let script = json!({ "now": [], "at_end": [{ "exit": 42 }] });
        let mut stage = stage(script).await;
        let (told, cut) = (stage.fork().await, stage.fork().await);
        stage.online(&told).await;
        stage.online(&cut).await;
        process::hang_up(cut.pid());
        assert_eq!(stage.gone(&cut).await, ExitStatus::Code(42));
        assert_eq!(cut.exited_after_disconnect(), Some(false));
        stage.cluster.disconnect().await;
        assert_eq!(stage.gone(&told).await, ExitStatus::Code(42));
        assert_eq!(told.exited_after_disconnect(), Some(true));
    });
}

/// cluster-worker-disconnect
#[test]
fn worker_disconnect() {
    play(async {
        let script = json!({ "now": [listen()], "at_end": ["tell", "disconnect", { "exit": 42 }] });
        let mut stage = stage(script).await;
        let worker = stage.fork().await;
        stage.listening(&worker).await;
        stage.message(&worker).await;
        drop(worker.disconnect());
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42));
        assert_eq!(worker.exited_after_disconnect(), Some(true));
        assert_eq!(stage.message(&worker).await["exited_after_disconnect"], true, "the worker knows it too");
        assert!(!process::exists(worker.pid()));
    });
}

/// cluster-message
#[test]
fn message() {
    play(async {
        let mut stage = stage(json!([{ "say": "from the worker" }, "echo"])).await;
        let worker = stage.fork().await;
        let mut own = worker.events();
        assert_eq!(stage.message(&worker).await, "from the worker");
        let (sender, message) = own.next_message().await.unwrap();
        assert_eq!((sender, message.json()), (worker.clone(), r#""from the worker""#));
        worker.send(&json!({ "from": ["the", "primary"] })).unwrap();
        assert_eq!(stage.message(&worker).await, json!({ "from": ["the", "primary"] }));
    });
}

/// What `wait_ready` adds: a worker that listens may have more to do.
#[test]
fn says_that_it_is_ready() {
    play(async {
        let script = json!([listen(), { "say": "not yet" }]);
        let cluster = builder(script).workers(1).wait_ready(true).start().await.unwrap();
        let worker = cluster.workers().pop().unwrap();
        let mut events = worker.events();
        let mut is_asked = false;
        loop {
            match events.next().await.expect("it is there") {
                Event::Ready { .. } => break assert!(is_asked, "it has not said so"),
                // Behind that it listens.
                Event::Message { message, .. } if message.json() == r#""not yet""# => {
                    is_asked = true;
                    worker.send("ready").unwrap();
                }
                _ => {}
            }
        }
    });
}

/// What `keep` adds: Node leaves it to the program to fork again.
#[test]
fn kept_alive() {
    play(async {
        let mut stage = Stage::open(builder(json!([listen()])).workers(1).keep(true)).await;
        let first = stage.anybody().await.worker;
        stage.cluster.worker(first).unwrap().kill(Signal::KILL).unwrap();
        let second = stage.anybody().await.worker;
        assert_eq!((first, second), (WorkerId(1), WorkerId(2)));
    });
}
