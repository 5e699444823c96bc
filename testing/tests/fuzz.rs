//! What the core reads of others takes anything: no panic, no hang, and no more memory than came.

use allcores_testing::extent;
use allcores_testing::fuzz::{Target, Until, drive, takes_anything};

/// `ALLCORES_TEST_INPUTS` asks for another number, and `cargo xtask fuzz` tries for as long as one likes.
fn in_suite(name: &str, inputs: u32) {
    let target = Target::CORE.into_iter().find(|target| target.name() == name).unwrap();
    takes_anything(&target, extent::of("INPUTS", inputs));
}

#[test]
fn lines_are_cut_out_of_anything() {
    in_suite("lines", 300_000);
}

#[test]
fn any_line_is_a_message_or_an_error() {
    in_suite("messages", 300_000);
}

#[test]
fn a_client_is_found_in_any_head_or_is_not() {
    in_suite("heads", 100_000);
}

#[test]
fn any_datagram_says_something_or_nothing() {
    in_suite("words", 100_000);
}

#[test]
fn the_same_seed_tries_the_same() {
    let tried = |seed| drive(&Target::CORE[1], seed, Until::Inputs(2000)).bytes;
    assert_eq!(tried(7), tried(7));
    assert_ne!(tried(7), tried(8));
}
