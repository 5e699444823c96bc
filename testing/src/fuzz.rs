//! Arbitrary bytes for the channel's decoder: what must hold of it whatever comes, and where such bytes come from.
//!
//! The claims are those that `fuzz/` has libFuzzer try to break; [`drive`] tries the same by itself, from real messages
//! that it spoils, so that the suite needs nothing but a stable compiler. Deliberately knows nothing of sockets.

mod claims;
mod seeds;
mod spoil;

use std::time::{Duration, Instant};

pub use claims::{lines, messages};
pub use seeds::seeds;

/// What is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Bytes cut into lines, however they arrive.
    Lines,
    /// One line, as a primary and as a worker reads it.
    Messages,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 2] = [Self::Lines, Self::Messages];

    /// Its name below `fuzz/fuzz_targets`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Messages => "messages",
        }
    }

    /// Decodes these bytes, and says whether they were what they should be.
    ///
    /// # Panics
    ///
    /// If a claim does not hold.
    pub fn try_on(self, data: &[u8]) -> bool {
        match self {
            Self::Lines => lines(data),
            Self::Messages => messages(data),
        }
    }
}

/// When to end.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this many inputs.
    Inputs(u64),
    /// After this time.
    Elapsed(Duration),
}

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// How many inputs.
    pub inputs: u64,
    /// How many of them were what they should be.
    pub accepted: u64,
    /// How long all together.
    pub bytes: u64,
    /// What one of them took at the most.
    pub slowest: Duration,
}

/// Tries inputs made of real messages, of each other and of nothing. The same seed makes the same inputs.
///
/// # Panics
///
/// If a claim does not hold. The input is printed before, unless the process is killed.
pub fn drive(target: Target, seed: u64, until: Until) -> Tried {
    let mut spoiler = spoil::Spoiler::new(seed, seeds());
    let mut tried = Tried { inputs: 0, accepted: 0, bytes: 0, slowest: Duration::ZERO };
    let started = Instant::now();
    let is_over = |tried: &Tried, now: Instant| match until {
        Until::Inputs(inputs) => tried.inputs >= inputs,
        Until::Elapsed(time) => now.duration_since(started) >= time,
    };
    let mut now = started;
    while !is_over(&tried, now) {
        let input = Shown(spoiler.next_input());
        tried.accepted += u64::from(target.try_on(&input.0));
        let after = Instant::now();
        tried.slowest = tried.slowest.max(after.duration_since(now));
        tried.inputs += 1;
        tried.bytes += input.0.len() as u64;
        now = after;
        spoiler.keep(input.0.clone());
    }
    tried
}

/// An input that is printed if it makes something panic.
struct Shown(Vec<u8>);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input, of {} bytes: \"{}\"", self.0.len(), self.0.escape_ascii());
        }
    }
}
