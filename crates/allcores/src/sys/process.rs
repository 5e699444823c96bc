//! Looking into another process, and into our own.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::ptr;

use crate::proc;

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

/// Takes a descriptor that this process was started with, if it is what is wanted, and marks it close-on-exec; so it can be
/// taken once. What is not wanted stays as it is.
///
/// # Errors
///
/// `EBADF` if there is none of this number, if it is not wanted, or if it is marked already, as all is that Rust's libraries
/// open: then it is not one that we were given.
pub(crate) fn take_inherited(
    number: RawFd,
    is_wanted: impl FnOnce(BorrowedFd<'_>) -> bool,
) -> io::Result<OwnedFd> {
    let not_ours = || io::Error::from_raw_os_error(libc::EBADF);
    if number < 0 {
        return Err(not_ours());
    }
    // SAFETY: it is borrowed for calls that look at and mark it, and fail for a number that is not open; nothing is
    // closed or read through it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed)?;
    if flags.contains(rustix::io::FdFlags::CLOEXEC) || !is_wanted(borrowed) {
        return Err(not_ours());
    }
    rustix::io::fcntl_setfd(borrowed, flags | rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and whoever started us left it to the one who finds its number in the environment; the mark
    // that was missing says that nobody in this process has made it or taken it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives back the memory of what only the start needed, such as the command line's code and data: a primary runs for months.
/// Code that is needed again is read again, from the kernel's cache of the file.
pub(crate) fn release_code() {
    let Ok(maps) = proc::text("/proc/self/maps") else { return };
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(rights), Some(path)) = (fields.next(), fields.next(), fields.nth(3)) else {
            continue;
        };
        let ends = range.split_once('-').and_then(|(start, end)| {
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        });
        if let (Some((start, end)), "r-xp", true) = (ends, rights, path.starts_with('/')) {
            // SAFETY: code that is mapped from a file, cannot be written, and has no relocations in it: what comes back
            // when it is touched is what was there. It stays mapped, also for the threads that run in it now.
            let _ = unsafe {
                libc::madvise(ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED)
            };
        }
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: it gives memory back to the kernel that the allocator holds and nobody has been given.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sets variables of our environment, or takes out those without a value, where that is sound: while there is no other thread
/// that could read them meanwhile, through C or otherwise.
pub(crate) fn change_variables(changes: &[(&str, Option<&str>)]) {
    let is_only_thread = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if !is_only_thread {
        return;
    }
    for (name, value) in changes {
        match value {
            // SAFETY: there is one thread, which is here; only a thread could start another.
            Some(value) => unsafe { std::env::set_var(name, value) },
            // SAFETY: as above.
            None => unsafe { std::env::remove_var(name) },
        }
    }
}

/// Marks every descriptor but the first three close-on-exec, whoever opened it.
///
/// # Errors
///
/// Kernels before 5.11 know no such call.
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    // Not every C library has a function for it.
    // SAFETY: nothing is closed here, and no memory is passed; a mark is set on descriptors, whoever owns them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
