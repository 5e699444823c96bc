//! Debugging workers.

use allcores::{ExitStatus, Signal};
use allcores_parity::stage::Seen;
use allcores_parity::{Run, Stage, client, on_each_node};
use allcores_testing::process::free_port;
use serde_json::{Value, json};

on_each_node!(node_options);
/// inspect-support-for-node_options: workers that ask for one port come online all the same.
async fn node_options(run: Run) {
    let builder =
        run.builder("disconnect.js", "idle", &json!({})).env("NODE_OPTIONS", "--inspect").silent(true);
    let mut stage = Stage::open(builder).await;
    let workers = stage.fork_many(2).await;
    for worker in &workers {
        stage.online(worker).await;
        drop(worker.disconnect());
        stage.gone(worker).await;
        assert_eq!(worker.exited_after_disconnect(), Some(true));
    }
}

/// The ports that workers debug on.
async fn debug_ports(stage: &mut Stage, count: usize) -> Vec<u64> {
    let mut ports = Vec::new();
    for worker in stage.fork_many(count).await {
        let told: Value = stage.message(&worker).await;
        let url = told["url"].as_str().unwrap_or_else(|| panic!("not debugged: {told}")).to_owned();
        let port = url.split([':', '/']).find_map(|part| part.parse().ok());
        ports.push(port.unwrap_or_else(|| panic!("no port in {url}")));
    }
    ports
}

on_each_node!(port);
/// inspector-port-cluster, inspector-port-zero-cluster, cluster-inspect-port-manual, inspector-debug-port: workers
/// get consecutive ports, the first of them ours to choose.
async fn port(run: Run) {
    let first = free_port().unwrap();
    let options = ["--inspect"];
    let builder =
        run.builder_with(options, "ipc.js", "debug_port", &json!({})).silent(true).inspect_port(first);
    let mut stage = Stage::open(builder).await;
    let ports = debug_ports(&mut stage, 3).await;
    assert_eq!(ports, [0, 1, 2].map(|next| u64::from(first) + next));
}

on_each_node!(port_clash);
/// inspector-cluster-port-clash
async fn port_clash(run: Run) {
    let (_listener, port) = client::listener();
    let option = format!("--inspect={port}");
    let mut stage =
        Stage::open(run.builder_with([&*option], "disconnect.js", "idle", &json!({})).silent(true)).await;
    let worker = stage.fork().await;
    stage.online(&worker).await;
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(inspect_brk);
/// cluster-inspect-brk: waits for a debugger, in front of the program, and dies of SIGTERM.
async fn inspect_brk(run: Run) {
    let builder = run.builder_with(["--inspect-brk=0"], "ipc.js", "debug_port", &json!({})).silent(true);
    let mut stage = Stage::open(builder).await;
    let worker = stage.fork().await;
    let is_waiting =
        |seen: &Seen| matches!(seen, Seen::Output(_, line) if line.starts_with("Debugger listening"));
    stage.until("a debugger's port", |seen| seen.iter().any(is_waiting).then_some(())).await;
    worker.kill(Signal::TERM).unwrap();
    assert_eq!(stage.gone(&worker).await, ExitStatus::Signal(15));
    assert_eq!(stage.unread(), 0, "the program has not run");
}

on_each_node!(signal);
/// debug-signal-cluster, as far as it is the workers'.
async fn signal(run: Run) {
    let builder =
        run.builder_with(["--inspect-port=0"], "ipc.js", "opens_inspector", &json!({})).silent(true);
    let mut stage = Stage::open(builder).await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    worker.kill(Signal::USR1).unwrap();
    let told = stage.message(&worker).await;
    assert!(told["url"].as_str().is_some_and(|url| url.starts_with("ws://")), "{told}");
}
