//! The channel's decoder takes anything: no panic, no hang, and no more memory than came.

use std::time::Duration;

use allcores_testing::extent;
use allcores_testing::fuzz::{Target, Until, drive};

/// How many inputs each target gets; `ALLCORES_TEST_INPUTS` asks for another number, and `cargo xtask fuzz` tries for as
/// long as one likes.
fn inputs() -> u64 {
    extent::of("INPUTS", 300_000).into()
}

/// Far more than an input of 4 KiB at the most can take, be the machine as busy as it may.
const HANGS: Duration = Duration::from_secs(1);

/// What all inputs together may leave behind, in KiB.
const MOST: u64 = 64 * 1024;

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn takes_anything(target: Target) {
    let before = peak_kib();
    let tried = drive(target, 1, Until::Inputs(inputs()));
    let grown = peak_kib() - before;
    eprintln!("{}: {tried:?}, {grown} KiB more", target.name());
    assert_eq!(tried.inputs, inputs());
    // Neither only noise nor nothing but what is right.
    assert!((inputs() / 10..inputs() / 100 * 99).contains(&tried.accepted), "{tried:?}");
    assert!(tried.slowest < HANGS, "{tried:?}");
    assert!(grown < MOST, "{grown} KiB");
}

#[test]
fn lines_are_cut_out_of_anything() {
    takes_anything(Target::Lines);
}

#[test]
fn any_line_is_a_message_or_an_error() {
    takes_anything(Target::Messages);
}

#[test]
fn the_same_seed_tries_the_same() {
    let tried = |seed| drive(Target::Messages, seed, Until::Inputs(2000)).bytes;
    assert_eq!(tried(7), tried(7));
    assert_ne!(tried(7), tried(8));
}
