//! Requests that are none: spoilt at random, and each time the next one is served.

use std::time::Duration;

use allcores::primary::Event;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{Running, started};
use crate::client::Client;
use crate::control::Control as _;
use crate::view;

/// What is spoilt.
const SEEDS: [&str; 6] = [
    "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST /v1/scale HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n{\"workers\": 2}",
    "POST /v1/reload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\ne\r\n{\"surge\": 1   }\r\n0\r\n\r\n",
    "POST /v1/send HTTP/1.1\r\nhost: x\r\ncontent-length: 27\r\n\r\n{\"message\": [1], \"slot\": 0}",
    "GET /v1/events?output=true HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET /metrics HTTP/1.0\r\naccept: application/openmetrics-text\r\n\r\n",
];

/// xorshift64*, as good as any here, and the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

fn spoil(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, chance.byte()),
            2 if !bytes.is_empty() => bytes[at] = chance.byte(),
            3 => {
                let again = bytes[at..].to_vec();
                bytes.extend(again);
            }
            4 => {
                let long = vec![chance.byte(); 1 << chance.below(18)];
                bytes.splice(at..at, long);
            }
            _ => {
                bytes.splice(at..at, *b"\r\ncontent-length: 99999999999999999999\r\n");
            }
        }
    }
}

/// What is in the head of an answer that goes on and on.
const EVENTS: &[u8] = b"application/x-ndjson";

/// Sends bytes, and reads until the server has closed: what it answered, if anything.
async fn exchange(running: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(running.app.socket()).await.unwrap();
    // It may have closed before it has read all.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut answer).await {
        // News of the app end with it.
        if answer.windows(EVENTS.len()).any(|part| part == EVENTS) {
            break;
        }
    }
    answer
}

#[tokio::test]
async fn ten_thousand_malformed_requests_leave_it_serving() {
    let running = started();
    let mut chance = Chance(0x5EED);
    let mut refused = 0;
    for number in 0..10_000 {
        let mut bytes = SEEDS[chance.below(SEEDS.len())].as_bytes().to_vec();
        spoil(&mut bytes, &mut chance);
        let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        let answered = tokio::time::timeout(Duration::from_secs(20), exchange(&running, &bytes));
        let answer = answered.await.unwrap_or_else(|_| panic!("request {number} has no end: {:?}", shown()));
        refused += u32::from(answer.starts_with(b"HTTP/1.1 4"));
        if number % 1_000 == 0 {
            assert_eq!(
                Client::new(&running.app).status().await.unwrap(),
                view::tests::web(),
                "{:?}",
                shown()
            );
        }
    }
    assert!(refused > 2_000, "most are noticed: {refused}");
    // Who asked for events and has gone is noticed with the next one, and forgotten.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while running.fake.subscribe(false).is_none() {
        running.fake.hub.observe(&Event::Stopping);
        tokio::task::yield_now().await;
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(Client::new(&running.app).status().await.unwrap(), view::tests::web());
}

#[tokio::test]
async fn a_head_without_end_is_refused_before_it_is_all_there() {
    let running = started();
    let mut stream = UnixStream::connect(running.app.socket()).await.unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\n").await.unwrap();
    let line = [b"x-y: ".as_slice(), &[b'a'; 1000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 10 << 20 && stream.write_all(&line).await.is_ok() {
        sent += line.len();
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(sent < 1 << 20, "{sent} bytes of a head were taken");
    assert_eq!(Client::new(&running.app).status().await.unwrap(), view::tests::web());
}

#[test]
fn what_is_spoilt_is_not_what_it_was() {
    let mut chance = Chance(7);
    let spoilt = (0..1_000).filter(|_| {
        let mut bytes = SEEDS[0].as_bytes().to_vec();
        spoil(&mut bytes, &mut chance);
        bytes != SEEDS[0].as_bytes()
    });
    assert!(spoilt.count() > 990);
}
