//! Writes a log, on the thread of a queue that drops lines rather than hold anybody up.
//!
//! What can't be written, as the disk is full or whatever else, is counted, said as soon as something can be written again, and
//! nobody has to wait for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustix::fs::{
    CWD, FlockOperation, OFlags, RenameFlags, fcntl_getfl, fcntl_setfl, flock, fstat, renameat_with,
};
use rustix::io::Errno;

use super::LogSettings;
use super::aside::{self, Aside, Packer};
use super::line::{self, Line, Source};
use crate::report::{Level, Loss, Out, Sink, ended};
use crate::whole;

/// Each try to lock a log fails only if somebody else moved it away at the same moment.
const TRIES: u32 = 1000;

/// How long after a failure nothing is put aside.
const REST: Duration = Duration::from_secs(10);

/// What became of the lines so far.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    written: AtomicU64,
    /// Why some could not be written, the last time.
    reason: Mutex<Option<String>>,
}

impl Meter {
    /// How many lines stand in the file.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Why some could not be written, the last time.
    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Says something to everybody but the log.
type Complain = Arc<dyn Fn(&str) + Send + Sync>;

/// A log that is written.
pub(crate) struct LogFile {
    settings: LogSettings,
    current: Current,
    loss: Loss,
    rests_until: Option<Instant>,
    last_aside: Option<SystemTime>,
    packer: Option<Packer>,
    meter: Arc<Meter>,
    complain: Complain,
}

/// The file that is written to.
struct Current {
    file: File,
    /// Where it is put aside from. `None` for what is no regular file, as a device: that is written to, and left alone.
    place: Option<PathBuf>,
    length: u64,
    /// When what it has was begun.
    begun: SystemTime,
    /// The last thing that was written ends in the middle of a line.
    is_cut: bool,
}

impl LogFile {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// It can't be opened, or somebody else writes to it.
    pub(crate) fn open(
        settings: LogSettings,
        complain: impl Fn(&str) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let current = Current::open(&settings.path)?;
        let place = current.place.as_deref();
        // Nobody packs but who has the log.
        for draft in place.into_iter().flat_map(aside::drafts) {
            let _ = fs::remove_file(draft);
        }
        let complain: Complain = Arc::new(complain);
        let packer = match place.filter(|_| settings.is_packed) {
            Some(place) => {
                let complain = Arc::clone(&complain);
                let packer = Packer::start(place, move |text| complain(text));
                Some(packer.context("start the thread that packs logs")?)
            }
            None => None,
        };
        if let Some(place) = place {
            aside::retain(place, settings.keep);
        }
        Ok(Self {
            settings,
            current,
            loss: Loss::default(),
            rests_until: None,
            last_aside: None,
            packer,
            meter: Arc::default(),
            complain,
        })
    }

    /// What becomes of lines.
    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.settings.path
    }

    fn is_due(&self, more: usize, now: SystemTime) -> bool {
        let Current { place, length, begun, .. } = &self.current;
        let is_large = length + more as u64 > self.settings.max_size;
        let period = |time: SystemTime, age: Duration| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            since.as_millis() / age.as_millis().max(1)
        };
        let is_old = self.settings.max_age.is_some_and(|age| period(now, age) > period(*begun, age));
        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
        *length > 0 && place.is_some() && (is_large || is_old) && !rests
    }

    /// Puts it aside and begins a new one. Where that fails, what there is goes on.
    fn put_aside(&mut self, now: SystemTime) {
        let Some(place) = self.current.place.clone() else { return };
        // Their names are their order.
        let then = self.last_aside.map_or(now, |last| now.max(last + Duration::from_millis(1)));
        let aside = aside::name_for(&place, then);
        // What somebody has moved away without a word can't be put aside, and what may be at its place is not ours.
        let is_there = is_at(&self.current.file, &place);
        let moved = if is_there { fs::rename(&place, &aside) } else { Ok(()) };
        // Another app's that has come between the two stays.
        let back = |_: &io::Error| {
            let _ = renameat_with(CWD, &aside, CWD, &place, RenameFlags::NOREPLACE);
        };
        match moved.and_then(|()| self.begin(&place).inspect_err(back)) {
            Ok(()) if is_there => {
                self.last_aside = Some(then);
                aside::retain(&place, self.settings.keep);
                if let Some(packer) = &self.packer {
                    packer.pack(aside);
                }
            }
            Ok(()) => {}
            Err(error) => self.rest(&format!("can't be put aside: {error}")),
        }
    }

    fn begin(&mut self, path: &Path) -> io::Result<()> {
        let before = std::mem::replace(&mut self.current, Current::open(path)?);
        self.rests_until = None;
        follow(&before.file, path);
        Ok(())
    }

    fn rest(&mut self, what: &str) {
        if self.rests_until.is_none() {
            (self.complain)(&format!("the log {} {what}", self.settings.path.display()));
        }
        self.rests_until = Some(Instant::now() + REST);
    }

    /// Writes whole lines, and what is to be said before them.
    fn put(&mut self, lines: &[u8]) {
        let mut before = Vec::new();
        if self.current.is_cut {
            before.push(b'\n');
        }
        if let Some(dropped) = self.loss.untold() {
            let (source, text) = (Source::Own(Level::Warning), dropped.to_string());
            before.extend(line::write(SystemTime::now(), source, text.as_bytes()));
        }
        if !before.is_empty() {
            match self.write_all(&before) {
                Ok(()) => drop(self.loss.told()),
                Err((_, error)) => return self.lose(lines, &error),
            }
        }
        match self.write_all(lines) {
            Ok(()) => {
                self.meter.written.fetch_add(ended(lines), Ordering::Relaxed);
            }
            Err((written, error)) => {
                self.meter.written.fetch_add(ended(&lines[..written]), Ordering::Relaxed);
                self.lose(&lines[written..], &error);
            }
        }
    }

    /// Writes as much as it can; how much that was, if not all.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.current.file.write(&bytes[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    self.current.length += count as u64;
                    self.current.is_cut = bytes[written - 1] != b'\n';
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    /// Counts what is lost. A line of which a part was written is one.
    fn lose(&mut self, lines: &[u8], error: &io::Error) {
        let reason = error.to_string();
        *self.meter.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
        // Of the first a part may have been written: it is lost all the same.
        if self.loss.lose(ended(lines), reason) {
            let path = self.settings.path.display();
            (self.complain)(&format!(
                "the log {path} can't be written: {error}; lines are dropped, and counted"
            ));
        }
    }
}

impl Out for LogFile {
    fn write(&mut self, _: Sink, lines: &[u8]) {
        let now = SystemTime::now();
        if let Some(place) = self.current.place.clone().filter(|_| self.current.is_removed()) {
            // Nobody could read what would be written to it.
            if let Err(error) = self.begin(&place) {
                return self.lose(lines, &error);
            }
        } else if self.is_due(lines.len(), now) {
            self.put_aside(now);
        }
        if self.current.length == 0 {
            self.current.begun = now;
        }
        self.put(lines);
    }

    fn lost(&self) -> Arc<AtomicU64> {
        self.loss.all()
    }

    /// Opens the path anew: somebody has moved the file away.
    fn reopen(&mut self) {
        let path = self.settings.path.clone();
        // One that nobody has moved is not opened beside itself: it is locked.
        let is_there = self.current.place.is_some() && is_at(&self.current.file, &path);
        let length = |metadata: fs::Metadata| self.current.length = metadata.len();
        let opened = if is_there { self.current.file.metadata().map(length) } else { self.begin(&path) };
        if let Err(error) = opened {
            self.rest(&format!("can't be opened again: {error}"));
        }
    }
}

impl Current {
    fn open(path: &Path) -> io::Result<Self> {
        let (file, place) = hold(path, open)?;
        let length = file.metadata()?.len();
        Ok(Self {
            is_cut: length > 0 && place.as_ref().is_some_and(|place| !ends_line(place)),
            begun: begun(place.as_deref()),
            file,
            place,
            length,
        })
    }

    /// Whether it has no name any more, and nobody can open it.
    fn is_removed(&self) -> bool {
        // Not every file system counts names.
        let is_nowhere = self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        is_nowhere && self.place.as_ref().is_some_and(|place| !is_at(&self.file, place))
    }
}

/// Opens a log, and locks it if it can be put aside: two who write to one file would do that under each other's hands. Where
/// that is, too.
fn hold(path: &Path, open: fn(&Path) -> io::Result<File>) -> io::Result<(File, Option<PathBuf>)> {
    for _ in 0..TRIES {
        let file = open(path)?;
        let place = place(&file, path)?;
        if place.is_some() {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => {
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another app writes to it"));
                }
                result => result?,
            }
        }
        // Who had it before may have put it aside, or deleted it.
        if is_at(&file, path) {
            return Ok((file, place));
        }
    }
    Err(io::Error::other("others kept moving it away"))
}

/// Opens a log to add to it. A pipe that nobody reads is refused, where to wait for a reader would hold up all else.
///
/// # Errors
///
/// It can't be opened, or nobody reads it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_by(path, OpenOptions::new().create(true))
}

fn open_by(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let waits_for_nobody = OFlags::NONBLOCK.bits().cast_signed();
    let options = options.append(true).mode(0o600).custom_flags(waits_for_nobody);
    let file = options.open(path).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => io::Error::new(error.kind(), "it is a pipe that nobody reads"),
        _ => error,
    })?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Tells whether a log that is written could be opened again, by another program.
///
/// # Errors
///
/// It can't be opened.
pub(crate) fn check(settings: &LogSettings) -> anyhow::Result<()> {
    open(&settings.path).map(drop).with_context(|| format!("open the log {}", settings.path.display()))
}

/// Deletes a log, and what was put aside of it. A link stays, and so does what is no regular file: an app has not made those.
///
/// # Errors
///
/// An app writes to it, or something of it can't be deleted.
pub(crate) fn delete(log: &Path) -> anyhow::Result<()> {
    let log = whole::real(log);
    let is_file = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    // Held to the end, so that nobody begins to write to what is about to go.
    let held = Some(&log)
        .filter(|log| is_file(log))
        .map(|log| hold(log, |log| open_by(log, &mut OpenOptions::new())));
    let held = match held {
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
        held => held.transpose().with_context(|| format!("delete {}", log.display()))?,
    };
    let asides = aside::asides(&log).into_iter().map(Aside::into_path).chain(aside::drafts(&log));
    for path in asides.filter(is_file).chain(held.iter().filter_map(|(_, place)| place.clone())) {
        fs::remove_file(&path).with_context(|| format!("delete {}", path.display()))?;
    }
    Ok(())
}

/// Has our own streams go where the log goes: in the background they are the log, and tell what nobody else can any more, as the
/// reason of a panic. Each is opened by itself, for who locks the log does not lock it for them.
fn follow(before: &File, path: &Path) {
    let identity = |file: BorrowedFd<'_>| fstat(file).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let was_log = |stream: BorrowedFd<'_>| {
        identity(stream).is_some_and(|found| identity(before.as_fd()) == Some(found))
    };
    // Where that fails, they stay where they are.
    if was_log(io::stdout().as_fd()) {
        let _ = open(path).map(rustix::stdio::dup2_stdout);
    }
    if was_log(io::stderr().as_fd()) {
        let _ = open(path).map(rustix::stdio::dup2_stderr);
    }
}

/// Where a file is that was opened by this path, if it is a regular one that can be put aside there.
fn place(file: &File, path: &Path) -> io::Result<Option<PathBuf>> {
    let (opened, real) = (file.metadata()?, whole::real(path));
    let is_it = |found: fs::Metadata| found.is_file() && is_same(&found, &opened);
    Ok(Some(real).filter(|real| fs::symlink_metadata(real).is_ok_and(is_it)))
}

/// Whether a path leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let same = || Ok::<_, io::Error>(is_same(&fs::metadata(path)?, &file.metadata()?));
    same().unwrap_or(false)
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// When a log was begun: as its first line says, or when it was written to last.
fn begun(place: Option<&Path>) -> SystemTime {
    let first = |path| -> io::Result<SystemTime> {
        let file = File::open(path)?;
        let modified = file.metadata()?.modified()?;
        let mut first = Vec::new();
        io::Read::take(BufReader::new(file), 64).read_until(b'\n', &mut first)?;
        Ok(humantime::parse_rfc3339(Line::read(&first).time).unwrap_or(modified))
    };
    place.and_then(|path| first(path).ok()).unwrap_or_else(SystemTime::now)
}

fn ends_line(path: &Path) -> bool {
    let last = || -> io::Result<bool> {
        let file = File::open(path)?;
        let mut byte = [0];
        let end = file.metadata()?.size().saturating_sub(1);
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, end)?;
        Ok(byte == *b"\n")
    };
    last().unwrap_or(true)
}

/// By its path: whom it complains to has nothing to show.
impl std::fmt::Debug for LogFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFile").field("path", &self.settings.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
