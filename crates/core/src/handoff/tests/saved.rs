//! Hand-offs as data: what is refused.

use proptest::prelude::{any, prop};
use proptest::proptest;
use serde_json::{Value, json};

use super::{client, ms};
use crate::handoff::{Handoff, Order};
use crate::worker::{Slot, WorkerId};

fn value() -> Value {
    let mut handoff = Handoff::new(Order::Sticky, 8);
    for worker in [1, 2] {
        handoff.join(WorkerId(worker), Slot(0), true);
    }
    for number in 0..12 {
        handoff.arrive(client(number));
    }
    while handoff.assign(ms(1)).is_some_and(|(ticket, _)| ticket.number() < 6) {}
    serde_json::to_value(handoff.save()).unwrap()
}

fn restore(value: Value) -> Result<Handoff, String> {
    let saved = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Handoff::restore(Order::Sticky, 8, saved).map_err(|error| error.to_string())
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (path, wrong) in [
        ("/turns", json!([])),
        ("/turns/0", json!(7)),
        ("/takers/0/worker", json!(2)),
        ("/next", json!(1)),
        ("/next", json!(u64::MAX)),
        ("/waiting/0/0", json!(1)),
        ("/queues/0/0", json!(9)),
        ("/queues/0/1", json!([1])),
    ] {
        let mut value = value();
        *value.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = wrong.clone();
        assert!(restore(value).is_err(), "{path}: {wrong}");
    }
    assert!(restore(value()).is_ok());
}

proptest! {
    #[test]
    fn whatever_numbers_a_document_has_hand_offs_made_of_it_never_panic(
        path in prop::sample::select(vec!["/turns/1", "/waiting/0/0", "/sent/0/worker", "/sent/0/ticket", "/queues/0/0",
            "/takers/0/refusals", "/takers/0/streak", "/sent/0/since/secs", "/held_up_until/secs", "/next"]),
        number: u64, small in any::<u8>(), is_small: bool,
    ) {
        let mut value = value();
        if let Some(place) = value.pointer_mut(path) {
            *place = if is_small { json!(small) } else { json!(number) };
        }
        let Ok(mut handoff) = restore(value) else { return Ok(()) };
        let mut now = ms(5);
        for _ in 0..4 {
            while let Some((ticket, _)) = handoff.assign(now) {
                if ticket.number() % 2 == 0 { handoff.accepted(ticket, now); } else { handoff.refused(ticket, now); }
                if ticket.number() > 20 { break; }
            }
            now += ms(300);
            let _ = (handoff.next_deadline(now), handoff.room(), handoff.pending(), handoff.capacity(9, now));
        }
        handoff.leave(WorkerId(1));
        handoff.close();
    }
}
