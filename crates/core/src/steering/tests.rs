use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_millis(1);

fn at(ticks: u32) -> Duration {
    TICK * ticks
}

fn depth(depth: u32) -> Reading {
    Reading { depth, work: None, ran: None }
}

#[test]
fn one_look_at_a_waiting_connection_proves_nothing() {
    let mut lane = LaneWatch::default();
    lane.observe(depth(1), at(0));
    assert!(!lane.is_busy());
}

#[test]
fn a_queue_that_did_not_shrink_within_a_tick_makes_the_lane_busy_until_it_is_empty() {
    let mut lane = LaneWatch::default();
    lane.observe(depth(1), at(0));
    lane.observe(depth(1), at(1));
    assert!(lane.is_busy());
    lane.observe(depth(3), at(2));
    lane.observe(depth(1), at(3));
    assert!(lane.is_busy(), "shrunk, and not empty yet");
    lane.observe(depth(0), at(4));
    assert!(!lane.is_busy());
}

#[test]
fn the_time_in_which_nobody_came_is_not_held_against_a_worker_whose_connections_others_took() {
    let mut lane = LaneWatch::default();
    lane.observe(depth(1), at(0));
    lane.observe(depth(1), at(20));
    lane.relieve(at(40));
    lane.observe(depth(0), at(30));
    assert_eq!(lane.standing_for(at(30)), at(30), "it is left alone, and has taken nothing");
    lane.observe(depth(0), at(50));
    assert!(!lane.is_busy(), "it is tried again");
    assert_eq!(lane.standing_for(at(90)), at(0), "nobody has come");
    lane.observe(depth(1), at(100));
    lane.observe(depth(1), at(105));
    assert_eq!(lane.standing_for(at(105)), at(45), "40 before, and 5 now");
    lane.observe(depth(0), at(106));
    assert_eq!(lane.standing_for(at(200)), at(0), "it lives");
}

#[test]
fn a_worker_that_takes_what_waits_is_left_alone_no_longer() {
    let mut lane = LaneWatch::default();
    lane.observe(depth(2), at(0));
    lane.observe(depth(2), at(1));
    lane.relieve(at(1000));
    lane.observe(depth(0), at(2));
    assert!(!lane.is_busy());
}

#[test]
fn a_busy_lane_that_others_emptied_stays_out_for_a_while_and_that_is_no_sign_of_life() {
    let mut lane = LaneWatch::default();
    lane.observe(depth(2), at(0));
    lane.observe(depth(2), at(1));
    lane.relieve(at(6));
    lane.observe(depth(1), at(2));
    assert_eq!(lane.stalled_for(at(2)), at(2), "its worker has taken nothing");
    lane.relieve(at(6));
    lane.observe(depth(0), at(3));
    assert!(lane.is_busy() && lane.is_relieved());
    lane.observe(depth(0), at(6));
    assert!(!lane.is_busy() && !lane.is_relieved());
    assert_eq!(lane.relieved_since(), Some(at(0)), "it may hang as well");
    lane.observe(depth(1), at(7));
    lane.observe(depth(0), at(8));
    assert_eq!(lane.relieved_since(), None, "it does not");
}

#[test]
fn a_queue_that_shrinks_at_each_look_is_served() {
    let mut lane = LaneWatch::default();
    for (tick, waiting) in [5, 4, 3, 2, 1].into_iter().enumerate() {
        lane.observe(depth(waiting), at(u32::try_from(tick).unwrap()));
    }
    assert!(!lane.is_busy());
    assert_eq!(lane.stalled_for(at(4)), Duration::ZERO);
}

#[test]
fn stalled_time_counts_from_the_last_sign_of_life() {
    let mut lane = LaneWatch::default();
    lane.observe(depth(2), at(0));
    lane.observe(depth(1), at(10));
    lane.observe(depth(4), at(50));
    assert_eq!(lane.stalled_for(at(60)), at(50));
}

#[test]
fn who_answers_what_it_took_is_not_busy_with_something_else() {
    let working = |work| Reading { depth: 3, work: Some(work), ran: None };
    let mut lane = LaneWatch::default();
    lane.observe(working(10), at(0));
    lane.observe(working(14), at(1));
    lane.observe(working(19), at(2));
    assert!(!lane.is_busy());
    assert_eq!(lane.still_for(at(2)), at(0));
    assert_eq!(lane.stalled_for(at(2)), at(2), "it has taken none for all that");
    lane.observe(working(19), at(5));
    assert!(lane.is_busy());
    assert_eq!(lane.held_up_for(at(5)), at(3));
    lane.observe(working(20), at(6));
    assert_eq!(lane.held_up_for(at(6)), at(0), "it goes on, though its queue is not empty yet");
}

#[test]
fn who_stands_still_may_have_been_on_a_core_or_not() {
    let ran = |millis| Reading { depth: 1, work: Some(1), ran: Some(Duration::from_millis(millis)) };
    let mut lane = LaneWatch::default();
    lane.observe(ran(50), at(0));
    assert_eq!(lane.ran_meanwhile(), Some(at(0)));
    lane.observe(ran(53), at(4));
    lane.observe(ran(59), at(12));
    assert_eq!((lane.held_up_for(at(12)), lane.ran_meanwhile()), (at(12), Some(at(9))));
    lane.observe(Reading { work: Some(2), ..ran(60) }, at(13));
    lane.observe(Reading { work: Some(2), ..ran(61) }, at(14));
    assert_eq!((lane.held_up_for(at(14)), lane.ran_meanwhile()), (at(1), Some(at(1))));
    lane.observe(depth(1), at(15));
    assert_eq!(lane.ran_meanwhile(), None, "not known any more");
}

#[test]
fn an_empty_queue_says_nothing_of_who_was_relieved_of_it() {
    let mut lane = LaneWatch::default();
    lane.observe(depth(1), at(0));
    lane.observe(depth(1), at(2));
    lane.relieve(at(20));
    lane.observe(depth(0), at(3));
    assert_eq!(lane.held_up_for(at(10)), at(10));
    lane.note_life(at(11));
    assert_eq!(lane.held_up_for(at(12)), at(0));
}

#[test]
fn all_busy_means_all_in() {
    let mut lane = LaneWatch::default();
    lane.observe(depth(1), at(0));
    lane.observe(depth(1), at(1));
    assert_eq!(choose(&[&lane, &lane]), [true, true]);
}

#[test]
fn a_busy_lane_is_left_out() {
    let mut busy = LaneWatch::default();
    busy.observe(depth(1), at(0));
    busy.observe(depth(1), at(1));
    let free = LaneWatch::default();
    assert_eq!(choose(&[&busy, &free]), [false, true]);
}

#[test]
fn a_worker_ahead_in_connections_is_passed_over_until_the_others_catch_up() {
    let open = |open: u32| {
        let mut lane = LaneWatch::default();
        lane.count(20, at(0));
        lane.count(20 + open, at(1));
        lane
    };
    assert_eq!(choose(&[&open(9), &open(1), &open(1), &open(1)]), [false, true, true, true]);
    assert_eq!(choose(&[&open(3), &open(3), &open(1), &open(1)]), [true; 4]);
}

#[test]
fn descriptors_open_for_other_reasons_are_forgotten_after_two_windows() {
    let mut hoarder = LaneWatch::default();
    hoarder.count(10, at(0));
    hoarder.count(500, at(1));
    let other = LaneWatch::default();
    assert_eq!(choose(&[&hoarder, &other]), [false, true]);
    for window in 1..=3 {
        hoarder.count(500, WINDOW * window + at(2));
    }
    assert_eq!(choose(&[&hoarder, &other]), [true, true]);
}

#[test]
fn what_a_worker_opens_as_it_begins_to_serve_is_not_held_against_it() {
    let mut lane = LaneWatch::default();
    let other = LaneWatch::default();
    // Seen while it started, on the lane of the worker before it.
    lane.count(4, at(0));
    lane.begin(at(10));
    lane.note_arrival();
    lane.count(9, at(11));
    lane.note_arrival();
    lane.count(16, at(20));
    assert_eq!(choose(&[&lane, &other]), [true, true]);
    lane.count(36, at(21) + SETTLING);
    assert_eq!(choose(&[&lane, &other]), [false, true], "from now on all that it gains counts");
}

#[test]
fn connections_count_from_the_first() {
    let mut lane = LaneWatch::default();
    lane.begin(at(0));
    for connection in 1..=9 {
        lane.note_arrival();
        lane.count(20 + connection, at(connection));
    }
    assert_eq!(choose(&[&lane, &LaneWatch::default()]), [false, true]);
}

#[test]
fn connections_that_come_all_at_once_are_not_taken_for_the_workers_own() {
    let mut lane = LaneWatch::default();
    lane.begin(at(0));
    lane.note_arrival();
    lane.count(21, at(1));
    lane.count(80, at(2));
    assert_eq!(choose(&[&lane, &LaneWatch::default()]), [false, true]);
}

proptest! {
    #[test]
    fn somebody_is_always_chosen_and_a_busy_lane_only_with_all_others(
        readings in prop::collection::vec(prop::collection::vec((0_u32..4, prop::option::of(0_u32..50)), 1..20), 1..9),
    ) {
        let lanes: Vec<LaneWatch> = readings.iter().map(|readings| {
            let mut lane = LaneWatch::default();
            for (tick, (queue, open)) in readings.iter().enumerate() {
                let now = at(u32::try_from(tick).unwrap());
                lane.observe(depth(*queue), now);
                if let Some(open) = open {
                    lane.count(*open, now);
                }
            }
            lane
        }).collect();
        let lanes: Vec<&LaneWatch> = lanes.iter().collect();
        let chosen = choose(&lanes);
        prop_assert_eq!(chosen.len(), lanes.len());
        prop_assert!(chosen.contains(&true));
        let has_busy = lanes.iter().zip(&chosen).any(|(lane, chosen)| lane.is_busy() && *chosen);
        prop_assert!(!has_busy || chosen.iter().all(|chosen| *chosen));
    }
}
