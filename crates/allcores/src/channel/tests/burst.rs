//! What a user says without a pause is written together, and not left lying.

use std::sync::mpsc;
use std::time::Instant;

use super::*;

/// How many lines have come that were not looked at, and their bytes.
fn came(peer: &mut Peer) -> (usize, usize) {
    let socket = peer.0.get_mut();
    socket.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    let error = socket.read_to_end(&mut all).expect_err("the end");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    (all.split(|byte| *byte == b'\n').count() - 1, all.len())
}

fn say(sender: &Sender, count: usize) {
    for _ in 0..count {
        sender.send_user("1".to_owned()).unwrap();
    }
}

#[tokio::test]
async fn what_is_said_without_a_pause_is_collected_until_its_task_yields() {
    let (sender, _carrier, mut peer) = by_hand();
    // Nobody else is there to write it: the carrier is not asked for anything.
    say(&sender, 100);
    let (at_once, _) = came(&mut peer);
    assert!((1..50).contains(&at_once), "{at_once} of 100 were written each by itself");
    tokio::task::yield_now().await;
    assert_eq!(came(&mut peer).0, 100 - at_once);
    say(&sender, 100);
    assert_eq!(came(&mut peer).0, 0);
    tokio::task::yield_now().await;
    assert_eq!(came(&mut peer).0, 100);
    assert_eq!(sender.queued_bytes(), 0);
}

#[tokio::test]
async fn very_much_is_written_before_the_task_yields() {
    let (sender, _carrier, mut peer) = by_hand();
    let message = "1".repeat(999);
    for count in 1..=100 {
        sender.send_user(message.clone()).unwrap();
        assert!(
            sender.queued_bytes() <= 32 * 1024,
            "{} bytes of {count} messages wait",
            sender.queued_bytes()
        );
    }
    assert_eq!(came(&mut peer).1, 100_000 - sender.queued_bytes());
}

#[tokio::test]
async fn what_the_protocol_says_takes_with_it_what_was_collected_before() {
    let (sender, _carrier, mut peer) = by_hand();
    say(&sender, 100);
    sender.send("2".to_owned(), None);
    for _ in 0..100 {
        assert_eq!(peer.line(), "1");
    }
    assert_eq!(peer.line(), "2");
}

/// A channel whose carrier is run by a thread of its own until the sender is dropped.
fn carried() -> (Sender, Peer, std::thread::JoinHandle<()>) {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (sender, mut carrier, peer) = by_hand();
            tell.send((sender, peer)).unwrap();
            drop(tell);
            assert_eq!(end(&mut carrier).await, End::Closed);
        });
    });
    let (sender, peer) = told.recv().unwrap();
    (sender, peer, thread)
}

/// Says something without a pause and waits, without yielding, until all of it has come; then until it is no burst any more.
fn say_and_wait(sender: &Sender, peer: &mut Peer) {
    say(sender, 1000);
    let mut all = 0;
    let begun = Instant::now();
    while all < 1000 {
        all += came(peer).0;
        assert!(begun.elapsed() < Duration::from_secs(20), "{all} of 1000 have come");
    }
    assert_eq!(all, 1000);
    loop {
        say(sender, 1);
        if came(peer).0 == 1 {
            return;
        }
        while came(peer).0 == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "each is collected still");
            std::thread::yield_now();
        }
    }
}

#[test]
fn what_is_collected_of_who_never_yields_is_written_all_the_same() {
    let (sender, mut peer, thread) = carried();
    // Without a runtime, and with one whose tasks have to wait.
    say_and_wait(&sender, &mut peer);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { say_and_wait(&sender, &mut peer) });
    // And when the runtime has gone with what it was to do.
    drop(runtime);
    say_and_wait(&sender, &mut peer);
    drop(sender);
    thread.join().unwrap();
}
