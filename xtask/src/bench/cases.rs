//! The cases, each in a file of its own: who is compared, under which load, and which numbers are taken from it.
//!
//! A new case is a file here and a line in [`ALL`].

mod control;
mod fairness;
mod frameworks;
mod handoff;
mod logs;
mod memory;
mod messages;
mod mixed;
mod reload;
mod steering;
mod sync;
mod throughput;

use super::case::Case;

/// Every case, in the order in which the page shows them.
pub(super) const ALL: &[&Case] = &[
    &throughput::CASE,
    &mixed::CASE,
    &fairness::CASE,
    &memory::CASE,
    &frameworks::CASE,
    &handoff::CASE,
    &sync::CASE,
    &reload::CASE,
    &logs::CASE,
    &control::CASE,
    &messages::CASE,
    &steering::CASE,
];
