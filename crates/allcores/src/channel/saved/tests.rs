//! A channel that goes on as another program would have it, whatever was half written or half read.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use allcores_core::channel::{HANDLE_ACK, HANDLE_NACK, Incoming, Message, Serialization};
use tokio::runtime::Runtime;

use super::*;
use crate::channel::{Arrival, Unreceived, open};

/// What a program leaves.
struct Left {
    text: String,
    manifest: Manifest,
}

/// Runs the first program's part, until it leaves.
fn first<T>(program: impl AsyncFnOnce(&Sender, &mut Carrier, UnixStream) -> T) -> (Left, T) {
    let runtime = runtime();
    let (left, result) = runtime.block_on(async {
        let (sender, mut carrier, theirs) = open(Serialization::Json).unwrap();
        let result = program(&sender, &mut carrier, theirs.into()).await;
        let mut manifest = Manifest::default();
        let text = serde_json::to_string(&carrier.save(&mut manifest)).unwrap();
        manifest.set_carried(true).unwrap();
        // Nothing is dropped, as nothing is by exec.
        std::mem::forget(carrier);
        (Left { text, manifest }, result)
    });
    (left, result)
}

/// Runs the next program's part: from the text, and from descriptors that have lost their owner.
fn next_program(left: &Left, program: impl AsyncFnOnce(&Sender, &mut Carrier)) {
    runtime().block_on(async {
        let mut inherited = Inherited::claim(&left.manifest.all()).unwrap();
        let saved = serde_json::from_str(&left.text).unwrap();
        let (sender, mut carrier) = Carrier::restore(saved, &mut inherited).unwrap();
        program(&sender, &mut carrier).await;
    });
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn next<M: Message>(carrier: &mut Carrier) -> (M, Option<OwnedFd>) {
    let next = tokio::time::timeout(Duration::from_secs(20), carrier.next());
    match next.await.expect("in time").expect("open") {
        Arrival::Message { message, descriptor } => (message, descriptor),
        Arrival::Lost { .. } | Arrival::Unreceived { .. } => panic!("no message"),
    }
}

/// Lets a carrier do what it can do now.
async fn turn(carrier: &mut Carrier) {
    tokio::select! {
        biased;
        arrival = carrier.next::<Incoming>() => assert!(arrival.is_err(), "something whole has come"),
        () = tokio::time::sleep(Duration::from_millis(20)) => {}
    }
}

fn null() -> Arc<OwnedFd> {
    Arc::new(std::fs::File::open("/dev/null").unwrap().into())
}

#[test]
fn a_message_that_is_half_read_is_read_whole_by_the_next_program() {
    let (left, mut theirs) = first(async |_, carrier, mut theirs| {
        theirs.write_all(b"1\n{\"half\":").unwrap();
        assert_eq!(next::<Incoming>(carrier).await.0, Incoming::User("1".into()));
        turn(carrier).await;
        theirs
    });
    assert!(left.text.contains("half"));
    theirs.write_all(b"true}\n2\n").unwrap();
    next_program(&left, async |_, carrier| {
        assert_eq!(next::<Incoming>(carrier).await.0, Incoming::User("{\"half\":true}".into()));
        assert_eq!(next::<Incoming>(carrier).await.0, Incoming::User("2".into()));
    });
}

#[test]
fn a_descriptor_that_came_before_its_message_was_whole_is_its_own_still() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let sent = null();
    let (left, mut theirs) = first(async |_, carrier, theirs| {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [sent.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let data = [std::io::IoSlice::new(b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",")];
        rustix::net::sendmsg(&theirs, &data, &mut control, SendFlags::empty()).unwrap();
        turn(carrier).await;
        theirs
    });
    theirs.write_all(b"\"msg\":7}\n").unwrap();
    next_program(&left, async |_, carrier| {
        let (message, descriptor) = next::<Incoming>(carrier).await;
        assert!(matches!(message, Incoming::Handle { .. }), "{message:?}");
        let came = rustix::fs::fstat(descriptor.unwrap()).unwrap();
        let sent = rustix::fs::fstat(sent.as_ref()).unwrap();
        assert_eq!((sent.st_dev, sent.st_ino), (came.st_dev, came.st_ino));
    });
}

#[test]
fn what_is_collected_is_written_by_the_first_program_or_the_next_and_not_by_both() {
    let (left, theirs) = first(async |sender, carrier, theirs| {
        for number in 0..100 {
            sender.send_user(number.to_string()).unwrap();
        }
        assert!(sender.queued_bytes() > 0, "nothing was collected");
        let saved = serde_json::to_value(carrier.save(&mut Manifest::default())).unwrap();
        // What was to write it does, now.
        tokio::task::yield_now().await;
        assert_eq!(saved, serde_json::to_value(carrier.save(&mut Manifest::default())).unwrap());
        theirs
    });
    next_program(&left, async |sender, carrier| {
        sender.send_user("100").unwrap();
        turn(carrier).await;
    });
    let lines: Vec<String> = BufReader::new(theirs).lines().map_while(Result::ok).collect();
    assert_eq!(lines, (0..=100).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn messages_that_wait_or_are_half_written_arrive_once_and_in_order() {
    // More than the socket takes at once, so that one of them is cut.
    let long = format!("\"{}\"", "x".repeat(700_000));
    let (left, (theirs, waiting)) = first(async |sender, carrier, theirs| {
        sender.send(long.clone(), None);
        sender.send("1".into(), Some(null()));
        sender.hand_over("2".into(), null(), 9);
        sender.send_user("3").unwrap();
        turn(carrier).await;
        (theirs, sender.queued_bytes())
    });
    assert!(waiting > 0);
    let reader = std::thread::spawn(move || {
        let mut theirs = BufReader::new(theirs);
        let mut lines = Vec::new();
        while lines.len() < 4 {
            let mut line = String::new();
            theirs.read_line(&mut line).unwrap();
            lines.push(line.trim_end().to_owned());
            if lines.len() == 2 {
                // Behind so long a message nothing with a descriptor follows before this.
                theirs.get_mut().write_all(format!("{HANDLE_ACK}\n").as_bytes()).unwrap();
            }
        }
        theirs.get_mut().write_all(format!("{HANDLE_NACK}\n").as_bytes()).unwrap();
        (lines, theirs)
    });
    next_program(&left, async |sender, carrier| {
        assert_eq!(sender.queued_bytes(), waiting);
        let arrival = carrier.next::<Incoming>().await;
        assert!(
            matches!(arrival, Ok(Arrival::Unreceived(Unreceived::Numbered(9)))),
            "it is told of what it has sent"
        );
        assert_eq!(sender.queued_bytes(), 0);
    });
    assert_eq!(reader.join().unwrap().0, [long.as_str(), "1", "2", "3"]);
}
