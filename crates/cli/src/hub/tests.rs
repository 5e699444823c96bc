//! What subscribers are told, and what they miss.

use std::task::{Context, Poll, Waker};

use allcores::primary::{Event, Outcome, Stream, WorkerRef};
use allcores::{Slot, WorkerId};
use serde_json::Value;

use super::{Hub, LIMIT, MAX_SUBSCRIBERS, RESERVE, Subscription};
use crate::verdict::Verdict;

fn worker() -> WorkerRef {
    WorkerRef { id: WorkerId(1), slot: Slot(0), pid: 7 }
}

fn output(line: &[u8]) -> Event<'_> {
    Event::Output { worker: worker(), stream: Stream::Stdout, line, is_partial: false }
}

/// Writes more lines than may wait; says how many.
fn overflow(hub: &Hub) -> u64 {
    let line = vec![b'x'; 1000];
    let count = LIMIT / line.len() + 100;
    (0..count).for_each(|_| hub.observe(&output(&line)));
    count as u64
}

/// How many lines are said to be dropped.
fn dropped(lines: &[Value]) -> u64 {
    lines.iter().filter_map(|line| line["lines"].as_u64()).sum()
}

/// What is there now; and whether that is the end.
fn read(subscription: &Subscription) -> (Vec<Value>, bool) {
    let mut lines = Vec::new();
    let context = Context::from_waker(Waker::noop());
    loop {
        match subscription.poll_next(&context) {
            Poll::Ready(Some(line)) => lines.push(serde_json::from_slice(&line).unwrap()),
            Poll::Ready(None) => return (lines, true),
            Poll::Pending => return (lines, false),
        }
    }
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["event"].as_str()).collect()
}

#[test]
fn each_is_told_what_it_asked_for_until_the_end() {
    let hub = Hub::new("web");
    hub.observe(&Event::Stopping);
    let (all, few) = (hub.subscribe(true).unwrap(), hub.subscribe(false).unwrap());
    hub.observe(&Event::Ready { worker: worker() });
    hub.observe(&output(b"hello"));
    assert_eq!(kinds(&read(&all).0), ["ready", "output"]);
    assert_eq!(kinds(&read(&few).0), ["ready"]);
    hub.conclude(&Outcome::Stopped, &Verdict::of(&Outcome::Stopped, "x"));
    for subscription in [&all, &few] {
        let (lines, is_end) = read(subscription);
        assert_eq!((kinds(&lines), is_end), (vec!["stopped"], true));
        assert_eq!(lines[0]["app"], "web");
    }
}

#[test]
fn who_reads_slowly_misses_lines_and_is_told_how_many() {
    let hub = Hub::new("web");
    let subscription = hub.subscribe(true).unwrap();
    let count = overflow(&hub);
    let (lines, _) = read(&subscription);
    assert_eq!(lines.last().unwrap()["event"], "dropped");
    assert_eq!(lines.len() as u64 - 1 + dropped(&lines), count);
    assert!(dropped(&lines) > 100, "{}", dropped(&lines));
}

#[test]
fn what_happens_is_told_where_workers_lines_are_dropped_and_so_is_each_gap_in_its_place() {
    let hub = Hub::new("web");
    let subscription = hub.subscribe(true).unwrap();
    let mut count = overflow(&hub);
    // Longer than what one of those has left of the room.
    hub.observe(&Event::Notice { text: &"n".repeat(2000) });
    count += overflow(&hub);
    hub.observe(&Event::Stopping);
    hub.conclude(&Outcome::Stopped, &Verdict::of(&Outcome::Stopped, "x"));
    let (lines, is_end) = read(&subscription);
    let (read, rest) = lines.split_at(lines.len() - 5);
    assert_eq!((kinds(rest), is_end), (vec!["dropped", "notice", "dropped", "stopping", "stopped"], true));
    assert!(kinds(read).iter().all(|kind| *kind == "output"));
    assert_eq!(read.len() as u64 + dropped(rest), count);
}

#[test]
fn who_never_reads_costs_so_much_and_no_more_and_could_still_read_the_end() {
    let hub = Hub::new("web");
    let subscription = hub.subscribe(false).unwrap();
    let mut count = 0;
    while super::lock(&subscription.queue).dropped < 100 {
        hub.observe(&Event::Ready { worker: worker() });
        count += 1;
    }
    assert!(super::lock(&subscription.queue).bytes <= LIMIT + RESERVE);
    hub.conclude(&Outcome::Stopped, &Verdict::of(&Outcome::Stopped, "x"));
    let (lines, is_end) = read(&subscription);
    let (read, rest) = lines.split_at(lines.len() - 2);
    assert_eq!((kinds(rest), is_end), (vec!["dropped", "stopped"], true));
    assert_eq!((read.len() as u64 + dropped(rest), dropped(rest)), (count, 100));
}

#[test]
fn who_has_gone_is_forgotten_and_there_is_a_limit_to_those_who_have_not() {
    let hub = Hub::new("web");
    for _ in 0..10 * MAX_SUBSCRIBERS {
        drop(hub.subscribe(true).unwrap());
    }
    let kept: Vec<_> = (0..MAX_SUBSCRIBERS).map(|_| hub.subscribe(false).unwrap()).collect();
    assert!(hub.subscribe(false).is_none());
    drop(kept);
    hub.observe(&Event::Stopping);
    assert!(super::lock(&hub.subscribers).is_empty());
}
