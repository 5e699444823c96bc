//! Looking into another process, and into our own.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::ptr;

/// Unblocks all signals of this thread: a parent may have left them blocked, and one that is blocked is never seen.
pub(crate) fn unblock_signals() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initializes the set, which lives on this frame; only this thread's mask changes.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Reads up to `buffer.len()` bytes at `address` of the process of `thread`; returns how many it got.
///
/// # Errors
///
/// `PermissionDenied` where the kernel or a container forbids looking into it; `EFAULT` for a bad address.
pub(crate) fn read_memory(thread: u32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    match read_at_once(thread, address, buffer) {
        // Containers used to forbid this system call and leave the file, which asks for the same right.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
            File::open(format!("/proc/{thread}/mem"))?.read_at(buffer, address)
        }
        result => result,
    }
}

fn read_at_once(thread: u32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let pid = libc::pid_t::try_from(thread).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let start = usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(start), iov_len: buffer.len() };
    // SAFETY: `local` names `buffer`, which is writable for its whole length and outlives the call; `remote` is
    // an address in the other process and never dereferenced here.
    let count = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
