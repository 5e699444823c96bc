//! Beginning, ending, and what is known meanwhile.

use allcores::{AddressType, ErrorKind, ExitStatus, Signal, WorkerId, WorkerState};
use allcores_parity::stage::Seen;
use allcores_parity::{Run, client, on_each_node, process};
use serde_json::json;

const KILLED: ExitStatus = ExitStatus::Signal(9);
const TERMINATED: ExitStatus = ExitStatus::Signal(15);

on_each_node!(basic);
/// cluster-basic
async fn basic(run: Run) {
    let mut stage = run.stage("life.js", "basic").await;
    let worker = stage.fork().await;
    assert_eq!(worker.id(), WorkerId(1));
    stage.online(&worker).await;
    let hello = json!({ "id": 1, "isWorker": true, "isLeaked": false });
    assert_eq!(stage.message(&worker).await, hello);
    let address = stage.listening(&worker).await;
    assert_eq!(worker.state(), WorkerState::Listening);
    assert_eq!(address.address.as_deref(), Some("127.0.0.1"));
    assert_eq!((address.address_type, address.fd), (AddressType::Tcp4, None));
    assert!(address.port > 0);
    assert!(worker.send(&7).unwrap());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(7));
    assert_eq!(worker.state(), WorkerState::Dead);
    let kinds = stage.kinds(&worker);
    assert_eq!(kinds[..4], ["fork", "online", "message", "listening"]);
    assert_eq!(kinds.len(), 6, "each once: {kinds:?}");
}

on_each_node!(worker_init);
/// cluster-worker-init
async fn worker_init(run: Run) {
    let mut stage = run.stage("life.js", "worker_init").await;
    let worker = stage.fork().await;
    stage.online(&worker).await;
    worker.send("hello").unwrap();
    assert_eq!(stage.message(&worker).await, json!({ "text": "hello" }));
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(worker_events);
/// cluster-worker-events: what is sent right after the fork waits for the program.
async fn worker_events(run: Run) {
    let mut stage = run.stage("life.js", "worker_events").await;
    let worker = stage.fork().await;
    assert!(worker.send("early").unwrap());
    let heard = stage.message(&worker).await;
    assert_eq!(heard, json!({ "process": ["early"], "worker": ["early"] }));
}

on_each_node!(worker_is_connected);
/// cluster-worker-isconnected
async fn worker_is_connected(run: Run) {
    let mut stage = run.stage("life.js", "worker_is_connected").await;
    let worker = stage.fork().await;
    assert!(worker.is_connected());
    assert_eq!(stage.message(&worker).await, json!({ "isConnected": true }));
    worker.send("go").unwrap();
    stage.disconnect(&worker).await;
    assert!(!worker.is_connected());
    assert_eq!(stage.exit(&worker).await, ExitStatus::Code(42));
}

on_each_node!(worker_is_dead);
/// cluster-worker-isdead
async fn worker_is_dead(run: Run) {
    let mut stage = run.stage("life.js", "worker_is_dead").await;
    let worker = stage.fork().await;
    assert!(!worker.is_dead());
    assert_eq!(stage.message(&worker).await, json!({ "isDead": false }));
    worker.kill(Signal::TERM).unwrap();
    assert_eq!(stage.exit(&worker).await, TERMINATED);
    assert!(worker.is_dead());
}

/// What holds of every worker that goes without being asked to.
async fn goes_by_itself(run: Run, part: &str, kill: impl Fn(u32), status: ExitStatus) {
    let mut stage = run.stage("life.js", part).await;
    let worker = stage.fork().await;
    if part == "listens" {
        stage.listening(&worker).await;
        kill(worker.pid());
    }
    assert_eq!(stage.gone(&worker).await, status);
    assert_eq!(worker.exited_after_disconnect(), Some(false));
    assert_eq!(worker.state(), WorkerState::Dead);
    assert!(!process::exists(worker.pid()));
    let kinds = stage.kinds(&worker);
    for kind in ["disconnect", "exit"] {
        assert_eq!(kinds.iter().filter(|seen| **seen == kind).count(), 1, "{kinds:?}");
    }
}

on_each_node!(worker_exit);
/// cluster-worker-exit
async fn worker_exit(run: Run) {
    goes_by_itself(run, "exits_when_listening", |_| {}, ExitStatus::Code(42)).await;
}

on_each_node!(worker_death);
/// cluster-worker-death
async fn worker_death(run: Run) {
    goes_by_itself(run, "exits_at_once", |_| {}, ExitStatus::Code(42)).await;
}

on_each_node!(worker_kill);
/// cluster-worker-kill
async fn worker_kill(run: Run) {
    goes_by_itself(run, "listens", process::kill, KILLED).await;
}

on_each_node!(worker_kill_signal);
/// cluster-worker-kill-signal
async fn worker_kill_signal(run: Run) {
    let mut stage = run.stage("life.js", "listens").await;
    let worker = stage.fork().await;
    stage.online(&worker).await;
    worker.kill(Signal::KILL).unwrap();
    assert_eq!(stage.gone(&worker).await, KILLED);
    assert_eq!(worker.exited_after_disconnect(), Some(false));
    assert!(stage.cluster.workers().is_empty());
    assert!(!process::exists(worker.pid()));
}

on_each_node!(kill_infinite_loop);
/// cluster-kill-infinite-loop
async fn kill_infinite_loop(run: Run) {
    let mut stage = run.stage("life.js", "infinite_loop").await;
    let worker = stage.fork().await;
    stage.online(&worker).await;
    process::terminate(worker.pid());
    assert_eq!(stage.gone(&worker).await, TERMINATED);
}

on_each_node!(kill_disconnect);
/// cluster-kill-disconnect
async fn kill_disconnect(run: Run) {
    for part in ["disconnects_itself", "kills_itself"] {
        let mut stage = run.stage("life.js", part).await;
        let worker = stage.fork().await;
        let id = worker.id();
        let is_end =
            |seen: &Seen| *seen == Seen::Disconnect(id) || matches!(seen, Seen::Exit(who, _) if *who == id);
        stage.until("the first of both", |seen| seen.iter().any(is_end).then_some(())).await;
        assert_eq!(worker.exited_after_disconnect(), Some(true), "{part}");
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0), "{part}");
        assert_eq!(worker.exited_after_disconnect(), Some(true), "{part}");
    }
}

on_each_node!(worker_destroy);
/// cluster-worker-destroy
async fn worker_destroy(run: Run) {
    for part in ["destroys_itself", "destroys_itself_disconnected"] {
        let mut stage = run.stage("life.js", part).await;
        let worker = stage.fork().await;
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0), "{part}");
    }
}

on_each_node!(call_and_destroy);
/// cluster-call-and-destroy: to kill what is on its way out is no error.
async fn call_and_destroy(run: Run) {
    let mut stage = run.stage("life.js", "listens").await;
    let worker = stage.fork().await;
    stage.online(&worker).await;
    drop(worker.disconnect());
    stage.disconnect(&worker).await;
    assert!(!worker.is_connected());
    worker.kill(Signal::TERM).unwrap();
    stage.exit(&worker).await;
    worker.kill(Signal::TERM).unwrap();
}

on_each_node!(worker_forced_exit);
/// cluster-worker-forced-exit
async fn worker_forced_exit(run: Run) {
    let mut stage = run.stage("life.js", "forced_exit").await;
    let worker = stage.fork().await;
    stage.message(&worker).await;
    stage.cluster.disconnect().await;
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42));

    let worker = stage.fork().await;
    stage.message(&worker).await;
    process::hang_up(worker.pid());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(worker_no_exit);
/// cluster-worker-no-exit
async fn worker_no_exit(run: Run) {
    let (listener, port) = client::listener();
    let mut stage = run.stage_with("life.js", "no_exit", &json!({ "port": port })).await;
    let worker = stage.fork().await;
    let mut connection = client::accept(&listener);
    stage.message(&worker).await;
    drop(worker.disconnect());
    stage.disconnect(&worker).await;
    // It lives as long as its connection does.
    std::io::Write::write_all(&mut connection, b"still?").unwrap();
    assert_eq!(client::bytes(&connection, 6).unwrap(), "still?");
    assert!(!worker.is_dead());
    drop(connection);
    assert_eq!(stage.exit(&worker).await, ExitStatus::Code(0));
}

on_each_node!(worker_disconnect);
/// cluster-worker-disconnect
async fn worker_disconnect(run: Run) {
    let mut stage = run.stage("life.js", "exits_when_disconnected").await;
    let worker = stage.fork().await;
    stage.listening(&worker).await;
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert!(!process::exists(worker.pid()));
}

on_each_node!(worker_disconnect_on_error: shared, lanes);
/// cluster-worker-disconnect-on-error
async fn worker_disconnect_on_error(run: Run) {
    let (_listener, port) = client::listener();
    let mut stage = run.stage_with("life.js", "disconnects_on_error", &json!({ "port": port })).await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "EADDRINUSE");
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
}

on_each_node!(process_disconnect);
/// cluster-process-disconnect
async fn process_disconnect(run: Run) {
    let mut stage = run.stage("life.js", "process_disconnect").await;
    let worker = stage.fork().await;
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(false));
}

on_each_node!(invalid_message);
/// cluster-invalid-message. Of the primary it has to be a worker of node's that ignores it, and our primary sends none.
async fn invalid_message(run: Run) {
    let mut stage = run.stage("life.js", "invalid_message").await;
    let worker = stage.fork().await;
    stage.online(&worker).await;
    assert_eq!(stage.message(&worker).await, "ready");
    let refused = worker.send(&json!({ "cmd": "NODE_CLUSTER", "ack": -1 })).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Message);
    worker.send("afterwards").unwrap();
    assert_eq!(stage.message(&worker).await, json!({ "text": "afterwards" }));
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(message);
/// cluster-message
async fn message(run: Run) {
    let mut stage = run.stage("life.js", "message").await;
    let worker = stage.fork().await;
    let mut own = worker.events();
    assert_eq!(stage.message(&worker).await, "listening");
    worker.send("message from the primary").unwrap();
    let told = stage.message(&worker).await;
    let port = told["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap();
    assert_eq!(client::ask(client::local(port)).unwrap(), "message from the primary");
    // The worker's own stream has it as well.
    loop {
        let event = own.next().await.expect("its events");
        if let allcores::Event::Message { message, .. } = event {
            assert_eq!(message.json(), "\"listening\"");
            break;
        }
    }
}
