//! Arbitrary bytes for what reads the bytes of others: what must hold whatever comes, and where such bytes come from.
//!
//! The claims are those that `fuzz/` has libFuzzer try to break; [`drive`] tries the same by itself, from good inputs
//! that it spoils, so that the suite needs nothing but a stable compiler. Here are the claims about the core. Those about
//! what is private to a crate are in a module `fuzz` of that crate. Deliberately knows nothing of sockets.

mod claims;
mod seeds;
mod spoil;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use claims::{heads, lines, messages, words};

use crate::runtimes::workspace;

/// Something that is given arbitrary bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    name: &'static str,
    try_on: fn(&[u8]) -> bool,
    made: fn() -> Vec<Vec<u8>>,
    longest: usize,
}

impl Target {
    /// Those of the core.
    pub const CORE: [Self; 4] = [
        // Bytes cut into lines, however they arrive.
        Self::new("lines", lines).made(seeds::of_channel),
        // One line, as a primary and as a worker reads it.
        Self::new("messages", messages).made(seeds::of_channel),
        // The head of a request, as far as it tells whose it is.
        Self::new("heads", heads),
        // What a worker says of itself.
        Self::new("words", words),
    ];

    /// One by its name below `fuzz/fuzz_targets`. The function says whether the bytes were what they should be, and panics if a
    /// claim does not hold.
    pub const fn new(name: &'static str, try_on: fn(&[u8]) -> bool) -> Self {
        Self { name, try_on, made: Vec::new, longest: 4096 }
    }

    /// Begins also with these.
    #[must_use]
    pub const fn made(mut self, made: fn() -> Vec<Vec<u8>>) -> Self {
        self.made = made;
        self
    }

    /// No input is longer than so many bytes.
    #[must_use]
    pub const fn longest(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }

    /// Its name below `fuzz/fuzz_targets`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Good inputs that are made by code.
    pub fn made_seeds(&self) -> Vec<Vec<u8>> {
        (self.made)()
    }

    /// Good inputs: made, and written by hand in `fuzz/seeds`.
    ///
    /// # Panics
    ///
    /// If those can't be read.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        self.made_seeds().into_iter().chain(files(&Folder::Seeds.of(self.name))).collect()
    }
}

/// Where inputs of a target are kept, below `fuzz`.
#[derive(Clone, Copy, Debug)]
pub enum Folder {
    /// Good ones, to begin with.
    Seeds,
    /// Those that were found to lead somewhere else, most of them no good.
    Found,
}

impl Folder {
    /// That of a target.
    pub fn of(self, name: &str) -> PathBuf {
        let folder = match self {
            Self::Seeds => "fuzz/seeds",
            Self::Found => "fuzz/found",
        };
        workspace().join(folder).join(name)
    }
}

/// What the files of a folder have in them, in the order of their names; nothing if there is no such folder.
fn files(folder: &Path) -> impl Iterator<Item = Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder of files").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("a file of bytes"))
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

/// Tries inputs made of good ones, of each other and of nothing. The same seed makes the same inputs.
///
/// # Panics
///
/// If a claim does not hold. The input is printed before, unless the process is killed.
pub fn drive(target: &Target, seed: u64, until: Until) -> Tried {
    let mut spoiler = spoil::Spoiler::new(seed, target.seeds(), target.longest);
    let mut tried = Tried { inputs: 0, accepted: 0, bytes: 0, slowest: Duration::ZERO };
    let started = Instant::now();
    let is_over = |tried: &Tried, now: Instant| match until {
        Until::Inputs(inputs) => tried.inputs >= inputs,
        Until::Elapsed(time) => now.duration_since(started) >= time,
    };
    let mut now = started;
    while !is_over(&tried, now) {
        let input = Shown(spoiler.next_input());
        tried.accepted += u64::from((target.try_on)(&input.0));
        let after = Instant::now();
        tried.slowest = tried.slowest.max(after.duration_since(now));
        tried.inputs += 1;
        tried.bytes += input.0.len() as u64;
        now = after;
        spoiler.keep(input.0.clone());
    }
    tried
}

/// Far more than an input can take, be the machine as busy as it may.
const HANGS: Duration = Duration::from_secs(5);

/// What all inputs together may leave behind, in KiB.
const MOST_KIB: u64 = 64 * 1024;

/// Tries a target as a test of the suite: what was found before, and so many inputs, neither only noise nor nothing but what is right, none of which
/// hangs, and all of which together leave no more memory behind than they may.
///
/// # Panics
///
/// If a claim does not hold.
pub fn takes_anything(target: &Target, inputs: u32) {
    for input in files(&Folder::Found.of(target.name())).map(Shown) {
        (target.try_on)(&input.0);
    }
    let before = peak_kib();
    let tried = drive(target, 1, Until::Inputs(inputs.into()));
    let grown = peak_kib() - before;
    eprintln!("{}: {tried:?}, {grown} KiB more", target.name());
    assert_eq!(tried.inputs, u64::from(inputs));
    assert!((tried.inputs / 100..tried.inputs / 100 * 99).contains(&tried.accepted), "{tried:?}");
    assert!(tried.slowest < HANGS, "{tried:?}");
    assert!(grown < MOST_KIB, "{grown} KiB");
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
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
