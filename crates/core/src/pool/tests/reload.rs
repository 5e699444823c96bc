//! Reloads: slot by slot, on trial, taken back, overtaken.

use std::time::Duration;

use crate::exit::ExitStatus;
use crate::pool::tests::{
    FAILED, KILLED, Rig, delay, drain, draining, exited, forked, kill, ms, ready, respawning, retire, spawn,
    spawn_of, steer, stopping,
};
use crate::pool::{Announcement, Effect, Fault, Input, Lack, PoolSettings, ReloadPlan};
use crate::worker::{Slot, State, WorkerId};

impl Rig {
    fn reload(&mut self) -> Vec<Effect> {
        self.reload_by(ReloadPlan::default())
    }

    fn reload_by(&mut self, plan: ReloadPlan) -> Vec<Effect> {
        self.give(Input::Reload(plan))
    }

    /// Lets a worker linger, finish and go.
    fn see_off(&mut self, id: u32) -> Vec<Effect> {
        self.pass(ms(1000));
        self.give(Input::Quiet { id: WorkerId(id) });
        self.exit(id, ExitStatus::Signal(15))
    }

    /// The generations of the live workers, by slot and id.
    fn generations(&self) -> Vec<u32> {
        self.pool.workers().map(|view| view.generation).collect()
    }
}

fn plan(surge: u16, canary: u64) -> ReloadPlan {
    ReloadPlan { surge, canary: ms(canary), ..ReloadPlan::default() }
}

fn reloading(generation: u32) -> Effect {
    Effect::Announce(Announcement::Reloading { generation })
}

fn replaced(slot: u16, done: u16) -> Effect {
    Effect::Announce(Announcement::Replaced { slot: Slot(slot), done })
}

fn rolling_back(generation: u32, id: u32, slot: u16, fault: Fault) -> Effect {
    Effect::Announce(Announcement::RollingBack { generation, id: WorkerId(id), slot: Slot(slot), fault })
}

fn failed(generation: u32, id: u32, slot: u16, fault: Fault, is_rolled_back: bool) -> Effect {
    let (id, slot) = (WorkerId(id), Slot(slot));
    Effect::Announce(Announcement::ReloadFailed { generation, id, slot, fault, is_rolled_back })
}

fn reloaded(generation: u32, millis: u64) -> Effect {
    Effect::Announce(Announcement::Reloaded { generation, took: ms(millis) })
}

fn is_over(effects: &[Effect]) -> bool {
    let is_end = |effect: &Effect| {
        matches!(effect, Effect::Announce(Announcement::Reloaded { .. } | Announcement::ReloadFailed { .. }))
    };
    effects.iter().any(is_end)
}

#[test]
fn a_reload_goes_slot_by_slot_and_takes_nothing_away_before_its_replacement_is_ready() {
    let mut rig = Rig::ready(2);
    assert_eq!(rig.reload(), [reloading(2), spawn_of(2, 3, 0)]);
    assert_eq!(rig.spawned(3), [forked(3)]);
    let listening = rig.give(Input::Listening { id: WorkerId(3) });
    assert_eq!(listening, [steer(3, true), ready(3), steer(1, false), draining(1)]);
    assert_eq!(rig.pass(ms(1000)), [drain(1)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(1) }), [retire(1)]);
    let gone = exited(1, ExitStatus::Signal(15), true, ms(2000));
    assert_eq!(
        rig.exit(1, ExitStatus::Signal(15)),
        [gone, spawn_of(2, 4, 1), replaced(0, 1)],
        "the next slot begins when the old worker is gone"
    );
    assert_eq!(rig.pool.generation(), 1);
    rig.raise(4);
    let effects = rig.see_off(2);
    assert_eq!(effects[1..], [replaced(1, 2), reloaded(2, 2000)]);
    assert!(rig.pool.is_settled());
    assert_eq!((rig.pool.generation(), rig.generations()), (2, vec![2, 2]));
}

#[test]
fn surge_is_how_many_slots_are_under_replacement_at_a_time() {
    let mut rig = Rig::ready(3);
    assert_eq!(rig.reload_by(plan(2, 0)), [reloading(2), spawn_of(2, 4, 0), spawn_of(2, 5, 1)]);
    rig.raise(5);
    assert_eq!(rig.see_off(2)[1..], [spawn_of(2, 6, 2), replaced(1, 1)]);
}

#[test]
fn the_first_new_worker_is_watched_beside_the_old_one() {
    let mut rig = Rig::ready(2);
    rig.reload_by(plan(2, 500));
    let effects = rig.raise(3);
    let watching = Announcement::Watching { id: WorkerId(3), time: ms(500) };
    assert_eq!(effects, [steer(3, true), ready(3), Effect::Announce(watching)]);
    assert_eq!(rig.pass(ms(499)), []);
    assert_eq!(rig.pool.next_deadline(), Some(rig.now + ms(1)));
    assert_eq!(rig.pass(ms(1)), [steer(1, false), draining(1), spawn_of(2, 4, 1)]);
}

#[test]
fn one_that_is_scaled_to_nothing_while_the_first_new_worker_starts_ends_as_well() {
    let mut rig = Rig::new(PoolSettings { least: 0, ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.raise(1);
    rig.reload_by(plan(1, 500));
    rig.spawned(2);
    rig.give(Input::Scale(0));
    assert!(is_over(&rig.see_off(1)));
    rig.exit(2, KILLED);
    assert!(rig.pool.is_settled());
    assert_eq!(rig.give(Input::Scale(1)), [spawn_of(2, 3, 0)]);
}

#[test]
fn a_crash_in_the_canary_time_takes_nothing_from_the_old_generation() {
    let mut rig = Rig::ready(2);
    rig.reload_by(plan(1, 5000));
    rig.raise(3);
    rig.pass(ms(2000));
    let fault = Fault::Exited { status: FAILED };
    let gone = exited(3, FAILED, false, ms(2000));
    let effects = rig.exit(3, FAILED);
    assert_eq!(effects, [steer(3, false), gone, rolling_back(2, 3, 0, fault), failed(2, 3, 0, fault, true)]);
    assert!(rig.pool.is_settled());
    assert_eq!(rig.generations(), [1, 1]);
    assert_eq!(rig.reload()[0], reloading(3), "a generation that failed is not reused");
}

#[test]
fn a_stall_or_a_closed_listener_in_the_canary_time_is_a_fault() {
    for (input, fault) in [
        (Input::Stalled { id: WorkerId(2) }, Fault::Hung),
        (Input::NotListening { id: WorkerId(2) }, Fault::NotListening),
    ] {
        let mut rig = Rig::ready(1);
        rig.reload_by(plan(1, 5000));
        rig.raise(2);
        let effects = rig.give(input);
        assert!(effects.contains(&rolling_back(2, 2, 0, fault)), "{effects:?}");
        assert_eq!(rig.state(2), State::Draining);
        assert_eq!(rig.state(1), State::Ready);
        rig.pass(ms(20_000));
        let effects = rig.exit(2, KILLED);
        assert_eq!(effects.last(), Some(&failed(2, 2, 0, fault, true)));
    }
}

#[test]
fn a_version_that_ends_at_boot_takes_the_place_of_nobody() {
    let mut rig = Rig::ready(2);
    rig.reload();
    rig.spawned(3);
    let fault = Fault::Exited { status: FAILED };
    let effects = rig.exit(3, FAILED);
    assert_eq!(effects[2..], [rolling_back(2, 3, 0, fault), failed(2, 3, 0, fault, true)]);
    assert_eq!((rig.generations(), rig.slot(0).early_exits), (vec![1, 1], 0));
}

#[test]
fn a_version_that_never_listens_is_given_up_in_time() {
    let mut rig = Rig::ready(1);
    rig.reload_by(ReloadPlan { ready_timeout: ms(3000), ..plan(1, 0) });
    rig.spawned(2);
    assert_eq!(rig.pool.next_deadline(), Some(rig.now + ms(3000)));
    assert_eq!(rig.pass(ms(2999)), []);
    let fault = Fault::NotReady { lack: Lack::Listening };
    assert_eq!(rig.pass(ms(1)), [rolling_back(2, 2, 0, fault), draining(2), retire(2)]);
    assert_eq!(rig.give(Input::Listening { id: WorkerId(2) }), [], "too late");
    assert_eq!(rig.exit(2, KILLED)[1..], [replaced(0, 1), failed(2, 2, 0, fault, true)]);
}

#[test]
fn a_process_that_can_not_be_made_fails_the_reload() {
    let mut rig = Rig::ready(1);
    rig.reload();
    let effects = rig.give(Input::SpawnFailed { id: WorkerId(2) });
    let fault = Fault::NotSpawned;
    assert_eq!(effects, [rolling_back(2, 2, 0, fault), failed(2, 2, 0, fault, true)]);
    assert!(rig.pool.is_settled());
}

#[test]
fn slots_that_were_replaced_already_are_rolled_back_the_same_way() {
    let mut rig = Rig::ready(2);
    rig.reload();
    rig.raise(3);
    rig.see_off(1);
    rig.spawned(4);
    let fault = Fault::Exited { status: FAILED };
    let effects = rig.exit(4, FAILED);
    assert_eq!(effects[2..], [rolling_back(2, 4, 1, fault), spawn_of(1, 5, 0)]);
    assert_eq!(rig.state(3), State::Ready, "it serves until its replacement does");
    let effects = rig.raise(5);
    assert_eq!(effects, [steer(5, true), ready(5), steer(3, false), draining(3)]);
    let effects = rig.see_off(3);
    assert_eq!(effects[1..], [replaced(0, 2), failed(2, 4, 1, fault, true)]);
    assert_eq!((rig.pool.generation(), rig.generations()), (1, vec![1, 1]));
}

#[test]
fn an_early_end_after_it_was_ready_is_a_fault_too() {
    let mut rig = Rig::ready(2);
    rig.reload();
    rig.raise(3);
    rig.pass(ms(999));
    let effects = rig.exit(3, FAILED);
    let fault = Fault::Exited { status: FAILED };
    assert_eq!(
        effects[2..],
        [rolling_back(2, 3, 0, fault), respawning(0, Duration::ZERO), spawn_of(1, 4, 0)]
    );
    assert_eq!(rig.raise(4)[2..], [replaced(0, 2), failed(2, 3, 0, fault, true)]);
}

#[test]
fn a_new_worker_that_dies_while_other_slots_are_old_fails_the_reload_however_long_it_was_up() {
    for status in [FAILED, KILLED] {
        let mut rig = Rig::ready(2);
        rig.reload();
        rig.raise(3);
        rig.see_off(1);
        rig.spawned(4);
        rig.pass(ms(9000));
        let fault = Fault::Exited { status };
        assert_eq!(
            rig.exit(3, status)[2..],
            [
                rolling_back(2, 3, 0, fault),
                respawning(0, Duration::ZERO),
                spawn_of(1, 5, 0),
                draining(4),
                retire(4)
            ]
        );
        rig.raise(5);
        assert_eq!(rig.exit(4, KILLED)[1..], [replaced(1, 2), failed(2, 3, 0, fault, true)]);
        assert_eq!((rig.pool.generation(), rig.generations()), (1, vec![1, 1]));
    }
}

#[test]
fn a_new_worker_that_has_served_well_and_ends_in_peace_is_replaced_and_the_reload_goes_on() {
    for closes_first in [false, true] {
        let mut rig = Rig::ready(2);
        rig.reload();
        rig.raise(3);
        rig.see_off(1);
        rig.spawned(4);
        rig.pass(ms(1000));
        if closes_first {
            rig.give(Input::NotListening { id: WorkerId(3) });
        }
        let effects = rig.exit(3, ExitStatus::Code(0));
        assert_eq!(effects[2..], [respawning(0, Duration::ZERO), spawn_of(2, 5, 0)]);
        rig.raise(5);
        rig.give(Input::Listening { id: WorkerId(4) });
        assert!(is_over(&rig.see_off(2)));
        assert_eq!((rig.pool.generation(), rig.generations()), (2, vec![2, 2]));
    }
}

#[test]
fn a_new_worker_that_ends_in_peace_before_it_has_served_well_or_while_it_is_watched_fails_the_reload() {
    let fault = Fault::Exited { status: ExitStatus::Code(0) };
    // It took its time to come up.
    let mut rig = Rig::ready(2);
    rig.reload();
    rig.spawned(3);
    rig.pass(ms(5000));
    rig.give(Input::Listening { id: WorkerId(3) });
    rig.pass(ms(999));
    assert_eq!(rig.exit(3, ExitStatus::Code(0))[2], rolling_back(2, 3, 0, fault));

    let mut rig = Rig::ready(2);
    rig.reload_by(plan(1, 9000));
    rig.raise(3);
    rig.pass(ms(8000));
    assert_eq!(rig.exit(3, ExitStatus::Code(0))[2], rolling_back(2, 3, 0, fault));
}

#[test]
fn a_new_worker_that_dies_while_the_last_old_one_finishes_fails_the_reload() {
    let mut rig = Rig::ready(1);
    rig.reload();
    rig.raise(2);
    rig.pass(ms(5000));
    let fault = Fault::Exited { status: FAILED };
    let effects = rig.exit(2, FAILED);
    assert_eq!(
        effects[2..],
        [rolling_back(2, 2, 0, fault), respawning(0, Duration::ZERO), spawn_of(1, 3, 0)]
    );
    assert_eq!(rig.raise(3)[2..], [replaced(0, 1), failed(2, 2, 0, fault, true)]);
    assert_eq!(rig.generations(), [1, 1], "the one on its way out is of that version too");
}

#[test]
fn a_new_worker_whose_end_was_brought_about_is_no_fault() {
    let mut rig = Rig::ready(3);
    rig.reload();
    rig.raise(4);
    rig.see_off(1);
    rig.raise(5);
    // One hangs and is killed by its successor, another is disconnected, a third scaled away.
    rig.stall(4);
    assert_eq!(rig.raise(6).iter().filter(|effect| **effect == kill(4)).count(), 1);
    rig.exit(4, KILLED);
    rig.disconnect(5);
    rig.raise(7);
    rig.exit(5, FAILED);
    rig.give(Input::Scale(4));
    rig.raise(8);
    rig.give(Input::Scale(3));
    rig.exit(8, FAILED);
    rig.see_off(2);
    rig.raise(9);
    assert_eq!(rig.see_off(3).last(), Some(&reloaded(2, 3000)));
    assert_eq!(rig.generations(), [2, 2, 2]);
}

#[test]
fn a_worker_that_has_served_all_the_time_and_dies_on_the_way_back_is_replaced() {
    let mut rig = Rig::ready(3);
    rig.reload();
    rig.raise(4);
    rig.see_off(1);
    rig.spawned(5);
    let fault = Fault::Exited { status: FAILED };
    assert_eq!(rig.exit(5, FAILED)[2..], [rolling_back(2, 5, 1, fault), spawn_of(1, 6, 0)]);
    assert_eq!(rig.exit(3, KILLED).last(), Some(&spawn_of(1, 7, 2)));
    rig.raise(6);
    rig.raise(7);
    assert_eq!(rig.see_off(4).last(), Some(&failed(2, 5, 1, fault, true)));
}

#[test]
fn where_the_way_back_fails_too_each_slot_keeps_what_serves() {
    let mut rig = Rig::ready(2);
    rig.reload();
    rig.raise(3);
    rig.see_off(1);
    rig.spawned(4);
    rig.exit(4, FAILED);
    rig.spawned(5);
    let fault = Fault::Exited { status: FAILED };
    assert_eq!(rig.exit(5, KILLED)[2..], [failed(2, 4, 1, fault, false)]);
    assert_eq!((rig.pool.generation(), rig.generations()), (1, vec![2, 1]));
    assert_eq!(rig.exit(3, KILLED).last(), Some(&spawn_of(2, 6, 0)), "what served is kept up");
}

#[test]
fn an_old_worker_that_dies_before_its_turn_is_replaced_in_the_old_generation() {
    let mut rig = Rig::ready(2);
    rig.reload();
    assert_eq!(rig.exit(2, KILLED).last(), Some(&spawn_of(1, 4, 1)));
}

#[test]
fn an_old_worker_that_dies_while_its_replacement_starts_needs_no_other() {
    let mut rig = Rig::ready(1);
    rig.reload();
    rig.spawned(2);
    assert_eq!(rig.exit(1, KILLED), [steer(1, false), exited(1, KILLED, false, ms(1000))]);
    let effects = rig.give(Input::Listening { id: WorkerId(2) });
    assert_eq!(effects, [steer(2, true), ready(2), replaced(0, 1), reloaded(2, 0)]);
}

#[test]
fn an_old_worker_that_died_is_started_again_when_the_new_one_is_no_good() {
    let mut rig = Rig::ready(1);
    rig.reload();
    rig.spawned(2);
    rig.exit(1, KILLED);
    let effects = rig.exit(2, FAILED);
    assert_eq!(effects.last(), Some(&spawn_of(1, 3, 0)));
    assert!(!is_over(&effects));
    assert!(is_over(&rig.raise(3)));
}

#[test]
fn an_old_worker_that_hangs_beside_its_replacement_is_killed_by_it() {
    let mut rig = Rig::ready(1);
    rig.reload();
    rig.spawned(2);
    let hung = Effect::Announce(Announcement::Hung { id: WorkerId(1) });
    assert_eq!(rig.stall(1), [steer(1, false), hung]);
    rig.give(Input::Listening { id: WorkerId(2) });
    assert!(is_over(&rig.exit(1, KILLED)));
}

#[test]
fn reloads_that_are_asked_for_meanwhile_become_one() {
    let mut rig = Rig::ready(1);
    rig.reload();
    assert_eq!(rig.reload_by(plan(1, 700)), []);
    assert_eq!(rig.reload_by(plan(1, 0)), []);
    assert!(rig.pool.reloading().unwrap().is_queued);
    rig.raise(2);
    let effects = rig.see_off(1);
    assert_eq!(effects[2..], [reloaded(2, 1000), reloading(3), spawn_of(3, 3, 0)]);
    rig.raise(3);
    assert_eq!(rig.see_off(2)[2..], [reloaded(3, 1000)]);
    assert!(rig.pool.is_settled() && rig.pool.reloading().is_none());
}

#[test]
fn what_was_asked_for_meanwhile_follows_a_failure_too() {
    let mut rig = Rig::ready(1);
    rig.reload();
    rig.reload();
    rig.spawned(2);
    assert_eq!(rig.exit(2, FAILED)[4..], [reloading(3), spawn_of(3, 3, 0)]);
}

#[test]
fn stop_is_accepted_while_reloading() {
    let mut rig = Rig::ready(1);
    rig.reload();
    rig.reload();
    rig.spawned(2);
    let effects = rig.give(Input::Stop);
    assert_eq!(effects[0], Effect::Announce(Announcement::ReloadStopped { generation: 2 }));
    assert_eq!(effects[1..3], stopping());
    assert_eq!(effects[3..], [steer(1, false), draining(1), draining(2), retire(2)]);
    assert_eq!(rig.reload(), []);
    assert_eq!(rig.pool.reloading(), None);
}

#[test]
fn slots_that_are_added_while_reloading_are_of_the_new_generation() {
    let mut rig = Rig::ready(1);
    rig.reload();
    assert_eq!(rig.give(Input::Scale(2)), [spawn_of(2, 3, 1)]);
    rig.raise(2);
    rig.raise(3);
    assert!(is_over(&rig.see_off(1)));
    assert_eq!(rig.generations(), [2, 2]);
}

#[test]
fn slots_that_go_while_reloading_are_not_waited_for() {
    let mut rig = Rig::ready(2);
    rig.reload();
    rig.raise(3);
    rig.give(Input::Scale(1));
    rig.pass(ms(1000));
    for id in [1, 2] {
        rig.give(Input::Quiet { id: WorkerId(id) });
    }
    assert!(!is_over(&rig.exit(1, KILLED)));
    assert!(is_over(&rig.exit(2, KILLED)));
    assert_eq!(rig.generations(), [2]);
}

#[test]
fn one_that_was_disconnected_may_take_as_long_as_it_wants_beside_a_reload() {
    let mut rig = Rig::ready(2);
    assert_eq!(rig.disconnect(1).last(), Some(&spawn(3, 0)));
    rig.raise(3);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(1) }), [retire(1)]);
    rig.reload();
    rig.raise(4);
    assert_eq!(rig.see_off(3)[1..], [spawn_of(2, 5, 1), replaced(0, 1)]);
    rig.raise(5);
    assert!(is_over(&rig.see_off(2)));
    assert_eq!(rig.state(1), State::Draining);
    assert_eq!(rig.pass(ms(1_000_000)), []);
}

#[test]
fn one_that_is_disconnected_in_a_reload_is_not_waited_for() {
    let mut rig = Rig::ready(1);
    rig.reload();
    rig.raise(2);
    rig.disconnect(2);
    rig.raise(3);
    assert_eq!(rig.generations(), [1, 2, 2]);
    assert!(is_over(&rig.see_off(1)), "the second is of the new generation");

    let mut rig = Rig::ready(1);
    rig.reload();
    rig.disconnect(1);
    assert!(is_over(&rig.raise(2)), "there is nothing to take from the first");
    assert_eq!(rig.generations(), [1, 2]);
}

#[test]
fn a_reload_is_how_to_mend_a_pool_that_never_was_ready() {
    let mut rig = Rig::new(PoolSettings { max_restarts: 1, ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.spawned(1);
    rig.exit(1, FAILED);
    rig.reload();
    rig.spawned(3);
    rig.spawned(2);
    assert_eq!(
        rig.exit(2, FAILED)[2..],
        [Effect::Announce(Announcement::CrashLoop { slot: Slot(0), exits: 2, status: FAILED })]
    );
    assert!(!rig.pool.is_stopping(), "not while there is hope");
    assert!(is_over(&rig.give(Input::Listening { id: WorkerId(3) })));
    assert!(rig.pool.is_settled());
}

#[test]
fn a_waiting_respawn_is_overtaken_by_the_reload() {
    let mut rig = Rig::ready(1);
    rig.exit(1, FAILED);
    for id in 2..4 {
        rig.spawned(id);
        rig.exit(id, FAILED);
    }
    assert!(rig.slot(0).waiting_until.is_some());
    assert_eq!(rig.reload(), [reloading(2), spawn_of(2, 4, 0)]);
    assert_eq!(rig.slot(0).waiting_until, None);
    rig.spawned(4);
    let effects = rig.exit(4, FAILED);
    assert!(delay(&effects).unwrap() >= ms(80), "it is where it was");
    assert!(!is_over(&effects));
}

/// How many processes there are at a time is how many lanes are needed.
#[test]
fn ten_reloads_never_need_more_than_the_surge_beside_the_workers() {
    for surge in 1..4 {
        let mut rig = Rig::ready(4);
        for _ in 0..10 {
            rig.reload_by(plan(surge, 0));
            while rig.pool.reloading().is_some() {
                assert!(rig.pool.workers().count() <= usize::from(4 + surge));
                let all: Vec<_> = rig.pool.workers().map(|view| (view.id.0, view.state)).collect();
                for (id, state) in all {
                    match state {
                        State::Starting => drop(rig.raise(id)),
                        State::Draining => drop(rig.give(Input::Quiet { id: WorkerId(id) })),
                        _ => {}
                    }
                }
                rig.pass(ms(1000));
                let all: Vec<_> = rig.pool.workers().collect();
                for view in all.iter().filter(|view| view.state == State::Draining) {
                    let effects = rig.give(Input::Quiet { id: view.id });
                    if effects.contains(&retire(view.id.0)) {
                        rig.exit(view.id.0, ExitStatus::Code(0));
                    }
                }
            }
            assert!(rig.pool.is_settled());
        }
        assert_eq!(rig.generations(), [11; 4]);
    }
}

#[test]
fn one_of_an_app_that_never_listens_fails_and_leaves_everything_as_it_was() {
    let mut rig = Rig::new(PoolSettings { workers: 2, ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.spawned(1);
    rig.spawned(2);
    rig.pass(ms(1000));
    rig.reload();
    rig.spawned(3);
    let fault = Fault::NotReady { lack: Lack::Listening };
    let effects = rig.pass(ms(60_000));
    assert!(effects.contains(&rolling_back(2, 3, 0, fault)) && !is_over(&effects), "{effects:?}");
    let gone = exited(3, ExitStatus::Signal(15), true, ms(60_000));
    assert_eq!(rig.exit(3, ExitStatus::Signal(15)), [gone, replaced(0, 2), failed(2, 3, 0, fault, true)]);
    assert_eq!(rig.generations(), [1, 1]);
    assert_eq!(rig.pass(ms(120_000)), [], "nothing more comes of it");
}
