//! What no test of Node's looks at.

use allcores::{Event, Policy, Signal};
use allcores_parity::{Stage, client};
use serde_json::{Value, json};

use crate::{builder, listen, play, port, stage, stage_by};

fn silent() -> Value {
    json!({ "listen": { "at": "127.0.0.1:0", "do": "nothing" } })
}

/// A worker dies with a connection that it has not acknowledged: another serves it.
#[test]
fn dies_with_unacknowledged() {
    play(async {
        let mut stage = stage_by(&Policy::RoundRobin, json!([])).await;
        let (one, other) = (stage.fork().await, stage.fork().await);
        one.send(&silent()).unwrap();
        let port = port(stage.message(&one).await);
        let client = client::connect(client::local(port)).unwrap();
        other.send(&listen()).unwrap();
        stage.message(&other).await;
        one.kill(Signal::KILL).unwrap();
        assert_eq!(client::rest(client).unwrap(), "2");
    });
}

/// No worker lives: the address stays bound, and clients wait for the next.
#[test]
fn no_worker_lives() {
    play(async {
        for policy in [Policy::RoundRobin, Policy::Shared] {
            let mut stage = stage_by(&policy, json!([listen()])).await;
            let worker = stage.fork().await;
            let address = client::local(port(stage.message(&worker).await));
            worker.kill(Signal::KILL).unwrap();
            stage.gone(&worker).await;
            let waiting = client::connect(address).unwrap();
            stage.fork().await;
            assert_eq!(client::rest(waiting).unwrap(), "2", "{policy}");
        }
    });
}

/// A disconnected worker ends what it has begun, while new connections go to others.
#[test]
fn finishes_what_it_has() {
    play(async {
        let held = json!({ "listen": { "at": "127.0.0.1:0", "do": "echo" } });
        let mut stage = stage_by(&Policy::RoundRobin, json!([held])).await;
        let workers = stage.fork_many(2).await;
        let address = client::local(port(stage.message(&workers[0]).await));
        stage.message(&workers[1]).await;
        drop(workers[0].disconnect());
        stage.gone(&workers[0]).await;
        for _ in 0..4 {
            let mut client = client::connect(address).unwrap();
            std::io::Write::write_all(&mut client, b"x").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client::rest(client).unwrap(), "x");
        }
    });
}

/// Messages that nobody takes are held in the worker, not in the primary, and none is lost.
#[test]
fn unread_messages_wait() {
    play(async {
        const COUNT: u32 = 20_000;
        let mut cluster = builder(json!([{ "say_numbers": COUNT }])).start().await.unwrap();
        // From the first call on nothing is dropped.
        cluster.setup(allcores::ClusterSettings::new()).unwrap();
        assert!(matches!(cluster.next_event().await, Some(Event::Setup { .. })));
        cluster.fork().await.unwrap();
        let mut expected = 0;
        while expected < COUNT {
            if let Some(Event::Message { message, .. }) = cluster.next_event().await {
                assert_eq!(message.parse::<u32>().unwrap(), expected);
                expected += 1;
            }
        }
    });
}

/// Before anybody asks, the oldest of what workers say is dropped at some point, and told of; what became of them is not.
#[test]
fn unread_messages_drop_no_events() {
    play(async {
        const COUNT: u64 = 100_000;
        let script = json!([{ "say_numbers": COUNT }, { "say_long": 2_000_000 }, "disconnect", "end"]);
        let mut cluster = builder(script).start().await.unwrap();
        let worker = cluster.fork().await.unwrap();
        worker.exited().await;
        let Some(Event::Missed { events, handles: 0 }) = cluster.next_event().await else {
            panic!("it is not told, or not first");
        };
        assert!(matches!(cluster.next_event().await, Some(Event::Fork { .. })));
        assert!(matches!(cluster.next_event().await, Some(Event::Online { .. })));
        let (mut kept, mut has_disconnected, mut has_exited) = (0, false, false);
        while !(has_disconnected && has_exited) {
            match cluster.next_event().await.expect("the cluster goes on") {
                Event::Message { .. } => kept += 1,
                Event::Missed { .. } => panic!("nothing is dropped from the first call on"),
                Event::Disconnect { .. } => has_disconnected = true,
                Event::Exit { .. } => has_exited = true,
                _ => {}
            }
        }
        // The long one, and what it says of that.
        assert_eq!(events + kept, COUNT + 3);
    });
}

/// Any JSON value is a message.
#[test]
fn any_value() {
    play(async {
        let mut stage = stage(json!(["echo"])).await;
        let worker = stage.fork().await;
        let values = [
            json!(null),
            json!(false),
            json!(-1.5),
            json!("line\nends\u{2028}"),
            json!([1, [2]]),
            json!({ "a": {} }),
        ];
        for value in values {
            worker.send(&value).unwrap();
            assert_eq!(stage.message(&worker).await, value);
        }
    });
}

/// `scale`, which Node has not: so many serve, and the surplus is gone.
#[test]
fn scale() {
    play(async {
        let mut stage = Stage::open(builder(json!([listen()])).workers(1).keep(true)).await;
        stage.anybody().await;
        stage.cluster.scale(3).await.unwrap();
        assert_eq!(stage.cluster.workers().len(), 3);
        stage.cluster.scale(1).await.unwrap();
        assert_eq!(stage.cluster.workers().len(), 1);
    });
}
