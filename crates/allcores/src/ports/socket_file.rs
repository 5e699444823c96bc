//! The file of a Unix socket, which outlives what programs do to it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lane::{self, Unavailable};
use crate::address::Address;
use crate::proc::Owner;
use crate::sys::owner::{self, Names, Step};
use crate::sys::spawn;

/// How often a file may be removed in the moment between its making and its second name's.
const TRIES: u32 = 100;

/// A socket's file, and a second name for it in the same folder.
///
/// Programs unlink a socket's path before they bind it; the second worker to do so would cut off all others. From
/// the second name the file can be put back.
#[derive(Debug, Default)]
pub(super) struct SocketFile {
    /// The path and the second name.
    names: Option<(PathBuf, PathBuf)>,
    /// Somebody else made it, and it stays when we go.
    is_anothers: bool,
}

/// Binds a socket to `address`, which is `path`. Its file belongs to `owner` as if that had bound it; ours, if `None`.
///
/// A program that unlinks the path before the file has its second name takes the file with it for ever, and the kernel
/// binds a socket only once: then there is another one.
pub(super) fn bind(
    address: &Address,
    path: &Path,
    owner: Option<&Owner>,
) -> Result<(OwnedFd, SocketFile), Unavailable> {
    let Some(spare) = second_name(path) else {
        return Err(Unavailable::because(libc::EADDRINUSE, "it names a folder"));
    };
    let (path_c, spare_c) = (c_string(path)?, c_string(&spare)?);
    let names = Names { path: &path_c, spare: &spare_c };
    for _ in 0..TRIES {
        let (socket, sockaddr) = lane::unbound(address)?;
        if let Some(who) = owner {
            // Theirs as if they had made it, so that they may change its mode, too. Only the privileged can give it away.
            let _ = std::os::unix::fs::fchown(&socket, Some(who.user), Some(who.group));
        }
        let Err(error) = owner::bind_as(owner, socket.as_fd(), &sockaddr, names) else {
            let names = Some((path.to_owned(), spare));
            return Ok((socket.into(), SocketFile { names, ..SocketFile::default() }));
        };
        match (error.step, owner) {
            (Step::Spare, _) => {}
            (Step::Owner, Some(who)) => {
                let text =
                    format!("making its file as user {} of group {}: {}", who.user, who.group, error.source);
                return Err(Unavailable::because(error.source.raw_os_error().unwrap_or(libc::EIO), &text));
            }
            _ => return Err(lane::explain(address, &error.source)),
        }
    }
    Err(Unavailable::because(libc::EADDRINUSE, "its file is removed again and again while it is made"))
}

fn c_string(path: &Path) -> io::Result<CString> {
    spawn::c_string(path.as_os_str().as_bytes().to_vec())
}

/// The second name of the file at `path`.
fn second_name(path: &Path) -> Option<PathBuf> {
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name()?);
    hidden.push(format!(".allcores-{}", std::process::id()));
    Some(path.with_file_name(hidden))
}

impl SocketFile {
    /// Takes care of a file that somebody else made.
    pub(super) fn of_another(path: &Path) -> Self {
        let Some(spare) = second_name(path) else { return Self::default() };
        let _ = fs::remove_file(&spare);
        let names = fs::hard_link(path, &spare).is_ok().then(|| (path.to_owned(), spare));
        Self { names, is_anothers: true }
    }

    /// That of a socket which was bound before, to go on with.
    pub(super) fn resume(names: Option<(PathBuf, PathBuf)>, is_anothers: bool) -> Self {
        Self { names, is_anothers }
    }

    /// Its path and its second name.
    pub(super) fn names(&self) -> Option<(&Path, &Path)> {
        self.names.as_ref().map(|(path, spare)| (path.as_path(), spare.as_path()))
    }

    /// Whether there is a file that should be there and is not.
    pub(super) fn is_removed(&self) -> bool {
        self.names.as_ref().is_some_and(|(path, _)| !path.exists())
    }

    /// Puts the file back where a worker has removed it.
    pub(super) fn restore(&self) {
        if let Some((path, spare)) = &self.names
            && !path.exists()
        {
            let _ = fs::hard_link(spare, path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_anothers {
            self.restore();
        }
        if let Some((path, spare)) = &self.names {
            let inode = |path| fs::symlink_metadata(path).map(|file| (file.dev(), file.ino())).ok();
            if !self.is_anothers && inode(spare).is_some_and(|ours| inode(path) == Some(ours)) {
                let _ = fs::remove_file(path);
            }
            let _ = fs::remove_file(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn bind_at(path: &Path, owner: Option<&Owner>) -> Result<(OwnedFd, SocketFile), Unavailable> {
        bind(&Address::Unix(path.as_os_str().as_encoded_bytes().to_vec()), path, owner)
    }

    #[test]
    fn a_file_that_is_removed_while_it_is_made_can_be_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        for _ in 0..100 {
            let is_over = AtomicBool::new(false);
            let (socket, file) = thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let _ = fs::remove_file(&path);
                        // Often enough to hit, and not so often that nobody could make a file there at all.
                        thread::sleep(Duration::from_micros(20));
                    }
                });
                let bound = bind_at(&path, None);
                is_over.store(true, Ordering::Relaxed);
                bound.unwrap()
            });
            socket2::SockRef::from(&socket).listen(1).unwrap();
            file.restore();
            UnixStream::connect(&path).unwrap();
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "files are left");
    }

    #[test]
    fn a_file_that_is_there_already_is_in_the_way_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        fs::write(&path, "mine").unwrap();
        let why = bind_at(&path, None).unwrap_err();
        assert_eq!(why.errno, libc::EADDRINUSE);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn its_permissions_are_what_its_owner_would_have_given() {
        let folder = tempfile::tempdir().unwrap();
        let own = Owner::of(std::process::id()).unwrap();
        for umask in [0o000, 0o077] {
            let path = folder.path().join(format!("{umask:o}"));
            let (_socket, _file) = bind_at(&path, Some(&Owner { umask, ..own.clone() })).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777 & !umask);
        }
    }

    #[test]
    fn its_socket_is_its_owners_too() {
        let folder = tempfile::tempdir().unwrap();
        let own = Owner::of(std::process::id()).unwrap();
        let user = if own.user == 0 { 4321 } else { own.user };
        std::os::unix::fs::chown(folder.path(), Some(user), None).unwrap();
        let (socket, _file) =
            bind_at(&folder.path().join("socket"), Some(&Owner { user, ..own.clone() })).unwrap();
        let made = rustix::fs::fstat(&socket).unwrap();
        assert_eq!((made.st_uid, made.st_gid), (user, own.group));
    }
}
