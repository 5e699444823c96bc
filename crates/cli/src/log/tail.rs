//! Reads a log: its last lines, over what was put aside of it, and then what is written to it, over whatever is put aside
//! meanwhile.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use allcores::primary::Stream;
use flate2::read::MultiGzDecoder;

use super::aside::{Aside, asides, packed};
use super::line::{Line, Source};

/// How much of a file's end is looked at first for its last lines.
const BLOCK: u64 = 256 * 1024;

/// By so much of its beginning a file is known again.
const HEAD: usize = 256;

/// Which lines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Only those of workers of this slot.
    pub(crate) slot: Option<u16>,
    /// Only those of this stream.
    pub(crate) stream: Option<Stream>,
    /// Only those from this time on, as [`Line::time`].
    pub(crate) since: Option<String>,
}

impl Filter {
    /// Whether a line is wanted, the last time before it being this.
    fn wants(&self, line: &Line<'_>, time: &str) -> bool {
        let is_from = match line.source {
            Source::Worker { slot, stream, .. } => {
                self.slot.is_none_or(|wanted| wanted == slot)
                    && self.stream.is_none_or(|wanted| wanted == stream)
            }
            Source::Own(_) | Source::Foreign => self.slot.is_none() && self.stream.is_none(),
        };
        is_from && self.since.as_ref().is_none_or(|since| time >= since.as_str())
    }
}

/// A log that is read.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    filter: Filter,
    file: Option<Opened>,
    /// The stamp of the last that had been put aside when the file was opened.
    before: String,
    /// How far it has been read.
    read: u64,
    /// A line whose end has not been written.
    begun: Vec<u8>,
    /// The last that was seen.
    time: String,
}

/// A file of the log, and how it is known again when it has been put aside and packed.
#[derive(Debug)]
struct Opened {
    file: File,
    inode: (u64, u64),
}

impl Opened {
    fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { file, inode: (metadata.dev(), metadata.ino()) })
    }

    fn is(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode)
    }

    /// Whether this has been put aside as that.
    fn became(&self, aside: &Aside) -> bool {
        if !aside.is_packed {
            return self.is(&aside.path);
        }
        let (mut own, mut packed) = ([0; HEAD], [0; HEAD]);
        let Ok(count @ 1..) = self.file.read_at(&mut own, 0) else { return false };
        let read = File::open(&aside.path)
            .and_then(|file| MultiGzDecoder::new(file).read_exact(&mut packed[..count]));
        read.is_ok() && own[..count] == packed[..count]
    }
}

impl Tail {
    /// Begins to read a log. A log that is not there is empty: it may come.
    pub(crate) fn new(path: &Path, filter: Filter) -> Self {
        Self {
            path: path.to_owned(),
            filter,
            file: None,
            before: String::new(),
            read: 0,
            begun: Vec::new(),
            time: String::new(),
        }
    }

    /// Reads the last lines that are wanted, the oldest first: so many, or all.
    pub(crate) fn last(&mut self, count: Option<usize>) -> io::Result<Vec<Vec<u8>>> {
        let mut found = VecDeque::new();
        self.open()?;
        if let Some(opened) = self.file.take() {
            let length = opened.file.metadata()?.len();
            let mut block = if count.is_some() { BLOCK } else { length };
            loop {
                let start = length.saturating_sub(block);
                self.read = (&opened.file).seek(SeekFrom::Start(start))?;
                let mut last = Last::new(count);
                let mut part = (&opened.file).take(length - start);
                self.take_from(&mut part, start > 0, &mut |line| last.push(line))?;
                if start == 0 || count.is_some_and(|count| last.lines.len() >= count) {
                    found = last.lines;
                    break;
                }
                block *= 8;
            }
            self.file = Some(opened);
        }
        for aside in asides(&self.path).iter().rev() {
            let is_enough = count.is_some_and(|count| found.len() >= count);
            let is_before = self.filter.since.as_ref().is_some_and(|since| is_before(&aside.stamp, since));
            if is_enough || is_before {
                break;
            } else if !self.file.as_ref().is_some_and(|opened| opened.is(&aside.path)) {
                let mut last = Last::new(count.map(|count| count - found.len()));
                let mut reader = Self::new(&self.path, self.filter.clone());
                reader.take_aside(aside, &mut |line| last.push(line))?;
                for line in last.lines.into_iter().rev() {
                    found.push_front(line);
                }
            }
        }
        Ok(found.into())
    }

    /// Reads the whole of what was put aside.
    fn take_aside(&mut self, aside: &Aside, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        self.begun.clear();
        match File::open(&aside.path) {
            // It has been packed since; or it was too old to be kept.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !aside.is_packed => {
                let packed = Aside { path: packed(&aside.path), is_packed: true, ..aside.clone() };
                self.take_aside(&packed, each)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            file if aside.is_packed => self.take_from(&mut MultiGzDecoder::new(file?), false, each),
            file => self.take_from(&mut &file?, false, each),
        }
    }

    /// Reads what has been written since, and tells of each line that is wanted.
    pub(crate) fn more(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        self.open()?;
        self.catch_up(each)?;
        while let Some(old) = self.file.take_if(|opened| path_leads_elsewhere(&self.path, opened)) {
            // What was written to it before it was put aside, to the last.
            (&old.file).seek(SeekFrom::Start(self.read))?;
            self.take_from(&mut &old.file, false, each)?;
            // Opened before the list is made: what was put aside before that is in it.
            self.begun.clear();
            let before = self.before.clone();
            self.open()?;
            let list = asides(&self.path);
            // Somebody else may have moved it away, or it was too old to be kept.
            let newer = list
                .iter()
                .rposition(|aside| old.became(aside))
                .map_or_else(|| list.partition_point(|aside| aside.stamp <= before), |at| at + 1);
            for aside in &list[newer..] {
                if !self.file.as_ref().is_some_and(|opened| opened.is(&aside.path)) {
                    self.take_aside(aside, each)?;
                }
            }
            self.begun.clear();
            self.read = 0;
            self.catch_up(each)?;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        while self.file.is_none() {
            let opened = match Opened::new(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                opened => opened?,
            };
            let before = asides(&self.path).pop().map(|aside| aside.stamp).unwrap_or_default();
            // Put aside meanwhile, it may be among those itself, and others that came after it.
            if opened.is(&self.path) {
                (self.file, self.read, self.before) = (Some(opened), 0, before);
            }
        }
        Ok(())
    }

    fn catch_up(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let Some(opened) = self.file.take() else { return Ok(()) };
        if opened.file.metadata()?.len() < self.read {
            // Somebody has emptied it.
            self.begun.clear();
            self.read = 0;
        }
        (&opened.file).seek(SeekFrom::Start(self.read))?;
        let done = self.take_from(&mut &opened.file, false, each);
        self.file = Some(opened);
        done
    }

    /// Reads to the end, and tells of each line that is wanted. `is_inside`: it begins somewhere in a line.
    fn take_from(
        &mut self,
        from: &mut impl Read,
        mut is_inside: bool,
        each: &mut impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut chunk = vec![0; 64 * 1024];
        if is_inside {
            self.begun.clear();
        }
        loop {
            let count = match from.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            self.read += count as u64;
            for piece in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
                self.begun.extend_from_slice(piece);
                if piece.last() == Some(&b'\n') {
                    self.begun.pop();
                    let line = std::mem::take(&mut self.begun);
                    if !std::mem::take(&mut is_inside) {
                        self.tell(&line, each);
                    }
                }
            }
        }
    }

    fn tell(&mut self, line: &[u8], each: &mut impl FnMut(&[u8])) {
        let read = Line::read(line);
        if !read.time.is_empty() {
            read.time.clone_into(&mut self.time);
        }
        if self.filter.wants(&read, &self.time) {
            each(line);
        }
    }
}

/// Whether there is another file by now.
fn path_leads_elsewhere(path: &Path, opened: &Opened) -> bool {
    path.exists() && !opened.is(path)
}

/// The last lines of many.
struct Last {
    count: Option<usize>,
    lines: VecDeque<Vec<u8>>,
}

impl Last {
    fn new(count: Option<usize>) -> Self {
        Self { count, lines: VecDeque::new() }
    }

    fn push(&mut self, line: &[u8]) {
        self.lines.push_back(line.to_vec());
        if self.count.is_some_and(|count| self.lines.len() > count) {
            self.lines.pop_front();
        }
    }
}

/// Whether what was put aside then has nothing from this time on.
fn is_before(stamp: &str, since: &str) -> bool {
    let since: String = since.chars().filter(|char| !matches!(char, '-' | ':' | '.')).collect();
    *stamp < *since
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use allcores::primary::Stream;

    use super::super::aside::name_for;
    use super::super::line::{Line, Source, write};
    use super::{BLOCK, Filter, Tail};

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045 + second)
    }

    fn line(second: u64, slot: u16, text: &str) -> Vec<u8> {
        let source = Source::Worker { slot, id: 1, stream: Stream::Stdout, is_partial: false };
        write(at(second), source, text.as_bytes())
    }

    fn append(path: &Path, bytes: &[u8]) {
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    fn texts(lines: &[Vec<u8>]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8_lossy(Line::read(line).bytes).into_owned()).collect()
    }

    fn more(tail: &mut Tail) -> Vec<String> {
        let mut lines = Vec::new();
        tail.more(&mut |line| lines.push(line.to_vec())).unwrap();
        texts(&lines)
    }

    #[test]
    fn the_last_lines_are_found_over_what_was_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        for (second, texts) in [(0, ["a", "b"]), (10, ["c", "d"])] {
            for (number, text) in (0..).zip(texts) {
                append(&log, &line(second + number, 0, text));
            }
            fs::rename(&log, name_for(&log, at(second + 5))).unwrap();
        }
        append(&log, &line(20, 0, "e"));
        let last = |count, filter| texts(&Tail::new(&log, filter).last(count).unwrap());
        assert_eq!(last(Some(2), Filter::default()), ["d", "e"]);
        assert_eq!(last(Some(4), Filter::default()), ["b", "c", "d", "e"]);
        assert_eq!(last(None, Filter::default()), ["a", "b", "c", "d", "e"]);
        assert_eq!(last(Some(0), Filter::default()), [""; 0]);
        let since = Filter { since: Some(crate::view::time(at(11))), ..Filter::default() };
        assert_eq!(last(None, since), ["d", "e"]);
    }

    #[test]
    fn lines_are_chosen_by_slot_and_stream() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        append(&log, &line(0, 0, "zero"));
        append(&log, &line(0, 1, "one"));
        append(&log, &write(at(0), Source::Own(crate::report::Level::Info), b"own"));
        append(&log, b"thread 'main' panicked\n");
        let err = Source::Worker { slot: 1, id: 1, stream: Stream::Stderr, is_partial: false };
        append(&log, &write(at(0), err, b"error"));
        let last = |filter| texts(&Tail::new(&log, filter).last(None).unwrap());
        assert_eq!(last(Filter { slot: Some(1), ..Filter::default() }), ["one", "error"]);
        assert_eq!(last(Filter { stream: Some(Stream::Stderr), ..Filter::default() }), ["error"]);
        assert_eq!(last(Filter::default()), ["zero", "one", "own", "thread 'main' panicked", "error"]);
    }

    #[test]
    fn what_is_written_is_followed_over_putting_aside_and_emptying() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let mut tail = Tail::new(&log, Filter::default());
        assert!(tail.last(Some(9)).unwrap().is_empty());
        let whole = line(0, 0, "in two pieces");
        append(&log, &whole[..30]);
        assert!(more(&mut tail).is_empty());
        append(&log, &whole[30..]);
        assert_eq!(more(&mut tail), ["in two pieces"]);
        append(&log, &line(1, 0, "last"));
        fs::rename(&log, name_for(&log, at(1))).unwrap();
        append(&log, &line(2, 0, "first"));
        assert_eq!(more(&mut tail), ["last", "first"]);
        // Several times, before anybody looks.
        for (second, text) in (3..).zip(["one", "two", "three"]) {
            append(&log, &line(second, 0, text));
            fs::rename(&log, name_for(&log, at(second))).unwrap();
        }
        append(&log, &line(6, 0, "four"));
        assert_eq!(more(&mut tail), ["one", "two", "three", "four"]);
        fs::write(&log, line(7, 0, "an")).unwrap();
        assert_eq!(more(&mut tail), ["an"]);
        assert!(more(&mut tail).is_empty());
    }

    #[test]
    fn what_somebody_else_moved_away_is_followed_by_what_is_new_alone() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        for (second, text) in (0..).zip(["one", "two"]) {
            append(&log, &line(second, 0, text));
            fs::rename(&log, name_for(&log, at(second))).unwrap();
        }
        append(&log, &line(2, 0, "three"));
        let mut tail = Tail::new(&log, Filter::default());
        assert_eq!(texts(&tail.last(Some(1)).unwrap()), ["three"]);
        append(&log, &line(3, 0, "four"));
        fs::rename(&log, folder.path().join("moved")).unwrap();
        append(&log, &line(4, 0, "five"));
        assert_eq!(more(&mut tail), ["four", "five"]);
        // What is put aside after that is new.
        fs::rename(&log, folder.path().join("moved")).unwrap();
        append(&log, &line(5, 0, "six"));
        fs::rename(&log, name_for(&log, at(5))).unwrap();
        append(&log, &line(6, 0, "seven"));
        assert_eq!(more(&mut tail), ["six", "seven"]);
    }

    #[test]
    fn a_large_file_is_read_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let filler = "x".repeat(1000);
        let mut bytes = line(0, 7, "rare");
        for _ in 0..(2 * BLOCK / 1000) {
            bytes.extend(line(0, 0, &filler));
        }
        bytes.extend(line(1, 0, "end"));
        append(&log, &bytes);
        let mut tail = Tail::new(&log, Filter::default());
        assert_eq!(texts(&tail.last(Some(1)).unwrap()), ["end"]);
        assert!(more(&mut tail).is_empty());
        append(&log, &line(2, 0, "more"));
        assert_eq!(more(&mut tail), ["more"]);
        let rare = Filter { slot: Some(7), ..Filter::default() };
        assert_eq!(texts(&Tail::new(&log, rare).last(Some(1)).unwrap()), ["rare"]);
    }
}
