//! The JSON of a status, and a sample of it for other tests.

use std::time::{Duration, SystemTime};

use allcores::primary::{AppSnapshot, LaneSnapshot, LastExit, Policy, WorkerSnapshot};
use allcores::{ExitStatus, Rung, Slot, State, WorkerId};
use serde_json::json;

use super::StatusView;

/// The time of everything in the sample: 2026-01-02T03:04:05.678Z.
fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_678)
}

/// An app with one worker that serves and one that waits for its backoff.
pub(crate) fn snapshot() -> AppSnapshot {
    let lane = LaneSnapshot { address: "127.0.0.1:8080".into(), depth: Some(3) };
    let serving = WorkerSnapshot {
        id: WorkerId(3),
        slot: Slot(0),
        pid: Some(4243),
        state: State::Ready,
        rung: Some(Rung::Adopted),
        since: then(),
        restarts: 1,
        lanes: vec![lane],
        rss_bytes: Some(50_541_568),
        cpu: Some(Duration::from_millis(1500)),
        last_exit: Some(LastExit { status: ExitStatus::Signal(9), is_oom: true, at: then() }),
    };
    let waiting = WorkerSnapshot {
        id: WorkerId(2),
        slot: Slot(1),
        pid: None,
        state: State::Exited,
        rung: None,
        since: then(),
        restarts: 0,
        lanes: vec![],
        rss_bytes: None,
        cpu: None,
        last_exit: None,
    };
    AppSnapshot {
        name: "web".into(),
        pid: 4242,
        version: "0.1.0",
        generation: 1,
        policy: Policy::Auto,
        hint: Some("use shared".into()),
        listening: vec!["127.0.0.1:8080".into()],
        target: 2,
        strays: 0,
        since: then(),
        workers: vec![serving, waiting],
    }
}

/// [`snapshot`] as it goes over the wire.
pub(crate) fn web() -> StatusView {
    snapshot().into()
}

#[test]
fn the_json_of_a_status_is_stable() {
    let expected = json!({
        "name": "web", "pid": 4242, "version": "0.1.0", "generation": 1, "policy": "auto", "hint": "use shared",
        "listening": ["127.0.0.1:8080"], "target": 2, "strays": 0, "since": "2026-01-02T03:04:05.678Z",
        "workers": [
            {
                "id": 3, "slot": 0, "pid": 4243, "state": "ready", "rung": "adopted",
                "since": "2026-01-02T03:04:05.678Z", "restarts": 1,
                "lanes": [{"address": "127.0.0.1:8080", "depth": 3}], "rss_bytes": 50_541_568, "cpu_seconds": 1.5,
                "last_exit": {"code": null, "signal": "SIGKILL", "oom": true, "at": "2026-01-02T03:04:05.678Z"},
            },
            {
                "id": 2, "slot": 1, "pid": null, "state": "exited", "rung": null,
                "since": "2026-01-02T03:04:05.678Z", "restarts": 0, "lanes": [], "rss_bytes": null,
                "cpu_seconds": null, "last_exit": null,
            },
        ],
    });
    assert_eq!(serde_json::to_value(web()).unwrap(), expected);
    assert_eq!(serde_json::from_value::<StatusView>(expected).unwrap(), web());
}
