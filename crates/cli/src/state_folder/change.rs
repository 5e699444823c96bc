//! Changes of what is kept: by one process, and one thread of it, at a time, and each file as a whole.
//!
//! Who changes something holds a lock (flock(2)) on a file of the folder, so that what it has read there is still so when it
//! writes. The kernel lets go of it should the process be killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;

use super::{Record, SavedList, StateFolder, unusable};
use crate::failure::Failure;
use crate::settings::AppName;

/// A change under way: the right to write.
pub(crate) struct Change<'a> {
    folder: &'a StateFolder,
    /// Open for as long as it lasts: the lock hangs from it.
    _lock: File,
}

impl StateFolder {
    /// Changes what is kept, while nobody else does. Waits for whoever does by now: nobody takes long.
    ///
    /// # Errors
    ///
    /// The folder can't be used, or what `change` ends with.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&Change<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.prepare()?;
        let path = self.path.join(".lock");
        let lock = lock(&path).with_context(|| format!("lock {}", path.display())).map_err(unusable)?;
        change(&Change { folder: self, _lock: lock })
    }
}

impl Change<'_> {
    /// Keeps in mind how an app was started. Only who has claimed its name knows that. What is known already is not written
    /// again: an app comes back as it was on a full disk, too.
    pub(crate) fn keep(&self, record: &Record) -> Result<(), Failure> {
        if self.folder.record(record.name()).is_ok_and(|before| before.as_ref() == Some(record)) {
            return Ok(());
        }
        write(&self.folder.record_file(record.name()), record)
    }

    /// Forgets an app; says whether it was known.
    pub(crate) fn forget(&self, name: &AppName) -> Result<bool, Failure> {
        let path = self.folder.record_file(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(unusable(anyhow::Error::new(error).context(format!("remove {}", path.display()))))
            }
        }
    }

    /// Saves a list. The one before it stays beside it.
    pub(crate) fn save(&self, list: &SavedList) -> Result<PathBuf, Failure> {
        let path = self.folder.saved_file();
        let save = || -> anyhow::Result<()> {
            // Where there is no room for both, both stay as they are.
            let draft = Draft::new(&path, &text(list)?)?;
            match fs::read(&path) {
                Ok(before) => Draft::new(&path.with_extension("json.before"), &before)?.put()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("read the list that was saved before"),
            }
            Ok(draft.put()?)
        };
        save().with_context(|| format!("write {}", path.display())).map_err(unusable)?;
        Ok(path)
    }

    /// Takes an app out of the saved list; says whether it was in it.
    pub(crate) fn unsave(&self, name: &AppName) -> Result<bool, Failure> {
        let Some(mut list) = self.folder.saved()? else { return Ok(false) };
        let count = list.apps.len();
        list.apps.retain(|app| app.record.name() != name);
        let was_saved = list.apps.len() < count;
        if was_saved {
            write(&self.folder.saved_file(), &list)?;
        }
        Ok(was_saved)
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    loop {
        match flock(&lock, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            result => return result.map(|()| lock).map_err(io::Error::from),
        }
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let written = || -> anyhow::Result<()> { Ok(Draft::new(path, &text(value)?)?.put()?) };
    written().with_context(|| format!("write {}", path.display())).map_err(unusable)
}

fn text(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// What a file is to be, whole and on the disk, beside it. Gone unless it is put in its place.
struct Draft<'a> {
    path: PathBuf,
    of: &'a Path,
}

impl<'a> Draft<'a> {
    /// Writes it, for its owner only.
    fn new(of: &'a Path, bytes: &[u8]) -> io::Result<Self> {
        // There is one at a time, under the lock: what a process has left that was killed is written over.
        let mut path = of.as_os_str().to_owned();
        path.push(".new");
        let draft = Self { path: path.into(), of };
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft.path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(draft)
    }

    fn put(self) -> io::Result<()> {
        fs::rename(&self.path, self.of)?;
        // That it has this name by now is to be on the disk, too; not every file system can say so.
        if let Some(folder) = self.of.parent().and_then(|folder| File::open(folder).ok()) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // Where it was put in its place, there is none.
        let _ = fs::remove_file(&self.path);
    }
}
