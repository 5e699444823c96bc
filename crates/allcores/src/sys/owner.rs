//! Making files as somebody else would.

use std::io;
use std::thread;

use crate::proc::Owner;

/// Does `work` as if `who` did: what it may do with files, whose those are that it makes, and with which permissions.
///
/// All of that is each thread's own, so where `who` differs from us it is done by a thread that lives no longer.
///
/// # Errors
///
/// `EPERM` if we may not act as `who`; and where no thread can be had.
pub(crate) fn acting_as<T: Send>(who: &Owner, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    // SAFETY: it has no argument and can't fail.
    let own = unsafe { libc::gettid() };
    let own = Owner::of(own.unsigned_abs())?;
    if own == *who {
        return Ok(work());
    }
    thread::scope(|scope| {
        let worker =
            thread::Builder::new().spawn_scoped(scope, || become_owner(&own, who).map(|()| work()))?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Changes this thread for good.
fn become_owner(own: &Owner, who: &Owner) -> io::Result<()> {
    let check = |result: libc::c_long| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: from here on this thread has a umask of its own; no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_FS) }.into())?;
    // SAFETY: it can't fail, and the mask is this thread's.
    unsafe { libc::umask(who.umask) };
    if own.groups != who.groups {
        // SAFETY: the pointer and the length name one slice of numbers of the kernel's type, which is only read. The
        // system call itself, as the C library's function would change all threads.
        check(unsafe { libc::syscall(libc::SYS_setgroups, who.groups.len(), who.groups.as_ptr()) })?;
    }
    // SAFETY: these take a number each, and change nothing but this thread's credentials. They return what was before,
    // whether or not it was changed, so a second call that changes nothing says what came of the first.
    let (group, user) = unsafe {
        libc::setfsgid(who.group);
        libc::setfsuid(who.user);
        (libc::setfsgid(u32::MAX), libc::setfsuid(u32::MAX))
    };
    let is_who = (group.cast_unsigned(), user.cast_unsigned()) == (who.group, who.user);
    if is_who { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn own() -> Owner {
        Owner::of(std::process::id()).unwrap()
    }

    #[test]
    fn files_have_the_permissions_that_its_mask_leaves_and_ours_stays() {
        let before = own();
        let folder = tempfile::tempdir().unwrap();
        for umask in [0o000, 0o027, 0o077] {
            let path = folder.path().join(format!("{umask:o}"));
            let who = Owner { umask, ..own() };
            let made = acting_as(&who, || fs::write(&path, "")).unwrap();
            made.unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666 & !umask, "{umask:o}");
        }
        assert_eq!(own(), before);
    }

    #[test]
    fn files_belong_to_whom_it_acts_for_and_what_is_forbidden_to_it_is_to_us() {
        let before = own();
        if before.user != 0 {
            let who = Owner { user: 1, ..own() };
            assert_eq!(acting_as(&who, || ()).unwrap_err().raw_os_error(), Some(libc::EPERM));
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (theirs, ours) = (folder.path().join("theirs"), folder.path().join("ours"));
        fs::create_dir(&ours).unwrap();
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(4321), Some(8765)).unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let who = Owner { user: 4321, group: 8765, groups: vec![8765], ..own() };
        let results =
            acting_as(&who, || (fs::write(theirs.join("new"), ""), fs::write(ours.join("new"), ""))).unwrap();
        assert_eq!(results.1.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        results.0.unwrap();
        let made = fs::metadata(theirs.join("new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (4321, 8765));
        assert_eq!(own(), before);
    }
}
