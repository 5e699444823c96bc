use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use super::*;
use crate::worker::tests::support::inherited;

fn find_with(variables: &[(&str, &str)]) -> Result<Origin, Error> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    find(|name| variables.get(name).map(OsString::from))
}

#[test]
fn nobodys_child_is_a_primary_unless_somebody_wishes_otherwise() {
    assert!(matches!(find_with(&[]), Ok(Origin::Primary)));
    assert!(matches!(find_with(&[("ALLCORES_ROLE", "worker")]), Ok(Origin::Alone)));
    let (forced, slot) = (("ALLCORES_ROLE", "primary"), ("ALLCORES_SLOT", "0"));
    assert!(matches!(find_with(&[forced, slot]), Ok(Origin::Primary)));
    let error = find_with(&[("ALLCORES_ROLE", "slave")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Settings);
}

#[test]
fn a_channel_that_was_inherited_makes_a_worker_once() {
    let (theirs, _ours) = UnixStream::pair().unwrap();
    let number = inherited(theirs);
    let variables = [("NODE_CHANNEL_FD", number.as_str()), ("NODE_UNIQUE_ID", "5"), ("ALLCORES_SLOT", "2")];
    let Ok(Origin::Connected { id, slot, socket, .. }) = find_with(&variables) else { panic!("a worker") };
    assert_eq!((id, slot), (WorkerId(5), Slot(2)));
    assert_eq!(socket.as_raw_fd().to_string(), number);
    // What this worker starts finds the same variables, and none of its descriptors.
    assert!(matches!(find_with(&variables), Ok(Origin::Primary)));
}

#[test]
fn what_a_worker_starts_is_none_though_it_finds_its_slot() {
    let mut variables = HashMap::from([
        ("NODE_CHANNEL_FD", "3"),
        ("NODE_UNIQUE_ID", "5"),
        ("ALLCORES_SLOT", "2"),
        ("ALLCORES_WORKER_ID", "5"),
    ]);
    for (name, value) in TAKEN {
        match value {
            Some(value) => variables.insert(name, value),
            None => variables.remove(name),
        };
    }
    assert_eq!(variables["ALLCORES_SLOT"], "2");
    let variables: Vec<_> = variables.into_iter().collect();
    assert!(matches!(find_with(&variables), Ok(Origin::Primary)));
}

#[test]
fn a_primary_of_nodes_says_nothing_of_slots() {
    for (variables, expected) in [(&[][..], Slot(4)), (&[("NODE_APP_INSTANCE", "7")][..], Slot(7))] {
        let (theirs, _ours) = UnixStream::pair().unwrap();
        let number = inherited(theirs);
        let variables = [variables, &[("NODE_CHANNEL_FD", &number), ("NODE_UNIQUE_ID", "5")]].concat();
        let Ok(Origin::Connected { slot, .. }) = find_with(&variables) else { panic!("a worker") };
        assert_eq!(slot, expected);
    }
}

#[test]
fn what_is_no_channel_is_not_taken_for_one() {
    let (_, not_inherited) = UnixStream::pair().unwrap();
    let file = inherited(std::fs::File::open("/dev/null").unwrap());
    let udp = inherited(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    for number in [&not_inherited.as_raw_fd().to_string(), &file, &udp, "-1", "999999", "x", ""] {
        let variables = [("NODE_CHANNEL_FD", number), ("NODE_UNIQUE_ID", "5")];
        assert!(matches!(find_with(&variables), Ok(Origin::Primary)), "{number}");
    }
    for number in [&file, &udp] {
        assert!(std::fs::exists(format!("/proc/self/fd/{number}")).unwrap(), "{number} is somebody else's");
    }
    let (forked, _ours) = UnixStream::pair().unwrap();
    // Without an id it is a child of a node process, and no worker.
    assert!(matches!(find_with(&[("NODE_CHANNEL_FD", &inherited(forked))]), Ok(Origin::Primary)));
}

#[test]
fn a_way_of_writing_that_nobody_knows_is_an_error() {
    let (theirs, _ours) = UnixStream::pair().unwrap();
    let number = inherited(theirs);
    let variables = [
        ("NODE_CHANNEL_FD", number.as_str()),
        ("NODE_UNIQUE_ID", "1"),
        ("NODE_CHANNEL_SERIALIZATION_MODE", "morse"),
    ];
    assert_eq!(find_with(&variables).unwrap_err().kind(), ErrorKind::Settings);
}

#[test]
fn a_primary_that_can_be_met_says_who_we_are() {
    let name = format!("allcores-test-origin-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let greeting = Greeting { id: WorkerId(9), slot: Slot(3) };
    let primary = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        writeln!(socket, "{}\n\"more\"", greeting.line()).unwrap();
        // And the next one is not let in.
        drop(listener.accept().unwrap());
        socket
    });
    let variables =
        [("ALLCORES_CHANNEL", name.as_str()), ("ALLCORES_SLOT", "1"), ("ALLCORES_WORKER_ID", "8")];
    let Ok(Origin::Connected { id, slot, socket, .. }) = find_with(&variables) else { panic!("a worker") };
    assert_eq!((id, slot), (greeting.id, greeting.slot));
    assert!(matches!(find_with(&variables), Ok(Origin::Adopted { id: WorkerId(8), slot: Slot(1) })));
    drop(primary.join().unwrap());
    let mut rest = String::new();
    UnixStream::from(socket).read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\"more\"\n", "what follows the greeting is the channel's");
    // And when there is none any more.
    assert!(matches!(find_with(&variables), Ok(Origin::Adopted { .. })));
}

/// Another process's threads have kept it from taking the variables out of its environment.
#[test]
fn who_was_started_by_a_worker_is_told_so_where_it_finds_all_that_makes_one() {
    let name = format!("allcores-test-no-worker-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let primary = std::thread::spawn(move || {
        for mut socket in listener.incoming().take(2).map(Result::unwrap) {
            writeln!(socket, "{}", rendezvous::NO_WORKER).unwrap();
        }
    });
    let variables =
        [("ALLCORES_CHANNEL", name.as_str()), ("ALLCORES_SLOT", "1"), ("ALLCORES_WORKER_ID", "8")];
    assert!(matches!(find_with(&variables), Ok(Origin::Primary)));
    let forced = [&variables[..], &[("ALLCORES_ROLE", "worker")]].concat();
    assert!(matches!(find_with(&forced), Ok(Origin::Alone)));
    primary.join().unwrap();
}
