//! Addresses for servers under test: loopback, and given to nobody else.
//!
//! To ask the kernel for a free port and then to close it is a race: another test may be given the same one before the
//! server binds it. All of 127.0.0.0/8 is loopback, so here each process has a host of its own, and counts ports up.

use std::net::{Ipv4Addr, SocketAddr};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which kernels take the ports of clients.
const FIRST_PORT: u16 = 20_000;

/// An address that no other call, in this process or another, returns while this process lives.
///
/// # Platform
///
/// Linux. Other systems have 127.0.0.1 alone until they are told of more.
pub fn unused() -> SocketAddr {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    let [_, high, middle, low] = process::id().to_be_bytes();
    // A pid has 22 bits at most, so the second number stays below 65: far from the broadcast address.
    let host = Ipv4Addr::new(127, high + 1, middle, low);
    (host, NEXT_PORT.fetch_add(1, Ordering::Relaxed)).into()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_loopback_and_differ() {
        let (one, other) = (unused(), unused());
        assert!(one.ip().is_loopback());
        assert_ne!(one, other);
        TcpListener::bind(one).unwrap();
    }
}
