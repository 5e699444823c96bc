//! Logs that were put aside: their names, which are kept, and packing them.
//!
//! `web.log` becomes `web.log.20260102T030405678Z`, the time being when it was put aside, and then `….gz`. Packing is done by a
//! thread of the lowest priority, so that neither the app nor its log waits for it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use allcores::primary::spawn_deaf;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::view;
use crate::whole::real;

/// What a packed file ends with.
const PACKED: &str = ".gz";

/// What one ends with that is being packed.
const DRAFT: &str = ".gz.part";

/// A log that was put aside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Aside {
    /// When, as it stands in the name; sorts by time.
    pub(super) stamp: String,
    pub(super) path: PathBuf,
    pub(super) is_packed: bool,
}

impl Aside {
    /// Opens it, to read what stood in the log; `None` if it was too old to be kept.
    pub(super) fn open(&self) -> io::Result<Option<Box<dyn Read>>> {
        match File::open(&self.path) {
            // It may have been packed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_packed => {
                Self { path: packed(&self.path), is_packed: true, ..self.clone() }.open()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file if self.is_packed => Ok(Some(Box::new(MultiGzDecoder::new(file?)))),
            file => Ok(Some(Box::new(file?))),
        }
    }

    /// Where it is once it has been packed.
    pub(super) fn packed(&self) -> PathBuf {
        if self.is_packed { self.path.clone() } else { packed(&self.path) }
    }

    pub(super) fn into_path(self) -> PathBuf {
        self.path
    }
}

/// Whether there is something that is no file to be read and put aside: a device, a pipe.
pub(crate) fn is_odd(log: &Path) -> bool {
    fs::symlink_metadata(real(log)).is_ok_and(|metadata| !metadata.is_file())
}

/// Finds what was put aside of a log, the oldest first.
pub(crate) fn asides(log: &Path) -> Vec<Aside> {
    let mut found: Vec<Aside> = beside(log)
        .into_iter()
        .filter_map(|(rest, path)| {
            let (stamp, is_packed) = rest.strip_suffix(PACKED).map_or((&*rest, false), |stamp| (stamp, true));
            is_stamp(stamp).then(|| Aside { stamp: stamp.to_owned(), path, is_packed })
        })
        .collect();
    found.sort();
    // Both are there for a moment, when it has just been packed.
    found.dedup_by(|packed, plain| packed.stamp == plain.stamp);
    found
}

/// The name of the log that a file of this name is, or was put aside of.
pub(crate) fn log_of(file: &str) -> &str {
    match file.strip_suffix(PACKED).unwrap_or(file).rsplit_once('.') {
        Some((log, stamp)) if is_stamp(stamp) => log,
        _ => file,
    }
}

/// Finds what a packer had begun when its process ended. Nobody goes on with it: what it was made of is packed anew.
pub(super) fn drafts(log: &Path) -> Vec<PathBuf> {
    let is_draft = |rest: &str| rest.strip_suffix(DRAFT).is_some_and(is_stamp);
    beside(log).into_iter().filter(|(rest, _)| is_draft(rest)).map(|(_, path)| path).collect()
}

/// The files beside a log whose names begin with its own and a dot, with the rest of their names.
fn beside(log: &Path) -> Vec<(String, PathBuf)> {
    let log = real(log);
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else { return Vec::new() };
    let name = name.to_string_lossy();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let rest = file.strip_prefix(&*name)?.strip_prefix('.')?;
            Some((rest.to_owned(), entry.path()))
        })
        .collect()
}

/// `20260102T030405678Z`
fn stamp(time: SystemTime) -> String {
    view::time(time).chars().filter(|char| !matches!(char, '-' | ':' | '.')).collect()
}

fn is_stamp(text: &str) -> bool {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    text.len() == 19
        && text.is_char_boundary(8)
        && is_digits(&text[..8])
        && text.get(8..9) == Some("T")
        && text.get(9..18).is_some_and(is_digits)
        && text.ends_with('Z')
}

/// The name for a log that is put aside now.
pub(super) fn name_for(log: &Path, now: SystemTime) -> PathBuf {
    let of = |time| with_suffix(log, &format!(".{}", stamp(time)));
    // Two in one millisecond come one after the other.
    let times = (0..1000).map(|millis| now + Duration::from_millis(millis));
    times.map(of).find(|path| !path.exists() && !packed(path).exists()).unwrap_or_else(|| of(now))
}

/// What a file is called when it is packed.
fn packed(path: &Path) -> PathBuf {
    with_suffix(path, PACKED)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Removes all but the newest so many. What can't be removed stays, and is tried again the next time.
pub(super) fn retain(log: &Path, keep: usize) {
    let found = asides(log);
    for old in &found[..found.len().saturating_sub(keep)] {
        let _ = fs::remove_file(&old.path);
    }
}

/// Packs files, one after another, for as long as it is there.
#[derive(Debug)]
pub(super) struct Packer {
    files: mpsc::Sender<PathBuf>,
}

impl Packer {
    /// Starts the thread, and has it begin with what was left of an earlier run. `complain` is told what can't be packed.
    pub(super) fn start(log: &Path, complain: impl Fn(&str) + Send + 'static) -> io::Result<Self> {
        let (files, packed) = mpsc::channel::<PathBuf>();
        let left: Vec<PathBuf> =
            asides(log).into_iter().filter(|aside| !aside.is_packed).map(|aside| aside.path).collect();
        spawn_deaf("pack", move || {
            // On Linux it is this thread's alone. Where it can't be had, packing is as urgent as the rest.
            let _ = rustix::process::nice(19);
            for path in left.into_iter().chain(packed) {
                if let Err(error) = pack(&path) {
                    complain(&format!("the log {} can't be packed: {error}", path.display()));
                }
            }
        })?;
        Ok(Self { files })
    }

    pub(super) fn pack(&self, path: PathBuf) {
        let _ = self.files.send(path);
    }
}

/// Packs a file; the packed one takes its place when it is whole.
pub(super) fn pack(path: &Path) -> io::Result<()> {
    let mut from = match File::open(path) {
        // It was too old to be kept.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        from => from?,
    };
    let draft = with_suffix(path, DRAFT);
    let mut write = || -> io::Result<()> {
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let mut encoder = GzEncoder::new(io::BufWriter::new(to), Compression::default());
        io::copy(&mut from, &mut encoder)?;
        let written = encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        written.sync_all()?;
        fs::rename(&draft, packed(path))
    };
    write().inspect_err(|_| drop(fs::remove_file(&draft)))?;
    match fs::remove_file(path) {
        // It became too old to be kept meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::{MultiGzDecoder, asides, drafts, log_of, name_for, pack, retain};

    fn then() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_678)
    }

    fn names(log: &Path) -> Vec<String> {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        asides(log).iter().map(|aside| name(&aside.path)).collect()
    }

    #[test]
    fn names_tell_when_and_never_collide() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        for file in [
            "web.log",
            "web.log.1",
            "web.log.x.log",
            "web.log.20260102T030405Z",
            "api.log.20260102T030405678Z",
        ] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        assert!(names(&log).is_empty());
        for expected in ["web.log.20260102T030405678Z", "web.log.20260102T030405679Z"] {
            let name = name_for(&log, then());
            assert_eq!(name, folder.path().join(expected));
            fs::write(name, "").unwrap();
        }
        assert_eq!(names(&log), ["web.log.20260102T030405678Z", "web.log.20260102T030405679Z"]);
    }

    #[test]
    fn a_file_that_was_put_aside_names_its_log() {
        for file in ["web.log", "web.log.20260102T030405678Z", "web.log.20260102T030405678Z.gz"] {
            assert_eq!(log_of(file), "web.log");
        }
        for file in ["web.log.gz", "web.log.1", "web.log.20260102T030405678Z.gz.part", ""] {
            assert_eq!(log_of(file), file);
        }
    }

    #[test]
    fn a_packed_file_takes_the_place_of_the_plain_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let path = name_for(&log, then());
        let text = "a line\n".repeat(10_000);
        fs::write(&path, &text).unwrap();
        pack(&path).unwrap();
        assert_eq!(names(&log), ["web.log.20260102T030405678Z.gz"]);
        let mut read = String::new();
        let file = fs::File::open(&asides(&log)[0].path).unwrap();
        MultiGzDecoder::new(file).read_to_string(&mut read).unwrap();
        assert!(read == text);
        // For a moment both are there.
        fs::write(&path, &text).unwrap();
        assert_eq!(names(&log), ["web.log.20260102T030405678Z"]);
    }

    #[test]
    fn what_is_half_packed_is_a_draft_and_nothing_that_was_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let draft = folder.path().join("web.log.20260102T030405678Z.gz.part");
        for file in [&draft, &folder.path().join("web.log.gz.part"), &folder.path().join("api.log.x.gz.part")]
        {
            fs::write(file, "").unwrap();
        }
        assert!(names(&log).is_empty());
        assert_eq!(drafts(&log), [draft]);
    }

    #[test]
    fn the_oldest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        for second in 0..5 {
            fs::write(name_for(&log, then() + Duration::from_secs(second)), "").unwrap();
        }
        retain(&log, 2);
        assert_eq!(names(&log), ["web.log.20260102T030408678Z", "web.log.20260102T030409678Z"]);
        retain(&log, 0);
        assert!(names(&log).is_empty());
    }
}
