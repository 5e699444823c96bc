//! Hand-offs by example: turns, refusals, the bound, and who a client's worker is.

mod model;
mod saved;

use std::collections::BTreeMap;
use std::time::Duration;

use super::{HELD_UP, Handoff, Key, MEMORY, Order, Ticket};
use crate::worker::{Slot, WorkerId};

const NOW: Duration = Duration::from_secs(100);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// `count` workers that serve, from 1 in slots from 0.
fn served(order: Order, count: u16) -> Handoff {
    let mut handoff = Handoff::new(order, 1024);
    for slot in 0..count {
        handoff.join(WorkerId(u32::from(slot) + 1), Slot(slot), true);
    }
    handoff
}

fn arrive(handoff: &mut Handoff) -> Ticket {
    handoff.arrive(Key::default())
}

fn assign_all(handoff: &mut Handoff, now: Duration) -> Vec<(Ticket, WorkerId)> {
    std::iter::from_fn(|| handoff.assign(now)).collect()
}

#[test]
fn idle_workers_take_turns() {
    let mut handoff = served(Order::Turns, 3);
    for nth in 0..9 {
        let ticket = arrive(&mut handoff);
        assert_eq!(assign_all(&mut handoff, NOW), [(ticket, WorkerId(nth % 3 + 1))]);
        assert!(handoff.accepted(ticket, NOW));
    }
}

/// Each has taken some in a row.
fn warm(handoff: &mut Handoff) {
    for _ in 0..16 {
        let ticket = arrive(handoff);
        assert_eq!(assign_all(handoff, NOW).len(), 1);
        handoff.accepted(ticket, NOW);
    }
}

#[test]
fn who_answers_first_gets_the_next_and_the_oldest_goes_first() {
    let mut handoff = served(Order::Turns, 2);
    let tickets: Vec<Ticket> = (0..4).map(|_| arrive(&mut handoff)).collect();
    let sent = assign_all(&mut handoff, NOW);
    assert_eq!(sent, [(tickets[0], WorkerId(1)), (tickets[1], WorkerId(2))], "one for each");
    let later = NOW + HELD_UP;
    handoff.accepted(tickets[1], later);
    assert_eq!(assign_all(&mut handoff, later), [(tickets[2], WorkerId(2))], "1 is held up, and only it");
    assert_eq!((handoff.waiting(), handoff.pending(), handoff.unanswered(WorkerId(1))), (1, 3, 1));
}

#[test]
fn workers_that_answer_all_the_time_have_several_and_who_has_the_fewest_gets_the_next() {
    let mut handoff = served(Order::Turns, 2);
    warm(&mut handoff);
    let tickets: Vec<Ticket> = (0..10).map(|_| arrive(&mut handoff)).collect();
    let sent = assign_all(&mut handoff, NOW);
    let workers: Vec<u32> = sent.iter().map(|(_, worker)| worker.0).collect();
    assert_eq!(workers, [1, 2, 1, 2, 1, 2, 1, 2]);
    assert!(sent.iter().map(|(ticket, _)| ticket).eq(&tickets[..8]), "in the order in which they came");
    handoff.accepted(tickets[1], NOW);
    assert_eq!(assign_all(&mut handoff, NOW), [(tickets[8], WorkerId(2))]);
}

#[test]
fn after_somebody_was_held_up_nobody_has_more_than_one_for_a_while() {
    let mut handoff = served(Order::Turns, 2);
    warm(&mut handoff);
    let slow = arrive(&mut handoff);
    assert_eq!(assign_all(&mut handoff, NOW), [(slow, WorkerId(1))]);
    let later = NOW + HELD_UP;
    let tickets: Vec<Ticket> = (0..4).map(|_| arrive(&mut handoff)).collect();
    for expected in &tickets[..3] {
        assert_eq!(assign_all(&mut handoff, later), [(*expected, WorkerId(2))], "1 is held up, and only it");
        handoff.accepted(*expected, later);
    }
    handoff.accepted(slow, later);
    assert_eq!(handoff.capacity(9, later), 2);
    assert_eq!(handoff.capacity(9, later + MEMORY), 2, "nobody has answered lately");
}

#[test]
fn what_a_dead_worker_had_not_answered_for_keeps_its_place() {
    let mut handoff = served(Order::Turns, 2);
    let tickets: Vec<Ticket> = (0..4).map(|_| arrive(&mut handoff)).collect();
    assign_all(&mut handoff, NOW);
    handoff.leave(WorkerId(1));
    handoff.accepted(tickets[1], NOW);
    let again = [(tickets[0], WorkerId(2)), (tickets[2], WorkerId(2))];
    assert_eq!(assign_all(&mut handoff, NOW), again, "in their old order");
    assert!(!handoff.accepted(tickets[1], NOW), "its answer is known");
}

#[test]
fn who_refuses_is_left_alone_and_the_connection_goes_to_another() {
    let mut handoff = served(Order::Turns, 2);
    let ticket = arrive(&mut handoff);
    assert_eq!(assign_all(&mut handoff, NOW), [(ticket, WorkerId(1))]);
    handoff.refused(ticket, NOW);
    assert_eq!(assign_all(&mut handoff, NOW), [(ticket, WorkerId(2))]);
    handoff.refused(ticket, NOW);
    assert_eq!(assign_all(&mut handoff, NOW), [], "both refused");
    assert_eq!(handoff.next_deadline(NOW), Some(NOW + ms(50)));
    assert_eq!(assign_all(&mut handoff, NOW + ms(49)), []);
    assert_eq!(assign_all(&mut handoff, NOW + ms(50)), [(ticket, WorkerId(1))]);
}

#[test]
fn refusals_cost_ever_less_and_an_acceptance_ends_them() {
    let mut handoff = served(Order::Turns, 1);
    let ticket = arrive(&mut handoff);
    let (mut now, mut offers) = (NOW, 0);
    while now < NOW + ms(10_000) {
        offers += assign_all(&mut handoff, now).len();
        handoff.refused(ticket, now);
        now = handoff.next_deadline(now).expect("it will be tried again");
    }
    assert!((12..=16).contains(&offers), "{offers} in ten seconds");
    let next = arrive(&mut handoff);
    assert_eq!(assign_all(&mut handoff, now), [(ticket, WorkerId(1))]);
    handoff.accepted(ticket, NOW);
    assert_eq!(assign_all(&mut handoff, now), [(next, WorkerId(1))], "at once");
}

#[test]
fn a_worker_that_closed_a_connection_is_tried_at_once() {
    let mut handoff = served(Order::Turns, 1);
    let ticket = arrive(&mut handoff);
    assign_all(&mut handoff, NOW);
    handoff.refused(ticket, NOW);
    assert_eq!(handoff.paused(NOW).collect::<Vec<_>>(), [WorkerId(1)]);
    handoff.nudge(WorkerId(1), NOW + ms(1));
    assert_eq!(assign_all(&mut handoff, NOW + ms(1)), [(ticket, WorkerId(1))]);
}

#[test]
fn there_is_room_for_so_many_and_for_none_while_nobody_serves() {
    let mut handoff = Handoff::new(Order::Turns, 2);
    assert_eq!(handoff.room(), 0);
    handoff.join(WorkerId(1), Slot(0), false);
    assert_eq!(handoff.room(), 0, "it does not serve yet");
    handoff.serve(WorkerId(1), true);
    assert_eq!(handoff.room(), 2);
    arrive(&mut handoff);
    assign_all(&mut handoff, NOW);
    assert_eq!(handoff.room(), 2, "only what waits counts");
    arrive(&mut handoff);
    arrive(&mut handoff);
    assert_eq!(handoff.room(), 0);
    handoff.leave(WorkerId(1));
    assert_eq!((handoff.room(), handoff.waiting()), (0, 3), "what is returned is kept beyond the bound");
}

#[test]
fn when_the_app_stops_what_has_come_goes_to_those_who_are_left() {
    let mut handoff = served(Order::Turns, 2);
    let tickets = [arrive(&mut handoff), arrive(&mut handoff)];
    handoff.serve(WorkerId(1), false);
    handoff.serve(WorkerId(2), false);
    assert_eq!(assign_all(&mut handoff, NOW), []);
    handoff.close();
    handoff.leave(WorkerId(1));
    assert_eq!(assign_all(&mut handoff, NOW), [(tickets[0], WorkerId(2))]);
    assert!(handoff.room() > 0, "the kernel's queue too");
}

fn client(number: u64) -> Key {
    Key::of_value(&number.to_le_bytes())
}

/// Which worker each of a thousand clients has.
fn workers_of_clients(handoff: &mut Handoff) -> BTreeMap<u64, WorkerId> {
    let mut workers = BTreeMap::new();
    for number in 0..1000 {
        let ticket = handoff.arrive(client(number));
        let (given, worker) = handoff.assign(NOW).expect("all are free");
        assert_eq!(given, ticket);
        handoff.accepted(ticket, NOW);
        workers.insert(number, worker);
    }
    workers
}

#[test]
fn clients_stay_and_are_spread_and_only_those_of_a_slot_that_went_move() {
    let mut handoff = served(Order::Sticky, 4);
    let before = workers_of_clients(&mut handoff);
    assert_eq!(workers_of_clients(&mut handoff), before);
    for worker in 1..=4 {
        let count = before.values().filter(|other| **other == WorkerId(worker)).count();
        assert!((200..300).contains(&count), "worker {worker} has {count}");
    }
    handoff.leave(WorkerId(3));
    let without = workers_of_clients(&mut handoff);
    assert!(before.iter().all(|(client, worker)| *worker == WorkerId(3) || without[client] == *worker));
    handoff.join(WorkerId(9), Slot(2), true);
    let replaced = workers_of_clients(&mut handoff);
    let inherited = |worker: WorkerId| if worker == WorkerId(3) { WorkerId(9) } else { worker };
    assert!(before.iter().all(|(client, worker)| replaced[client] == inherited(*worker)));
}

#[test]
fn a_key_means_the_same_slot_in_each_version() {
    let mut handoff = served(Order::Sticky, 4);
    let workers = workers_of_clients(&mut handoff);
    let first: Vec<u32> = (0..12).map(|client| workers[&client].0).collect();
    assert_eq!(first, [2, 1, 1, 3, 1, 3, 3, 3, 3, 3, 1, 3]);
}

#[test]
fn a_source_is_the_same_however_it_is_written_and_whatever_its_port() {
    let key = |ip: &str| Key::of_source(ip.parse().unwrap());
    assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    assert_ne!(key("10.0.0.2"), key("10.0.0.1"));
}

#[test]
fn a_clients_connections_wait_for_its_worker_and_not_for_others() {
    let mut handoff = served(Order::Sticky, 2);
    let tickets: Vec<Ticket> = (0..20).map(|_| handoff.arrive(client(7))).collect();
    let sent = assign_all(&mut handoff, NOW);
    let worker = sent[0].1;
    assert!(sent.iter().all(|(_, other)| *other == worker), "{sent:?}");
    assert_eq!(sent.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets[..sent.len()]);
    assert_eq!((handoff.queued(worker), handoff.waiting()), (20, 20 - sent.len()));
    handoff.leave(worker);
    assert!(assign_all(&mut handoff, NOW).iter().all(|(_, other)| *other != worker));
    assert_eq!(handoff.pending(), 20, "its clients are others' now");
}

#[test]
fn a_worker_that_hangs_does_not_hold_up_the_clients_of_others() {
    let mut handoff = Handoff::new(Order::Sticky, 100);
    handoff.join(WorkerId(1), Slot(0), true);
    handoff.join(WorkerId(2), Slot(1), true);
    let mut spread = BTreeMap::new();
    let hung = WorkerId(1);
    for number in 0..400 {
        assert!(handoff.room() > 0, "after {number}: {}", handoff.waiting());
        handoff.arrive(client(number));
        for (ticket, worker) in assign_all(&mut handoff, NOW) {
            *spread.entry(worker).or_insert(0) += 1;
            if worker != hung {
                handoff.accepted(ticket, NOW);
            }
        }
    }
    assert_eq!(handoff.queued(hung), 50 + 8);
    assert_eq!(spread[&WorkerId(2)], 400 - 58);
}

#[test]
fn clients_of_a_worker_that_keeps_refusing_go_to_others_until_it_is_tried_again() {
    let mut handoff = served(Order::Sticky, 2);
    let ticket = handoff.arrive(client(7));
    let (mut now, mut tried) = (NOW, Vec::new());
    for _ in 0..4 {
        let sent = assign_all(&mut handoff, now);
        tried.push(sent[0].1);
        handoff.refused(ticket, now);
        now = handoff.next_deadline(now).unwrap_or(now);
    }
    assert!(tried.iter().all(|worker| *worker == tried[0]), "it waits for its own: {tried:?}");
    let other = assign_all(&mut handoff, now.saturating_sub(ms(1)));
    assert!(other.len() == 1 && other[0].1 != tried[0], "{other:?}");
    handoff.accepted(ticket, NOW);
    let again = handoff.arrive(client(7));
    assert_eq!(assign_all(&mut handoff, now), [(again, tried[0])], "its pause is over");
}
