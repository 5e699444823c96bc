//! How a program that the primary did not connect itself finds it: what both sides must agree on.
//!
//! The primary listens at an abstract Unix socket that its workers learn of from their environment. It knows by the
//! peer's process id which worker has come, and greets it with a line; whom it does not know it hangs up on. What a worker
//! that has come has started finds the name in its environment too, where threads kept it from being taken out: it is told that
//! it is no worker, by another line.

use allcores_core::worker::{Slot, WorkerId};
use serde::{Deserialize, Serialize};

/// Names the socket, without the leading NUL.
pub(crate) const VARIABLE: &str = "ALLCORES_CHANNEL";

/// The longest greeting.
pub(crate) const LONGEST: usize = 256;

/// Who the primary takes the other side for. The first line of the channel; to node's eyes one of its own, unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) id: WorkerId,
    pub(crate) slot: Slot,
}

#[derive(Deserialize, Serialize)]
struct Line<'a> {
    cmd: &'a str,
    id: u32,
    slot: u16,
}

const COMMAND: &str = "NODE_ALLCORES";

/// Said in place of a greeting, without a line end: that this process was started by the one who came for the worker, and is none.
/// No greeting to who knows nothing of it.
pub(crate) const NO_WORKER: &str = r#"{"cmd":"NODE_ALLCORES","worker":false}"#;

impl Greeting {
    /// Writes it, without a line end.
    pub(crate) fn line(self) -> String {
        let line = Line { cmd: COMMAND, id: self.id.0, slot: self.slot.0 };
        serde_json::to_string(&line).expect("plain fields are always JSON")
    }

    /// Reads it, without its line end.
    pub(crate) fn read(line: &[u8]) -> Option<Self> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        (line.cmd == COMMAND).then_some(Self { id: WorkerId(line.id), slot: Slot(line.slot) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_as_it_was_written_and_nothing_else_is_one() {
        let greeting = Greeting { id: WorkerId(7), slot: Slot(2) };
        assert_eq!(Greeting::read(greeting.line().as_bytes()), Some(greeting));
        for other in [
            "",
            "{}",
            r#"{"cmd":"NODE_CLUSTER","id":1,"slot":1}"#,
            r#"{"cmd":"NODE_ALLCORES","id":-1}"#,
            NO_WORKER,
        ] {
            assert_eq!(Greeting::read(other.as_bytes()), None, "{other}");
        }
    }
}
