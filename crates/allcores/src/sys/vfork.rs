//! A child that shares our memory, for the few system calls that only another process can make.
//!
//! `clone` as vfork and posix_spawn use it: the caller is suspended until the child executes a program or ends, so that
//! the cost does not grow with the caller's memory, and what they share is not touched by both. The child has a table of
//! descriptors of its own.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::{WaitId, WaitIdOptions, waitid};

/// Room for the child's few frames; it calls nothing deep.
const STACK: usize = 64 * 1024;

/// What the child runs. It makes raw system calls only, since our threads' locks could be held, and ends by `exec` or
/// `_exit`.
pub(super) type Child = extern "C" fn(*mut libc::c_void) -> libc::c_int;

/// Runs `child` with a pointer to `shared`. Returns its pid and pidfd, once it has executed its program or exited.
pub(super) fn clone_into<T>(child: Child, shared: &mut T) -> io::Result<(u32, OwnedFd)> {
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK / size_of::<u128>());
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut old_mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the child runs `child` on its own stack of `STACK` bytes (the pointer is its aligned end) while
    // CLONE_VFORK keeps this thread suspended, so `shared`, the stack and `pidfd` outlive its use of them and
    // nothing here touches them meanwhile. All signals are blocked around it, so that no handler of ours can run
    // in the child, in our memory. A child that unblocks them resets every handler before.
    let (pid, error) = unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old_mask.as_mut_ptr());
        let top = stack.as_mut_ptr().add(stack.capacity());
        let pid = libc::clone(child, top.cast(), flags, ptr::from_mut(shared).cast(), &raw mut pidfd);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, old_mask.as_ptr(), ptr::null_mut());
        (pid, error)
    };
    let Ok(pid) = u32::try_from(pid) else { return Err(error) };
    // SAFETY: CLONE_PIDFD stored a new descriptor, which nobody else knows of.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Takes the exit of a child that has exited, so that no zombie stays.
pub(super) fn bury(pidfd: &OwnedFd) {
    let exit = || waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let _ = rustix::io::retry_on_intr(exit);
}
