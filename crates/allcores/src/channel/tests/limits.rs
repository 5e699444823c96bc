//! When there is too much of something.

use allcores_testing::own_process::is_moved_to_own_process;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

const NEWCONN: &str = r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":1}"#;

fn limit_open_files(most: u64) {
    let limit = Rlimit { current: Some(most), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[tokio::test]
async fn descriptors_without_room_are_refused_and_those_behind_them_keep_their_messages() {
    if is_moved_to_own_process(
        "channel::tests::limits::descriptors_without_room_are_refused_and_those_behind_them_keep_their_messages",
    ) {
        return;
    }
    let (to_worker, mut primary, theirs) = open(Serialization::Json).unwrap();
    let (_to_primary, mut worker) = from_socket(theirs, Serialization::Json).unwrap();
    let connections: Vec<_> = (0..7).map(numbered).collect();
    let hand_over = |number: u64| {
        let connection = Arc::clone(&connections[usize::try_from(number).unwrap()]);
        to_worker.hand_over(NEWCONN.to_owned(), connection, number);
    };
    (0..6).for_each(hand_over);
    let (mut got, mut lost) = (Vec::new(), Vec::new());
    let first_free = rustix::io::dup(std::io::stdin()).unwrap().as_raw_fd();
    // Two fit.
    limit_open_files(u64::try_from(first_free).unwrap() + 2);
    while lost.len() < 4 {
        tokio::select! {
            (_, descriptor) = next::<FromPrimary>(&mut worker) => got.extend(descriptor),
            arrival = bounded(primary.next::<Incoming>()) => match arrival.unwrap() {
                Arrival::Unreceived(Unreceived::Numbered(number)) => lost.push(number),
                other => panic!("{other:?}"),
            },
        }
    }
    assert_eq!(lost, [2, 3, 4, 5]);
    limit_open_files(u64::try_from(first_free).unwrap() + 3);
    hand_over(6);
    tokio::select! {
        (_, descriptor) = next::<FromPrimary>(&mut worker) => got.extend(descriptor),
        arrival = primary.next::<Incoming>() => panic!("{arrival:?}"),
    }
    let got: Vec<u64> = got.into_iter().map(|descriptor| number_of(Some(descriptor))).collect();
    assert_eq!(got, [0, 1, 6]);
}

#[tokio::test]
async fn descriptors_without_messages_do_not_pile_up() {
    let (_sender, mut carrier, mut peer) = by_hand();
    let descriptor = numbered(1);
    let many = [descriptor.as_fd(); 16];
    for _ in 0..8 {
        peer.write_with(" ", &many);
    }
    // So many may be on their way.
    peer.write("1\n2\n");
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("1"));
    for _ in 0..9 {
        peer.write_with(" ", &many);
    }
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("2"));
    assert!(matches!(end(&mut carrier).await, End::Garbage(_)));
}

#[tokio::test]
async fn more_descriptors_than_the_kernel_has_on_their_way_all_arrive_in_the_end() {
    let (to_worker, mut primary, theirs) = open(Serialization::Json).unwrap();
    let (_to_primary, mut worker) = from_socket(theirs, Serialization::Json).unwrap();
    for number in 0..1000 {
        to_worker.hand_over(NEWCONN.to_owned(), numbered(number), number);
    }
    let receive = async {
        for number in 0..1000 {
            assert_eq!(number_of(next::<FromPrimary>(&mut worker).await.1), number);
        }
    };
    tokio::select! {
        () = receive => {}
        arrival = primary.next::<Incoming>() => panic!("{arrival:?}"),
    }
}

#[tokio::test]
async fn who_does_not_take_its_acknowledgements_is_not_listened_to() {
    let (sender, mut carrier, mut peer) = by_hand();
    peer.0.get_ref().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let writer = tokio::task::spawn_blocking(move || {
        let lines = format!("{NEWCONN}\n").repeat(1000);
        let refused = (0..1000).find_map(|_| peer.0.get_mut().write_all(lines.as_bytes()).err());
        (refused.expect("to be stopped").kind(), peer)
    });
    tokio::select! {
        written = bounded(writer) => assert_eq!(written.unwrap().0, io::ErrorKind::WouldBlock),
        arrival = next::<Incoming>(&mut carrier) => panic!("{arrival:?}"),
    }
    // The peer is gone, which is noticed all the same.
    assert_eq!(end(&mut carrier).await, End::Closed);
    drop(sender);
}

#[test]
fn advanced_serialization_is_refused_with_a_reason() {
    assert!(check(Serialization::Json).is_ok());
    let error = open(Serialization::Advanced).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("use \"json\""), "{error}");
}

#[tokio::test]
async fn who_leaves_too_much_of_the_protocol_unread_is_hung_up_on() {
    let (sender, mut carrier, _peer) = by_hand();
    let line = "x".repeat(1024);
    for _ in 0..5000 {
        sender.send(line.clone(), None);
    }
    assert!(matches!(end(&mut carrier).await, End::Neglect(what) if what.contains("4 MiB")));
}

#[tokio::test]
async fn what_a_user_sends_may_wait_however_long_it_is() {
    let (sender, mut carrier, mut peer) = by_hand();
    let line = "x".repeat(1024);
    for _ in 0..10_000 {
        sender.send_user(line.clone()).unwrap();
    }
    let reader = std::thread::spawn(move || {
        assert!((0..10_000).all(|_| peer.line() == line));
        peer
    });
    let written = async {
        tokio::select! {
            () = sender.drained() => {}
            arrival = carrier.next::<Incoming>() => panic!("{arrival:?}"),
        }
    };
    bounded(written).await;
    reader.join().unwrap();
}

#[tokio::test]
async fn who_acknowledges_nothing_is_hung_up_on() {
    let (sender, mut carrier, mut peer) = by_hand();
    let reader = std::thread::spawn(move || {
        let mut piece = vec![0; 65536];
        // Descriptors that are not asked for are closed by the kernel.
        while peer.0.get_mut().read(&mut piece).is_ok_and(|count| count > 0) {}
    });
    let descriptor = numbered(1);
    let ended = async {
        let mut number = 0;
        loop {
            for _ in 0..64 {
                sender.hand_over(NEWCONN.to_owned(), Arc::clone(&descriptor), number);
                number += 1;
            }
            tokio::select! {
                end = end(&mut carrier) => return end,
                () = sender.drained() => {}
            }
        }
    };
    assert!(matches!(bounded(ended).await, End::Neglect(what) if what.contains("acknowledged")));
    drop(carrier);
    reader.join().unwrap();
}
