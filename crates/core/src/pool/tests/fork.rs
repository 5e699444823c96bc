//! Workers that are forked and disconnected one by one, kept and not kept.

use std::time::Duration;

use super::{
    FAILED, Rig, disconnect_settings, drain, draining, exited, forked, land, ms, ready, retire, spawn, steer,
    stopping, verdict,
};
use crate::pool::{Effect, Input, PoolSettings, Verdict};
use crate::worker::{State, WorkerId};

#[test]
fn a_pool_without_workers_rests_until_it_is_told() {
    let mut rig = Rig::unkept(0);
    assert_eq!(rig.give(Input::Start), []);
    assert_eq!(rig.pool.next_deadline(), None);
    assert!(!rig.pool.is_stopping());
    assert_eq!(rig.give(Input::Fork), [spawn(1, 0)]);
    assert_eq!(rig.give(Input::Fork), [spawn(2, 1)]);
}

#[test]
fn a_worker_that_is_not_kept_is_not_replaced() {
    let mut rig = Rig::unkept(2);
    rig.give(Input::Start);
    rig.raise(1);
    rig.raise(2);
    assert_eq!(rig.exit(1, FAILED), [steer(1, false), exited(1, FAILED, false, ms(0))]);
    assert_eq!(rig.pass(ms(60_000)), []);
    assert_eq!(rig.give(Input::Fork), [spawn(3, 0)]);
}

#[test]
fn workers_that_are_not_kept_may_crash_for_ever() {
    let mut rig = Rig::unkept(0);
    rig.give(Input::Start);
    for id in 1..100 {
        assert_eq!(rig.give(Input::Fork), [spawn(id, 0)]);
        rig.spawned(id);
        assert_eq!(rig.exit(id, FAILED), [steer(id, false), exited(id, FAILED, false, ms(0))]);
    }
    assert_eq!(verdict(&rig.give(Input::Stop)), Some(Verdict::Stopped));
}

#[test]
fn one_that_is_disconnected_goes_as_soon_as_nothing_is_on_its_way_to_it() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    rig.raise(1);
    assert_eq!(rig.disconnect(1), [steer(1, false), draining(1), land(1)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(1) }), [retire(1)]);
    assert_eq!(rig.disconnect(1), []);
}

#[test]
fn one_whose_queue_does_not_empty_is_disconnected_all_the_same() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    rig.raise(1);
    rig.disconnect(1);
    assert_eq!(rig.pass(ms(1000)), [retire(1)]);
}

#[test]
fn one_that_never_listened_is_disconnected_at_once() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    rig.spawned(1);
    assert_eq!(rig.disconnect(1), [draining(1), retire(1)]);
}

#[test]
fn one_that_is_disconnected_before_it_exists_goes_when_it_does() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    assert_eq!(rig.disconnect(1), []);
    assert_eq!(rig.spawned(1), [forked(1), draining(1), retire(1)]);
}

#[test]
fn disconnecting_is_not_killing() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    rig.spawned(1);
    rig.disconnect(1);
    assert_eq!(rig.pool.next_deadline(), None);
    assert_eq!(rig.pass(ms(3_600_000)), []);
}

#[test]
fn one_that_was_disconnected_has_a_limit_once_the_pool_stops() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    rig.spawned(1);
    rig.disconnect(1);
    assert_eq!(rig.give(Input::Stop), stopping());
    assert_eq!(rig.pass(ms(10_000)), []);
    rig.pass(ms(2500));
    assert_eq!(rig.pass(ms(2000)), [Effect::HangUp { id: WorkerId(1) }]);
    assert_eq!(rig.pass(ms(500)), [Effect::Kill { id: WorkerId(1) }]);
}

#[test]
fn the_same_holds_for_one_that_does_not_exist_yet() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    rig.disconnect(1);
    rig.give(Input::Stop);
    rig.spawned(1);
    assert_eq!(rig.pool.next_deadline(), Some(ms(2500)));
    rig.pass(ms(2500));
    assert_eq!(rig.pass(ms(2500)).last(), Some(&Effect::Kill { id: WorkerId(1) }));
}

#[test]
fn a_limit_on_disconnecting_is_kept() {
    let mut rig = Rig::new(disconnect_settings(ms(700)));
    rig.give(Input::Start);
    rig.spawned(1);
    rig.disconnect(1);
    assert_eq!(rig.pass(ms(700)), [Effect::Kill { id: WorkerId(1) }]);
}

#[test]
fn all_that_are_disconnected_leave_a_pool_that_can_fork_again() {
    let mut rig = Rig::unkept(2);
    rig.give(Input::Start);
    rig.spawned(1);
    rig.spawned(2);
    let effects = rig.give(Input::DisconnectAll);
    assert_eq!(effects, [Effect::StopAccepting, draining(1), retire(1), draining(2), retire(2)]);
    rig.exit(1, FAILED);
    assert_eq!(rig.give(Input::Fork), [Effect::ResumeAccepting, spawn(3, 0)]);
    rig.exit(2, FAILED);
    rig.raise(3);
    assert_eq!(rig.state(3), State::Ready);
    assert!(!rig.pool.is_stopping());
}

#[test]
fn a_kept_worker_that_is_disconnected_is_replaced_while_it_goes() {
    let mut rig = Rig::ready(2);
    let effects = rig.disconnect(1);
    assert_eq!(effects, [steer(1, false), draining(1), land(1), spawn(3, 0)]);
    rig.give(Input::Quiet { id: WorkerId(1) });
    assert_eq!(rig.exit(1, FAILED), [exited(1, FAILED, true, ms(1000))]);
}

#[test]
fn nobody_waits_for_one_that_was_disconnected_unless_it_is_sent_away_once_more() {
    let mut rig = Rig::ready(1);
    rig.disconnect(1);
    assert!(!rig.pool.is_settled(), "its successor is on its way");
    rig.raise(2);
    assert!(rig.pool.is_settled());
    rig.give(Input::Scale(2));
    rig.raise(3);
    assert!(rig.pool.is_settled(), "it may be there for ever");
    rig.disconnect(3);
    rig.raise(4);
    rig.give(Input::Scale(1));
    rig.exit(4, FAILED);
    assert!(!rig.pool.is_settled(), "it is to be gone when its slot is");
    rig.exit(3, FAILED);
    assert!(rig.pool.is_settled());
}

#[test]
fn one_that_was_let_go_and_is_being_killed_is_waited_for_when_its_slot_goes() {
    let mut rig = Rig::new(disconnect_settings(ms(700)));
    rig.give(Input::Start);
    rig.spawned(1);
    rig.disconnect(1);
    rig.pass(ms(700));
    rig.give(Input::Scale(0));
    assert!(!rig.pool.is_settled());
    rig.exit(1, FAILED);
    assert!(rig.pool.is_settled());
}

#[test]
fn a_kept_pool_whose_workers_are_all_disconnected_keeps_none() {
    let mut rig = Rig::ready(1);
    rig.give(Input::DisconnectAll);
    rig.give(Input::Quiet { id: WorkerId(1) });
    rig.exit(1, FAILED);
    assert_eq!((rig.pool.target(), rig.pass(ms(60_000))), (0, vec![]));
    assert_eq!(rig.give(Input::Fork), [Effect::ResumeAccepting, spawn(2, 0)]);
    rig.raise(2);
    assert_eq!(rig.exit(2, FAILED).last(), Some(&spawn(3, 0)));
}

#[test]
fn those_that_nobody_comes_after_have_the_time_to_drain_for_what_waits() {
    let settings = PoolSettings { workers: 2, drain_timeout: ms(7000), ..disconnect_settings(Duration::MAX) };
    let mut rig = Rig::new(settings);
    rig.give(Input::Start);
    rig.raise(1);
    rig.raise(2);
    // It was to be followed by others.
    rig.disconnect(1);
    rig.pass(ms(500));
    let effects = rig.give(Input::DisconnectAll);
    assert_eq!(effects, [Effect::StopAccepting, steer(2, false), draining(2), land(2)]);
    assert_eq!(rig.pass(ms(6999)), []);
    assert_eq!(rig.pass(ms(1)), [retire(1), retire(2)]);
    assert_eq!(rig.give(Input::DisconnectAll), [Effect::StopAccepting]);
}

#[test]
fn scaling_fills_the_slots_that_were_left_empty() {
    let mut rig = Rig::unkept(3);
    rig.give(Input::Start);
    for id in 1..=3 {
        rig.raise(id);
    }
    rig.exit(2, FAILED);
    assert!(rig.pool.is_short());
    assert_eq!(rig.give(Input::Scale(3)), [spawn(4, 1)]);
    assert!(!rig.pool.is_short());
    rig.raise(4);
    assert!(rig.pool.is_settled());
    let effects = rig.give(Input::Scale(0));
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Announce(_))).count(), 3);
    assert_eq!(rig.pass(ms(1000)), [drain(1), drain(3), drain(4)]);
}

#[test]
fn a_worker_that_is_not_kept_is_not_replaced_when_it_hangs() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    rig.raise(1);
    let hung = rig.stall(1);
    assert!(!hung.iter().any(|effect| matches!(effect, Effect::Spawn { .. })), "{hung:?}");
    let effects = rig.give(Input::Moving { id: WorkerId(1) });
    assert_eq!(effects, [steer(1, true), ready(1)]);
}

#[test]
fn the_least_number_is_kept_to() {
    let settings = PoolSettings { workers: 0, least: 1, ..PoolSettings::default() };
    let mut rig = Rig::new(settings);
    assert_eq!(rig.give(Input::Start), [spawn(1, 0)]);
}
