//! The file of a Unix socket, which outlives what programs do to it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use allcores_core::worker::WorkerId;
use rustix::fs::{AtFlags, CWD};

use super::lane::{self, Unavailable};
use crate::address::Address;
use crate::identity::{folder_of, identity};
use crate::proc::Owner;
use crate::sys::owner::{self, Names, Step};
use crate::sys::spawn;

/// How often a file may be removed in the moment between its making and its second name's.
const TRIES: u32 = 100;

/// How often a worker may be told in a row that it has removed the path. One that asks more often looks whether it is gone,
/// and would go on for ever.
const MOST_TOLD: u32 = 16;

/// How often we look after a file within [`A_WHILE`] when something is done to it. More is no start or end of many programs,
/// and must not keep us busy.
const MOST_TOUCHED: u32 = 1000;
const A_WHILE: Duration = Duration::from_secs(10);

/// A socket's file, and a second name for it in the same folder.
///
/// Programs unlink a socket's path before they bind it, and when they end; the second worker to do so would cut off all
/// others. Those that can be kept from it are, and are told that it is done; for others it is put back from the second
/// name.
#[derive(Debug, Default)]
pub(super) struct SocketFile {
    /// The path and the second name.
    names: Option<(PathBuf, PathBuf)>,
    /// Device and inode.
    identity: Option<(u64, u64)>,
    /// Somebody else made it, and it stays when we go.
    is_anothers: bool,
    /// Who believes to have removed it since it was bound the last time, and how often.
    told: BTreeMap<WorkerId, u32>,
    removed: Removed,
    /// How often something was done to it, and since when.
    touched: (u32, Option<Instant>),
}

/// Whether somebody has removed it since it was bound the last time, in his own eyes.
#[derive(Clone, Copy, Debug, Default)]
enum Removed {
    #[default]
    No,
    Since(Instant),
    /// And it was looked whether he listens there all the same.
    Examined,
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
            return Ok((socket.into(), SocketFile::named(path, Some((path.to_owned(), spare)), false)));
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
        let linked = Place::of(path, &spare).and_then(|place| {
            let _ = place.remove(place.spare);
            place.link(place.name, place.spare)
        });
        let names = linked.is_ok().then(|| (path.to_owned(), spare));
        Self::named(path, names, true)
    }

    /// That of a socket which was bound before to `path`, if it has one, to go on with. Who believes to have removed it is
    /// forgotten: programs bind it at once, or go.
    pub(super) fn resume(path: Option<&Path>, names: Option<(PathBuf, PathBuf)>, is_anothers: bool) -> Self {
        path.map(|path| Self::named(path, names, is_anothers)).unwrap_or_default()
    }

    fn named(path: &Path, names: Option<(PathBuf, PathBuf)>, is_anothers: bool) -> Self {
        // There may be no second name where a file can't have any.
        let spare = names.as_ref().and_then(|(_, spare)| identity(CWD, spare));
        let mut file = Self::default();
        (file.identity, file.names, file.is_anothers) =
            (spare.or_else(|| identity(CWD, path)), names, is_anothers);
        file
    }

    /// Its path and its second name.
    pub(super) fn names(&self) -> Option<(&Path, &Path)> {
        self.names.as_ref().map(|(path, spare)| (path.as_path(), spare.as_path()))
    }

    /// Whether it is the file with this device and inode.
    pub(super) fn is(&self, file: (u64, u64)) -> bool {
        self.identity == Some(file)
    }

    /// Whether it is to be there now, also while the app stops.
    pub(super) fn is_kept(&self, is_closing: bool) -> bool {
        self.is_anothers || !is_closing
    }

    /// Whether there is a file that should be there and is not, or is not in the eyes of somebody.
    pub(super) fn is_removed(&self) -> bool {
        self.was_removed() || self.names.as_ref().is_some_and(|(path, _)| !path.exists())
    }

    /// Whether somebody has removed it since it was bound the last time, in his own eyes.
    pub(super) fn was_removed(&self) -> bool {
        !matches!(self.removed, Removed::No)
    }

    /// Somebody binds it: it is there, and nobody has removed it since.
    pub(super) fn bind_again(&mut self) {
        self.told.clear();
        self.removed = Removed::No;
        let _ = self.link();
    }

    /// Who may have removed it is gone.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.told.remove(&worker);
        if self.told.is_empty() {
            self.removed = Removed::No;
        }
    }

    /// A worker removes it. Says whether it is to believe that, and the file stays.
    pub(super) fn withhold_from(&mut self, worker: WorkerId) -> bool {
        let told = self.told.entry(worker).or_default();
        *told += 1;
        let is_withheld = *told <= MOST_TOLD;
        self.note_removed();
        is_withheld
    }

    fn note_removed(&mut self) {
        if !self.was_removed() {
            self.removed = Removed::Since(Instant::now());
        }
    }

    /// Whether it was removed before `then`, and nobody has asked since.
    pub(super) fn take_removed(&mut self, then: Option<Instant>) -> bool {
        let is_due = matches!(self.removed, Removed::Since(since) if then.is_some_and(|then| since <= then));
        if is_due {
            self.removed = Removed::Examined;
        }
        is_due
    }

    /// Something was done to the file: puts it back where that was its removal, which somebody is to believe in. Says whether it
    /// can go on like this.
    pub(super) fn put_back(&mut self) -> bool {
        self.maintain();
        let now = Instant::now();
        let (count, since) = &mut self.touched;
        if since.is_none_or(|since| now.duration_since(since) > A_WHILE) {
            (*count, *since) = (0, Some(now));
        }
        *count += 1;
        *count < MOST_TOUCHED
    }

    /// Puts the file back where nobody told that it was removed: where it is not watched, or something else had its name then.
    pub(super) fn maintain(&mut self) {
        if self.link().is_ok() {
            self.note_removed();
        }
    }

    /// Gives the file its name, unless something has that. Not by looking first: who removes it tells of it while its old name
    /// may still be found.
    pub(super) fn link(&self) -> io::Result<()> {
        let place = self.place()?;
        place.link(place.spare, place.name)
    }

    /// Takes both names away: from its own file alone, and from none that somebody else made.
    fn remove(&self) -> io::Result<()> {
        let place = self.place()?;
        let ours = identity(&place.folder, place.spare).ok_or_else(not_there)?;
        if !self.is_anothers && identity(&place.folder, place.name) == Some(ours) {
            place.remove(place.name)?;
        }
        place.remove(place.spare)
    }

    fn place(&self) -> io::Result<Place<'_>> {
        let (path, spare) = self.names().ok_or_else(not_there)?;
        Place::of(path, spare)
    }
}

/// The folder that has both names, whatever becomes of the path to it meanwhile: who may write to a folder above it could put
/// another in its place between two looks, and what we do as root would be done to somebody else's files.
struct Place<'a> {
    folder: OwnedFd,
    name: &'a OsStr,
    spare: &'a OsStr,
}

impl<'a> Place<'a> {
    fn of(path: &'a Path, spare: &'a Path) -> io::Result<Self> {
        let folder = folder_of(path)?;
        let name = path.file_name().ok_or_else(not_there)?;
        Ok(Self { folder, name, spare: spare.file_name().ok_or_else(not_there)? })
    }

    fn link(&self, old: &OsStr, new: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.folder, old, &self.folder, new, AtFlags::empty())?)
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?)
    }
}

fn not_there() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_anothers {
            let _ = self.link();
        }
        let _ = self.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
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
            let _ = file.link();
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
    fn its_names_go_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let names = || folder.path().read_dir().unwrap().count();
        let (_socket, file) = bind_at(&path, None).unwrap();
        assert_eq!(names(), 2);
        drop(file);
        assert_eq!(names(), 0);
        fs::write(&path, "somebody else's").unwrap();
        let file = SocketFile::of_another(&path);
        assert_eq!(names(), 2);
        fs::remove_file(&path).unwrap();
        drop(file);
        assert_eq!((names(), path.exists()), (1, true), "it has only its own name, as before");
    }

    #[test]
    fn nothing_is_removed_from_a_folder_that_takes_the_place_of_its_own() {
        let above = tempfile::tempdir().unwrap();
        let [own, link, others] = ["own", "link", "others"].map(|name| above.path().join(name));
        fs::create_dir(&own).unwrap();
        fs::create_dir(&others).unwrap();
        std::os::unix::fs::symlink(&others, &link).unwrap();
        fs::write(others.join("socket"), "somebody else's").unwrap();
        let exchange = || rustix::fs::renameat_with(CWD, &own, CWD, &link, rustix::fs::RenameFlags::EXCHANGE);
        if exchange().and_then(|()| exchange()).is_err() {
            allcores_testing::skip!("the file system can't exchange two names");
        }
        for _ in 0..1000 {
            let (_socket, file) = bind_at(&own.join("socket"), None).unwrap();
            let (has_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        exchange().unwrap();
                        has_begun.store(true, Ordering::Relaxed);
                        exchange().unwrap();
                    }
                });
                while !has_begun.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                drop(file);
                is_over.store(true, Ordering::Relaxed);
            });
            assert_eq!(fs::read_to_string(others.join("socket")).unwrap(), "somebody else's");
            // Where the path led elsewhere it has kept its names.
            own.read_dir().unwrap().for_each(|left| fs::remove_file(left.unwrap().path()).unwrap());
        }
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

    #[test]
    fn a_worker_that_looks_whether_it_is_gone_gets_its_way_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (_socket, mut file) = bind_at(&path, None).unwrap();
        let (one, other) = (WorkerId(1), WorkerId(2));
        assert!((0..MOST_TOLD).all(|_| file.withhold_from(one)));
        assert!(file.is_removed() && path.exists());
        assert!(!file.withhold_from(one));
        assert!(file.withhold_from(other), "it has its own count");
        file.bind_again();
        assert!(!file.is_removed() && file.withhold_from(one));
        file.forget(one);
        assert!(!file.is_removed());
    }

    #[test]
    fn it_is_put_back_at_once_unless_something_else_is_there_or_it_happens_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (socket, mut file) = bind_at(&path, None).unwrap();
        socket2::SockRef::from(&socket).listen(1).unwrap();
        assert!(file.put_back() && !file.was_removed(), "it is there");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(file.put_back() && !file.was_removed());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        file.maintain();
        assert!(path.exists(), "nobody tells that another file is removed");
        for _ in 3..MOST_TOUCHED {
            fs::remove_file(&path).unwrap();
            assert!(file.put_back() && file.was_removed());
        }
        UnixStream::connect(&path).unwrap();
        assert!(!file.put_back());
        fs::remove_file(&path).unwrap();
        file.maintain();
        assert!(path.exists());
    }

    #[test]
    fn who_has_removed_it_is_looked_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (_socket, mut file) = bind_at(&folder.path().join("socket"), None).unwrap();
        let now = || Some(Instant::now());
        assert!(!file.take_removed(now()));
        let before = now();
        file.withhold_from(WorkerId(1));
        assert!(!file.take_removed(before) && file.take_removed(now()) && !file.take_removed(now()));
        assert!(file.is_removed(), "it was not bound again");
    }
}
