//! A worker's way up, and what happens when it stalls.

use std::time::Duration;

use crate::exit::ExitStatus;
use crate::pool::tests::{
    FAILED, KILLED, Rig, delay, drain, draining, exited, forked, kill, ms, ready, replace, respawning,
    retire, spawn, steer,
};
use crate::pool::{Announcement, Effect, Input};
use crate::worker::{State, WorkerId};

#[test]
fn start_spawns_a_worker_in_each_slot() {
    let mut rig = Rig::of(3);
    assert_eq!(rig.give(Input::Start), [spawn(1, 0), spawn(2, 1), spawn(3, 2)]);
    assert_eq!(rig.give(Input::Start), []);
    assert!(rig.pool.workers().all(|view| view.state == State::Starting && view.pid.is_none()));
}

#[test]
fn zero_workers_are_one() {
    assert_eq!(Rig::of(0).pool.target(), 1);
    let mut rig = Rig::ready(2);
    rig.give(Input::Scale(0));
    assert_eq!(rig.pool.target(), 1);
}

#[test]
fn a_worker_is_told_of_at_each_step_and_steered_to_when_ready() {
    let (mut rig, id) = (Rig::of(1), WorkerId(1));
    rig.give(Input::Start);
    assert_eq!(rig.spawned(1), [forked(1)]);
    assert_eq!(rig.give(Input::Online { id }), [Effect::Announce(Announcement::Online { id })]);
    assert!(!rig.pool.has_ever_been_ready());
    assert_eq!(rig.give(Input::Listening { id }), [steer(1, true), ready(1)]);
    assert!(rig.pool.is_settled() && rig.pool.has_ever_been_ready());
    let view = rig.pool.worker(id).unwrap();
    assert_eq!((view.pid, view.state), (Some(1001), State::Ready));
}

#[test]
fn listening_may_come_without_online_and_again() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    rig.spawned(1);
    let listening = Input::Listening { id: WorkerId(1) };
    assert_eq!(rig.give(listening), [steer(1, true), ready(1)]);
    assert_eq!(rig.give(listening), []);
    assert_eq!(rig.give(Input::Online { id: WorkerId(1) }), []);
    assert_eq!(rig.state(1), State::Ready);
}

#[test]
fn a_worker_that_closes_its_listeners_is_online_until_it_listens_again() {
    let (mut rig, id) = (Rig::ready(1), WorkerId(1));
    assert_eq!(rig.give(Input::NotListening { id }), [steer(1, false)]);
    assert_eq!(rig.state(1), State::Online);
    assert!(!rig.pool.is_settled());
    assert_eq!(rig.give(Input::Listening { id }), [steer(1, true), ready(1)]);
}

#[test]
fn since_tells_when_the_state_was_reached() {
    let mut rig = Rig::ready(1);
    assert_eq!(rig.pool.worker(WorkerId(1)).unwrap().since, Duration::ZERO);
    rig.stall(1);
    assert_eq!(rig.pool.worker(WorkerId(1)).unwrap().since, rig.now);
}

#[test]
fn a_hung_worker_is_killed_once_its_replacement_is_ready() {
    let mut rig = Rig::ready(1);
    let hung = Effect::Announce(Announcement::Hung { id: WorkerId(1) });
    assert_eq!(rig.stall(1), [steer(1, false), hung, replace(2, 0, 1)]);
    assert_eq!(rig.stall(1), []);
    assert_eq!(rig.pool.worker(WorkerId(2)).unwrap().is_replacing, Some(WorkerId(1)));
    assert_eq!(rig.raise(2), [steer(2, true), ready(2), kill(1)]);
    assert_eq!(rig.pool.worker(WorkerId(2)).unwrap().is_replacing, None);
    assert!(!rig.pool.is_settled());
    assert_eq!(rig.exit(1, KILLED), [exited(1, KILLED, true, ms(1000))]);
    assert!(rig.pool.is_settled());
}

#[test]
fn a_hung_worker_that_moves_again_keeps_its_place() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    rig.spawned(2);
    let moving = Input::Moving { id: WorkerId(1) };
    assert_eq!(rig.give(moving), [draining(2), retire(2), steer(1, true), ready(1)]);
    assert_eq!(rig.give(moving), []);
    assert_eq!(rig.give(Input::Listening { id: WorkerId(2) }), []);
    rig.exit(2, ExitStatus::Signal(15));
    assert!(rig.pool.is_settled());
}

#[test]
fn a_replacement_that_is_no_longer_wanted_before_it_exists_is_retired_when_it_does() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    assert_eq!(rig.give(Input::Moving { id: WorkerId(1) }), [steer(1, true), ready(1)]);
    assert_eq!(rig.spawned(2), [forked(2), draining(2), retire(2)]);
}

#[test]
fn a_hung_worker_that_moves_too_late_stays_killed() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    rig.raise(2);
    assert_eq!(rig.give(Input::Moving { id: WorkerId(1) }), []);
    assert_eq!(rig.state(2), State::Ready);
}

#[test]
fn a_hung_worker_that_dies_leaves_its_slot_to_the_replacement() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    rig.spawned(2);
    assert_eq!(rig.exit(1, FAILED), [steer(1, false), exited(1, FAILED, false, ms(1000))]);
    assert_eq!(rig.pool.worker(WorkerId(2)).unwrap().is_replacing, None);
    rig.give(Input::Listening { id: WorkerId(2) });
    assert!(rig.pool.is_settled());
}

#[test]
fn a_replacement_that_dies_early_gets_a_successor_while_the_worker_is_hung() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    rig.spawned(2);
    assert_eq!(rig.exit(2, FAILED)[2..], [respawning(0, Duration::ZERO), replace(3, 0, 1)]);
    rig.spawned(3);
    let wait = delay(&rig.exit(3, FAILED)).unwrap();
    assert!(wait >= ms(80));
    assert_eq!(rig.pass(wait), [replace(4, 0, 1)]);
}

#[test]
fn a_hung_worker_that_moves_again_needs_no_successor() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    for id in 2..=3 {
        rig.spawned(id);
        rig.exit(id, FAILED);
    }
    assert!(rig.slot(0).waiting_until.is_some());
    rig.give(Input::Moving { id: WorkerId(1) });
    assert_eq!(rig.slot(0).waiting_until, None);
    assert_eq!(rig.pass(ms(20_000)), []);
    assert!(rig.pool.is_settled());
}

#[test]
fn a_hung_worker_that_closes_its_listeners_is_drained() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    assert_eq!(rig.give(Input::NotListening { id: WorkerId(1) }), [draining(1)]);
    assert_eq!(rig.raise(2), [steer(2, true), ready(2)]);
    assert_eq!(rig.pass(ms(1000)), [drain(1)]);
}

#[test]
fn only_a_ready_worker_can_hang() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    rig.spawned(1);
    assert_eq!(rig.stall(1), []);
    assert_eq!(rig.state(1), State::Starting);
}

#[test]
fn inputs_about_unknown_workers_change_nothing() {
    let (mut rig, id) = (Rig::ready(1), WorkerId(9));
    for input in [
        Input::Spawned { id, pid: 1 },
        Input::SpawnFailed { id },
        Input::SpawnFailed { id: WorkerId(1) },
        Input::Online { id },
        Input::Listening { id },
        Input::NotListening { id },
        Input::Exited { id, status: FAILED },
        Input::Stalled { id },
        Input::Moving { id },
        Input::Quiet { id },
        Input::Wake,
    ] {
        assert_eq!(rig.give(input), [], "{input:?}");
    }
    assert!(rig.pool.is_settled());
}
