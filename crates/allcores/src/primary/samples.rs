//! Samples for the tests of who shows them: outside of this crate none can be made.

use std::time::{Duration, SystemTime};

use allcores_core::exit::ExitStatus;
use allcores_core::worker::{Rung, Slot, State, WorkerId};

use super::{
    AddressSnapshot, AppSnapshot, Fault, HealthSnapshot, Lack, LaneSnapshot, LastExit, Policy, ReloadFailure,
    ReloadSnapshot, WorkerSnapshot,
};

/// An app with one worker that serves and one that waits for its backoff.
pub fn snapshot(then: SystemTime) -> AppSnapshot {
    let lane = LaneSnapshot { address: "127.0.0.1:8080".into(), depth: Some(3) };
    let serving = WorkerSnapshot {
        id: WorkerId(3),
        slot: Slot(0),
        generation: 2,
        pid: Some(4243),
        state: State::Ready,
        rung: Some(Rung::Adopted),
        since: then,
        restarts: 1,
        is_crash_looping: false,
        respawn_at: None,
        lanes: vec![lane],
        rss_bytes: Some(50_541_568),
        cpu: Some(Duration::from_millis(1500)),
        health: Some(HealthSnapshot { failures: 1, reason: Some("it answered 500".into()) }),
        said_status: Some("warm".into()),
        last_exit: Some(LastExit { status: ExitStatus::Signal(9), is_oom: true, at: then }),
    };
    let waiting = WorkerSnapshot {
        id: WorkerId(2),
        slot: Slot(1),
        generation: 1,
        pid: None,
        state: State::Exited,
        rung: None,
        since: then,
        restarts: 0,
        is_crash_looping: true,
        respawn_at: Some(then),
        lanes: vec![],
        rss_bytes: None,
        cpu: None,
        health: None,
        said_status: None,
        last_exit: None,
    };
    let address =
        AddressSnapshot { address: "127.0.0.1:8080".into(), policy: Policy::RoundRobin, pending: Some(2) };
    AppSnapshot {
        name: "web".into(),
        pid: 4242,
        version: "0.1.0",
        upgrades: 2,
        generation: 1,
        reload: Some(ReloadSnapshot { generation: 2, done: 1, is_rolling_back: false, is_queued: true }),
        policy: Policy::Auto,
        hint: Some("use shared".into()),
        listening: vec!["127.0.0.1:8080".into()],
        addresses: vec![address],
        target: 2,
        stopping: false,
        strays: 0,
        health: None,
        since: then,
        workers: vec![serving, waiting],
    }
}

/// What was wrong with a worker.
pub fn failure() -> ReloadFailure {
    ReloadFailure {
        generation: 2,
        id: WorkerId(7),
        slot: Slot(1),
        fault: Fault::NotReady { lack: Lack::Listening },
        reason: "too slow".into(),
        missing: vec!["127.0.0.1:8081".into()],
        last_output: vec![b"boom \xff".to_vec()],
    }
}
