//! What holds of addresses of other processes, whatever their bytes are.

use std::net::SocketAddr;

use super::{Sockaddr, parse};

/// Reads bytes as an address that another process wants to bind. True if it is one that might be ours: then it says what the
/// bytes say.
///
/// # Panics
///
/// If it does not.
pub fn sockaddr(bytes: &[u8]) -> bool {
    let Some(sockaddr) = parse(bytes) else { return false };
    let family = |family: i32| family.to_ne_bytes()[..2].to_vec();
    let same = match &sockaddr {
        Sockaddr::Ip(address) => {
            assert_ne!(address.port(), 0);
            let port = address.port().to_be_bytes();
            match address {
                SocketAddr::V4(v4) => [&family(libc::AF_INET)[..], &port, &v4.ip().octets()].concat(),
                SocketAddr::V6(v6) => {
                    // Not ours to keep.
                    let flow = &bytes[4..8];
                    let scope = v6.scope_id().to_ne_bytes();
                    [&family(libc::AF_INET6)[..], &port, flow, &v6.ip().octets(), &scope].concat()
                }
            }
        }
        Sockaddr::Unix(name) => {
            assert!(!name.is_empty() && (name[0] == 0 || !name.contains(&0)), "{name:?}");
            [&family(libc::AF_UNIX)[..], name].concat()
        }
    };
    // The scope may be left out, and is if it is not there whole.
    let length = if bytes.len() < same.len() { same.len() - size_of::<u32>() } else { same.len() };
    assert!(bytes.starts_with(&same[..length]), "{sockaddr:?}");
    true
}
