//! Which file has a name: who removes a socket's file has known it for long, and it may be another's by then.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// What a file is known by, whatever it is called: its device and inode. The inode may be another file's once nothing holds it.
pub(crate) fn identity(folder: impl AsFd, path: impl AsRef<Path>) -> Option<(u64, u64)> {
    let file = rustix::fs::statat(folder, path.as_ref(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some((file.st_dev, file.st_ino))
}

/// The folder that a file is in, whatever becomes of the path to it meanwhile.
pub(crate) fn folder_of(path: &Path) -> io::Result<OwnedFd> {
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, folder, flags, Mode::empty())?)
}
