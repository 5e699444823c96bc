//! What stands in an entry of the journal. Entries wait in a queue as bytes, each after its length.

use std::fmt::Display;

use allcores::primary::{Stream, WorkerRef};

use crate::report::Level;
use crate::view;

/// What our own entries are called by.
const OWN: &str = "allcores";

/// As syslog(3) numbers them.
const ERROR: u8 = 3;
const WARNING: u8 = 4;
const INFO: u8 = 6;
const DEBUG: u8 = 7;

/// An entry that is being written.
struct Entry(Vec<u8>);

/// A worker's line. As journald does with a stream's, a priority in front of it (`<3>`, sd-daemon(3)) is taken off.
pub(crate) fn worker(app: &str, worker: &WorkerRef, stream: Stream, line: &[u8]) -> Vec<u8> {
    let (priority, message) = priority(line).unwrap_or((INFO, line));
    let mut entry = Entry::new(message, priority, app, app);
    entry.text("ALLCORES_SLOT", worker.slot);
    entry.text("ALLCORES_WORKER_PID", worker.pid);
    entry.text("ALLCORES_STREAM", view::stream(stream));
    entry.finish()
}

/// What we say ourselves; it may have several lines.
pub(crate) fn own(app: &str, level: Level, message: &str) -> Vec<u8> {
    let priority = match level {
        Level::Error => ERROR,
        Level::Warning => WARNING,
        Level::Info => INFO,
        Level::Detail => DEBUG,
    };
    Entry::new(message.as_bytes(), priority, OWN, app).finish()
}

/// The entries of a queue's bytes, one by one.
pub(super) fn each(mut entries: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = entries.split_first_chunk()?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        entries = rest;
        Some(entry)
    })
}

impl Entry {
    fn new(message: &[u8], priority: u8, identifier: &str, app: &str) -> Self {
        // For the length, which is known at the end.
        let mut entry = Self(vec![0; 4]);
        entry.bytes("MESSAGE", message);
        entry.text("PRIORITY", priority);
        entry.text("SYSLOG_IDENTIFIER", identifier);
        entry.text("ALLCORES_APP", app);
        entry
    }

    /// Adds a field of whatever bytes, by its length.
    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// Adds a field that has no line ends.
    fn text(&mut self, name: &str, value: impl Display) {
        self.0.extend_from_slice(format!("{name}={value}\n").as_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        // Lines come in pieces of 64 KiB; our own words are few.
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

/// The priority that stands before a line, and what is behind it: `<0>` to `<7>`, and with up to two zeros before, as journald
/// reads it.
fn priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let rest = line.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let (last, zeros) = rest[..end].split_last()?;
    let is_level = matches!(last, b'0'..=b'7') && zeros.iter().all(|byte| *byte == b'0');
    is_level.then(|| (last - b'0', &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn a_priority_is_read_as_journald_reads_it() {
        for (line, read) in [
            ("<3>broken", Some((3, "broken"))),
            ("<0>", Some((0, ""))),
            ("<07> x", Some((7, " x"))),
            ("<006>x", Some((6, "x"))),
            ("<8>x", None),
            ("<13>x", None),
            ("<0006>x", None),
            ("<>x", None),
            ("<3", None),
            ("<x>y", None),
            (" <3>x", None),
            ("", None),
        ] {
            assert_eq!(
                priority(line.as_bytes()),
                read.map(|(level, rest)| (level, rest.as_bytes())),
                "{line}"
            );
        }
    }
}
