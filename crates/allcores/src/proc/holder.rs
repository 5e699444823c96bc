//! Who has an address that could not be bound.
//!
//! The search goes through the descriptors of all processes, which takes seconds on a machine that is busy or has many:
//! never on the thread of anybody who waits for something else.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Protocol, all_processes, command_line, inode_of_link, listeners};
use crate::address::canonical;
use crate::primary::Holder;

/// An address that somebody else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
}

impl Taken {
    /// Looks for the process that has it, until then. `None` where it may not be seen, or has let go meanwhile.
    pub(crate) fn holder(self, until: Instant) -> Option<Holder> {
        let inodes = self.sockets();
        let pid = all_processes()
            .take_while(|_| Instant::now() < until)
            .find(|pid| !inodes.is_empty() && has_any(*pid, &inodes))?;
        Some(Holder { pid, command: command_line(pid) })
    }

    /// Whether all that keeps the address from being bound are sockets like that.
    pub(crate) fn is_only_by(self, is_meant: impl Fn(u64) -> bool) -> bool {
        self.sockets().into_iter().all(is_meant)
    }

    /// What the operator is told of it.
    pub(crate) fn reason(holder: Option<&Holder>) -> &'static str {
        match holder {
            Some(holder) if holder.pid == std::process::id() => "this app's own primary has it in use",
            Some(_) => "it is in use",
            None => {
                "a process that this user may not see has it; find it with `ss -ltnp` as root, or choose another port"
            }
        }
    }

    /// The inodes of listening (TCP) or bound (UDP) sockets that keep the address from being bound.
    fn sockets(self) -> HashSet<u64> {
        let is_any = |ip: IpAddr| ip.is_unspecified();
        let address = canonical(self.address);
        listeners(self.protocol, address.port())
            .into_iter()
            .map(|(bound, inode)| (canonical(bound), inode))
            .filter(|(bound, _)| bound.port() == address.port())
            .filter(|(bound, _)| bound.ip() == address.ip() || is_any(bound.ip()) || is_any(address.ip()))
            // An IPv6 socket has IPv4 addresses only where it has all.
            .filter(|(bound, _)| match (bound.is_ipv6(), address.is_ipv6()) {
                (true, false) => is_any(bound.ip()),
                (false, true) => is_any(address.ip()),
                _ => true,
            })
            .map(|(_, inode)| inode)
            .collect()
    }
}

/// Whether a process has one of these sockets open.
fn has_any(pid: u32, inodes: &HashSet<u64>) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| inode_of_link(link.to_str()?)).any(|inode| inodes.contains(&inode))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[test]
    fn whoever_listens_is_found() {
        for host in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let address = listener.local_addr().unwrap();
            let holder = Taken { protocol: Protocol::Tcp, address }.holder(later()).unwrap();
            assert_eq!(holder.pid, std::process::id());
        }
    }

    #[test]
    fn an_address_is_held_by_who_has_all_addresses() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = ([127, 0, 0, 1], listener.local_addr().unwrap().port()).into();
        let holder = Taken { protocol: Protocol::Tcp, address }.holder(later()).unwrap();
        assert_eq!(holder.pid, std::process::id());
    }

    #[test]
    fn a_udp_socket_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = Taken { protocol: Protocol::Udp, address: socket.local_addr().unwrap() };
        assert_eq!(taken.holder(later()).unwrap().pid, std::process::id());
    }

    #[test]
    fn nobody_has_what_nobody_listens_on() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(Taken { protocol: Protocol::Tcp, address }.holder(later()), None);
    }

    #[test]
    fn a_search_ends_when_its_time_is_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = Taken { protocol: Protocol::Tcp, address: listener.local_addr().unwrap() };
        assert_eq!(taken.holder(Instant::now()), None);
    }
}
