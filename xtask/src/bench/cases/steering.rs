//! The steering case: the mixed load over the interval at which lanes are looked at.

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::Way;
use crate::bench::load::{self, CLOSED_LOOP};
use crate::bench::{Arguments, duration};

use super::mixed;

pub(super) const CASE: Case = Case {
    name: "steering",
    about: "the mixed load over the interval at which lanes are looked at",
    metrics: CLOSED_LOOP,
    expected: &[Expected::Never("failed")],
    remarks: "\
All of these are allcores: the case was made to choose the interval, which is 2000 µs, and tells what other intervals \
would give.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let contender = |tick: u32| {
        let way = Way::allcores_with("lanes", "ALLCORES_STEER_TICK_US", tick.to_string());
        mixed::contender(&format!("allcores, tick {tick} µs"), way, arguments)
    };
    Plan {
        title: format!("the mixed load, {} clients, over the steering tick", arguments.given.clients),
        packages: &[],
        contenders: [2000, 500, 1000, 4000].into_iter().map(contender).collect(),
        left_out: Vec::new(),
        each: load::time_of(duration(arguments.given.seconds)),
    }
}
