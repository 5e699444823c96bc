//! Descriptors: each with its own message, acknowledged, named when they are lost.

use std::time::Instant;

use super::*;

const NEWCONN: &str = r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":1}"#;

async fn run(carrier: &mut Carrier, until: impl Future<Output = ()>) -> Vec<Arrival<Incoming>> {
    let mut arrivals = Vec::new();
    let mut until = std::pin::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return arrivals,
            arrival = carrier.next() => arrivals.push(arrival.expect("open")),
        }
    }
}

#[tokio::test]
async fn each_of_many_connections_arrives_with_its_own_message() {
    let (to_worker, mut primary, theirs) = open(Serialization::Json).unwrap();
    let (_to_primary, mut worker) = from_socket(theirs, Serialization::Json).unwrap();
    let mut speaker = Speaker::default();
    for number in 0..400 {
        let (seq, line) = speaker.hand_over("k");
        to_worker.hand_over(line, numbered(number), seq);
        // Now and then enough that a read may end anywhere.
        if number % 7 == 0 {
            to_worker.send(format!("\"{}\"", "x".repeat(40_000)), None);
        }
    }
    let receive = async {
        let mut number = 0;
        while number < 400 {
            if let (FromPrimary::Handle { message, .. }, descriptor) = next(&mut worker).await {
                assert_eq!(*message, FromPrimary::Connection { seq: number, key: "k".to_owned() });
                assert_eq!(number_of(descriptor), number);
                number += 1;
            }
        }
    };
    let arrivals = run(&mut primary, receive).await;
    assert!(arrivals.is_empty(), "{arrivals:?}");
}

#[tokio::test]
async fn a_lost_connection_is_named_whichever_it_was() {
    let (sender, mut carrier, mut peer) = by_hand();
    for number in [10, 20, 30, 40] {
        sender.hand_over(NEWCONN.to_owned(), numbered(number), number);
    }
    sender.send(NEWCONN.to_owned(), Some(numbered(50)));
    let answers = std::thread::spawn(move || {
        (0..5).for_each(|_| assert_eq!(peer.line(), NEWCONN));
        let answers =
            [HANDLE_ACK, HANDLE_NACK, HANDLE_ACK, HANDLE_NACK, HANDLE_NACK, HANDLE_ACK, HANDLE_NACK, "1"];
        peer.write(&(answers.join("\n") + "\n"));
        peer
    });
    for expected in [Unreceived::Numbered(20), Unreceived::Numbered(40), Unreceived::Own] {
        match bounded(carrier.next::<Incoming>()).await.unwrap() {
            Arrival::Unreceived(lost) => assert_eq!(lost, expected),
            other => panic!("{other:?}"),
        }
    }
    // The two that answer nothing are of no consequence.
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("1"));
    answers.join().unwrap();
}

#[tokio::test]
async fn a_users_descriptor_is_sent_again_for_a_second_and_holds_back_what_follows() {
    let (sender, mut carrier, mut peer) = by_hand();
    let line = user_with_handle(HandleKind::NetSocket, "1", None);
    sender.send_user_with(line.clone(), numbered(1)).unwrap();
    sender.hand_over(NEWCONN.to_owned(), numbered(2), 2);
    sender.send("3".to_owned(), None);
    let answers = std::thread::spawn(move || {
        for _ in 0..7 {
            assert_eq!(peer.line(), line);
            // Nothing else has come.
            assert!(peer.0.buffer().is_empty());
            peer.write(&format!("{HANDLE_NACK}\n"));
        }
        assert_eq!(peer.line(), NEWCONN);
        assert_eq!(peer.line(), "3");
        peer
    });
    let since = Instant::now();
    assert_eq!(unreceived(&mut carrier).await, Unreceived::Users);
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    bounded(run(&mut carrier, sender.drained())).await;
    answers.join().unwrap();
}

#[tokio::test]
async fn a_users_descriptor_is_received_when_there_is_room_again_and_others_wait_meanwhile() {
    let (sender, mut carrier, mut peer) = by_hand();
    let line = user_with_handle(HandleKind::NetSocket, "1", None);
    sender.send_user_with(line.clone(), numbered(1)).unwrap();
    sender.send_user("2").unwrap();
    let answers = std::thread::spawn(move || {
        for _ in 0..2 {
            assert_eq!(peer.line(), line);
            assert!(peer.0.buffer().is_empty());
            // What it is owed meanwhile overtakes.
            peer.write_with(&format!("{HANDLE_NACK}\n{NEWCONN}\n"), &[numbered(3).as_fd()]);
            assert_eq!(peer.line(), HANDLE_ACK);
        }
        assert_eq!(peer.line(), line);
        peer.write(&format!("{HANDLE_ACK}\n"));
        assert_eq!(peer.line(), "2");
        peer
    });
    for _ in 0..2 {
        assert_eq!(number_of(next::<Incoming>(&mut carrier).await.1), 3);
        // Said while it rests.
        sender.send_user("4").unwrap();
    }
    let arrivals = bounded(run(&mut carrier, sender.drained())).await;
    assert!(arrivals.is_empty(), "{arrivals:?}");
    let mut peer = answers.join().unwrap();
    assert_eq!([(); 2].map(|()| peer.line()), ["4"; 2]);
}

/// Nothing else reaches who lacks descriptors for long.
#[tokio::test]
async fn what_follows_a_descriptor_that_was_given_up_is_not_sent_again_for_as_long() {
    let (sender, mut carrier, mut peer) = by_hand();
    let line = user_with_handle(HandleKind::NetSocket, "1", None);
    for number in 0..3 {
        sender.send_user_with(line.clone(), numbered(number)).unwrap();
    }
    let answers = std::thread::spawn(move || {
        let answers = std::iter::repeat_n(HANDLE_NACK, 7 + 3).chain([HANDLE_ACK]);
        for answer in answers {
            assert_eq!(peer.line(), line);
            peer.write(&format!("{answer}\n"));
        }
        peer
    });
    for _ in 0..2 {
        assert_eq!(unreceived(&mut carrier).await, Unreceived::Users);
    }
    bounded(run(&mut carrier, sender.drained())).await;
    answers.join().unwrap();
}

async fn unreceived(carrier: &mut Carrier) -> Unreceived {
    match bounded(carrier.next::<Incoming>()).await.unwrap() {
        Arrival::Unreceived(lost) => lost,
        other => panic!("{other:?}"),
    }
}

/// Whether it is found out by this very message, or known by then.
#[tokio::test]
async fn a_users_descriptor_comes_back_if_nothing_of_its_message_can_be_written() {
    let (sender, carrier, peer) = by_hand();
    drop(peer);
    let line = user_with_handle(HandleKind::NetSocket, "1", None);
    for number in 1..3 {
        let unsent = sender.send_user_with(line.clone(), numbered(number)).unwrap_err();
        assert_eq!(number_of(unsent.and_then(Arc::into_inner)), number);
    }
    assert_eq!(sender.queued_bytes(), 0);
    drop(carrier);
    let unsent = sender.send_user_with(line, numbered(3)).unwrap_err();
    assert_eq!(number_of(unsent.and_then(Arc::into_inner)), 3);
    assert_eq!(sender.queued_bytes(), 0);
}

/// What waits behind another is nobody's to give back: who sent it was told that it is on its way.
#[tokio::test]
async fn a_users_descriptor_that_waits_is_closed_with_the_channel() {
    let (sender, carrier, peer) = by_hand();
    let line = user_with_handle(HandleKind::NetSocket, "1", None);
    sender.send_user_with(line.clone(), numbered(1)).unwrap();
    let waiting = numbered(2);
    sender.send_user_with(line.clone(), Arc::clone(&waiting)).unwrap();
    drop(peer);
    // The acknowledgement that it waits for will not come.
    assert!(sender.send_user_with(line, numbered(3)).is_ok(), "nothing is written meanwhile");
    assert_eq!(Arc::strong_count(&waiting), 2);
    drop(carrier);
    assert_eq!(Arc::strong_count(&waiting), 1);
}

#[tokio::test]
async fn a_users_descriptor_arrives_and_lets_go_what_follows() {
    let (to_worker, mut primary, theirs) = open(Serialization::Json).unwrap();
    let (to_primary, mut worker) = from_socket(theirs, Serialization::Json).unwrap();
    for (number, sender) in [(1, &to_worker), (2, &to_primary)] {
        for _ in 0..20 {
            let line = user_with_handle(HandleKind::NetSocket, "{\"a\":1}", Some("4:::80"));
            sender.send_user_with(line, numbered(number)).unwrap();
            sender.send_user("0".to_owned()).unwrap();
        }
    }
    let worker_side = async {
        for _ in 0..20 {
            let (message, descriptor) = next(&mut worker).await;
            assert!(
                matches!(message, FromPrimary::Handle { kind: HandleKind::NetSocket, .. }),
                "{message:?}"
            );
            assert_eq!(number_of(descriptor), 1);
            assert_eq!(next::<FromPrimary>(&mut worker).await.0, FromPrimary::User("0".into()));
        }
        let rest = bounded(to_primary.drained());
        tokio::select! {
            () = rest => {}
            arrival = worker.next::<FromPrimary>() => panic!("{arrival:?}"),
        }
    };
    let primary_side = async {
        for _ in 0..20 {
            let (message, descriptor) = next(&mut primary).await;
            assert!(matches!(message, Incoming::Handle { kind: HandleKind::NetSocket, .. }), "{message:?}");
            assert_eq!(number_of(descriptor), 2);
            assert_eq!(next::<Incoming>(&mut primary).await.0, user("0"));
        }
        let rest = bounded(to_worker.drained());
        tokio::select! {
            () = rest => {}
            arrival = primary.next::<Incoming>() => panic!("{arrival:?}"),
        }
    };
    tokio::join!(worker_side, primary_side);
}

#[tokio::test]
async fn two_descriptors_in_one_piece_go_to_their_messages() {
    let (_sender, mut carrier, mut peer) = by_hand();
    let (first, second) = (numbered(1), numbered(2));
    peer.write_with(&format!("0\n{NEWCONN}\n{NEWCONN}\n"), &[first.as_fd(), second.as_fd()]);
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("0"));
    assert_eq!(number_of(next::<Incoming>(&mut carrier).await.1), 1);
    assert_eq!(number_of(next::<Incoming>(&mut carrier).await.1), 2);
    let acknowledged = tokio::task::spawn_blocking(move || ([peer.line(), peer.line()], peer));
    let mut answers = None;
    let arrivals = run(&mut carrier, async { answers = Some(acknowledged.await.unwrap().0) }).await;
    assert_eq!(answers.unwrap(), [HANDLE_ACK, HANDLE_ACK]);
    assert!(arrivals.is_empty(), "{arrivals:?}");
}

#[tokio::test]
async fn a_descriptor_may_ride_on_any_part_of_its_message() {
    let (_sender, mut carrier, mut peer) = by_hand();
    let line = format!("{NEWCONN}\n");
    for cut in 0..line.len() {
        let descriptor = numbered(cut as u64);
        let (before, after) = line.split_at(cut);
        peer.write(before);
        peer.write_with(&after[..1], &[descriptor.as_fd()]);
        peer.write(&after[1..]);
        assert_eq!(number_of(next::<Incoming>(&mut carrier).await.1), cut as u64);
    }
}

#[tokio::test]
async fn a_descriptor_that_no_message_is_to_have_is_closed() {
    let (_sender, mut carrier, mut peer) = by_hand();
    let (read, write) = std::io::pipe().unwrap();
    // One too many, and one on a message of another kind.
    let wanted = numbered(1);
    peer.write_with(&format!("{NEWCONN}\n"), &[wanted.as_fd(), write.as_fd()]);
    peer.write_with("{\"cmd\":\"NODE_CLUSTER\"}\n", &[write.as_fd()]);
    peer.write_with("0\n", &[write.as_fd()]);
    drop(write);
    assert_eq!(number_of(next::<Incoming>(&mut carrier).await.1), 1);
    assert_eq!(next::<Incoming>(&mut carrier).await.0, Incoming::Ignored);
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("0"));
    let wanted = numbered(2);
    peer.write_with(&format!("{NEWCONN}\n"), &[wanted.as_fd()]);
    assert_eq!(number_of(next::<Incoming>(&mut carrier).await.1), 2);
    // An end of file, as no write end is left.
    rustix::io::ioctl_fionbio(&read, true).unwrap();
    assert_eq!((&read).read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_message_without_its_descriptor_is_refused_and_told_of_as_lost() {
    let (_sender, mut carrier, mut peer) = by_hand();
    peer.write(&format!("{NEWCONN}\n1\n"));
    let lost = bounded(carrier.next::<Incoming>()).await.unwrap();
    assert!(matches!(lost, Arrival::Lost { message: Incoming::Handle { .. } }), "{lost:?}");
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("1"));
    let answer = std::thread::spawn(move || {
        let answer = peer.line();
        peer.write("2\n");
        (answer, peer)
    });
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("2"));
    assert_eq!(answer.join().unwrap().0, HANDLE_NACK);
}
