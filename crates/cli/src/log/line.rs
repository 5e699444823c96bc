//! How a line stands in a log: `TIME SLOT:WORKER STREAM BYTES` for what a worker wrote, `TIME - LEVEL TEXT` for our own.
//!
//! The bytes are as the worker wrote them. A `+` behind the stream says that no line end came: what follows of the same worker
//! and stream goes on with it.

use std::fmt::Write as _;
use std::time::SystemTime;

use allcores::primary::Stream;

use crate::report::Level;
use crate::view;

/// Where a line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Worker {
        slot: u16,
        id: u32,
        stream: Stream,
        /// No line end came.
        is_partial: bool,
    },
    Own(Level),
    /// It stands in the file, and not as we write it.
    Foreign,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// As RFC 3339, in UTC: times sort as their texts do. Empty for what is foreign.
    pub(crate) time: &'a str,
    pub(crate) source: Source,
    /// Without the line end.
    pub(crate) bytes: &'a [u8],
}

/// Writes a line, its end included.
pub(crate) fn write(time: SystemTime, source: Source, bytes: &[u8]) -> Vec<u8> {
    let mut head = view::time(time);
    // Writing to a string can't fail.
    let _ = match source {
        Source::Worker { slot, id, stream, is_partial } => {
            let part = if is_partial { "+" } else { "" };
            write!(head, " {slot}:{id} {}{part} ", stream_name(stream))
        }
        Source::Own(level) => write!(head, " - {} ", level.name()),
        Source::Foreign => write!(head, " "),
    };
    let mut line = head.into_bytes();
    line.extend_from_slice(bytes);
    line.push(b'\n');
    line
}

impl<'a> Line<'a> {
    /// Reads a line without its end. What was not written by [`write()`] is foreign.
    pub(crate) fn read(line: &'a [u8]) -> Self {
        Self::understand(line).unwrap_or(Self { time: "", source: Source::Foreign, bytes: line })
    }

    fn understand(line: &'a [u8]) -> Option<Self> {
        let (time, rest) = word(line)?;
        let (who, rest) = word(rest)?;
        let (what, bytes) = word(rest)?;
        let is_time = time.len() == TIME.len() && time.ends_with('Z') && time.as_bytes()[10] == b'T';
        let source = match who.split_once(':') {
            None if who == "-" => Source::Own(level_of(what)?),
            None => return None,
            Some((slot, id)) => {
                let (name, is_partial) = what.strip_suffix('+').map_or((what, false), |name| (name, true));
                let stream = match name {
                    "out" => Stream::Stdout,
                    "err" => Stream::Stderr,
                    _ => return None,
                };
                Source::Worker { slot: slot.parse().ok()?, id: id.parse().ok()?, stream, is_partial }
            }
        };
        is_time.then_some(Self { time, source, bytes })
    }
}

const TIME: &str = "2026-01-02T03:04:05.678Z";

/// The first word, and what is behind the space after it.
fn word(line: &[u8]) -> Option<(&str, &[u8])> {
    // No word of a head is longer; what workers write need not be searched through.
    let end = line.iter().take(32).position(|byte| *byte == b' ')?;
    Some((std::str::from_utf8(&line[..end]).ok()?, &line[end + 1..]))
}

fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    }
}

fn level_of(name: &str) -> Option<Level> {
    [Level::Error, Level::Warning, Level::Info, Level::Detail].into_iter().find(|level| level.name() == name)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use allcores::primary::Stream;

    use super::{Line, Source, write};
    use crate::report::Level;

    fn then() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_678)
    }

    fn worker(is_partial: bool) -> Source {
        Source::Worker { slot: 2, id: 17, stream: Stream::Stderr, is_partial }
    }

    #[test]
    fn whatever_a_worker_wrote_comes_back_as_it_was() {
        for bytes in [
            &b"hello"[..],
            b"",
            b" a  b ",
            b"\xff\0\r",
            "ü".as_bytes(),
            b"2026-01-02T03:04:05.678Z 0:1 out x",
        ] {
            for source in [worker(false), worker(true), Source::Own(Level::Warning)] {
                let line = write(then(), source, bytes);
                let read = Line::read(line.strip_suffix(b"\n").unwrap());
                assert_eq!(read, Line { time: "2026-01-02T03:04:05.678Z", source, bytes });
            }
        }
    }

    #[test]
    fn a_line_is_for_eyes_too() {
        let text = |source, bytes| String::from_utf8(write(then(), source, bytes)).unwrap();
        assert_eq!(text(worker(false), b"x y"), "2026-01-02T03:04:05.678Z 2:17 err x y\n");
        assert_eq!(text(worker(true), b"x"), "2026-01-02T03:04:05.678Z 2:17 err+ x\n");
        assert_eq!(text(Source::Own(Level::Info), b"ready"), "2026-01-02T03:04:05.678Z - info ready\n");
    }

    #[test]
    fn what_is_not_ours_is_shown_as_it_is() {
        for line in [
            &b"thread 'main' panicked at x.rs:1:1:"[..],
            b"",
            b"   ",
            b"2026-01-02T03:04:05.678Z 0:1 oops x",
            b"2026-01-02T03:04:05.678Z 0 out x",
            b"2026-01-02T03:04:05.678Z - loud x",
            b"2026-01-02 0:1 out x",
            b"\xff\xff\xff 0:1 out x",
        ] {
            assert_eq!(Line::read(line), Line { time: "", source: Source::Foreign, bytes: line });
        }
    }
}
