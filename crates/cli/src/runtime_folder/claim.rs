//! The right to an app's name: a lock (flock(2)) on a file in the app's folder, held as long as the primary lives.
//!
//! The kernel lets go of it when the process ends, however it ends, so a lock can't be stale. The file itself is
//! removed on a clean exit; whoever opened it before that sees so by its inode and begins anew.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{process, thread};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock, fstat, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::geteuid;

use super::make_private_folder;

/// The file that is locked, in an app's folder.
const LOCK: &str = "lock";

/// What has the lock's name may be somebody's link, or a pipe, at which nobody would come by who waits for its other end.
const UNHELD: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Each try fails only if somebody else moved at the same moment.
const TRIES: u32 = 1000;

/// Why a name was not had.
#[derive(Debug)]
pub(super) enum ClaimError {
    /// A living process has it.
    Held {
        /// Which; `None` if it has not said so yet.
        pid: Option<u32>,
    },
    /// The folder is somebody else's, who could have us lock, write and remove what they like by it.
    Foreign {
        /// Who.
        owner: u32,
    },
    /// The folder or the file could not be used.
    Io(io::Error),
}

/// What a look at an app's folder tells.
pub(super) enum Look {
    /// Nobody has the name.
    Free,
    /// A living process has it.
    Held {
        /// The file that it has locked; `None` if somebody has removed it.
        lock: Option<File>,
    },
    /// Who had it last was killed.
    Left {
        /// As of [`Claim::mark`].
        mark: String,
    },
}

impl From<io::Error> for ClaimError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A claimed name. Dropping it lets go of the lock, and removes the files as [`Claim::clear`] does, where no primary that has
/// left anything has had it.
#[derive(Debug)]
pub(crate) struct Claim {
    folder: PathBuf,
    socket: PathBuf,
    /// The primary before had no time to clear up.
    is_left: bool,
    /// A program before this one has run workers under it.
    is_old: bool,
    /// Open for as long as the claim lasts: the lock hangs from it.
    lock: File,
}

impl Claim {
    /// Makes the app's folder and locks it.
    pub(super) fn new(folder: &Path, socket: &Path) -> Result<Self, ClaimError> {
        for _ in 0..TRIES {
            make_private_folder(folder)?;
            let mut lock = match open_private(folder).and_then(|folder| Ok(open_lock(&folder)?)) {
                // The former primary removed its folder in between.
                Err(ClaimError::Io(error)) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock?,
            };
            if !lock_exclusively(&lock)? {
                return Err(ClaimError::Held { pid: holder(folder) });
            }
            if !is_still_there(&lock, &lock_file(folder)) {
                continue;
            }
            let is_left = lock.metadata()?.len() > 0;
            if is_listened_to(socket) {
                // Its lock is another file, which somebody has removed.
                if !is_left {
                    fs::remove_file(lock_file(folder))?;
                }
                return Err(ClaimError::Held { pid: None });
            }
            // It is never empty on the way: then nobody would look for what a killed primary has left.
            let own = process::id().to_string();
            lock.write_all(own.as_bytes())?;
            lock.set_len(own.len() as u64)?;
            let (folder, socket) = (folder.to_path_buf(), socket.to_path_buf());
            return Ok(Self { folder, socket, is_left, is_old: false, lock });
        }
        Err(ClaimError::Io(io::Error::other("others kept removing it")))
    }

    /// Goes on with a claim of this process's, by its lock. Where somebody has removed the folder, nothing is better for the
    /// app's end.
    pub(super) fn again(folder: &Path, socket: &Path, lock: File) -> io::Result<Self> {
        // Who has a lock gets it again.
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let (folder, socket) = (folder.to_path_buf(), socket.to_path_buf());
        Ok(Self { folder, socket, is_left: false, is_old: true, lock })
    }

    /// What the lock hangs from.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Whether a primary has had the name and did not clear up: it was killed.
    pub(crate) fn is_left(&self) -> bool {
        self.is_left
    }

    /// What nothing of any other app's can have: the file that is locked. As long as it is there, it is the same for all
    /// primaries that have the name one after the other.
    pub(crate) fn mark(&self) -> io::Result<String> {
        mark_of(&self.lock)
    }

    /// Removes the app's files, as the last act of a primary. The lock stays until the claim is dropped or the
    /// process ends, so whoever waits for it sees the end of the process.
    pub(crate) fn clear(&self) {
        // Somebody removed them before; what is there now is another primary's.
        if !is_still_there(&self.lock, &lock_file(&self.folder)) {
            return;
        }
        // Nothing is lost where one of these fails: the next primary takes over what it finds.
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(lock_file(&self.folder));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// An app that could not be begun leaves nothing, from which the next primary would take it for killed. What a primary that
/// was killed has left, and what workers may leave that were not waited for, is still to be found by the next.
impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_left && !self.is_old && !thread::panicking() {
            self.clear();
        }
    }
}

/// Names the lock file in an app's folder.
pub(super) fn lock_file(folder: &Path) -> PathBuf {
    folder.join(LOCK)
}

/// Reads which process holds, or last held, the lock of an app's folder.
pub(super) fn holder(folder: &Path) -> Option<u32> {
    io::read_to_string(open_to_look(folder).ok()??).ok()?.trim().parse().ok()
}

/// Looks who holds the lock of an app's folder. Where there is none, somebody may have removed it, as what cleans up /tmp
/// does; whoever answers on the socket is there all the same.
pub(super) fn look(folder: &Path, socket: &Path) -> Look {
    let lock = match open_to_look(folder) {
        Ok(Some(lock)) => lock,
        Ok(None) if is_listened_to(socket) => return Look::Held { lock: None },
        _ => return Look::Free,
    };
    // Held for a moment, as by who waits for it.
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => return Look::Held { lock: Some(lock) },
        Err(_) => return Look::Free,
        Ok(()) => {}
    }
    let has_holder = lock.metadata().is_ok_and(|metadata| metadata.len() > 0);
    match mark_of(&lock) {
        Ok(mark) if has_holder && is_still_there(&lock, &lock_file(folder)) => Look::Left { mark },
        _ => Look::Free,
    }
}

/// Whether a living process listens on a socket, busy as it may be. It is said nothing.
fn is_listened_to(socket: &Path) -> bool {
    let connect = || -> rustix::io::Result<()> {
        let address = SocketAddrUnix::new(socket)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&stream, &address)
    };
    matches!(connect(), Ok(()) | Err(Errno::AGAIN))
}

fn mark_of(lock: &File) -> io::Result<String> {
    let metadata = lock.metadata()?;
    Ok(format!("{}-{}", metadata.dev(), metadata.ino()))
}

/// Blocks until no primary holds the lock of this file. Call it on a thread of its own.
pub(crate) fn wait_until_free(lock: &File) -> io::Result<()> {
    loop {
        match flock(lock, FlockOperation::LockShared) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Tells whether the lock was had. A reader's lock, held for a moment by [`wait_until_free`], counts as free.
fn lock_exclusively(lock: &File) -> io::Result<bool> {
    for _ in 0..TRIES {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        match flock(lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => flock(lock, FlockOperation::Unlock)?,
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        thread::yield_now();
    }
    Ok(false)
}

/// Opens an app's folder, and no link to one. The folder above is ours, so this can only be of our own making, though perhaps
/// with a wider mode; unless it is root who looks into somebody else's.
fn open_private(folder: &Path) -> Result<OwnedFd, ClaimError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty()).map_err(io::Error::from)?;
    let found = fstat(&opened).map_err(io::Error::from)?;
    if found.st_uid != geteuid().as_raw() {
        return Err(ClaimError::Foreign { owner: found.st_uid });
    }
    if found.st_mode & 0o777 != 0o700 {
        fchmod(&opened, Mode::RWXU).map_err(io::Error::from)?;
    }
    Ok(opened)
}

/// Opens the lock in it.
fn open_lock(folder: &OwnedFd) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | UNHELD;
    let lock = File::from(openat(folder, LOCK, flags, Mode::RUSR | Mode::WUSR)?);
    if lock.metadata()?.is_file() {
        return Ok(lock);
    }
    Err(io::Error::other(format!("its file `{LOCK}` is no regular file, and can't be locked: remove it")))
}

/// Opens the lock in an app's folder as it is; `None` if there is none, or what has its name can be none.
fn open_to_look(folder: &Path) -> io::Result<Option<File>> {
    let lock = match rustix::fs::open(lock_file(folder), OFlags::RDONLY | UNHELD, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        lock => File::from(lock?),
    };
    Ok(lock.metadata()?.is_file().then_some(lock))
}

fn is_still_there(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
