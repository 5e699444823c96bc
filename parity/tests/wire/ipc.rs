//! The channel itself: what goes over it, and what must not.

use allcores::{ErrorKind, ExitStatus, Serialization};
use allcores_parity::{Run, on_each_node};
use serde_json::json;

on_each_node!(internal);
/// child-process-internal, in both directions. Ours does not send what no program would hear.
async fn internal(run: Run) {
    let mut stage = run.stage("ipc.js", "internal").await;
    let worker = stage.fork().await;
    let not_nodes = [json!({ "cmd": "fooNODE_" }), json!({ "cmd": "NODE_" }), json!({ "cmd": 5 })];
    for expected in &not_nodes {
        assert_eq!(stage.message(&worker).await, *expected);
    }
    assert_eq!(stage.message(&worker).await, "end");
    assert_eq!(worker.send(&json!({ "cmd": "NODE_FOO" })).unwrap_err().kind(), ErrorKind::Message);
    for message in &not_nodes {
        worker.send(message).unwrap();
    }
    for expected in &not_nodes {
        assert_eq!(stage.message(&worker).await, json!({ "heard": expected }));
    }
}

on_each_node!(send_utf8);
/// child-process-send-utf8
async fn send_utf8(run: Run) {
    let mut stage = run.stage("ipc.js", "utf8").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    // An odd byte in front, so that characters lie across the borders of whatever is read at once.
    let text = format!("x{}", "ß".repeat(400_000));
    worker.send(&text).unwrap();
    let doubled = stage.message(&worker).await;
    assert!(doubled == format!("{text}{text}"), "{} bytes", doubled.as_str().map_or(0, str::len));
}

on_each_node!(any_value);
/// What the channel's description says: any JSON value is a message.
async fn any_value(run: Run) {
    let mut stage = run.stage("ipc.js", "any_value").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    let values = [
        (json!(null), "null"),
        (json!(false), "boolean"),
        (json!(-1.5), "number"),
        (json!("with\nline\u{2028}ends"), "string"),
        (json!([1, [2]]), "array"),
        (json!({ "a": { "b": {} } }), "object"),
    ];
    for (value, kind) in values {
        worker.send(&value).unwrap();
        assert_eq!(stage.message(&worker).await, json!({ "type": kind, "value": value }));
    }
}

on_each_node!(next_tick);
/// child-process-ipc-next-tick
async fn next_tick(run: Run) {
    let mut stage = run.stage("ipc.js", "throws_each_time").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    for number in 0..10 {
        worker.send(&number).unwrap();
    }
    for number in 0..10 {
        assert_eq!(stage.message(&worker).await, json!({ "caught": format!("number {number}") }));
    }
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(disconnects_twice);
/// child-process-disconnect
async fn disconnects_twice(run: Run) {
    let mut stage = run.stage("ipc.js", "disconnects_twice").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    worker.send("go").unwrap();
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42));
    assert!(!worker.is_connected());
    assert!(worker.send("late").is_err());
    // For us there is nothing left to do, which is no error.
    drop(worker.disconnect());
}

on_each_node!(fork_ref);
/// child-process-fork-ref and -ref2
async fn fork_ref(run: Run) {
    let mut stage = run.stage("ipc.js", "listens_too_late").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(fork_and_spawn);
/// child-process-fork3 and -fork-and-spawn
async fn fork_and_spawn(run: Run) {
    let mut stage = run.stage("ipc.js", "spawns").await;
    let worker = stage.fork().await;
    let clean = json!({ "names": [], "isPrimary": true, "hasSend": "undefined" });
    assert_eq!(stage.message(&worker).await, clean);
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(advanced_is_refused);
/// cluster-advanced-serialization, and the four tests of it among those of child_process: V8's own format is known
/// and not spoken, which the start says.
async fn advanced_is_refused(run: Run) {
    let builder = run.builder("ipc.js", "any_value", &json!({})).serialization(Serialization::Advanced);
    assert_eq!(builder.start().await.unwrap_err().kind(), ErrorKind::Unsupported);
}
