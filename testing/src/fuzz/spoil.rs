//! Makes inputs of others, by chance: what a fuzzer does that does not look into the program.

use fastrand::Rng;

/// How many inputs are kept to make others of.
const KEPT: usize = 512;

/// What is put in the place of values, and anywhere else.
const WORDS: [&str; 40] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1e999",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "4294967296",
    "0.5",
    "\"\"",
    "\"NODE_\"",
    "\"NODE_CLUSTER\"",
    "\"NODE_HANDLE\"",
    "\"NODE_HANDLE_ACK\"",
    "\"NODE_HANDLE_NACK\"",
    "\"NODE_SOCKET_COUNT\"",
    "\"cmd\":",
    "\"act\":\"queryServer\"",
    "\"ack\":1",
    "\"accepted\":1",
    "\"seq\":",
    "\"key\":",
    "\"msg\":",
    "\"type\":",
    "\"addressType\":\"udp4\"",
    "\"data\":{}",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\n",
    "\r\n",
    "\u{2028}",
    "\\",
];

/// A source of inputs.
#[derive(Debug)]
pub(super) struct Spoiler {
    rng: Rng,
    seeds: Vec<Vec<u8>>,
    kept: Vec<Vec<u8>>,
    longest: usize,
}

impl Spoiler {
    pub(super) fn new(seed: u64, seeds: Vec<Vec<u8>>, longest: usize) -> Self {
        Self { rng: Rng::with_seed(seed), seeds, kept: Vec::new(), longest }
    }

    /// Makes an input: mostly a real message in which a few things were changed.
    pub(super) fn next_input(&mut self) -> Vec<u8> {
        let mut input = match self.rng.u8(..16) {
            0 => (0..self.rng.usize(..256)).map(|_| self.rng.u8(..)).collect(),
            // Many lines, for what cuts them.
            1 => self.stream(),
            2..=5 if !self.kept.is_empty() => self.kept[self.rng.usize(..self.kept.len())].clone(),
            _ => self.seed(),
        };
        for _ in 0..self.rng.u32(..6) {
            self.spoil(&mut input);
        }
        input.truncate(self.longest);
        input
    }

    /// Offers an input to be made others of.
    pub(super) fn keep(&mut self, input: Vec<u8>) {
        if self.rng.u8(..) > 0 {
            return;
        }
        if self.kept.len() < KEPT {
            self.kept.push(input);
        } else {
            let at = self.rng.usize(..KEPT);
            self.kept[at] = input;
        }
    }

    fn seed(&mut self) -> Vec<u8> {
        self.seeds[self.rng.usize(..self.seeds.len())].clone()
    }

    fn stream(&mut self) -> Vec<u8> {
        let mut stream = vec![self.rng.u8(..), self.rng.u8(..)];
        for _ in 0..self.rng.u32(..12) {
            let line = self.seed();
            stream.extend(line);
            stream.extend(std::iter::repeat_n(b'\n', self.rng.usize(..3)));
        }
        stream
    }

    fn spoil(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.usize(..=input.len());
        let range = at..(at + self.rng.usize(..=32)).min(input.len());
        match self.rng.u8(..9) {
            0 => drop(input.drain(range)),
            1 => {
                let copy = input[range].to_vec();
                let times = 1 << self.rng.u32(..5);
                insert(input, at, &copy.repeat(times));
            }
            2 => input.truncate(at),
            3 | 4 => insert(input, at, WORDS[self.rng.usize(..WORDS.len())].as_bytes()),
            5 => self.replace_value(input),
            6 => {
                let other = self.seed();
                let from = self.rng.usize(..=other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
            7 => {
                // Deep inside, as no parser likes it.
                let depth = 1 << self.rng.u32(..9);
                let bracket = *self.rng.choice(b"[{\"").expect("there are some");
                insert(input, at, &vec![bracket; depth]);
            }
            _ if at < input.len() => input[at] ^= 1 << self.rng.u32(..8),
            _ => input.push(self.rng.u8(..)),
        }
    }

    /// Puts something else after one of the colons.
    fn replace_value(&mut self, input: &mut Vec<u8>) {
        let colons: Vec<usize> =
            input.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at + 1).collect();
        let Some(from) = self.rng.choice(colons) else { return };
        let length = input[from..].iter().position(|byte| b",}".contains(byte));
        let to = length.map_or(input.len(), |length| from + length);
        let word = WORDS[self.rng.usize(..WORDS.len())];
        input.splice(from..to, word.bytes());
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}
