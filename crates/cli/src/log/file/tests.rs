//! What stands in the files, whatever happens to them.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use allcores::primary::Stream;

use super::super::{Filter, LogSettings, Source, Tail, asides, write};
use super::{LogFile, REST, delete};
use crate::report::{Out as _, Sink};

fn settings(folder: &Path) -> LogSettings {
    LogSettings {
        path: folder.join("web.log"),
        max_size: 1 << 20,
        max_age: None,
        keep: 100,
        is_packed: false,
    }
}

fn line(text: &str) -> Vec<u8> {
    let source = Source::Worker { slot: 0, id: 1, stream: Stream::Stdout, is_partial: false };
    write(SystemTime::now(), source, text.as_bytes())
}

/// A log, and what is complained of.
fn open(settings: LogSettings) -> (LogFile, Arc<Mutex<Vec<String>>>) {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let complaints = Arc::clone(&told);
    let complain = move |text: &str| complaints.lock().unwrap().push(text.to_owned());
    (LogFile::open(settings, complain).unwrap(), told)
}

fn all(path: &Path) -> Vec<String> {
    let text = |line: Vec<u8>| String::from_utf8_lossy(super::Line::read(&line).bytes).into_owned();
    Tail::new(path, Filter::default()).all().unwrap().map(|line| text(line.unwrap())).collect()
}

#[test]
fn nothing_is_lost_by_putting_aside() {
    let folder = tempfile::tempdir().unwrap();
    for is_packed in [false, true] {
        let path = folder.path().join(format!("{is_packed}")).join("web.log");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let small = LogSettings { path: path.clone(), max_size: 1000, is_packed, ..settings(folder.path()) };
        let (mut log, told) = open(small);
        let written: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
        for text in &written {
            log.write(Sink::Stdout, &line(text));
        }
        assert_eq!(log.meter().written(), 500);
        drop(log);
        let found = asides(&path);
        assert!(found.len() > 20, "{found:?}");
        for aside in found.iter().filter(|aside| !aside.is_packed) {
            let length = aside.path.metadata().map_or(0, |metadata| metadata.len());
            assert!(length <= 1000, "{aside:?} {length}");
        }
        // While it packs, a file may be in neither list for a moment; here nobody packs any more.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while is_packed && asides(&path).iter().any(|aside| !aside.is_packed) {
            assert!(std::time::Instant::now() < deadline, "{:?}", asides(&path));
            std::thread::yield_now();
        }
        assert_eq!(all(&path), written);
        assert!(told.lock().unwrap().is_empty());
    }
}

#[test]
fn no_more_is_kept_than_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(LogSettings { max_size: 10, keep: 3, ..settings(folder.path()) });
    for number in 0..10 {
        log.write(Sink::Stdout, &line(&number.to_string()));
    }
    assert_eq!(all(&folder.path().join("web.log")), ["6", "7", "8", "9"]);
}

#[test]
fn an_old_log_is_put_aside_at_the_end_of_its_period() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    let day = Duration::from_hours(24);
    let midnight = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since / 86400 * 86400)
    };
    let (yesterday, today) =
        (midnight(SystemTime::now()) - Duration::from_secs(1), midnight(SystemTime::now()));
    for (begun, is_due) in [(yesterday, true), (today, false)] {
        let source = Source::Own(crate::report::Level::Info);
        fs::write(&path, write(begun, source, b"x")).unwrap();
        let (log, _) = open(LogSettings { max_age: Some(day), ..settings(folder.path()) });
        assert_eq!(log.is_due(1, SystemTime::now()), is_due, "{begun:?}");
    }
    fs::write(&path, "").unwrap();
    let (log, _) = open(LogSettings { max_age: Some(day), ..settings(folder.path()) });
    assert!(!log.is_due(1, SystemTime::now() + 2 * day), "there is nothing in it");
}

#[test]
fn what_cannot_be_written_is_counted_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    let (mut log, told) = open(settings(folder.path()));
    log.write(Sink::Stdout, &line("before"));
    // As full as a disk can be.
    let real = std::mem::replace(
        &mut log.current.file,
        fs::OpenOptions::new().write(true).open("/dev/full").unwrap(),
    );
    for _ in 0..3 {
        log.write(Sink::Stdout, &[line("lost"), line("lost")].concat());
    }
    assert_eq!((log.meter().written(), log.lost().load(Ordering::Relaxed)), (1, 6));
    assert!(log.meter().reason().is_some_and(|reason| reason.starts_with("No space left on device")));
    log.current.file = real;
    log.write(Sink::Stdout, &line("after"));
    let lines = all(&path);
    assert_eq!((lines[0].as_str(), lines[2].as_str(), lines.len()), ("before", "after", 3));
    assert!(lines[1].starts_with("\u{2026} 6 lines dropped: No space left on device"), "{lines:?}");
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].contains("web.log can't be written: No space left"), "{told:?}");
}

#[test]
fn a_line_that_was_cut_off_does_not_spoil_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    fs::write(&path, &line("whole and cut")[..35]).unwrap();
    let (mut log, _) = open(settings(folder.path()));
    log.write(Sink::Stdout, &line("next"));
    assert_eq!(all(&path).last().unwrap(), "next");
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
}

#[test]
fn a_file_that_was_moved_away_is_begun_anew_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    let (mut log, _) = open(settings(folder.path()));
    log.write(Sink::Stdout, &line("one"));
    fs::rename(&path, folder.path().join("moved")).unwrap();
    log.write(Sink::Stdout, &line("two"));
    log.reopen();
    log.write(Sink::Stdout, &line("three"));
    assert_eq!(all(&path), ["three"]);
    assert_eq!(all(&folder.path().join("moved")), ["one", "two"]);
}

#[test]
fn where_nothing_can_be_put_aside_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, told) = open(LogSettings { max_size: 10, ..settings(folder.path()) });
    log.write(Sink::Stdout, &line("one"));
    let path = log.settings.path.clone();
    log.current.place = Some("/proc/no/such/web.log".into());
    log.write(Sink::Stdout, &line("two"));
    log.write(Sink::Stdout, &line("three"));
    assert_eq!(all(&path), ["one", "two", "three"]);
    assert_eq!(told.lock().unwrap().len(), 1, "it is said once, and not tried again for {REST:?}");
}

#[test]
fn two_do_not_write_to_one_log() {
    let folder = tempfile::tempdir().unwrap();
    let (_log, _) = open(settings(folder.path()));
    let error = LogFile::open(settings(folder.path()), |_| {}).unwrap_err();
    assert!(error.to_string().contains("another app writes to it"), "{error}");
}

#[test]
fn a_log_that_is_written_is_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    let (mut log, _) = open(LogSettings { max_size: 10, ..settings(folder.path()) });
    for text in ["one", "two"] {
        log.write(Sink::Stdout, &line(text));
    }
    let error = delete(&path).unwrap_err();
    assert!(format!("{error:#}").ends_with("web.log: another app writes to it"), "{error:#}");
    assert_eq!(all(&path), ["one", "two"]);
    drop(log);
    delete(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // What is left of one that is not there itself.
    fs::write(folder.path().join("web.log.20260102T030405678Z"), "").unwrap();
    delete(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_put_aside_in_its_own_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (links, logs) = (folder.path().join("links"), folder.path().join("logs"));
    fs::create_dir(&links).unwrap();
    fs::create_dir(&logs).unwrap();
    std::os::unix::fs::symlink("../logs/real.log", links.join("web.log")).unwrap();
    // It leads to nothing yet.
    let (mut log, told) = open(LogSettings { max_size: 10, ..settings(&links) });
    for text in ["one", "two", "three"] {
        log.write(Sink::Stdout, &line(text));
    }
    let link = links.join("web.log");
    assert!(link.is_symlink());
    assert_eq!(fs::read_dir(&links).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&logs).unwrap().count(), 3);
    // By either name all of it is found.
    for path in [&link, &logs.join("real.log")] {
        assert_eq!(all(path), ["one", "two", "three"]);
    }
    let error = LogFile::open(settings(&links), |_| {}).unwrap_err();
    assert!(error.to_string().contains("another app writes to it"), "{error}");
    // Moved to another place, by the link.
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(logs.join("other.log"), &link).unwrap();
    log.reopen();
    for text in ["four", "five"] {
        log.write(Sink::Stdout, &line(text));
    }
    assert_eq!(all(&link), ["four", "five"]);
    assert!(link.is_symlink() && told.lock().unwrap().is_empty());
}

#[test]
fn a_device_is_written_to_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    let eager = LogSettings {
        max_size: 10,
        max_age: Some(Duration::from_millis(1)),
        is_packed: true,
        ..settings(folder.path())
    };
    let (mut log, told) = open(eager.clone());
    // Of what leads nowhere, two may have the same.
    let (mut other, _) = open(eager);
    assert!(log.packer.is_none());
    for text in ["one", "two", "three"] {
        log.write(Sink::Stdout, &line(text));
        other.write(Sink::Stdout, &line(text));
        log.reopen();
    }
    assert_eq!((log.meter().written(), log.lost().load(Ordering::Relaxed)), (3, 0));
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("/dev/null"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn a_pipe_is_written_to_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    // Open at both ends, so that nobody waits for the other.
    let mut reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (mut log, told) = open(LogSettings { max_size: 10, ..settings(folder.path()) });
    let lines = [line("one"), line("two")];
    for line in &lines {
        log.write(Sink::Stdout, line);
    }
    let mut read = vec![0; lines.concat().len()];
    std::io::Read::read_exact(&mut reader, &mut read).unwrap();
    assert_eq!(read, lines.concat());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn a_log_that_was_removed_is_begun_anew_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/web.log");
    let logs = path.parent().unwrap();
    fs::create_dir(logs).unwrap();
    let (mut log, told) = open(LogSettings { path: path.clone(), ..settings(folder.path()) });
    log.write(Sink::Stdout, &line("one"));
    fs::remove_file(&path).unwrap();
    log.write(Sink::Stdout, &line("two"));
    assert_eq!(all(&path), ["two"]);
    assert!(told.lock().unwrap().is_empty());
    // Where it can't be, what is written is not said to stand in it.
    fs::remove_dir_all(logs).unwrap();
    for text in ["three", "four"] {
        log.write(Sink::Stdout, &line(text));
    }
    assert_eq!((log.meter().written(), log.lost().load(Ordering::Relaxed)), (2, 2));
    fs::create_dir(logs).unwrap();
    log.write(Sink::Stdout, &line("five"));
    let lines = all(&path);
    assert!(
        lines[0].starts_with("\u{2026} 2 lines dropped: No such file") && lines[1] == "five",
        "{lines:?}"
    );
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].contains("web.log can't be written: No such file"), "{told:?}");
}

#[test]
fn a_log_that_was_moved_away_without_a_word_is_begun_anew_when_it_would_be_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("web.log"), folder.path().join("moved"));
    let (mut log, told) = open(LogSettings { max_size: 10, ..settings(folder.path()) });
    log.write(Sink::Stdout, &line("one"));
    fs::rename(&path, &moved).unwrap();
    log.write(Sink::Stdout, &line("two"));
    assert_eq!((all(&path), all(&moved)), (vec!["two".to_owned()], vec!["one".to_owned()]));
    // What somebody else has put there is not put aside; and what he writes to is not written to.
    fs::rename(&path, &moved).unwrap();
    let (mut other, _) = open(settings(folder.path()));
    other.write(Sink::Stdout, &line("other's"));
    for text in ["three", "four"] {
        log.write(Sink::Stdout, &line(text));
    }
    assert_eq!((all(&path).as_slice(), all(&moved).len()), (["other's".to_owned()].as_slice(), 3));
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].ends_with("another app writes to it"), "{told:?}");
}

#[test]
fn a_log_that_nobody_has_moved_stays_locked_when_it_is_to_be_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.log");
    let (mut log, told) = open(settings(folder.path()));
    log.write(Sink::Stdout, &line("one"));
    log.reopen();
    let error = LogFile::open(settings(folder.path()), |_| {}).unwrap_err();
    assert!(error.to_string().contains("another app writes to it"), "{error}");
    assert!(told.lock().unwrap().is_empty());
    // Moved, and another app was quicker: this one goes on with what it has, and says why.
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    let (_other, _) = open(settings(folder.path()));
    log.reopen();
    log.write(Sink::Stdout, &line("two"));
    assert_eq!((all(&path).len(), all(&moved)), (0, vec!["one".to_owned(), "two".to_owned()]));
    let told = told.lock().unwrap();
    assert!(
        told.len() == 1 && told[0].contains("can't be opened again: another app writes to it"),
        "{told:?}"
    );
}
