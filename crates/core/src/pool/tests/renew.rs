//! Workers that are replaced though they serve.

use std::time::Duration;

use super::{FAILED, Rig, delay, drain, draining, exited, kill, ms, ready, replace, retire, spawn, steer};
use crate::pool::{Announcement, Effect, Fault, Input, PoolSettings, Reason, ReloadPlan};
use crate::worker::{State, WorkerId};

fn fall(id: u32) -> Input {
    Input::Unhealthy { id: WorkerId(id), is_silent: false }
}

fn recover(id: u32) -> Input {
    Input::Healthy { id: WorkerId(id) }
}

fn renew(id: u32, reason: Reason) -> Input {
    Input::Renew { id: WorkerId(id), reason }
}

fn unhealthy(id: u32) -> Effect {
    Effect::Announce(Announcement::Unhealthy { id: WorkerId(id) })
}

fn renewing(id: u32, reason: Reason) -> Effect {
    Effect::Announce(Announcement::Renewing { id: WorkerId(id), reason })
}

fn outgoing(rig: &Rig) -> Vec<u32> {
    rig.pool.workers().filter(|view| view.is_outgoing).map(|view| view.id.0).collect()
}

#[test]
fn an_unhealthy_worker_serves_until_another_is_ready_beside_it() {
    let mut rig = Rig::ready(2);
    assert_eq!(rig.give(fall(1)), [unhealthy(1), renewing(1, Reason::Unhealthy), spawn(3, 0)]);
    assert_eq!((rig.state(1), outgoing(&rig)), (State::Ready, vec![1]));
    assert_eq!(rig.pool.worker(WorkerId(3)).unwrap().is_replacing, Some(WorkerId(1)));
    assert_eq!(rig.give(fall(1)), []);
    assert_eq!(rig.raise(3), [steer(3, true), ready(3), steer(1, false), draining(1)]);
    assert_eq!(rig.pass(ms(1000)), [drain(1)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(1) }), [retire(1)]);
    assert_eq!(rig.exit(1, FAILED), [exited(1, FAILED, true, ms(2000))]);
    assert!(rig.pool.is_settled());
}

#[test]
fn one_that_does_not_answer_shares_its_lane_with_its_successor() {
    let mut rig = Rig::ready(1);
    let effects = rig.give(Input::Unhealthy { id: WorkerId(1), is_silent: true });
    assert_eq!(effects, [unhealthy(1), renewing(1, Reason::Unresponsive), replace(2, 0, 1)]);
    assert_eq!(rig.raise(2), [steer(2, true), ready(2), steer(1, false), draining(1)]);
}

#[test]
fn one_that_recovers_stays() {
    let mut rig = Rig::ready(1);
    rig.give(fall(1));
    rig.spawned(2);
    assert_eq!(rig.give(recover(1)), [draining(2), retire(2)]);
    assert_eq!(outgoing(&rig), [0_u32; 0]);
    rig.exit(2, FAILED);
    assert!(rig.pool.is_settled());
    assert_eq!(rig.give(fall(1)), [unhealthy(1), renewing(1, Reason::Unhealthy), spawn(3, 0)]);
}

#[test]
fn one_that_recovers_too_late_goes() {
    let mut rig = Rig::ready(1);
    rig.give(fall(1));
    rig.raise(2);
    assert_eq!(rig.give(recover(1)), []);
    assert_eq!((rig.state(1), rig.state(2)), (State::Draining, State::Ready));
}

#[test]
fn where_all_are_unhealthy_one_is_replaced_at_a_time() {
    let mut rig = Rig::ready(3);
    rig.give(fall(2));
    assert_eq!(rig.give(fall(1)), [unhealthy(1)]);
    assert_eq!(rig.give(fall(3)), [unhealthy(3)]);
    assert_eq!(outgoing(&rig), [2]);
    let effects = rig.raise(4);
    assert_eq!(effects[2..], [steer(2, false), draining(2), renewing(1, Reason::Unhealthy), spawn(5, 0)]);
}

#[test]
fn a_successor_that_never_gets_ready_costs_nothing() {
    let settings = PoolSettings { workers: 2, wait_healthy: true, ..PoolSettings::default() };
    let mut rig = Rig::new(settings);
    rig.give(Input::Start);
    for id in 1..=2 {
        rig.raise(id);
        rig.give(recover(id));
    }
    rig.give(fall(1));
    rig.give(fall(2));
    for id in 3..10 {
        rig.raise(id);
        rig.pass(ms(60_000));
        let effects = rig.exit(id, FAILED);
        assert_eq!((rig.state(1), rig.state(2)), (State::Ready, State::Ready), "{effects:?}");
        rig.pass(delay(&effects).unwrap_or_else(|| panic!("{effects:?}")));
    }
    assert!(rig.slot(0).is_crash_looping);
}

#[test]
fn one_that_dies_while_its_successor_is_on_its_way_needs_no_other() {
    let mut rig = Rig::ready(1);
    rig.give(fall(1));
    assert_eq!(rig.exit(1, FAILED), [steer(1, false), exited(1, FAILED, false, ms(1000))]);
    rig.raise(2);
    assert!(rig.pool.is_settled());
}

#[test]
fn a_successor_that_crashes_is_followed_by_another() {
    let mut rig = Rig::ready(1);
    rig.give(fall(1));
    rig.spawned(2);
    assert_eq!(rig.exit(2, FAILED).last(), Some(&spawn(3, 0)));
    rig.spawned(3);
    let wait = delay(&rig.exit(3, FAILED)).unwrap();
    assert!(wait >= ms(80), "backoff counts");
    assert_eq!(rig.give(recover(1)), []);
    assert_eq!(rig.pass(wait), []);
    assert!(rig.pool.is_settled());
}

#[test]
fn one_that_hangs_while_its_successor_is_on_its_way_is_killed_when_that_is_ready() {
    let mut rig = Rig::ready(1);
    rig.give(fall(1));
    let hung = Effect::Announce(Announcement::Hung { id: WorkerId(1) });
    assert_eq!(rig.stall(1), [steer(1, false), hung]);
    assert_eq!(rig.raise(2), [steer(2, true), ready(2), kill(1)]);
}

#[test]
fn one_that_is_too_large_is_replaced_once_the_one_before_is_gone() {
    let mut rig = Rig::ready(2);
    let effects = rig.give(renew(1, Reason::Memory));
    assert_eq!(effects, [renewing(1, Reason::Memory), spawn(3, 0)]);
    assert_eq!(rig.give(renew(2, Reason::Memory)), []);
    rig.raise(3);
    assert_eq!(rig.give(recover(1)), []);
    assert_eq!(outgoing(&rig), [0_u32; 0], "the first one drains");
    let effects = rig.exit(1, FAILED);
    assert_eq!(effects[1..], [renewing(2, Reason::Memory), spawn(4, 1)]);
}

#[test]
fn one_that_is_unhealthy_does_not_wait_for_the_drain_of_another() {
    let mut rig = Rig::ready(2);
    rig.give(renew(1, Reason::Memory));
    rig.raise(3);
    assert_eq!(rig.give(fall(2)), [unhealthy(2), renewing(2, Reason::Unhealthy), spawn(4, 1)]);
}

#[test]
fn one_that_is_too_large_at_once_is_let_live_for_a_while() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    rig.raise(1);
    assert_eq!(rig.give(renew(1, Reason::Memory)), []);
    rig.pass(ms(1000));
    assert_eq!(rig.give(renew(1, Reason::Memory)), [renewing(1, Reason::Memory), spawn(2, 0)]);
}

#[test]
fn lifetimes_differ_by_a_tenth_at_the_most() {
    let hour = Duration::from_hours(1);
    let settings = PoolSettings { workers: 20, max_lifetime: Some(hour), ..PoolSettings::default() };
    let mut rig = Rig::new(settings);
    rig.give(Input::Start);
    for id in 1..=20 {
        rig.raise(id);
    }
    let (mut ends, mut next) = (Vec::new(), 21);
    while ends.len() < 20 {
        let wait = rig.pool.next_deadline().unwrap().saturating_sub(rig.now);
        let mut effects = rig.pass(wait);
        while let Some(effect) = effects.pop() {
            if let Effect::Announce(Announcement::Renewing { id, reason: Reason::Lifetime }) = effect {
                ends.push(rig.now);
                rig.raise(next);
                effects.extend(rig.exit(id.0, FAILED));
                next += 1;
            }
        }
    }
    assert!(ends[0] >= hour * 9 / 10 && ends[19] <= hour * 11 / 10, "{ends:?}");
    assert!(ends[19].saturating_sub(ends[0]) > hour / 10, "{ends:?}");
}

#[test]
fn a_reload_replaces_those_that_were_to_be_replaced() {
    let mut rig = Rig::ready(1);
    rig.give(fall(1));
    rig.spawned(2);
    let effects = rig.give(Input::Reload(ReloadPlan::default()));
    assert!(effects.contains(&retire(2)), "{effects:?}");
    rig.exit(2, FAILED);
    rig.raise(3);
    assert_eq!((rig.state(1), rig.state(3)), (State::Draining, State::Ready));
    rig.exit(1, FAILED);
    assert!(rig.pool.is_settled());
}

#[test]
fn a_reload_that_fails_leaves_them_to_be_replaced_after_it() {
    let mut rig = Rig::ready(1);
    rig.give(renew(1, Reason::Memory));
    rig.spawned(2);
    rig.give(Input::Reload(ReloadPlan::default()));
    rig.exit(2, FAILED);
    rig.spawned(3);
    let effects = rig.exit(3, FAILED);
    assert_eq!(effects[effects.len() - 2..], [renewing(1, Reason::Memory), spawn(4, 0)]);
}

#[test]
fn a_new_worker_that_becomes_unhealthy_on_trial_fails_the_reload() {
    let mut rig = Rig::ready(1);
    rig.give(Input::Reload(ReloadPlan { canary: ms(5000), ..ReloadPlan::default() }));
    rig.raise(2);
    rig.pass(ms(1000));
    let effects = rig.give(fall(2));
    let fault = Effect::Announce(Announcement::RollingBack {
        generation: 2,
        id: WorkerId(2),
        slot: crate::worker::Slot(0),
        fault: Fault::Unhealthy,
    });
    assert!(effects.contains(&fault), "{effects:?}");
    assert_eq!((rig.state(1), rig.state(2)), (State::Ready, State::Draining));
}

#[test]
fn nobody_who_does_not_serve_is_replaced() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    rig.spawned(1);
    assert_eq!(rig.give(fall(1)), []);
    assert_eq!(rig.give(renew(1, Reason::Lifetime)), []);
    rig.raise(1);
    rig.give(Input::Stop);
    assert_eq!(rig.give(fall(1)), []);
    assert_eq!(rig.give(renew(1, Reason::Lifetime)), []);
}

#[test]
fn scaling_down_sends_both_away() {
    let mut rig = Rig::ready(2);
    rig.give(fall(2));
    rig.spawned(3);
    let effects = rig.give(Input::Scale(1));
    assert!(effects.contains(&draining(2)) && effects.contains(&draining(3)), "{effects:?}");
}

#[test]
fn nobody_is_replaced_where_workers_are_not_kept() {
    let mut rig = Rig::unkept(1);
    rig.give(Input::Start);
    rig.raise(1);
    rig.pass(ms(1000));
    assert_eq!(rig.give(fall(1)), [unhealthy(1)]);
    assert_eq!(rig.give(renew(1, Reason::Memory)), []);
}
