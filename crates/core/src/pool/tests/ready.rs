//! What a worker has to show before it gets connections, and how long it may take.

use std::time::Duration;

use super::{
    FAILED, Rig, draining, exited, hang_up, kill, ms, ready, respawning, retire, spawn, steer, verdict,
};
use crate::exit::ExitStatus;
use crate::pool::{Announcement, Effect, Input, Lack, PoolSettings, ReloadPlan, Verdict};
use crate::worker::{State, WorkerId};

const TERMINATED: ExitStatus = ExitStatus::Signal(15);

fn rig(wait_ready: bool, wait_healthy: bool) -> Rig {
    let mut rig = Rig::new(PoolSettings { wait_ready, wait_healthy, ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.spawned(1);
    rig
}

fn said(id: u32) -> Input {
    Input::SaidReady { id: WorkerId(id) }
}

fn healthy(id: u32) -> Input {
    Input::Healthy { id: WorkerId(id) }
}

fn listening(id: u32) -> Input {
    Input::Listening { id: WorkerId(id) }
}

fn not_ready(id: u32, lack: Lack) -> Effect {
    Effect::Announce(Announcement::NotReady { id: WorkerId(id), lack })
}

#[test]
fn a_worker_that_listens_gets_nothing_before_it_has_said_that_it_is_ready() {
    let mut rig = rig(true, false);
    assert_eq!(rig.give(listening(1)), []);
    assert_eq!(rig.state(1), State::Listening);
    assert_eq!(rig.give(healthy(1)), []);
    assert_eq!(rig.give(said(1)), [steer(1, true), ready(1)]);
    assert_eq!(rig.give(said(1)), []);
    assert!(rig.pool.is_settled());
}

#[test]
fn a_worker_that_need_not_listen_is_ready_when_it_has_run_for_a_while() {
    let mut rig = Rig::new(PoolSettings { no_listen: true, ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.spawned(1);
    assert_eq!(rig.pass(ms(600)), []);
    rig.give(Input::Online { id: WorkerId(1) });
    assert_eq!(rig.pool.next_deadline(), Some(ms(1000)));
    assert_eq!(rig.pass(ms(400)), [steer(1, true), ready(1)]);
    // That it listened somewhere for a while is none of its purpose.
    assert_eq!(rig.give(Input::NotListening { id: WorkerId(1) }), []);
    assert_eq!((rig.state(1), rig.pool.next_deadline()), (State::Ready, None));
    // One that has to say so does not listen meanwhile.
    let mut gated = Rig::new(PoolSettings { no_listen: true, wait_ready: true, ..PoolSettings::default() });
    gated.give(Input::Start);
    gated.spawned(1);
    gated.give(Input::Online { id: WorkerId(1) });
    assert_eq!(gated.pass(ms(1500)), []);
    assert_eq!(gated.state(1), State::Online);
    gated.give(listening(1));
    assert_eq!(gated.state(1), State::Listening);
    assert_eq!(gated.give(Input::NotListening { id: WorkerId(1) }), []);
    assert_eq!(gated.state(1), State::Online);
    assert_eq!(gated.give(Input::SaidReady { id: WorkerId(1) }), [steer(1, true), ready(1)]);
    // One that ends before was never ready.
    rig.exit(1, FAILED);
    rig.spawned(2);
    rig.give(Input::Online { id: WorkerId(2) });
    assert!(!rig.exit(2, FAILED).contains(&ready(2)));
}

#[test]
fn a_worker_may_say_that_it_is_ready_before_it_listens() {
    let mut rig = rig(true, false);
    assert_eq!(rig.give(said(1)), []);
    assert_eq!(rig.give(listening(1)), [steer(1, true), ready(1)]);
}

#[test]
fn a_worker_gets_nothing_before_it_has_passed_a_health_check() {
    let mut rig = rig(true, true);
    rig.give(listening(1));
    assert_eq!(rig.give(said(1)), []);
    assert_eq!(rig.give(healthy(1)), [steer(1, true), ready(1)]);
}

#[test]
fn what_was_shown_once_need_not_be_shown_again() {
    let mut rig = rig(true, true);
    for input in [listening(1), said(1), healthy(1)] {
        rig.give(input);
    }
    rig.give(Input::NotListening { id: WorkerId(1) });
    assert_eq!(rig.give(listening(1)), [steer(1, true), ready(1)]);
}

#[test]
fn one_that_stops_listening_before_it_is_ready_is_online_again() {
    let mut rig = rig(true, false);
    rig.give(listening(1));
    assert_eq!(rig.give(Input::NotListening { id: WorkerId(1) }), []);
    assert_eq!(rig.state(1), State::Online);
    assert_eq!(rig.give(said(1)), []);
}

#[test]
fn one_that_is_not_ready_in_time_is_stopped_and_counts_as_an_early_exit() {
    let mut rig = rig(true, false);
    rig.give(listening(1));
    assert_eq!(rig.pass(ms(59_999)), []);
    assert_eq!(rig.pass(ms(1)), [not_ready(1, Lack::Word), draining(1), retire(1)]);
    assert_eq!(rig.give(said(1)), []);
    assert_eq!(rig.pass(ms(4500)), [hang_up(1)]);
    assert_eq!(rig.pass(ms(500)), [kill(1)]);
    let uptime = ms(65_000);
    assert_eq!(
        rig.exit(1, TERMINATED),
        [steer(1, false), exited(1, TERMINATED, false, uptime), respawning(0, Duration::ZERO), spawn(2, 0)]
    );
    assert_eq!(rig.slot(0).early_exits, 1);
}

#[test]
fn it_is_told_what_was_missing() {
    for (inputs, lack) in [
        (vec![], Lack::Listening),
        (vec![said(1), healthy(1)], Lack::Listening),
        (vec![listening(1), healthy(1)], Lack::Word),
        (vec![listening(1), said(1)], Lack::Health),
    ] {
        let mut rig = rig(true, true);
        for input in inputs {
            rig.give(input);
        }
        assert_eq!(rig.pass(ms(60_000))[0], not_ready(1, lack));
    }
}

#[test]
fn without_a_condition_a_worker_may_take_for_ever() {
    let mut rig = rig(false, false);
    assert_eq!(rig.pool.next_deadline(), None);
    assert_eq!(rig.pass(ms(3_600_000)), []);
}

#[test]
fn a_pool_of_which_nobody_is_ever_ready_in_time_is_given_up() {
    let mut rig = rig(true, false);
    let mut effects = Vec::new();
    for id in 1..=6 {
        rig.spawned(id);
        rig.pass(ms(60_000));
        effects = rig.exit(id, TERMINATED);
        rig.pass(ms(20_000));
    }
    assert_eq!(verdict(&effects), Some(Verdict::NeverReady { status: TERMINATED }));
}

#[test]
fn to_run_for_a_while_is_no_good_start_for_one_that_is_not_ready() {
    let mut rig = rig(true, false);
    for id in 1..=3 {
        rig.spawned(id);
        rig.pass(ms(1000));
        rig.pass(ms(59_000));
        rig.exit(id, TERMINATED);
        rig.pass(ms(20_000));
    }
    assert_eq!(rig.slot(0).early_exits, 3);
    rig.spawned(4);
    rig.give(listening(4));
    rig.pass(ms(5000));
    assert_eq!(rig.slot(0).early_exits, 3);
    rig.give(said(4));
    rig.pass(ms(0));
    assert_eq!(rig.slot(0).early_exits, 0);
}

#[test]
fn one_that_has_failed_and_is_stopped_with_the_pool_is_not_replaced() {
    let mut rig = rig(true, false);
    rig.pass(ms(60_000));
    rig.give(Input::Stop);
    let effects = rig.exit(1, TERMINATED);
    assert_eq!(effects[0], exited(1, TERMINATED, true, ms(60_000)));
    assert_eq!(verdict(&effects), Some(Verdict::Stopped));
}

#[test]
fn one_that_has_failed_in_a_slot_that_is_gone_is_not_replaced() {
    let mut rig = Rig::new(PoolSettings { workers: 2, wait_ready: true, ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.spawned(1);
    rig.spawned(2);
    rig.pass(ms(60_000));
    rig.give(Input::Scale(1));
    assert!(!rig.exit(2, FAILED).iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
}

#[test]
fn the_replacement_of_a_hung_worker_has_to_show_as_much() {
    let mut rig = rig(true, false);
    rig.give(listening(1));
    rig.give(said(1));
    rig.stall(1);
    rig.spawned(2);
    assert_eq!(rig.give(listening(2)), []);
    assert_eq!(rig.give(said(2)), [steer(2, true), ready(2), kill(1)]);
}

#[test]
fn a_reload_has_its_own_time_to_be_ready_in() {
    let mut rig = rig(false, true);
    rig.give(listening(1));
    rig.give(healthy(1));
    let plan = ReloadPlan { ready_timeout: ms(90_000), ..ReloadPlan::default() };
    rig.give(Input::Reload(plan));
    rig.spawned(2);
    rig.give(listening(2));
    assert_eq!(rig.pass(ms(89_999)), []);
    let effects = rig.pass(ms(1));
    assert!(effects.contains(&retire(2)) && !effects.contains(&retire(1)), "{effects:?}");
    assert_eq!(rig.state(1), State::Ready);
}
