//! Crashes, backoff, crash loops and verdicts.

use std::time::Duration;

use proptest::{prop_assert, proptest};

use crate::exit::ExitStatus;
use crate::pool::slot::{Jitter, SlotState};
use crate::pool::tests::{FAILED, KILLED, Rig, delay, exited, kill, ms, respawning, spawn, steer, verdict};
use crate::pool::{Announcement, Effect, Input, LastExit, PoolSettings, Verdict};
use crate::worker::{Slot, WorkerId};

/// One slot whose worker crashes at once, this many times in a row; tells what followed each crash.
fn crash(rig: &mut Rig, times: usize, status: ExitStatus) -> Vec<Vec<Effect>> {
    let again = |_| {
        let id = rig.pool.workers().last().unwrap().id.0;
        rig.spawned(id);
        let effects = rig.exit(id, status);
        if let Some(at) = rig.slot(0).waiting_until {
            rig.pass(at.saturating_sub(rig.now));
        }
        effects
    };
    (0..times).map(again).collect()
}

fn loops(effects: &[Vec<Effect>]) -> Vec<u32> {
    let news = |effect: &Effect| match effect {
        Effect::Announce(Announcement::CrashLoop { exits, .. }) => Some(*exits),
        _ => None,
    };
    effects.iter().flatten().filter_map(news).collect()
}

#[test]
fn a_crash_after_a_good_run_is_answered_at_once() {
    let mut rig = Rig::ready(2);
    let effects = rig.exit(1, KILLED);
    let told = exited(1, KILLED, false, ms(1000));
    assert_eq!(effects, [steer(1, false), told, respawning(0, Duration::ZERO), spawn(3, 0)]);
    let slot = rig.slot(0);
    assert_eq!((slot.restarts, slot.early_exits), (1, 0));
    assert_eq!(slot.last_exit, Some(LastExit { status: KILLED, at: rig.now }));
}

#[test]
fn code_zero_is_a_crash_too_when_nobody_asked() {
    let mut rig = Rig::ready(1);
    assert_eq!(rig.exit(1, ExitStatus::Code(0)).last(), Some(&spawn(2, 0)));
}

#[test]
fn the_first_early_exit_is_answered_at_once_and_later_ones_back_off() {
    let mut rig = Rig::ready(1);
    rig.exit(1, FAILED);
    let effects = crash(&mut rig, 4, FAILED);
    let delays: Vec<_> = effects.iter().map(|effects| delay(effects).unwrap()).collect();
    assert_eq!(delays[0], Duration::ZERO);
    for (delay, about) in delays[1..].iter().zip([100, 200, 400]) {
        assert!((ms(about * 8 / 10)..=ms(about * 12 / 10)).contains(delay), "{delay:?}");
    }
}

/// A program that takes seconds to find that it can't serve crashes as much as one that knows at once.
#[test]
fn who_fails_before_it_was_ever_ready_has_begun_badly_however_long_it_took() {
    let mut rig = Rig::ready(1);
    let early_exits = |rig: &mut Rig, id, after, status| {
        rig.spawned(id);
        rig.pass(ms(after));
        rig.exit(id, status);
        rig.slot(0).early_exits
    };
    rig.exit(1, FAILED);
    let minute = u64::try_from(PoolSettings::default().ready_timeout.as_millis()).unwrap();
    assert_eq!(early_exits(&mut rig, 2, minute - 1, FAILED), 1);
    rig.pass(ms(20_000));
    // It did what it does, whatever that is: it listens nowhere.
    assert_eq!(early_exits(&mut rig, 3, minute, FAILED), 0);
    assert_eq!(early_exits(&mut rig, 4, 1000, ExitStatus::Code(0)), 0);
    assert_eq!(early_exits(&mut rig, 5, 999, ExitStatus::Code(0)), 1);
}

#[test]
fn nothing_is_spawned_before_the_backoff_is_over() {
    let mut rig = Rig::ready(1);
    rig.exit(1, FAILED);
    rig.spawned(2);
    rig.exit(2, FAILED);
    rig.spawned(3);
    let wait = delay(&rig.exit(3, FAILED)).unwrap();
    assert_eq!(rig.pass(wait.saturating_sub(ms(1))), []);
    assert_eq!(rig.pool.next_deadline(), Some(rig.now + ms(1)));
    assert_eq!(rig.pass(ms(1)), [spawn(4, 0)]);
    assert_eq!(rig.slot(0).waiting_until, None);
}

#[test]
fn a_crash_loop_is_told_once_and_again_when_it_has_doubled() {
    let mut rig = Rig::ready(1);
    rig.exit(1, FAILED);
    let effects = crash(&mut rig, 30, FAILED);
    assert_eq!(loops(&effects), [6, 12, 24]);
    assert!(rig.slot(0).is_crash_looping);
    assert!((ms(12_000)..=ms(15_000)).contains(&delay(&effects[29]).unwrap()));
}

#[test]
fn a_worker_that_stays_up_ends_the_crash_loop() {
    let mut rig = Rig::ready(1);
    rig.exit(1, FAILED);
    crash(&mut rig, 6, FAILED);
    let id = rig.pool.workers().last().unwrap().id.0;
    rig.raise(id);
    assert_eq!(rig.pass(ms(999)), []);
    assert!(rig.slot(0).is_crash_looping);
    assert_eq!(rig.pool.next_deadline(), Some(rig.now + ms(1)));
    assert_eq!(rig.pass(ms(1)), []);
    assert!(!rig.slot(0).is_crash_looping);
    assert_eq!(rig.pool.next_deadline(), None);
    assert_eq!(loops(&crash(&mut rig, 1, FAILED)), [0_u32; 0]);
}

#[test]
fn a_hung_worker_proves_nothing_about_its_slot() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    rig.spawned(2);
    rig.exit(2, FAILED);
    rig.pass(ms(5000));
    assert_eq!(rig.slot(0).early_exits, 1);
}

#[test]
fn a_pool_that_never_was_ready_gives_up_when_every_slot_is_in_a_crash_loop() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    let effects = crash(&mut rig, 5, FAILED);
    assert!(effects.iter().all(|effects| verdict(effects).is_none()));
    let last = crash(&mut rig, 1, FAILED);
    assert_eq!(loops(&last), [6]);
    assert_eq!(verdict(&last[0]), Some(Verdict::NeverReady { status: FAILED }));
    assert_eq!(rig.pool.next_deadline(), None);
}

#[test]
fn giving_up_kills_what_remains() {
    let mut rig = Rig::new(PoolSettings { workers: 2, max_restarts: 0, ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.spawned(1);
    rig.exit(1, FAILED);
    rig.pass(ms(15_000));
    rig.spawned(3);
    rig.spawned(2);
    let effects = rig.exit(2, KILLED);
    assert_eq!((effects.last(), verdict(&effects)), (Some(&kill(3)), None));
    assert_eq!(rig.give(Input::Stop), []);
    assert_eq!(verdict(&rig.exit(3, KILLED)), Some(Verdict::NeverReady { status: KILLED }));
}

#[test]
fn one_slot_that_does_not_loop_keeps_the_pool_alive() {
    let mut rig = Rig::of(2);
    rig.give(Input::Start);
    rig.spawned(2);
    for _ in 0..10 {
        let id = rig.pool.workers().find(|view| view.slot == Slot(0)).unwrap().id.0;
        rig.spawned(id);
        assert_eq!(verdict(&rig.exit(id, FAILED)), None);
        let at = rig.slot(0).waiting_until.unwrap_or(rig.now);
        rig.pass(at.saturating_sub(rig.now));
    }
    assert!(rig.slot(0).is_crash_looping && !rig.slot(1).is_crash_looping);
}

#[test]
fn a_pool_that_was_ready_once_never_gives_up() {
    let mut rig = Rig::ready(1);
    rig.exit(1, FAILED);
    assert!(crash(&mut rig, 100, FAILED).iter().all(|effects| verdict(effects).is_none()));
}

#[test]
fn a_command_that_only_ever_ends_well_is_no_server() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    let effects = crash(&mut rig, 6, ExitStatus::Code(0));
    assert_eq!(verdict(&effects[5]), Some(Verdict::NotAServer));
}

#[test]
fn one_bad_exit_among_good_ones_is_never_ready() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    crash(&mut rig, 1, FAILED);
    let effects = crash(&mut rig, 5, ExitStatus::Code(0));
    assert_eq!(verdict(&effects[4]), Some(Verdict::NeverReady { status: ExitStatus::Code(0) }));
}

#[test]
fn a_process_that_can_not_be_made_counts_as_an_early_exit() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    let failed = |rig: &mut Rig, id| rig.give(Input::SpawnFailed { id: WorkerId(id) });
    assert_eq!(failed(&mut rig, 1), [respawning(0, Duration::ZERO), spawn(2, 0)]);
    for id in 2..6 {
        assert!(delay(&failed(&mut rig, id)).unwrap() >= ms(80));
        rig.pass(ms(1000));
    }
    assert_eq!(failed(&mut rig, 6), [Effect::Finished(Verdict::NeverSpawned)]);
}

proptest! {
    #[test]
    fn a_wait_is_never_above_its_cap_and_never_far_from_its_due(
        early_exits in 2..200_u32, backoff in 1..10_000_u64, cap in 1..100_000_u64, seed: u64,
    ) {
        let (backoff, backoff_max) = (ms(backoff), ms(cap));
        let settings = PoolSettings { backoff, backoff_max, max_restarts: u32::MAX, ..PoolSettings::default() };
        let slot = SlotState { early_exits, ..SlotState::default() };
        let due = backoff.saturating_mul(2_u32.saturating_pow(early_exits - 2)).min(backoff_max);
        let wait = slot.delay(&settings, &mut Jitter::new(seed));
        prop_assert!(wait <= backoff_max);
        prop_assert!(wait >= due * 8 / 10 && wait <= due * 12 / 10);
    }
}
