//! The sockets that a service manager has bound for us and passed on, as of sd_listen_fds(3).

use std::env;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use allcores::primary::GivenSocket;
use anyhow::anyhow;
use listenfd::ListenFd;

use crate::failure::Failure;

/// What `LISTEN_FDS` counts begins with this descriptor.
const FIRST: usize = 3;

/// Takes them, with their names. Those that were meant for another process, an ancestor of ours, are left alone.
///
/// # Errors
///
/// One is no socket that anybody could listen on.
pub(crate) fn given() -> Result<Vec<GivenSocket>, Failure> {
    let is_for_us = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if !is_for_us {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut passed = ListenFd::from_env();
    let count = passed.len();
    let take = |index| {
        let name = names.next().map_or_else(|| format!("descriptor {}", index + FIRST), str::to_owned);
        let Some(socket) = take(&mut passed, index) else {
            let text = format!(
                "take the socket that was passed to us as {name}: it is no socket of TCP, UDP or a Unix stream"
            );
            return Err(Failure::from(anyhow!(text)).next(
                "name only such sockets in the socket unit: ListenStream=, ListenDatagram= of an address",
            ));
        };
        Ok(GivenSocket { socket: Arc::new(socket), name })
    };
    (0..count).map(take).collect()
}

/// The library looks at what each is, and leaves it where it is if that is something else.
fn take(passed: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    let tcp = passed.take_tcp_listener(index).ok().flatten().map(OwnedFd::from);
    let udp = || passed.take_udp_socket(index).ok().flatten().map(OwnedFd::from);
    let other = tcp.or_else(udp);
    other.or_else(|| passed.take_unix_listener(index).ok().flatten().map(OwnedFd::from))
}
