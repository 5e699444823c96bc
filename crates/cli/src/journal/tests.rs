use std::os::unix::net::UnixDatagram;

use allcores::primary::{Stream, WorkerRef};
use allcores::{Slot, WorkerId};
use allcores_testing::journal::{self, Entry};
use rustix::net::{SocketAddrUnix, sockopt};

use super::{Journal, own, worker};
use crate::report::{Level, Out as _, Sink};

/// A journal that is read here.
fn journal() -> (tempfile::TempDir, UnixDatagram, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let reader = UnixDatagram::bind(&path).unwrap();
    (folder, reader, Journal::at("web", &SocketAddrUnix::new(&path).unwrap()).unwrap())
}

fn line(bytes: &[u8]) -> Vec<u8> {
    let about = WorkerRef { id: WorkerId(17), slot: Slot(2), pid: 4711 };
    worker("web", &about, Stream::Stderr, bytes)
}

fn field<'a>(entry: &'a Entry, name: &str) -> &'a str {
    std::str::from_utf8(&entry[name]).unwrap()
}

#[test]
fn an_entry_has_its_fields_and_the_very_bytes_of_the_line() {
    let (_folder, reader, mut journal) = journal();
    for bytes in
        [&b"hello"[..], b"", b"PRIORITY=0\nMESSAGE=x\n\nMESSAGE\n", b"\xff\0\r\x1b[1m", "ü".as_bytes()]
    {
        journal.write(Sink::Stderr, &line(bytes));
        let entry = journal::receive(&reader).unwrap();
        assert_eq!(entry["MESSAGE"], bytes);
        assert_eq!(field(&entry, "PRIORITY"), "6");
        assert_eq!(field(&entry, "SYSLOG_IDENTIFIER"), "web");
        assert_eq!(field(&entry, "ALLCORES_APP"), "web");
        assert_eq!(field(&entry, "ALLCORES_SLOT"), "2");
        assert_eq!(field(&entry, "ALLCORES_WORKER_PID"), "4711");
        assert_eq!(field(&entry, "ALLCORES_STREAM"), "stderr");
        assert_eq!(entry.len(), 7, "{entry:?}");
    }
}

#[test]
fn entries_that_wait_together_are_sent_one_by_one_with_their_priorities() {
    let (_folder, reader, mut journal) = journal();
    let waiting = [line(b"<3>bad"), line(b"fine"), own("web", Level::Warning, "two\nlines")].concat();
    journal.write(Sink::Stderr, &waiting);
    for (message, priority, identifier) in
        [("bad", "3", "web"), ("fine", "6", "web"), ("two\nlines", "4", "allcores")]
    {
        let entry = journal::receive(&reader).unwrap();
        let read = ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"].map(|name| field(&entry, name));
        assert_eq!(read, [message, priority, identifier]);
    }
}

#[test]
fn what_is_too_large_for_a_datagram_goes_as_a_sealed_file() {
    let (_folder, reader, mut journal) = journal();
    // The least that the kernel allows.
    sockopt::set_socket_send_buffer_size(&journal.socket, 1).unwrap();
    let large: Vec<u8> = (0..80_000_u32).map(|number| (number % 251) as u8).collect();
    journal.write(Sink::Stderr, &[line(&large), line(b"small")].concat());
    let (entry, is_file) = journal::receive_either(&reader).unwrap();
    assert!(is_file, "its datagram would have been too large");
    assert!(entry["MESSAGE"] == large);
    let (entry, is_file) = journal::receive_either(&reader).unwrap();
    assert_eq!((field(&entry, "MESSAGE"), is_file), ("small", false));
}

#[test]
fn what_can_not_be_sent_is_counted_and_said_when_it_can() {
    let (folder, reader, mut journal) = journal();
    let lost = journal.lost();
    drop(reader);
    journal.write(Sink::Stderr, &[line(b"one"), line(b"two")].concat());
    assert_eq!(lost.load(std::sync::atomic::Ordering::Relaxed), 2);
    let path = folder.path().join("socket");
    std::fs::remove_file(&path).unwrap();
    let reader = UnixDatagram::bind(&path).unwrap();
    journal.write(Sink::Stderr, &line(b"three"));
    let note = journal::receive(&reader).unwrap();
    assert_eq!(field(&note, "MESSAGE"), "\u{2026} 2 lines dropped: Connection refused (os error 111)");
    assert_eq!(field(&note, "PRIORITY"), "4");
    assert_eq!(field(&journal::receive(&reader).unwrap(), "MESSAGE"), "three");
    assert_eq!(lost.load(std::sync::atomic::Ordering::Relaxed), 2);
}
