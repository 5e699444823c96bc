//! What a worker says of itself by sd_notify(3): assignments, one on each line.
//!
//! Only what concerns a worker is understood: that it is ready or stopping, how it is, its heartbeat, and one field of
//! our own. Everything else is passed over, as the protocol wants it.

use std::time::Duration;

use crate::text::printable;

/// The longest datagram that is read; the rest of a longer one is lost.
pub const LONGEST: usize = 4096;

/// More characters of a status than this are cut off.
const LONGEST_STATUS: usize = 200;

/// What one datagram says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`
    pub is_ready: bool,
    /// `STOPPING=1`
    pub is_stopping: bool,
    /// `STATUS=…`: free text on one line, without control characters.
    pub status: Option<String>,
    /// `WATCHDOG=1` or `WATCHDOG=trigger`
    pub heartbeat: Option<Heartbeat>,
    /// `WATCHDOG_USEC=…`: how often it will beat at least, from now on.
    pub heartbeat_interval: Option<Duration>,
    /// `X_ALLCORES_REQUESTS=…`: how many requests it has served so far.
    pub requests: Option<u64>,
}

/// A heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// All is well.
    Beat,
    /// It knows that it has failed.
    Failure,
}

/// Reads a datagram. What is not understood is passed over.
pub fn parse(datagram: &[u8]) -> Notification {
    let mut said = Notification::default();
    for line in datagram.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (&line[..at], &line[at + 1..]);
        match name {
            b"READY" => said.is_ready |= value == b"1",
            b"STOPPING" => said.is_stopping |= value == b"1",
            b"STATUS" => said.status = Some(status(value)),
            b"WATCHDOG" => said.heartbeat = heartbeat(value).or(said.heartbeat),
            b"WATCHDOG_USEC" => {
                let interval = number(value).filter(|micros| *micros > 0).map(Duration::from_micros);
                said.heartbeat_interval = interval.or(said.heartbeat_interval);
            }
            b"X_ALLCORES_REQUESTS" => said.requests = number(value).or(said.requests),
            _ => {}
        }
    }
    said
}

fn heartbeat(value: &[u8]) -> Option<Heartbeat> {
    match value {
        b"1" => Some(Heartbeat::Beat),
        b"trigger" => Some(Heartbeat::Failure),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u64> {
    str::from_utf8(value).ok()?.parse().ok()
}

/// A status goes to terminals.
fn status(value: &[u8]) -> String {
    printable(&String::from_utf8_lossy(value)).chars().take(LONGEST_STATUS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_may_come_at_once() {
        let said =
            parse(b"READY=1\nSTATUS=2 of 3 caches warm\nWATCHDOG=1\nWATCHDOG_USEC=500000\nMAINPID=7\n");
        let expected = Notification {
            is_ready: true,
            status: Some("2 of 3 caches warm".into()),
            heartbeat: Some(Heartbeat::Beat),
            heartbeat_interval: Some(Duration::from_millis(500)),
            ..Notification::default()
        };
        assert_eq!(said, expected);
        assert_eq!(parse(b"STOPPING=1"), Notification { is_stopping: true, ..Notification::default() });
        let requests = Notification { requests: Some(1000), ..Notification::default() };
        assert_eq!(parse(b"X_ALLCORES_REQUESTS=1000"), requests);
        assert_eq!(parse(b"WATCHDOG=trigger").heartbeat, Some(Heartbeat::Failure));
    }

    #[test]
    fn what_is_not_understood_says_nothing() {
        for text in [
            "",
            "\n\n",
            "READY",
            "READY=0",
            "READY=11",
            "WATCHDOG=2",
            "WATCHDOG_USEC=0",
            "X_ALLCORES_REQUESTS=-1",
        ] {
            assert_eq!(parse(text.as_bytes()), Notification::default(), "{text:?}");
        }
    }

    #[test]
    fn a_status_can_do_nothing_to_a_terminal() {
        let status = parse(b"STATUS=a\x1b[2J\xffb").status.unwrap();
        assert_eq!(status, "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(
            parse("STATUS=".bytes().chain([b'x'; 4000]).collect::<Vec<_>>().as_slice()).status.unwrap().len(),
            200
        );
    }

    proptest! {
        #[test]
        fn no_datagram_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Some(status) = parse(&bytes).status {
                prop_assert!(!status.chars().any(char::is_control));
            }
        }
    }
}
