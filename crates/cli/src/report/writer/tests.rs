//! That lines arrive in order, that a full queue holds up nobody, and that a closed pipe is no disaster.

use std::fs::OpenOptions;
use std::io::{PipeReader, PipeWriter, Read as _, pipe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::{Dropped, Out, RESERVE, Sink, Streams, Writer};

const PATIENCE: Duration = Duration::from_secs(20);

fn note(dropped: &Dropped) -> (Sink, Vec<u8>) {
    (Sink::Stdout, format!("[{dropped}]\n").into_bytes())
}

fn writer(limit: usize) -> (Writer, PipeReader, PipeReader) {
    let ((out, to_out), (err, to_err)): ((PipeReader, PipeWriter), _) = (pipe().unwrap(), pipe().unwrap());
    (Writer::start(limit, Streams::new(to_out, to_err, note), "full", note).unwrap(), out, err)
}

fn all(mut pipe: PipeReader) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn lines_arrive_in_order_on_their_stream() {
    let (writer, out, err) = writer(1 << 20);
    let numbers: Vec<_> = (0..1000).map(|number| format!("{number}\n")).collect();
    for number in &numbers {
        writer.push_line(Sink::Stdout, number.as_bytes());
        writer.push(Sink::Stderr, b"e");
    }
    assert!(writer.finish(PATIENCE));
    assert_eq!(all(out), numbers.concat());
    assert_eq!(all(err), "e".repeat(1000));
}

#[test]
fn a_full_queue_drops_workers_lines_and_counts_them() {
    let (writer, out, err) = writer(1000);
    // More than a pipe holds: the writing thread stands still, with this in its hands.
    let big = vec![b'x'; 1 << 20];
    writer.push_line(Sink::Stdout, &big);
    for _ in 0..7 {
        writer.push_line(Sink::Stdout, b"lost\n");
    }
    let reading = thread::spawn(move || all(out));
    assert!(writer.finish(PATIENCE));
    drop(err);
    let text = reading.join().unwrap();
    let note = "[\u{2026} 7 lines dropped: full]\n";
    assert_eq!(text.trim_start_matches('x'), note);
    assert_eq!(text.len(), big.len() + note.len());
}

#[test]
fn our_own_lines_get_through_where_workers_lines_are_dropped() {
    let (writer, out, err) = writer(1000);
    writer.push_line(Sink::Stdout, &vec![b'x'; 1_000_000]);
    writer.push_line(Sink::Stdout, b"lost\n");
    writer.push(Sink::Stderr, b"important\n");
    let reading = thread::spawn(move || all(out));
    assert!(writer.finish(PATIENCE));
    assert!(reading.join().unwrap().ends_with("x[\u{2026} 1 line dropped: full]\n"));
    assert_eq!(all(err), "important\n");
}

#[test]
fn the_last_line_gets_through_where_our_own_are_dropped() {
    let (writer, out, err) = writer(1000);
    writer.push_line(Sink::Stdout, &vec![b'x'; 2000 + RESERVE]);
    writer.push(Sink::Stdout, b"lost\n");
    writer.push_last(Sink::Stdout, b"last\n");
    let reading = thread::spawn(move || all(out));
    assert!(writer.finish(PATIENCE));
    drop(err);
    assert!(reading.join().unwrap().ends_with("x[\u{2026} 1 line dropped: full]\nlast\n"));
}

#[test]
fn a_reader_who_never_reads_is_waited_for_only_so_long() {
    let (writer, _out, _err) = writer(1 << 20);
    writer.push_line(Sink::Stdout, &vec![b'x'; 1 << 20]);
    assert!(!writer.finish(Duration::from_millis(10)));
}

/// As a log is that takes its time to be closed.
struct Slow(mpsc::Receiver<()>);

impl Out for Slow {
    fn write(&mut self, _: Sink, _: &[u8]) {}

    fn lost(&self) -> Arc<AtomicU64> {
        Arc::default()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.recv().unwrap();
    }
}

#[test]
fn the_end_is_when_what_was_written_to_is_let_go_of() {
    let (let_go, told) = mpsc::channel();
    let writer = Writer::start(1 << 20, Slow(told), "full", note).unwrap();
    writer.push(Sink::Stdout, b"last\n");
    assert!(writer.flush(PATIENCE));
    assert!(!writer.finish(Duration::from_millis(10)));
    let_go.send(()).unwrap();
    assert!(writer.finish(PATIENCE));
}

#[test]
fn a_closed_stream_swallows_its_lines_and_spares_the_other() {
    let (writer, out, err) = writer(1 << 20);
    drop(out);
    writer.push_line(Sink::Stdout, b"nobody reads this\n");
    writer.push(Sink::Stderr, b"still here\n");
    assert!(writer.finish(PATIENCE));
    assert_eq!(all(err), "still here\n");
}

#[test]
fn a_non_blocking_stream_is_waited_for() {
    let (out, to_out) = pipe().unwrap();
    rustix::io::ioctl_fionbio(&to_out, true).unwrap();
    let writer = Writer::start(4 << 20, Streams::new(to_out, std::io::stderr(), note), "full", note).unwrap();
    writer.push_line(Sink::Stdout, &vec![b'x'; 1 << 20]);
    let reading = thread::spawn(move || all(out));
    assert!(writer.finish(PATIENCE));
    assert_eq!(reading.join().unwrap().len(), 1 << 20);
}

#[test]
fn a_full_disk_loses_lines_that_are_counted_and_said_and_no_more() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ((out, to_out), (err, to_err)) = (pipe().unwrap(), pipe().unwrap());
    let mut streams = Streams::new(full(), full(), note);
    for _ in 0..2 {
        streams.write(Sink::Stdout, b"lost\nlost\n");
    }
    streams.write(Sink::Stderr, b"lost\n");
    assert_eq!(streams.lost().load(Ordering::Relaxed), 5);
    // There is room again.
    streams.stdout.fd = Some(Box::new(to_out));
    streams.stderr.fd = Some(Box::new(to_err));
    for sink in [Sink::Stderr, Sink::Stdout] {
        streams.write(sink, b"one\n");
        streams.write(sink, b"two\n");
    }
    assert_eq!(streams.lost().load(Ordering::Relaxed), 5);
    drop(streams);
    assert_eq!(all(err), "one\ntwo\n");
    let why = "No space left on device (os error 28)";
    assert_eq!(
        all(out),
        format!("[\u{2026} 1 line dropped: {why}]\n[\u{2026} 4 lines dropped: {why}]\none\ntwo\n")
    );
}

#[test]
fn a_line_that_was_cut_off_does_not_spoil_the_next() {
    let (out, to_out) = pipe().unwrap();
    let mut streams = Streams::new(to_out, std::io::stderr(), note);
    // As a disk does that has room for a part of it.
    streams.write(Sink::Stdout, b"begun");
    streams.stdout.is_cut = true;
    streams.write(Sink::Stdout, b"next\n");
    drop(streams);
    assert_eq!(all(out), "begun\nnext\n");
}
