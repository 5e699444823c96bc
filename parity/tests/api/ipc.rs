//! The channel itself: what goes over it, and what must not.

use allcores::{ErrorKind, Event, ExitStatus, Serialization};
use allcores_parity::process;
use serde_json::json;

use crate::{builder, play, stage};

/// child-process-internal. Node sends what no program of its own hears; neither side of ours does.
#[test]
fn internal() {
    play(async {
        let users = [json!({ "cmd": "fooNODE_" }), json!({ "cmd": "NODE_" }), json!({ "cmd": 5 })];
        let script = json!([{ "say": users[0] }, { "say": users[1] }, { "say": users[2] }, "echo"]);
        let mut stage = stage(script).await;
        let worker = stage.fork().await;
        for expected in &users {
            assert_eq!(stage.message(&worker).await, *expected);
        }
        let refused = worker.send(&json!({ "cmd": "NODE_FOO" })).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Message);
        for message in &users {
            worker.send(message).unwrap();
        }
        for expected in &users {
            assert_eq!(stage.message(&worker).await, *expected);
        }
    });
}

/// child-process-send-utf8
#[test]
fn send_utf8() {
    play(async {
        let mut stage = stage(json!(["echo"])).await;
        let worker = stage.fork().await;
        // An odd byte in front, so that characters lie across the borders of whatever is read at once.
        let text = format!("x{}", "ß".repeat(400_000));
        worker.send(&text).unwrap();
        let back = stage.message(&worker).await;
        assert!(back == text, "{} bytes", back.as_str().map_or(0, str::len));
    });
}

/// child-process-send-returns-boolean, child-process-send-cb: false when more than 128 KiB wait; and `drained` says when
/// they do not any more, in either direction.
#[test]
fn send_returns_boolean() {
    play(async {
        let mut stage = stage(json!([{ "say_long": 4_000_000 }, "spin"])).await;
        let worker = stage.fork().await;
        assert_eq!(stage.message(&worker).await.as_str().map(str::len), Some(4_000_000));
        assert_eq!(stage.message(&worker).await, "drained");
        assert_eq!(stage.message(&worker).await, json!([false, true]));
        assert!(worker.send("little").unwrap());
        assert!(!worker.send(&"x".repeat(4_000_000)).unwrap(), "it reads nothing");
    });
}

/// child-process-send-returns-boolean, of the primary.
#[test]
fn drained() {
    play(async {
        let mut stage = stage(json!([{ "say": "ready" }, "echo"])).await;
        let worker = stage.fork().await;
        assert_eq!(stage.message(&worker).await, "ready");
        // Else it might read as fast as we write.
        process::stop(worker.pid());
        assert!(!worker.send(&"x".repeat(4_000_000)).unwrap());
        process::resume(worker.pid());
        worker.drained().await;
        assert!(worker.send("little").unwrap());
    });
}

/// child-process-send-after-close
#[test]
fn send_after_close() {
    play(async {
        let mut stage = stage(json!([{ "exit": 0 }])).await;
        let worker = stage.fork().await;
        stage.gone(&worker).await;
        assert_eq!(worker.send("late").unwrap_err().kind(), ErrorKind::Disconnected);
        worker.drained().await;
    });
}

/// child-process-disconnect: disconnecting twice is no error.
#[test]
fn disconnects_twice() {
    play(async {
        let script = json!({ "now": [], "at_end": ["disconnect", "disconnect", { "exit": 42 }] });
        let mut stage = stage(script).await;
        let worker = stage.fork().await;
        stage.online(&worker).await;
        drop(worker.disconnect());
        drop(worker.disconnect());
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42));
        drop(worker.disconnect());
        assert!(!worker.is_connected());
    });
}

/// child-process-fork-close: all that a worker said before it went comes before its end.
#[test]
fn fork_close() {
    play(async {
        let script = json!([{ "say_numbers": 1000 }, "disconnect", { "exit": 3 }]);
        let mut cluster = builder(script).workers(1).start().await.unwrap();
        let (mut heard, mut ends) = (0, 0);
        while ends < 2 {
            match cluster.next_event().await.unwrap() {
                Event::Message { message, .. } => {
                    assert_eq!((message.parse::<u32>().unwrap(), ends), (heard, 0));
                    heard += 1;
                }
                Event::Disconnect { .. } | Event::Exit { .. } => ends += 1,
                _ => {}
            }
        }
        assert_eq!(heard, 1000);
    });
}

/// child-process-fork-and-spawn: what a worker starts does not take itself for a worker.
#[test]
fn fork_and_spawn() {
    play(async {
        let mut stage = stage(json!(["grandchild"])).await;
        let worker = stage.fork().await;
        assert_eq!(stage.message(&worker).await, json!({ "is_worker": false, "is_success": false }));
    });
}

/// child-process-fork-and-spawn: what names a channel is gone, and what names the worker stays.
#[test]
fn environment_of_a_worker() {
    play(async {
        let names =
            ["NODE_CHANNEL_FD", "NODE_UNIQUE_ID", "ALLCORES_SLOT", "ALLCORES_WORKER_ID", "NODE_APP_INSTANCE"];
        let orders: Vec<_> = names.iter().map(|name| json!({ "variable": name })).collect();
        let mut stage = stage(json!(orders)).await;
        let worker = stage.fork().await;
        for expected in [json!(null), json!(null), json!("0"), json!("1"), json!("0")] {
            assert_eq!(stage.message(&worker).await, expected);
        }
    });
}

/// In a worker node:cluster has no `fork`; without that each worker of a program that forgets to ask what it is would start a
/// cluster in its turn.
#[test]
fn a_worker_starts_no_cluster_of_its_own_program() {
    play(async {
        let mut stage = stage(json!(["nest"])).await;
        let worker = stage.fork().await;
        let said = stage.message(&worker).await;
        let why = said["error"].as_str().expect("it has started one");
        assert!(why.contains("in a worker of one"), "{why}");
    });
}

/// cluster-advanced-serialization and its like: refused at the start.
#[test]
fn advanced_is_refused() {
    play(async {
        let refused = builder(json!([])).serialization(Serialization::Advanced).start().await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    });
}
