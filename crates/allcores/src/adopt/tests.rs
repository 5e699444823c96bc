use super::*;

#[test]
fn an_ipv4_address_is_read() {
    let mut bytes = libc::AF_INET.to_ne_bytes()[..2].to_vec();
    bytes.extend([0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(parse(&bytes), Some(Sockaddr::Ip("127.0.0.1:8080".parse().unwrap())));
}

#[test]
fn port_0_other_families_and_short_addresses_are_not_ours() {
    let family = |family: i32| family.to_ne_bytes()[..2].to_vec();
    let mut port_0 = family(libc::AF_INET);
    port_0.extend([0; 14]);
    assert_eq!(parse(&port_0), None);
    assert_eq!(parse(&family(libc::AF_NETLINK)), None);
    assert_eq!(parse(&[2]), None);
    assert_eq!(parse(&family(libc::AF_INET)), None);
    assert_eq!(parse(&family(libc::AF_UNIX)), None, "an unnamed Unix socket");
}

#[test]
fn paths_end_at_their_nul_and_abstract_names_do_not() {
    let unix = |name: &[u8]| [&libc::AF_UNIX.to_ne_bytes()[..2], name].concat();
    assert_eq!(parse(&unix(b"/run/a.sock\0junk")), Some(Sockaddr::Unix(b"/run/a.sock".to_vec())));
    assert_eq!(parse(&unix(b"\0a\0b")), Some(Sockaddr::Unix(b"\0a\0b".to_vec())));
}

#[test]
fn what_the_kernel_tells_a_caller_itself_is_told_from_what_we_can_not_see() {
    let us = std::process::id();
    let file = std::fs::File::open("/dev/null").unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    assert!(has_erred(us, &read_sockaddr(us, 8, 16).unwrap_err()), "no address");
    assert!(has_erred(us, &proc::descriptor_flags(us, -1).unwrap_err()), "no descriptor");
    assert!(has_erred(us, &proc::socket_inode(us, number).unwrap_err()), "no socket");
    assert!(!has_erred(us, &io::Error::from_raw_os_error(libc::EMFILE)));
    assert!(!has_erred(us, &io::ErrorKind::InvalidData.into()));
    // Nobody has this number.
    let nobody = i32::MAX.unsigned_abs();
    assert!(!has_erred(nobody, &proc::process_of(nobody).unwrap_err()));
}

#[test]
fn what_a_socket_is_can_be_told_by_its_name_alone() {
    use rustix::net::{AddressFamily as Family, SocketFlags, SocketType as Type};
    use std::os::fd::AsRawFd;
    let me = std::process::id();
    for (family, kind, is) in [
        (Family::INET, Type::STREAM, Protocol::Tcp),
        (Family::INET6, Type::STREAM, Protocol::Tcp),
        (Family::INET, Type::DGRAM, Protocol::Udp),
        (Family::INET6, Type::DGRAM, Protocol::Udp),
        (Family::UNIX, Type::STREAM, Protocol::UnixStream),
        (Family::UNIX, Type::DGRAM, Protocol::Other),
        (Family::UNIX, Type::SEQPACKET, Protocol::Other),
    ] {
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        let name = proc::socket_protocol(me, socket.as_raw_fd()).unwrap();
        let inode = proc::socket_inode(me, socket.as_raw_fd()).unwrap();
        assert_eq!(protocol_named(&name, || proc::is_unix_stream(me, inode)), is, "{name}");
        assert_eq!(protocol_of(&socket).unwrap(), is, "{name}");
    }
    assert_eq!(protocol_named("UNIX", || true), Protocol::UnixStream, "before Linux 5.15");
}
