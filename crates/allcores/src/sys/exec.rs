//! Becoming another program: same process, same children, same descriptors that are not close-on-exec.
//!
//! Not std's `CommandExt::exec`, which leaves this process changed when it fails: it gives SIGPIPE its deadly default.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;

use rustix::io::FdFlags;

/// The signals that are blocked on this thread.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(libc::sigset_t);

/// Blocks all signals of this thread. Those that come meanwhile wait, also for the program that is executed next.
pub(crate) fn block_signals() -> SignalMask {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initializes the one set, `pthread_sigmask` the other; both live on this frame, and only this
    // thread's mask changes.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigemptyset(before.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        SignalMask(before.assume_init())
    }
}

impl SignalMask {
    /// Has this thread's signals be blocked as they were.
    pub(crate) fn restore(self) {
        // SAFETY: the set was initialized by the kernel and lives on this frame; only this thread's mask changes.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut());
        }
    }
}

impl std::fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignalMask").finish_non_exhaustive()
    }
}

/// Says whether the descriptor of this number stays open in the program that is executed next.
///
/// # Errors
///
/// If there is none.
pub(crate) fn set_carried(number: RawFd, is_carried: bool) -> io::Result<()> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let flags = if is_carried { FdFlags::empty() } else { FdFlags::CLOEXEC };
    // SAFETY: it is borrowed for one call, which marks it and fails for a number that is not open; nothing is closed or
    // read through it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_setfd(borrowed, flags)?)
}

/// Executes a program in the place of this one. Returns only if that can't be, and why; then nothing has changed.
///
/// To be called on the thread that forked this process's children: they are told of the end of any other.
pub(crate) fn execute(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: all three point to strings, and to lists of them with a null at their end, which live until it returns; and
    // if it does not, nothing of this program is used any more.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_executed_is_an_error_and_changes_nothing() {
        let error = execute(c"/dev/null", &[c"null".into()], &[]);
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn signals_that_were_blocked_are_blocked_as_before() {
        let blocked = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find_map(|line| line.strip_prefix("SigBlk:").map(str::to_owned)).unwrap()
        };
        let before = blocked();
        let mask = block_signals();
        assert_ne!(blocked(), before);
        mask.restore();
        assert_eq!(blocked(), before);
    }
}
