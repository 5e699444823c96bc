//! Primaries that write oddly, or nonsense.

use std::io::Write;
use std::os::unix::net::UnixStream;

use allcores_core::channel::Speaker;

use super::support::{soon, worker_at};

#[tokio::test]
async fn what_comes_byte_by_byte_is_understood() {
    let (mut primary, theirs) = UnixStream::pair().unwrap();
    let worker = worker_at(theirs.into());
    let line = format!("{}\r\n{}\n", r#"{"text":"ä€𝄞"}"#, Speaker::default().disconnect());
    for byte in line.as_bytes() {
        primary.write_all(&[*byte]).unwrap();
    }
    let message = soon(worker.next_message()).await.unwrap();
    assert_eq!(message.json(), r#"{"text":"ä€𝄞"}"#);
    soon(worker.shutdown()).await;
    assert_eq!(worker.exited_after_disconnect(), Some(true));
}

#[tokio::test]
async fn nonsense_closes_the_channel_and_ends_the_serving_and_no_more() {
    for nonsense in
        [&b"\xff\n"[..], b"{\"cmd\":\"NODE_CLUSTER\"\n", b"{\"cmd\":\"NODE_CLUSTER\",\"seq\":\"x\"}\n"]
    {
        let (mut primary, theirs) = UnixStream::pair().unwrap();
        let worker = worker_at(theirs.into());
        primary.write_all(nonsense).unwrap();
        soon(worker.shutdown()).await;
        soon(worker.disconnect()).await;
        assert!(!worker.is_connected());
        assert_eq!(worker.exited_after_disconnect(), Some(false), "its own wish came too late");
    }
}

#[tokio::test]
async fn what_can_be_nothing_of_the_protocols_is_for_who_reads_it() {
    let (mut primary, theirs) = UnixStream::pair().unwrap();
    let worker = worker_at(theirs.into());
    for nonsense in ["", "{", "1 2", "\0", "\u{2}{}"] {
        primary.write_all(format!("{nonsense}\n").as_bytes()).unwrap();
        let message = soon(worker.next_message()).await.unwrap();
        assert_eq!(message.json(), nonsense);
        assert_eq!(message.parse::<serde_json::Value>().unwrap_err().kind(), crate::ErrorKind::Message);
    }
}

#[tokio::test]
async fn messages_that_make_no_sense_are_passed_over() {
    let (mut primary, theirs) = UnixStream::pair().unwrap();
    let worker = worker_at(theirs.into());
    let lines = [
        r#"{"cmd":"NODE_CLUSTER","ack":99,"errno":0,"key":"k","seq":0}"#,
        r#"{"cmd":"NODE_CLUSTER","ack":99,"seq":1}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"newconn","key":"unknown","seq":2}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"dance","seq":3}"#,
        r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"k","seq":4}}"#,
        r#"{"cmd":"NODE_HANDLE_ACK"}"#,
        r#"{"cmd":"NODE_HANDLE_NACK"}"#,
        r#"{"cmd":"NODE_SURPRISE"}"#,
        r#""still here""#,
    ];
    primary.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    assert_eq!(soon(worker.next_message()).await.unwrap().json(), r#""still here""#);
    assert!(worker.is_connected());
}
