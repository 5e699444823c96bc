//! Carriers against each other, and against another side that does what ours never does.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use allcores_core::channel::{
    FromPrimary, HANDLE_ACK, HANDLE_NACK, HandleKind, Incoming, Speaker, user_with_handle,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::*;

mod burst;
mod fence;
mod handles;
mod limits;

/// The other end of a channel, by hand.
struct Peer(BufReader<UnixStream>);

impl Peer {
    fn new(socket: OwnedFd) -> Self {
        let socket = UnixStream::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(BufReader::new(socket))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "{line:?}");
        line.truncate(line.len() - 1);
        line
    }

    fn write(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// All in one piece.
    fn write_with(&mut self, text: &str, descriptors: &[BorrowedFd<'_>]) {
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        let data = [std::io::IoSlice::new(text.as_bytes())];
        let sent = rustix::net::sendmsg(self.0.get_ref(), &data, &mut control, SendFlags::empty()).unwrap();
        assert_eq!(sent, text.len());
    }
}

fn by_hand() -> (Sender, Carrier, Peer) {
    let (sender, carrier, theirs) = open(Serialization::Json).unwrap();
    (sender, carrier, Peer::new(theirs))
}

/// A descriptor that can be told from others: the number is readable from it.
fn numbered(number: u64) -> Arc<OwnedFd> {
    let (read, write) = std::io::pipe().unwrap();
    (&write).write_all(&number.to_le_bytes()).unwrap();
    Arc::new(read.into())
}

fn number_of(descriptor: Option<OwnedFd>) -> u64 {
    let mut bytes = [0; 8];
    std::fs::File::from(descriptor.expect("a descriptor")).read_exact(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

async fn next<M: Message>(carrier: &mut Carrier) -> (M, Option<OwnedFd>) {
    loop {
        match bounded(carrier.next()).await.expect("open") {
            Arrival::Message { message, descriptor } => return (message, descriptor),
            Arrival::Lost { .. } => {}
            Arrival::Unreceived(lost) => panic!("not received: {lost:?}"),
        }
    }
}

async fn end(carrier: &mut Carrier) -> End {
    loop {
        match bounded(carrier.next::<Incoming>()).await {
            Ok(Arrival::Lost { .. }) => {}
            other => return other.map(|arrival| format!("{arrival:?}")).expect_err("an end"),
        }
    }
}

fn user(text: &str) -> Incoming {
    Incoming::User(text.into())
}

#[tokio::test]
async fn messages_go_both_ways_in_order() {
    let (to_worker, mut primary, theirs) = open(Serialization::Json).unwrap();
    let (to_primary, mut worker) = from_socket(theirs, Serialization::Json).unwrap();
    for number in 0..1000 {
        to_worker.send(number.to_string(), None);
        to_primary.send(format!("[{number}]"), None);
    }
    let reads_worker = async {
        for number in 0..1000 {
            assert_eq!(
                next::<FromPrimary>(&mut worker).await.0,
                FromPrimary::User(number.to_string().into())
            );
        }
        // What it has to say is not all said yet perhaps.
        tokio::select! {
            () = to_primary.drained() => {}
            arrival = worker.next::<FromPrimary>() => panic!("{arrival:?}"),
        }
    };
    let reads_primary = async {
        for number in 0..1000 {
            assert_eq!(next::<Incoming>(&mut primary).await.0, user(&format!("[{number}]")));
        }
    };
    tokio::join!(reads_worker, reads_primary);
}

#[tokio::test]
async fn what_waits_is_written_before_the_channel_closes_with_its_last_sender() {
    let (sender, mut carrier, mut peer) = by_hand();
    let long = format!("\"{}\"", "x".repeat(500_000));
    sender.send(long.clone(), None);
    sender.clone().send("1".to_owned(), None);
    drop(sender);
    let reader = std::thread::spawn(move || {
        assert_eq!(peer.line(), long);
        assert_eq!(peer.line(), "1");
        let mut rest = String::new();
        peer.0.read_to_string(&mut rest).unwrap();
        rest
    });
    assert_eq!(end(&mut carrier).await, End::Closed);
    drop(carrier);
    assert_eq!(reader.join().unwrap(), "");
}

#[tokio::test]
async fn what_the_other_side_wrote_before_it_died_is_read_though_nothing_can_be_written() {
    let (sender, mut carrier, mut peer) = by_hand();
    peer.write("1\n2\n");
    drop(peer);
    for _ in 0..100 {
        sender.send("0".to_owned(), None);
    }
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("1"));
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("2"));
    assert_eq!(end(&mut carrier).await, End::Closed);
    assert!(!sender.is_closed());
    drop(carrier);
    assert!(sender.is_closed());
    bounded(sender.drained()).await;
}

/// Whether it is found out by this very message, known by then, or the channel has been closed since.
#[tokio::test]
async fn a_user_is_told_that_nobody_is_there_any_more() {
    let (sender, carrier, peer) = by_hand();
    assert_eq!(sender.send_user("1"), Ok(true));
    drop(peer);
    assert_eq!([sender.send_user("2"), sender.send_user("3")], [Err(Unsent); 2]);
    drop(carrier);
    assert_eq!(sender.send_user("4"), Err(Unsent));
    assert_eq!(sender.queued_bytes(), 0);
}

#[tokio::test]
async fn garbage_ends_the_channel_with_its_beginning() {
    let (_sender, mut carrier, mut peer) = by_hand();
    peer.write("1\nnonsense\n");
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("1"));
    assert_eq!(end(&mut carrier).await, End::Garbage("not a message: \"nonsense\"".to_owned()));
}

#[tokio::test]
async fn a_user_is_told_when_more_than_128_kib_wait_and_when_none_do() {
    let (sender, mut carrier, mut peer) = by_hand();
    let piece = format!("\"{}\"", "x".repeat(1021));
    // Some has gone to the other side already.
    let mut count = 1;
    while sender.send_user(piece.clone()).unwrap() {
        count += 1;
    }
    let queued = sender.queued_bytes();
    assert!((128 * 1024..129 * 1024).contains(&queued), "{queued}");
    let reader = std::thread::spawn(move || {
        (0..count).for_each(|_| assert_eq!(peer.line(), piece));
        peer
    });
    tokio::select! {
        () = bounded(sender.drained()) => {}
        arrival = carrier.next::<Incoming>() => panic!("{arrival:?}"),
    }
    assert_eq!(sender.queued_bytes(), 0);
    reader.join().unwrap();
}

#[tokio::test]
async fn a_message_may_arrive_byte_by_byte() {
    let (_sender, mut carrier, mut peer) = by_hand();
    let writer = std::thread::spawn(move || {
        for byte in "{\"a\":\"ß\u{1f980}\"}\n7\n".as_bytes() {
            peer.0.get_mut().write_all(std::slice::from_ref(byte)).unwrap();
        }
        peer
    });
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("{\"a\":\"ß\u{1f980}\"}"));
    assert_eq!(next::<Incoming>(&mut carrier).await.0, user("7"));
    drop(writer.join().unwrap());
    assert_eq!(end(&mut carrier).await, End::Closed);
}
