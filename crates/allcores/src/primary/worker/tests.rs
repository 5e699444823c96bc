//! What the tasks that watch a worker leave to others.

use std::io::Write;
use std::os::unix::net::UnixStream;

use allcores_core::channel::Serialization;

use super::*;
use crate::primary::recall::Recaller;

/// Watches the channel of a worker, whose end is returned.
fn watched(id: u32, seen: &mpsc::Sender<Seen>) -> UnixStream {
    let (sender, carrier, theirs) = channel::open(Serialization::Json).unwrap();
    let (_, ended) = ending();
    let flows = Flows { all: None, own: Arc::default() };
    let (recaller, seen) = (Recaller::new(), seen.clone());
    let recall = recaller.recall();
    let watch = watch_channel(
        WorkerId(id),
        carrier,
        flows,
        ended,
        (Share::default(), seen, Answers::default()),
        recall,
    );
    tokio::spawn(async move {
        watch.await;
        drop((sender, recaller));
    });
    UnixStream::from(theirs)
}

async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
}

#[tokio::test]
async fn however_much_one_worker_says_another_is_heard_after_a_share_of_it() {
    let (seen, mut sightings) = mpsc::channel(1024);
    let (mut loud, mut quiet) = (watched(1, &seen), watched(2, &seen));
    loud.write_all(&b"1\n".repeat(10_000)).unwrap();
    // Short ones come together.
    let together = (SHARE / TOGETHER) as usize;
    until(|| sightings.len() == together).await;
    quiet.write_all(b"2\n").unwrap();
    until(|| sightings.len() == together + 1).await;
    // Long messages count for more.
    let mut long = watched(3, &seen);
    let message = format!("\"{}\"\n", "x".repeat(40_000));
    long.write_all(message.repeat(5).as_bytes()).unwrap();
    until(|| sightings.len() == together + 2).await;

    let mut heard = Vec::new();
    while heard.len() < 10_000 + 1 + 5 {
        let Some(Seen::Spoke(id, texts, _place)) = sightings.recv().await else { panic!("it ended") };
        assert!(texts.len() <= TOGETHER as usize);
        heard.extend(texts.iter().map(|_| id.0));
    }
    assert_eq!(heard.iter().position(|id| *id == 2), Some(SHARE as usize));
    assert_eq!(heard.iter().filter(|id| **id == 3).count(), 5);
}
