//! The shapes that programs rely on.

use std::time::Duration;

use allcores::primary::{Reload, ReloadNews, ReloadOutcome, WorkerRef, samples};
use allcores::{Slot, State, WorkerId};
use serde_json::{Value, json};

use super::{ReloadNewsView, ReloadView};

fn told(news: ReloadNews) -> Value {
    let view = ReloadNewsView::from(news);
    let value = serde_json::to_value(&view).unwrap();
    assert_eq!(serde_json::from_value::<ReloadNewsView>(value.clone()).unwrap(), view);
    value
}

#[test]
fn each_piece_of_news_has_its_shape() {
    let worker = WorkerRef { id: WorkerId(7), slot: Slot(1), pid: 42 };
    let shape = json!({"id": 7, "slot": 1, "pid": 42});
    assert_eq!(told(ReloadNews::Queued { behind: 2 }), json!({"event": "queued", "behind": 2}));
    let began = ReloadNews::Began { generation: 2, slots: 4 };
    assert_eq!(told(began), json!({"event": "began", "generation": 2, "slots": 4}));
    let ready = ReloadNews::Worker { worker, generation: 2, state: State::Ready };
    let expected = json!({"event": "worker", "worker": shape, "generation": 2, "state": "ready"});
    assert_eq!(told(ready), expected);
    let watching = ReloadNews::Watching { worker, time: Duration::from_millis(1500) };
    assert_eq!(told(watching), json!({"event": "watching", "worker": shape, "seconds": 1.5}));
    let replaced = ReloadNews::Replaced { slot: Slot(1), done: 2, slots: 4 };
    assert_eq!(told(replaced), json!({"event": "replaced", "slot": 1, "done": 2, "slots": 4}));
}

#[test]
fn a_failure_says_why_and_what_was_written_last() {
    let expected = json!({"event": "rolling_back", "generation": 2, "id": 7, "slot": 1, "fault": "not_ready",
        "reason": "too slow", "missing": ["127.0.0.1:8081"], "last_output": ["boom \u{fffd}"]});
    assert_eq!(told(ReloadNews::RollingBack(samples::failure())), expected);
}

#[test]
fn the_end_is_one_of_three() {
    let reloaded = ReloadOutcome::Reloaded { generation: 2, took: Duration::from_secs(3) };
    let expected = json!({"event": "ended", "outcome": "reloaded", "generation": 2, "seconds": 3.0});
    assert_eq!(told(ReloadNews::Ended(reloaded)), expected);
    let failed = ReloadOutcome::Failed { failure: samples::failure(), is_rolled_back: true };
    let expected = json!({"event": "ended", "outcome": "failed", "generation": 2, "id": 7, "slot": 1,
        "fault": "not_ready", "reason": "too slow", "missing": ["127.0.0.1:8081"], "last_output": ["boom \u{fffd}"],
        "rolled_back": true});
    assert_eq!(told(ReloadNews::Ended(failed)), expected);
    let stopped = ReloadNews::Ended(ReloadOutcome::Stopped);
    assert_eq!(told(stopped), json!({"event": "ended", "outcome": "stopped"}));
}

#[test]
fn a_wish_is_checked() {
    let read = |value: Value| {
        let view = serde_json::from_value::<ReloadView>(value).map_err(|error| error.to_string())?;
        Reload::try_from(view)
    };
    let wish = read(json!({"command": ["node", "x"], "env": {"A": "b"}, "surge": 2, "canary_seconds": 0.5,
        "may_move": true}));
    let wish = wish.unwrap();
    assert_eq!(wish.command.unwrap(), ["node", "x"]);
    assert_eq!(wish.env, [("A".into(), "b".into())]);
    assert_eq!((wish.surge, wish.canary), (Some(2), Some(Duration::from_millis(500))));
    assert!(read(json!({})).unwrap().command.is_none());
    // Who does not ask for an environment asks as older versions understand it.
    assert_eq!(serde_json::to_value(ReloadView::default()).unwrap().get("environment"), None);
    for wrong in [
        json!({"command": []}),
        json!({"command": ["a\u{0}b"]}),
        json!({"env": {"": "x"}}),
        json!({"env": {"A=B": "x"}}),
        json!({"canary_seconds": -1.0}),
        json!({"canary_seconds": 1e12}),
        json!({"surge": -1}),
        json!({"serge": 1}),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
}
