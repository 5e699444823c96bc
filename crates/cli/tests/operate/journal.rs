//! Under systemd's journal: what the program sends there, read by a journal of the test's own.

use std::io::Read as _;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use allcores_testing::journal::{self, Entry};
use allcores_testing::runtimes::{Runtime, fixture};
use allcores_testing::skip;
use rustix::fs::fstat;
use serde_json::Value;

use crate::folder::{Folder, Run};
use crate::systemd::Manager;

const LONG: Duration = Duration::from_secs(30);

/// An app whose output is a stream of a service manager's.
struct Service {
    folder: Folder,
    journal: UnixDatagram,
    /// The other end of the stream.
    stream: UnixStream,
    child: Child,
}

impl Service {
    /// Starts it, and waits until it is ready. Whether the stream is said to be the journal's is another's choice.
    fn start(options: &[&str], is_journal: bool) -> Self {
        let folder = Folder::new();
        let manager = Manager::new();
        let socket = folder.path().join("journal");
        let journal = UnixDatagram::bind(&socket).unwrap();
        journal.set_read_timeout(Some(LONG)).unwrap();
        let (stream, theirs) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let stat = fstat(if is_journal { &theirs } else { &stream }).unwrap();

        let mut command = folder.command(&["run", "--name", "web", "-w", "1", "--kill-timeout", "1s"]);
        command.args(options).arg("--").arg(Runtime::Python.program().unwrap());
        command.arg(fixture("operate/writes.py"));
        command.env("HOST", folder.address.ip().to_string()).env("PORT", folder.address.port().to_string());
        command.env("ALLCORES_JOURNAL_SOCKET", &socket).env("NOTIFY_SOCKET", manager.path());
        command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino));
        command.env_remove("ALLCORES_LOG_FORMAT");
        command.stdout(OwnedFd::from(theirs.try_clone().unwrap())).stderr(OwnedFd::from(theirs));
        let child = command.spawn().unwrap();
        // It holds the stream's other end, too.
        drop(command);
        manager.hear("READY=1");
        Self { folder, journal, stream, child }
    }

    /// The next entry that a worker has written.
    fn line(&self) -> Entry {
        loop {
            let entry = self.entry();
            if entry.contains_key("ALLCORES_STREAM") {
                return entry;
            }
        }
    }

    fn entry(&self) -> Entry {
        journal::receive(&self.journal).unwrap()
    }

    /// Stops it; everything that came over the stream.
    fn stop(mut self) -> String {
        self.folder.allcores(&["stop", "web"]).code(0);
        assert!(self.child.wait().unwrap().success());
        let mut text = Vec::new();
        self.stream.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether nothing has come to the journal, ever. What came is in its queue.
    fn is_journal_empty(journal: &UnixDatagram) -> bool {
        journal.set_nonblocking(true).unwrap();
        journal.recv(&mut [0; 16]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

fn text<'a>(entry: &'a Entry, name: &str) -> &'a str {
    entry.get(name).map_or("", |value| std::str::from_utf8(value).unwrap())
}

#[test]
fn lines_go_to_the_journal_with_fields_and_nothing_over_the_stream() {
    let service = Service::start(&[], true);
    let pid = service.folder.status("web")["workers"][0]["pid"].to_string();
    assert_eq!(service.folder.ask("2"), "ok");
    assert_eq!(service.folder.ask("odd"), "ok");
    for message in ["0 0 ", "0 1 "] {
        let entry = service.line();
        assert!(text(&entry, "MESSAGE").starts_with(message), "{entry:?}");
        let fields = ["PRIORITY", "SYSLOG_IDENTIFIER", "ALLCORES_APP", "ALLCORES_SLOT", "ALLCORES_STREAM"];
        assert_eq!(fields.map(|name| text(&entry, name)), ["6", "web", "web", "0", "stdout"]);
        assert_eq!(text(&entry, "ALLCORES_WORKER_PID"), pid);
    }
    assert_eq!(service.line()["MESSAGE"], b"\xff\x00 odd\r");
    // Longer than a line may be: it comes in pieces, one after the other.
    let mut long = Vec::new();
    while long.len() < 200_000 {
        long.extend(service.line()["MESSAGE"].clone());
    }
    assert!(long == vec![b'x'; 200_000], "{} bytes", long.len());
    assert_eq!(service.folder.status("web")["output"]["dropped"], 0);
    // The primary's next program has the same streams, and what was read of a line that has no end yet.
    service.folder.allcores(&["upgrade", "web"]).code(0);
    assert_eq!(service.folder.ask("1"), "ok");
    assert!(text(&service.line(), "MESSAGE").starts_with("no end0 2 "));

    let journal = service.journal.try_clone().unwrap();
    // Read while it stops: no more than a few entries fit into the socket.
    let last = std::thread::spawn(move || {
        let mut entries = std::iter::from_fn(|| journal::receive(&journal).ok());
        entries.find(|entry| text(entry, "MESSAGE") == "stopped")
    });
    assert_eq!(service.stop(), "", "what the journal has is not written to the stream as well");
    let last = last.join().unwrap().expect("its end is in the journal");
    let fields = ["SYSLOG_IDENTIFIER", "ALLCORES_APP", "PRIORITY"].map(|name| text(&last, name));
    assert_eq!(fields, ["allcores", "web", "6"]);
}

#[test]
fn a_stream_that_is_not_the_journals_and_formats_that_were_asked_for_are_written_to_as_ever() {
    for (options, is_journal, says) in [
        (&[][..], false, "0 | 0 0 "),
        (&["--log-format=json"][..], true, "\"line\":\"0 0 "),
        (&["--log-format=raw"][..], true, "0 0 "),
    ] {
        let service = Service::start(options, is_journal);
        assert_eq!(service.folder.ask("1"), "ok");
        let journal = service.journal.try_clone().unwrap();
        let text = service.stop();
        assert!(text.contains(says), "{options:?}: {text}");
        assert!(Service::is_journal_empty(&journal), "{options:?}");
    }
}

#[test]
fn a_journal_that_is_not_read_holds_up_nobody_and_what_it_misses_is_counted() {
    const LINES: u64 = 60_000;
    let service = Service::start(&[], true);
    for _ in 0..LINES / 1000 {
        // It answers when it has written them.
        assert_eq!(service.folder.ask("1000"), "ok");
    }
    let (mut received, mut dropped) = (0, 0);
    while received + dropped < LINES {
        let entry = service.entry();
        if entry.contains_key("ALLCORES_STREAM") {
            received += 1;
        } else if let Some(rest) = text(&entry, "MESSAGE").strip_prefix("\u{2026} ") {
            assert!(rest.ends_with(" dropped: the journal was not read"), "{rest}");
            dropped += rest.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    assert_eq!(received + dropped, LINES);
    assert!(dropped > 1000 && received > 1000, "{received} received, {dropped} dropped");
    assert_eq!(service.folder.status("web")["output"]["dropped"], dropped);
    service.stop();
}

/// Has a journald of its own, with files that nobody else sees, run a command, and prints what is in the journal then.
const WITH_JOURNALD: &str = r#"
mount -t tmpfs none /run && mkdir -p /run/systemd/journal || exit 1
setpriv --pdeathsig KILL "$JOURNALD" & journald=$!
until [ -S /run/systemd/journal/stdout ] && [ -S /run/systemd/journal/socket ]; do kill -0 $journald || exit 1; done
systemd-cat sh -c 'JOURNAL_STREAM=$(stat --dereference --format %d:%i /proc/self/fd/2) exec "$@"' sh "$@"
journalctl --sync && journalctl --directory /run/log/journal --output json --all --identifier web --identifier allcores || exit 1
kill $journald
"#;

#[test]
fn a_real_journald_takes_what_is_sent() {
    let journald = ["/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"];
    let journald = journald.into_iter().find(|path| std::fs::exists(path).unwrap());
    let tools = ["unshare", "setpriv", "systemd-cat", "journalctl"];
    let has_tools = tools.iter().all(|tool| std::fs::exists(format!("/usr/bin/{tool}")).unwrap());
    let (Some(journald), true, true) = (journald, has_tools, rustix::process::geteuid().is_root()) else {
        skip!("systemd-journald, or the right to mount something for it: we have none");
    };
    let folder = Folder::new();
    let words = ["--mount", "sh", "-c", WITH_JOURNALD, "sh", env!("CARGO_BIN_EXE_allcores"), "run"];
    let mut command = folder.command_of("unshare".as_ref(), &words);
    command.args(["--name", "web", "-w", "1", "--kill-timeout", "1s", "--"]);
    command.arg(Runtime::Python.program().unwrap()).arg(fixture("operate/writes.py"));
    command.env("HOST", folder.address.ip().to_string()).env("PORT", folder.address.port().to_string());
    command.env("JOURNALD", journald).env_remove("ALLCORES_LOG_FORMAT");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + LONG;
    while TcpStream::connect(folder.address).is_err() {
        assert!(Instant::now() < deadline, "{:?}", child.wait_with_output());
    }
    assert_eq!(folder.ask("1"), "ok");
    assert_eq!(folder.ask("odd"), "ok");
    folder.allcores(&["stop", "web"]).code(0);
    let run = Run::from(child.wait_with_output().unwrap()).code(0);
    let entries: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines: Vec<&Value> = entries.iter().filter(|entry| entry["SYSLOG_IDENTIFIER"] == "web").collect();
    assert!(lines[0]["MESSAGE"].as_str().unwrap().starts_with("0 0 some text"), "{}", lines[0]);
    for field in ["ALLCORES_APP=web", "ALLCORES_SLOT=0", "ALLCORES_STREAM=stdout", "PRIORITY=6"] {
        let (name, value) = field.split_once('=').unwrap();
        assert_eq!(lines[0][name], value, "{}", lines[0]);
    }
    // Bytes that are no text are told as numbers.
    assert_eq!(lines[1]["MESSAGE"], serde_json::json!(b"\xff\x00 odd\r"));
    assert_eq!(lines.last().unwrap()["MESSAGE"], "no end");
    let mut own = entries.iter().filter(|entry| entry["SYSLOG_IDENTIFIER"] == "allcores");
    assert_eq!(own.next_back().unwrap()["MESSAGE"], "stopped");
}
