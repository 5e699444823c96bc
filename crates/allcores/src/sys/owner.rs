//! Making the file of a Unix socket as somebody else would.
//!
//! Sources: unix(7), umask(2), setfsuid(2), credentials(7). The umask belongs to all threads of a process, and what would
//! give one of them its own (`unshare`) is refused in containers. So it is done in a child of ours, for a moment.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use socket2::SockAddr;

use super::vfork;
use crate::proc::Owner;

/// The two names that a file is to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    /// The path that the socket is bound to.
    pub(crate) path: &'a CStr,
    /// A second one, which it takes from whatever has it.
    pub(crate) spare: &'a CStr,
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Step {
    None,
    /// Becoming its owner.
    Owner,
    Bind,
    /// Giving it its second name: it was removed before. Where it can't have one, that is no failure.
    Spare,
}

/// A socket has no file, or none that has its second name.
#[derive(Debug)]
pub(crate) struct BindError {
    pub(crate) step: Step,
    pub(crate) source: io::Error,
}

/// What we and the child share while we wait for it.
struct Shared<'a> {
    socket: RawFd,
    address: &'a SockAddr,
    names: Names<'a>,
    who: Option<&'a Owner>,
    /// Only who may change them is asked to.
    sets_groups: bool,
    step: Step,
    errno: i32,
}

/// Binds `socket` to `address`, which names a path, and gives the file a second name, as if `who` did: what it may do with
/// files, whose those are that it makes, and with which permissions. As we do, if `None`.
///
/// # Errors
///
/// At [`Step::Owner`] `EPERM` if we may not act as `who`, or what the kernel says to the attempt to make a child.
pub(crate) fn bind_as(
    who: Option<&Owner>,
    socket: BorrowedFd<'_>,
    address: &SockAddr,
    names: Names<'_>,
) -> Result<(), BindError> {
    let failed = |source| BindError { step: Step::Owner, source };
    let groups = rustix::process::getgroups().map_err(|error| failed(error.into()))?;
    let mut shared = Shared {
        socket: socket.as_raw_fd(),
        address,
        names,
        who,
        sets_groups: who
            .is_some_and(|who| !groups.iter().map(|group| group.as_raw()).eq(who.groups.iter().copied())),
        step: Step::Owner,
        errno: libc::EIO,
    };
    let (_, pidfd) = vfork::clone_into(child, &mut shared).map_err(failed)?;
    vfork::bury(&pidfd);
    match shared.step {
        Step::None => Ok(()),
        step => Err(BindError { step, source: io::Error::from_raw_os_error(shared.errno) }),
    }
}

/// The child's whole life.
extern "C" fn child(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `bind_as` passes a `Shared` that nobody else touches until this process exits.
    let shared = unsafe { &mut *argument.cast::<Shared<'_>>() };
    (shared.step, shared.errno) = bind_and_name(shared).err().unwrap_or((Step::None, 0));
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

fn bind_and_name(shared: &Shared<'_>) -> Result<(), (Step, i32)> {
    if let Some(who) = shared.who {
        become_owner(who, shared.sets_groups).map_err(|errno| (Step::Owner, errno))?;
    }
    let Names { path, spare } = shared.names;
    // SAFETY: the address is a whole value of the parent's, which waits, and is only read. The descriptor is this process's copy
    // of one that the parent has open.
    let bound =
        check(unsafe { libc::bind(shared.socket, shared.address.as_ptr().cast(), shared.address.len()) });
    bound.map_err(|errno| (Step::Bind, errno))?;
    // SAFETY: both names are whole strings of the parent's, which waits, and are only read.
    let named = check(unsafe {
        libc::unlink(spare.as_ptr());
        libc::link(path.as_ptr(), spare.as_ptr())
    });
    match named {
        Err(libc::ENOENT) => Err((Step::Spare, libc::ENOENT)),
        _ => Ok(()),
    }
}

/// Changes this process for good.
fn become_owner(who: &Owner, sets_groups: bool) -> Result<(), i32> {
    // SAFETY: it can't fail, and the mask is this process's.
    unsafe { libc::umask(who.umask) };
    if sets_groups {
        // SAFETY: the pointer and the length name one slice of numbers of the kernel's type, which is only read. The
        // system call itself, as the C library's function would have all threads of the parent change.
        let result = unsafe { libc::syscall(libc::SYS_setgroups, who.groups.len(), who.groups.as_ptr()) };
        check(libc::c_int::try_from(result).unwrap_or(-1))?;
    }
    // SAFETY: these take a number each, and change nothing but this process's credentials. They return what was before,
    // whether or not it was changed, so a second call that changes nothing says what came of the first.
    let (group, user) = unsafe {
        libc::setfsgid(who.group);
        libc::setfsuid(who.user);
        (libc::setfsgid(u32::MAX), libc::setfsuid(u32::MAX))
    };
    let is_who = (group.cast_unsigned(), user.cast_unsigned()) == (who.group, who.user);
    if is_who { Ok(()) } else { Err(libc::EPERM) }
}

fn check(result: libc::c_int) -> Result<(), i32> {
    // SAFETY: errno's location is always valid.
    if result == 0 { Ok(()) } else { Err(unsafe { *libc::__errno_location() }) }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::path::Path;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn own() -> Owner {
        Owner::of(std::process::id()).unwrap()
    }

    /// Makes a file in `folder`, as `who`.
    fn make(who: &Owner, path: &Path) -> Result<fs::Metadata, (Step, Option<i32>)> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let spare = path.with_extension("spare");
        let [path_c, spare_c] = [path, &spare].map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
        let names = Names { path: &path_c, spare: &spare_c };
        let bound = bind_as(Some(who), socket.as_fd(), &SockAddr::unix(path).unwrap(), names);
        bound.map_err(|error| (error.step, error.source.raw_os_error()))?;
        assert_eq!(fs::metadata(&spare).unwrap().ino(), fs::metadata(path).unwrap().ino());
        Ok(fs::metadata(path).unwrap())
    }

    #[test]
    fn files_have_the_permissions_that_its_mask_leaves_and_ours_stays() {
        let before = own();
        let folder = tempfile::tempdir().unwrap();
        for umask in [0o000, 0o027, 0o077] {
            let made = make(&Owner { umask, ..own() }, &folder.path().join(format!("{umask:o}"))).unwrap();
            assert_eq!(made.mode() & 0o777, 0o777 & !umask, "{umask:o}");
        }
        assert_eq!(own(), before);
    }

    #[test]
    fn files_belong_to_whom_it_acts_for_and_what_is_forbidden_to_it_is_to_us() {
        let before = own();
        let folder = tempfile::tempdir().unwrap();
        if before.user != 0 {
            let who = Owner { user: 1, ..own() };
            assert_eq!(make(&who, &folder.path().join("new")).unwrap_err(), (Step::Owner, Some(libc::EPERM)));
            return;
        }
        let (theirs, ours) = (folder.path().join("theirs"), folder.path().join("ours"));
        fs::create_dir(&ours).unwrap();
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(4321), Some(8765)).unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let who = Owner { user: 4321, group: 8765, groups: vec![8765], ..own() };
        assert_eq!(make(&who, &ours.join("new")).unwrap_err(), (Step::Bind, Some(libc::EACCES)));
        let made = make(&who, &theirs.join("new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (4321, 8765));
        assert_eq!(own(), before);
    }
}
