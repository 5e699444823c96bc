//! Ports of node's inspector: workers that were all started with `--inspect` must not want the same one.
//!
//! Node's own rule, with the slot for its counter: the primary's port (9229 unless the arguments name another) and one
//! more for each worker; after 65535 comes 1024. A primary of ours has no inspector, and leaves its port unused.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::net::TcpListener;

use allcores_core::worker::Slot;

/// Node's port where nobody names one.
const USUAL: u16 = 9229;

/// Where Node goes on counting after the highest port.
const LOWEST: u32 = 1024;

/// Counts the ports of one app's workers.
#[derive(Debug)]
pub(super) struct Ports {
    /// The first worker's, where that was set.
    first: Option<u16>,
    /// What stands for the primary's where it may be any.
    any: OnceCell<u16>,
}

impl Ports {
    pub(super) fn new(first: Option<u16>) -> Self {
        Self { first, any: OnceCell::new() }
    }

    /// What stands for the primary's, if it has been asked for.
    pub(super) fn any(&self) -> Option<u16> {
        self.any.get().copied()
    }

    /// The same again, with what stood for the primary's.
    pub(super) fn with_any(first: Option<u16>, any: Option<u16>) -> Self {
        Self { first, any: any.map(OnceCell::from).unwrap_or_default() }
    }

    /// The inspector port to be given to the worker of a slot; `None` where it has no inspector.
    pub(super) fn of(&self, command: &[OsString], options: Option<&OsStr>, slot: Slot) -> Option<u16> {
        let named = named_port(command, options)?;
        let first = self
            .first
            .unwrap_or_else(|| next(if named == 0 { *self.any.get_or_init(any_port) } else { named }));
        Some(nth(first, slot))
    }
}

/// The primary's inspector port, by what its workers' arguments say; 0 for any.
fn named_port(command: &[OsString], options: Option<&OsStr>) -> Option<u16> {
    if !super::is_node(command) {
        return None;
    }
    let own = command.iter().skip(1).map(OsString::as_os_str).take_while(|arg| is_option(arg));
    let mut named = None;
    let mut is_used = false;
    let options = options.and_then(OsStr::to_str).unwrap_or_default();
    let words = options.split_ascii_whitespace().chain(own.filter_map(OsStr::to_str));
    for word in words.filter(|word| is_inspecting(word)) {
        is_used = true;
        named = port_in(word).or(named);
    }
    is_used.then(|| named.unwrap_or(USUAL))
}

/// One that is free now, as the kernel would give a primary that asks for any.
fn any_port() -> u16 {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.map_or(USUAL, |address| address.port())
}

fn is_option(arg: &OsStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    arg.as_bytes().starts_with(b"-")
}

fn is_inspecting(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    matches!(name, "--inspect" | "--inspect-brk" | "--inspect-wait" | "--inspect-port" | "--debug-port")
}

/// The port of `--inspect=PORT`, `--inspect=HOST:PORT`, `--inspect=[::1]:PORT`.
fn port_in(word: &str) -> Option<u16> {
    let value = word.split_once('=')?.1;
    value.rsplit(':').next()?.parse().ok()
}

/// The port behind the primary's.
fn next(port: u16) -> u16 {
    nth(port, Slot(1))
}

fn nth(first: u16, slot: Slot) -> u16 {
    if first == 0 {
        // Any, for each.
        return 0;
    }
    let port = u32::from(first) + u32::from(slot.0);
    let beyond = port.checked_sub(u32::from(u16::MAX) + 1);
    u16::try_from(beyond.map_or(port, |beyond| LOWEST + beyond)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(command: &[&str], options: Option<&str>, base: Option<u16>) -> Option<[u16; 3]> {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let ports = Ports::new(base);
        let port = |slot| ports.of(&command, options.map(OsStr::new), Slot(slot));
        Some([port(0)?, port(1)?, port(2)?])
    }

    #[test]
    fn workers_count_on_from_the_primarys_port() {
        assert_eq!(ports(&["node", "--inspect", "a.js"], None, None), Some([9230, 9231, 9232]));
        for word in ["--inspect=4000", "--inspect-brk=127.0.0.1:4000", "--inspect-port=[::1]:4000"] {
            assert_eq!(ports(&["node", word, "a.js"], None, None), Some([4001, 4002, 4003]), "{word}");
        }
        let two = ["node", "--inspect", "--inspect-port=4000", "a.js"];
        assert_eq!(ports(&two, None, None), Some([4001, 4002, 4003]));
    }

    #[test]
    fn after_the_highest_port_comes_1024() {
        assert_eq!(ports(&["node", "--inspect=65534", "a.js"], None, None), Some([65535, 1024, 1025]));
        assert_eq!(ports(&["node", "--inspect=65535", "a.js"], None, None), Some([1024, 1025, 1026]));
    }

    #[test]
    fn where_any_port_will_do_workers_still_count() {
        let Some([first, second, third]) = ports(&["node", "--inspect=0", "a.js"], None, None) else {
            panic!("no ports")
        };
        assert!(first >= 1024);
        assert_eq!((second, third), (next(first), next(next(first))));
        assert_eq!(ports(&["node", "--inspect", "a.js"], None, Some(0)), Some([0, 0, 0]));
    }

    #[test]
    fn the_environment_counts_and_a_port_that_was_set_wins() {
        assert_eq!(ports(&["node", "a.js"], Some("--inspect=4000"), None), Some([4001, 4002, 4003]));
        assert_eq!(ports(&["node", "--inspect=4000", "a.js"], None, Some(7000)), Some([7000, 7001, 7002]));
    }

    #[test]
    fn who_has_no_inspector_gets_none() {
        assert_eq!(ports(&["node", "a.js", "--inspect"], None, None), None);
        assert_eq!(ports(&["python3", "--inspect"], None, None), None);
    }
}
