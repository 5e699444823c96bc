//! Draining, scaling and stopping.

use std::time::Duration;

use crate::exit::ExitStatus;
use crate::pool::tests::{
    KILLED, Rig, delay, drain, draining, exited, forked, hang_up, kill, ms, retire, spawn, steer, stopping,
    urge, verdict,
};
use crate::pool::{Input, PoolSettings, Verdict};
use crate::worker::{State, WorkerId};

#[test]
fn scale_down_drains_the_highest_slot_step_by_step() {
    let mut rig = Rig::ready(2);
    assert_eq!(rig.give(Input::Scale(1)), [steer(2, false), draining(2)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(2) }), [], "handshakes may still be under way");
    assert_eq!(rig.pass(ms(999)), []);
    assert_eq!(rig.pass(ms(1)), [drain(2)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(2) }), [retire(2)]);
    assert_eq!(rig.exit(2, ExitStatus::Signal(15)), [exited(2, ExitStatus::Signal(15), true, ms(2000))]);
    assert!(rig.pool.is_settled());
}

#[test]
fn scale_down_goes_from_the_top() {
    let mut rig = Rig::ready(4);
    let effects = rig.give(Input::Scale(2));
    assert_eq!(effects, [steer(4, false), draining(4), steer(3, false), draining(3)]);
}

#[test]
fn a_worker_that_never_gets_quiet_is_retired_then_killed() {
    let mut rig = Rig::ready(2);
    rig.give(Input::Scale(1));
    assert_eq!(rig.pass(ms(1000)), [drain(2)]);
    assert_eq!(rig.pass(ms(10_000)), [retire(2)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(2) }), []);
    assert_eq!(rig.pass(ms(4500)), [hang_up(2)]);
    assert_eq!(rig.pass(ms(500)), [kill(2)]);
    assert_eq!(rig.pool.next_deadline(), None);
}

#[test]
fn a_worker_that_was_asked_in_vain_is_urged_before_it_is_killed() {
    let mut rig = Rig::ready(1);
    rig.give(Input::Stop);
    assert_eq!(rig.pass(ms(100)), [drain(1)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(1) }), [retire(1)]);
    assert_eq!(rig.pass(ms(2499)), []);
    assert_eq!(rig.pass(ms(1)), [urge(1)]);
    assert_eq!(rig.pass(ms(1999)), []);
    assert_eq!(rig.pass(ms(1)), [hang_up(1)]);
    assert_eq!(rig.pass(ms(499)), []);
    assert_eq!(rig.pass(ms(1)), [kill(1)]);
}

#[test]
fn what_a_worker_has_for_its_last_answers_is_a_quarter_of_its_time_at_most() {
    let asked = |kill_timeout| {
        let settings = PoolSettings { kill_timeout, drain_timeout: ms(0), ..PoolSettings::default() };
        let mut rig = Rig::new(settings);
        rig.give(Input::Start);
        rig.raise(1);
        rig.disconnect(1);
        rig.give(Input::Quiet { id: WorkerId(1) });
        rig.give(Input::Stop);
        rig
    };
    for (limit, hung_up, last) in [(400, 300, 100), (60_000, 59_500, 500)] {
        let mut rig = asked(ms(limit));
        assert_eq!(rig.pass(ms(limit / 2)), [urge(1)]);
        assert_eq!(rig.pass(ms(hung_up - limit / 2)), [hang_up(1)]);
        assert_eq!(rig.pass(ms(last)), [kill(1)]);
    }
    assert_eq!(asked(Duration::ZERO).pass(ms(0)), [kill(1)], "who has no time has none for that");
}

/// A worker that was disconnected, beside its successor, and is to have a limit all the same.
fn disconnected(settings: PoolSettings, then: Input) -> Rig {
    let mut rig = Rig::new(settings);
    rig.give(Input::Start);
    rig.raise(1);
    rig.disconnect(1);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(1) }), [retire(1)]);
    assert_eq!(rig.pass(ms(60_000)), [], "it may take as long as it likes");
    rig.give(then);
    rig
}

#[test]
fn a_worker_that_was_disconnected_finishes_what_it_has_when_the_pool_stops_or_its_slot_goes() {
    for then in [Input::Stop, Input::Scale(0)] {
        let mut rig = disconnected(PoolSettings { least: 0, ..PoolSettings::default() }, then);
        rig.give(Input::SpawnFailed { id: WorkerId(2) });
        assert_eq!(rig.pass(ms(10_000)), [], "it has the time to drain");
        assert_eq!(rig.pass(ms(2500)), [urge(1)]);
        assert_eq!(rig.pass(ms(2000)), [hang_up(1)]);
        assert_eq!(rig.pass(ms(500)), [kill(1)]);
    }
}

#[test]
fn one_that_may_drain_for_as_long_as_it_wants_may_do_so_where_it_was_disconnected_too() {
    let settings = PoolSettings { drain_timeout: Duration::MAX, ..PoolSettings::default() };
    let mut rig = disconnected(settings, Input::Stop);
    rig.give(Input::SpawnFailed { id: WorkerId(2) });
    assert_eq!(rig.pool.next_deadline(), None);
}

#[test]
fn one_that_was_disconnected_with_a_limit_gets_no_more_time_by_a_stop() {
    for (limit, urged) in [(72_000, 9500), (61_000, 500)] {
        let settings = PoolSettings { disconnect_timeout: ms(limit), ..PoolSettings::default() };
        let mut rig = disconnected(settings, Input::Stop);
        rig.give(Input::SpawnFailed { id: WorkerId(2) });
        assert_eq!(rig.pass(ms(urged)), [urge(1)]);
        assert_eq!(rig.pass(ms(limit - 60_000 - urged)), [hang_up(1), kill(1)]);
    }
}

#[test]
fn one_that_lands_when_the_pool_stops_goes_as_any_other() {
    let mut rig = Rig::ready(1);
    rig.disconnect(1);
    rig.give(Input::Stop);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(1) }), [], "it has what it has");
    assert_eq!(rig.pass(ms(100)), [drain(1)]);
    assert_eq!(rig.pass(ms(10_000)), [retire(1)]);
    assert_eq!(rig.pass(ms(2500)), [urge(1)]);
}

#[test]
fn a_worker_that_never_listened_is_retired_at_once() {
    let mut rig = Rig::of(3);
    rig.give(Input::Start);
    rig.raise(1);
    rig.spawned(2);
    assert_eq!(rig.give(Input::Scale(1)), [draining(2), retire(2)]);
    assert_eq!(rig.state(3), State::Draining);
    assert_eq!(rig.spawned(3), [forked(3), draining(3), retire(3)]);
}

#[test]
fn a_worker_that_closed_its_listeners_keeps_its_connections_while_it_drains() {
    let mut rig = Rig::ready(2);
    rig.give(Input::NotListening { id: WorkerId(2) });
    assert_eq!(rig.give(Input::Scale(1)), [draining(2)]);
    assert_eq!(rig.pass(ms(1000)), [drain(2)]);
}

#[test]
fn scale_up_beside_a_draining_worker_starts_a_new_one() {
    let mut rig = Rig::ready(2);
    rig.give(Input::Scale(1));
    assert_eq!(rig.give(Input::Scale(3)), [spawn(3, 1), spawn(4, 2)]);
    let workers: Vec<_> = rig.pool.workers().map(|view| (view.slot.0, view.id.0, view.state)).collect();
    let (starting, draining) = (State::Starting, State::Draining);
    assert_eq!(workers, [(0, 1, State::Ready), (1, 2, draining), (1, 3, starting), (2, 4, starting)]);
}

#[test]
fn scale_down_while_replacing_a_hung_worker_drains_both() {
    let mut rig = Rig::ready(2);
    rig.stall(2);
    rig.spawned(3);
    assert_eq!(rig.give(Input::Scale(1)), [draining(2), draining(3), retire(3)]);
    assert_eq!(rig.pass(ms(1000)), [drain(2)]);
}

#[test]
fn scale_down_cancels_a_waiting_respawn() {
    let mut rig = Rig::of(2);
    rig.give(Input::Start);
    rig.raise(1);
    rig.give(Input::SpawnFailed { id: WorkerId(2) });
    assert!(delay(&rig.give(Input::SpawnFailed { id: WorkerId(3) })).is_some());
    rig.give(Input::Scale(1));
    assert_eq!(rig.pass(ms(20_000)), []);
    assert!(rig.pool.is_settled());
}

#[test]
fn scale_before_start_sets_the_target() {
    let mut rig = Rig::of(1);
    assert_eq!(rig.give(Input::Scale(2)), []);
    assert_eq!(rig.give(Input::Start), [spawn(1, 0), spawn(2, 1)]);
}

#[test]
fn stop_drains_all_and_finishes_when_the_last_is_gone() {
    let mut rig = Rig::ready(2);
    let effects = rig.give(Input::Stop);
    assert_eq!(effects[..2], stopping());
    assert_eq!(effects[2..], [steer(1, false), draining(1), steer(2, false), draining(2)]);
    assert!(rig.pool.is_stopping());
    assert_eq!(rig.pass(ms(100)), [drain(1), drain(2)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(1) }), [retire(1)]);
    assert_eq!(rig.give(Input::Quiet { id: WorkerId(2) }), [retire(2)]);
    assert_eq!(verdict(&rig.exit(2, ExitStatus::Code(0))), None);
    assert_eq!(verdict(&rig.exit(1, ExitStatus::Code(0))), Some(Verdict::Stopped));
}

#[test]
fn stop_lingers_no_longer_than_it_is_set_to() {
    let mut rig = Rig::new(PoolSettings { linger: ms(20), ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.raise(1);
    rig.give(Input::Stop);
    assert_eq!(rig.pass(ms(20)), [drain(1)]);
}

#[test]
fn stop_shortens_the_linger_of_a_worker_that_drains_already() {
    let mut rig = Rig::ready(2);
    rig.give(Input::Scale(1));
    rig.give(Input::Stop);
    assert_eq!(rig.pass(ms(100)), [drain(1), drain(2)]);
}

#[test]
fn stop_is_accepted_while_replacing_a_hung_worker() {
    let mut rig = Rig::ready(1);
    rig.stall(1);
    rig.spawned(2);
    assert_eq!(rig.give(Input::Stop)[2..], [draining(1), retire(1), draining(2), retire(2)]);
    assert_eq!(rig.pass(ms(4500)), [hang_up(1), hang_up(2)]);
    assert_eq!(rig.pass(ms(500)), [kill(1), kill(2)]);
    rig.exit(1, KILLED);
    assert_eq!(verdict(&rig.exit(2, KILLED)), Some(Verdict::Stopped));
}

#[test]
fn stop_is_accepted_while_a_worker_is_being_spawned() {
    let mut rig = Rig::of(2);
    rig.give(Input::Start);
    assert_eq!(rig.give(Input::Stop), stopping());
    assert_eq!(rig.spawned(1), [forked(1), draining(1), retire(1)]);
    assert_eq!(rig.give(Input::SpawnFailed { id: WorkerId(2) }), []);
    assert_eq!(verdict(&rig.exit(1, KILLED)), Some(Verdict::Stopped));
}

#[test]
fn stop_cancels_a_waiting_respawn() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    rig.give(Input::SpawnFailed { id: WorkerId(1) });
    rig.give(Input::SpawnFailed { id: WorkerId(2) });
    assert_eq!(verdict(&rig.give(Input::Stop)), Some(Verdict::Stopped));
    assert_eq!(rig.pass(ms(20_000)), []);
}

#[test]
fn stop_before_start_finishes_at_once() {
    let mut rig = Rig::of(1);
    assert_eq!(verdict(&rig.give(Input::Stop)), Some(Verdict::Stopped));
    for input in [Input::Start, Input::Stop, Input::StopNow, Input::Scale(3)] {
        assert_eq!(rig.give(input), []);
    }
}

#[test]
fn stop_twice_is_stop_once() {
    let mut rig = Rig::ready(1);
    rig.give(Input::Stop);
    assert_eq!(rig.give(Input::Stop), []);
    assert_eq!(rig.give(Input::Scale(4)), []);
}

#[test]
fn stop_now_kills_all_at_once_in_the_middle_of_a_stop_too() {
    let mut rig = Rig::ready(2);
    rig.give(Input::Scale(1));
    rig.give(Input::Stop);
    assert_eq!(rig.give(Input::StopNow), [kill(1), kill(2)]);
    assert_eq!(rig.give(Input::StopNow), []);
    rig.exit(1, KILLED);
    assert_eq!(verdict(&rig.exit(2, KILLED)), Some(Verdict::Stopped));
}

#[test]
fn stop_now_kills_a_worker_that_is_being_spawned_as_soon_as_it_exists() {
    let mut rig = Rig::of(1);
    rig.give(Input::Start);
    assert_eq!(rig.give(Input::StopNow), stopping());
    assert_eq!(rig.spawned(1), [forked(1), kill(1)]);
}

#[test]
fn stop_now_steers_away_first() {
    let mut rig = Rig::ready(1);
    assert_eq!(rig.give(Input::StopNow)[2..], [steer(1, false), kill(1)]);
}

#[test]
fn a_timeout_without_limit_is_no_deadline() {
    let settings = PoolSettings { drain_timeout: Duration::MAX, linger: ms(0), ..PoolSettings::default() };
    let mut rig = Rig::new(settings);
    rig.give(Input::Start);
    rig.raise(1);
    rig.give(Input::Stop);
    assert_eq!(rig.pass(ms(0)), [drain(1)]);
    assert_eq!(rig.pool.next_deadline(), None);
    assert_eq!(rig.pass(ms(1_000_000)), []);
}

#[test]
fn timeouts_of_zero_all_pass_in_one_wake() {
    let (linger, drain_timeout, kill_timeout) = (ms(0), ms(0), ms(0));
    let mut rig = Rig::new(PoolSettings { linger, drain_timeout, kill_timeout, ..PoolSettings::default() });
    rig.give(Input::Start);
    rig.raise(1);
    rig.give(Input::Stop);
    assert_eq!(rig.pass(ms(0)), [drain(1), retire(1), kill(1)]);
}
