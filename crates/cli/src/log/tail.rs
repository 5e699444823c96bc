//! Reads a log: its last lines, over what was put aside of it, and then what is written to it, over whatever is put aside
//! meanwhile.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use allcores::primary::Stream;
use flate2::read::MultiGzDecoder;

use super::aside::{Aside, asides};
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
    /// Only those of these streams, if any are named.
    pub(crate) streams: Vec<Stream>,
    /// Only those from this time on, as [`Line::time`].
    pub(crate) since: Option<String>,
}

impl Filter {
    /// Whether a line is wanted, the last time before it being this.
    fn wants(&self, line: &Line<'_>, time: &str) -> bool {
        let is_from = match line.source {
            Source::Worker { slot, stream, .. } => {
                self.slot.is_none_or(|wanted| wanted == slot)
                    && (self.streams.is_empty() || self.streams.contains(&stream))
            }
            Source::Own(_) | Source::Foreign => self.slot.is_none() && self.streams.is_empty(),
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
    /// The stamp of the last that had been put aside when the file was opened, or was found not to be there. What was put aside
    /// up to then has been read, or is not wanted; what was since comes after the file.
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
        if !aside.is_packed && self.is(&aside.path) {
            return true;
        }
        // It may have been packed since it was found.
        let (mut own, mut packed) = ([0; HEAD], [0; HEAD]);
        let Ok(count @ 1..) = self.file.read_at(&mut own, 0) else { return false };
        let read = File::open(aside.packed())
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

    /// Reads the last lines that are wanted, so many of them, the oldest first.
    pub(crate) fn last(&mut self, count: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut found = VecDeque::new();
        self.open()?;
        if let Some(opened) = self.file.take() {
            let length = opened.file.metadata()?.len();
            let mut block = BLOCK;
            loop {
                let start = length.saturating_sub(block);
                // Of what was read before from further behind, nothing stands before this.
                self.begun.clear();
                self.time.clear();
                self.read = (&opened.file).seek(SeekFrom::Start(start))?;
                let mut part = buffered((&opened.file).take(length - start));
                if start > 0 {
                    // It begins somewhere in a line.
                    self.read += part.skip_until(b'\n')? as u64;
                }
                let mut last = Last::new(count);
                self.take_from(&mut part, &mut |line| last.push(line))?;
                if start == 0 || last.lines.len() >= count {
                    found = last.lines;
                    break;
                }
                block *= 8;
            }
            self.file = Some(opened);
        }
        for aside in self.asides().iter().rev() {
            if found.len() >= count {
                break;
            }
            let mut last = Last::new(count - found.len());
            let mut reader = Self::new(&self.path, self.filter.clone());
            reader.take_aside(aside, &mut |line| last.push(line))?;
            for line in last.lines.into_iter().rev() {
                found.push_front(line);
            }
        }
        Ok(found.into())
    }

    /// Begins to read all that is wanted of what stands in it by now, the oldest first.
    pub(crate) fn all(&mut self) -> io::Result<All<'_>> {
        self.open()?;
        let current = self.file.as_ref().map(|opened| -> io::Result<Box<dyn Read>> {
            let mut file = opened.file.try_clone()?;
            file.rewind()?;
            let length = file.metadata()?.len();
            Ok(Box::new(file.take(length)))
        });
        let asides = self.asides().into_iter().map(|aside| aside.open());
        let parts = Box::new(asides.chain(current.transpose()?.map(|current| Ok(Some(current)))));
        Ok(All { tail: self, parts, from: None })
    }

    /// What was put aside before what is open, as far as something of it may be wanted.
    fn asides(&self) -> Vec<Aside> {
        let is_wanted = |aside: &Aside| {
            let is_before = self.filter.since.as_ref().is_some_and(|since| is_before(&aside.stamp, since));
            !is_before && aside.stamp <= self.before
        };
        asides(&self.path).into_iter().filter(is_wanted).collect()
    }

    /// Reads the whole of what was put aside.
    fn take_aside(&mut self, aside: &Aside, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        self.begun.clear();
        match aside.open()? {
            Some(from) => self.take_from(&mut buffered(from), each),
            None => Ok(()),
        }
    }

    /// Reads what has been written since, and tells of each line that is wanted.
    pub(crate) fn more(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        self.open_next(each)?;
        self.catch_up(each)?;
        while let Some(old) = self.file.take_if(|opened| path_leads_elsewhere(&self.path, opened)) {
            // What was written to it before it was put aside, to the last.
            (&old.file).seek(SeekFrom::Start(self.read))?;
            self.take_from(&mut buffered(&old.file), each)?;
            // Somebody else may have moved it away, or it was too old to be kept.
            if let Some(read) = self.put_aside_as(&old) {
                self.note_read(read.stamp);
            }
            self.open_next(each)?;
            self.catch_up(each)?;
        }
        Ok(())
    }

    /// As what a file of the log has been put aside; `None` if that is not there any more. What is packed while the folder is read
    /// may be seen under neither name, and is under one of them the next time.
    fn put_aside_as(&self, old: &Opened) -> Option<Aside> {
        (0..2).find_map(|_| asides(&self.path).into_iter().rfind(|aside| old.became(aside)))
    }

    /// Opens the file where none is open, and reads what was put aside before it that has not been read.
    fn open_next(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let read = self.before.clone();
        self.open()?;
        for aside in self.asides().iter().filter(|aside| aside.stamp > read) {
            self.take_aside(aside, each)?;
        }
        self.begun.clear();
        self.read = 0;
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        loop {
            let opened = match Opened::new(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                opened => Some(opened?),
            };
            let before = asides(&self.path).pop().map(|aside| aside.stamp).unwrap_or_default();
            // Put aside meanwhile, it may be among those itself, and others that came after it.
            if opened.as_ref().is_none_or(|opened| opened.is(&self.path)) {
                self.begun.clear();
                self.read = 0;
                self.note_read(before);
                self.file = opened;
                return Ok(());
            }
        }
    }

    /// What was put aside up to then needs no reading any more.
    fn note_read(&mut self, stamp: String) {
        if stamp > self.before {
            self.before = stamp;
        }
    }

    fn catch_up(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let Some(opened) = self.file.take() else { return Ok(()) };
        if opened.file.metadata()?.len() < self.read {
            // Somebody has emptied it.
            self.begun.clear();
            self.read = 0;
        }
        (&opened.file).seek(SeekFrom::Start(self.read))?;
        let done = self.take_from(&mut buffered(&opened.file), each);
        self.file = Some(opened);
        done
    }

    /// Reads to the end, and tells of each line that is wanted.
    fn take_from(&mut self, from: &mut impl BufRead, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while let Some(line) = self.next_line(from)? {
            each(&line);
        }
        Ok(())
    }

    /// Reads the next line that is wanted. One whose end has not been written is kept until it is.
    fn next_line(&mut self, from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
        loop {
            self.read += from.read_until(b'\n', &mut self.begun)? as u64;
            if self.begun.pop_if(|byte| *byte == b'\n').is_none() {
                return Ok(None);
            }
            let mut line = std::mem::take(&mut self.begun);
            let read = Line::read(&line);
            if !read.time.is_empty() {
                read.time.clone_into(&mut self.time);
            }
            if self.filter.wants(&read, &self.time) {
                return Ok(Some(line));
            }
            line.clear();
            self.begun = line;
        }
    }
}

/// All that is wanted of a log, line by line: it is never in memory as a whole.
pub(crate) struct All<'a> {
    tail: &'a mut Tail,
    /// What was put aside, and the log itself at the end. What is there no more is `None`.
    parts: Box<dyn Iterator<Item = io::Result<Option<Box<dyn Read>>>>>,
    from: Option<BufReader<Box<dyn Read>>>,
}

impl All<'_> {
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(from) = &mut self.from
                && let Some(line) = self.tail.next_line(from)?
            {
                return Ok(Some(line));
            }
            let Some(part) = self.parts.next() else { return Ok(None) };
            self.from = part?.map(buffered);
            self.tail.begun.clear();
            self.tail.read = 0;
        }
    }
}

impl Iterator for All<'_> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

fn buffered<R: Read>(from: R) -> BufReader<R> {
    BufReader::with_capacity(64 * 1024, from)
}

/// Whether there is another file by now.
fn path_leads_elsewhere(path: &Path, opened: &Opened) -> bool {
    path.exists() && !opened.is(path)
}

/// The last lines of many.
struct Last {
    count: usize,
    lines: VecDeque<Vec<u8>>,
}

impl Last {
    fn new(count: usize) -> Self {
        Self { count, lines: VecDeque::new() }
    }

    fn push(&mut self, line: &[u8]) {
        self.lines.push_back(line.to_vec());
        if self.lines.len() > self.count {
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

    use super::super::aside::{name_for, pack};
    use super::super::line::{Line, Source, write};
    use super::{BLOCK, Filter, Opened, Tail, asides};

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

    fn all(tail: &mut Tail) -> Vec<String> {
        texts(&tail.all().unwrap().collect::<Result<Vec<_>, _>>().unwrap())
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
        assert_eq!(last(2, Filter::default()), ["d", "e"]);
        assert_eq!(last(4, Filter::default()), ["b", "c", "d", "e"]);
        assert_eq!(all(&mut Tail::new(&log, Filter::default())), ["a", "b", "c", "d", "e"]);
        assert_eq!(last(0, Filter::default()), [""; 0]);
        let since = Filter { since: Some(crate::view::time(at(11))), ..Filter::default() };
        assert_eq!(all(&mut Tail::new(&log, since.clone())), ["d", "e"]);
        assert_eq!(last(9, since), ["d", "e"]);
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
        let chosen = |filter| all(&mut Tail::new(&log, filter));
        assert_eq!(chosen(Filter { slot: Some(1), ..Filter::default() }), ["one", "error"]);
        let of = |streams: &[Stream]| Filter { streams: streams.to_vec(), ..Filter::default() };
        assert_eq!(chosen(of(&[Stream::Stderr])), ["error"]);
        assert_eq!(chosen(of(&[Stream::Stdout, Stream::Stderr])), ["zero", "one", "error"]);
        assert_eq!(chosen(Filter::default()), ["zero", "one", "own", "thread 'main' panicked", "error"]);
    }

    #[test]
    fn what_is_written_is_followed_over_putting_aside_and_emptying() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let mut tail = Tail::new(&log, Filter::default());
        assert!(tail.last(9).unwrap().is_empty());
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
        assert_eq!(texts(&tail.last(1).unwrap()), ["three"]);
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
    fn what_is_open_comes_before_what_was_put_aside_since_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let put_aside = |second, text: &str| {
            append(&log, &line(second, 0, text));
            let aside = name_for(&log, at(second));
            fs::rename(&log, &aside).unwrap();
            pack(&aside).unwrap();
        };
        put_aside(0, "one");
        append(&log, &line(1, 0, "two"));
        let mut tail = Tail::new(&log, Filter::default());
        tail.open().unwrap();
        // Before it has been read, it is put aside and packed, and so is the next.
        put_aside(2, "three");
        put_aside(3, "four");
        append(&log, &line(4, 0, "five"));
        assert_eq!(all(&mut tail), ["one", "two", "three"]);
        assert_eq!(more(&mut tail), ["four", "five"]);
    }

    #[test]
    fn what_is_packed_between_two_looks_is_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        append(&log, &line(0, 0, "one"));
        let opened = Opened::new(&log).unwrap();
        let aside = name_for(&log, at(0));
        fs::rename(&log, &aside).unwrap();
        let found = asides(&log).pop().unwrap();
        assert!(opened.became(&found));
        pack(&aside).unwrap();
        assert!(opened.became(&found) && !aside.exists());
        append(&log, &line(1, 0, "two"));
        assert!(!Opened::new(&log).unwrap().became(&found));
    }

    #[test]
    fn what_comes_and_is_put_aside_while_nothing_is_open_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        append(&log, &line(0, 0, "one"));
        let mut tail = Tail::new(&log, Filter::default());
        assert_eq!(texts(&tail.last(9).unwrap()), ["one"]);
        // As between the moment when it is put aside and that when it is begun anew.
        fs::rename(&log, name_for(&log, at(0))).unwrap();
        let mut tail_of_nothing = Tail::new(&log, Filter::default());
        assert_eq!(texts(&tail_of_nothing.last(9).unwrap()), ["one"]);
        assert!(more(&mut tail).is_empty());
        append(&log, &line(1, 0, "two"));
        fs::rename(&log, name_for(&log, at(1))).unwrap();
        append(&log, &line(2, 0, "three"));
        assert_eq!(more(&mut tail), ["two", "three"]);
        assert_eq!(more(&mut tail_of_nothing), ["two", "three"]);
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
        assert_eq!(texts(&tail.last(1).unwrap()), ["end"]);
        assert!(more(&mut tail).is_empty());
        append(&log, &line(2, 0, "more"));
        assert_eq!(more(&mut tail), ["more"]);
        // Nothing of what was read at the end is taken for what stands at the beginning.
        let unfinished = line(3, 0, "unfinished");
        append(&log, &unfinished[..40]);
        let mut rare = Tail::new(&log, Filter { slot: Some(7), ..Filter::default() });
        assert_eq!(texts(&rare.last(1).unwrap()), ["rare"]);
        append(&log, &[&unfinished[40..], &line(3, 7, "rare again")].concat());
        assert_eq!(more(&mut rare), ["rare again"]);
        let text = [b"foreign\n", &fs::read(&log).unwrap()[..]].concat();
        fs::write(&log, text).unwrap();
        let since = Filter { since: Some(crate::view::time(at(3))), ..Filter::default() };
        assert_eq!(texts(&Tail::new(&log, since).last(9).unwrap()), ["unfinished", "rare again"]);
    }

    #[test]
    fn all_is_read_line_by_line_and_then_followed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let mut tail = Tail::new(&log, Filter::default());
        assert!(all(&mut tail).is_empty());
        let filler = "x".repeat(1000);
        for second in [0, 1] {
            let lines: Vec<u8> = (0..1000).flat_map(|_| line(second, 0, &filler)).collect();
            append(&log, &lines);
            fs::rename(&log, name_for(&log, at(second))).unwrap();
        }
        let (last, unfinished) = (line(2, 0, "last"), line(3, 0, "unfinished"));
        append(&log, &[&last[..], &unfinished[..40]].concat());
        let mut tail = Tail::new(&log, Filter::default());
        let mut lines = tail.all().unwrap();
        assert_eq!(texts(&[lines.next().unwrap().unwrap()]), [&*filler]);
        assert!(lines.tail.read < 2000, "{} bytes were read for one line", lines.tail.read);
        assert_eq!(lines.by_ref().count(), 2000);
        assert!(lines.next().is_none());
        append(&log, &unfinished[40..]);
        assert_eq!(more(&mut tail), ["unfinished"]);
    }
}
