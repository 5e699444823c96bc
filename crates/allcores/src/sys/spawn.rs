//! Starting a worker's process.
//!
//! By [`vfork`], and with a pidfd from the first moment.
//!
//! The caller must be the thread that lives as long as the primary: the death signal follows the *thread* that
//! forked.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::scheduling::{self, Scheduling};
use super::seccomp::Filter;
use super::vfork;

/// Everything about a process to be, made ready before it exists.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The file to execute; no search is done.
    pub(crate) program: CString,
    /// Its arguments, the program's name first.
    pub(crate) args: Vec<CString>,
    /// Its whole environment, `KEY=value`.
    pub(crate) env: Vec<CString>,
    /// Adds `LISTEN_PID=<its own pid>` to the environment.
    pub(crate) tells_pid: bool,
    /// Where it starts.
    pub(crate) cwd: Option<CString>,
    /// The user and group to become, and the supplementary groups.
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) groups: Option<Vec<u32>>,
    /// Become its descriptors 0, 1, 2, 3 and so on. Nothing else is passed on.
    pub(crate) descriptors: Vec<BorrowedFd<'a>>,
    /// Reports its `bind` and `listen` calls, and those of its descendants.
    pub(crate) filter: Option<&'a Filter>,
    /// The soft and hard limit of open files to give it.
    pub(crate) open_files: Option<(u64, u64)>,
    /// The `cgroup.procs` of the cgroup to enter.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// A process that has executed its program.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    /// Its notifications, if a filter was asked for and could be had.
    pub(crate) listener: Option<OwnedFd>,
    /// Why the filter could not be had.
    pub(crate) filter_error: Option<io::Error>,
}

/// What a child was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Step {
    None,
    Clone,
    Cgroup,
    Session,
    Descriptors,
    Filter,
    Limits,
    Groups,
    Group,
    User,
    Folder,
    DeathSignal,
    Orphaned,
    Execute,
}

/// A process could not be started. Nothing of it is left.
#[derive(Debug)]
pub(crate) struct SpawnError {
    pub(crate) step: Step,
    pub(crate) source: io::Error,
}

/// What parent and child share while the parent waits in `clone`.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    program: *const libc::c_char,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// `LISTEN_PID=` and room for the number, where `envp` points to it.
    pid_entry: [u8; 32],
    sources: Vec<RawFd>,
    notify_socket: RawFd,
    parent: libc::pid_t,
    scheduling: Option<Scheduling>,
    step: Step,
    errno: i32,
    /// Why the kernel refused the filter.
    filter_errno: Option<i32>,
}

/// Starts a process and waits until it executes its program.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<Spawned, SpawnError> {
    let failed = |source| SpawnError { step: Step::Clone, source };
    if plan.descriptors.len() > MAX_DESCRIPTORS {
        // The environment names all of them, so none can be left out.
        return Err(SpawnError {
            step: Step::Descriptors,
            source: io::Error::from_raw_os_error(libc::E2BIG),
        });
    }
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|error| failed(error.into()))?;
    let mut shared = Box::new(Shared {
        plan,
        program: plan.program.as_ptr(),
        argv: pointers(&plan.args),
        envp: pointers(&plan.env),
        pid_entry: [0; 32],
        sources: plan.descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
        notify_socket: theirs.as_raw_fd(),
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        scheduling: scheduling::of_children(),
        step: Step::None,
        errno: 0,
        filter_errno: None,
    });
    if plan.tells_pid {
        let entry = shared.pid_entry.as_ptr().cast();
        let end = shared.envp.len() - 1;
        shared.envp.insert(end, entry);
    }
    let (pid, pidfd) = vfork::clone_into(child, &mut *shared).map_err(failed)?;
    if shared.step != Step::None {
        vfork::bury(&pidfd);
        return Err(SpawnError { step: shared.step, source: io::Error::from_raw_os_error(shared.errno) });
    }
    drop(theirs);
    let listener =
        (plan.filter.is_some() && shared.filter_errno.is_none()).then(|| receive_descriptor(&ours));
    let listener = listener.transpose().map_err(|source| {
        // It runs under a filter that nobody would answer, with what it may have started.
        if let Some(group) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        vfork::bury(&pidfd);
        SpawnError { step: Step::Filter, source }
    })?;
    let filter_error = shared.filter_errno.map(io::Error::from_raw_os_error);
    Ok(Spawned { pid, pidfd, listener, filter_error })
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The child's whole life before `exec`.
extern "C" fn child(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes a `Shared` that nobody else touches until this process execs or exits.
    let shared = unsafe { &mut *argument.cast::<Shared<'_>>() };
    let (step, errno) = match prepare_and_execute(shared) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    shared.step = step;
    shared.errno = errno;
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

type Failure = (Step, i32);

fn prepare_and_execute(shared: &mut Shared<'_>) -> Result<std::convert::Infallible, Failure> {
    let plan = shared.plan;
    reset_signals();
    if let Some(door) = plan.cgroup {
        // First of all, so that all that it does is counted there, and while it may still do so. 0 is who writes.
        let own = b"0";
        let door = libc::c_long::from(door.as_raw_fd());
        call(Step::Cgroup, libc::SYS_write, [door, address(own.as_ptr()), 1, 0, 0])?;
    }
    call(Step::Session, libc::SYS_setsid, [0; 5])?;
    if let Some(scheduling) = &shared.scheduling {
        // Where it is refused, the worker is scheduled as the primary is.
        let _ = call(Step::None, libc::SYS_sched_setattr, [0, address(&raw const *scheduling), 0, 0, 0]);
    }
    place_descriptors(&shared.sources, &mut shared.notify_socket)?;
    if let Some(filter) = plan.filter {
        // Before the user changes, while the right to do it without no_new_privs may still be there.
        shared.filter_errno = install(filter, shared.notify_socket)?;
    }
    // Only now: until here new descriptors come above all that the primary has open, of which there may be more than a
    // worker is allowed.
    if let Some((soft, hard)) = plan.open_files {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        call(Step::Limits, libc::SYS_setrlimit, [RLIMIT_NOFILE, address(&raw const limit), 0, 0, 0])?;
    }
    change_user(plan)?;
    if let Some(cwd) = &plan.cwd {
        call(Step::Folder, libc::SYS_chdir, [address(cwd.as_ptr()), 0, 0, 0, 0])?;
    }
    // After the change of user, which clears it.
    call(
        Step::DeathSignal,
        libc::SYS_prctl,
        [number(libc::PR_SET_PDEATHSIG), number(libc::SIGTERM), 0, 0, 0],
    )?;
    let parent = call(Step::Orphaned, libc::SYS_getppid, [0; 5])?;
    if parent != libc::c_long::from(shared.parent) {
        return Err((Step::Orphaned, libc::ESRCH));
    }
    if plan.tells_pid {
        let pid = call(Step::Execute, libc::SYS_getpid, [0; 5])?;
        write_pid(&mut shared.pid_entry, pid);
    }
    // Closes, rather than marks: also what a careless parent left open in us. Where the kernel is too old for
    // it, all that we opened is close-on-exec anyway.
    let first = libc::c_long::try_from(shared.sources.len()).unwrap_or(3);
    let _ = call(Step::Descriptors, libc::SYS_close_range, [first, libc::c_long::from(u32::MAX), 0, 0, 0]);
    let arguments =
        [address(shared.program), address(shared.argv.as_ptr()), address(shared.envp.as_ptr()), 0, 0];
    call(Step::Execute, libc::SYS_execve, arguments)?;
    Err((Step::Execute, libc::EIO))
}

const RLIMIT_NOFILE: libc::c_long = libc::RLIMIT_NOFILE as libc::c_long;

fn number(value: libc::c_int) -> libc::c_long {
    libc::c_long::from(value)
}

fn address<T>(pointer: *const T) -> libc::c_long {
    pointer.expose_provenance().cast_signed() as libc::c_long
}

/// A raw system call. libc's wrappers may take locks, or (setuid) signal all threads of the parent.
fn call(step: Step, number: libc::c_long, arguments: [libc::c_long; 5]) -> Result<libc::c_long, Failure> {
    // SAFETY: every pointer among the arguments points into `Shared`, its plan or the caller's frame, all of
    // which live until exec; the calls used here write at most to such memory.
    let result = unsafe {
        libc::syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4])
    };
    if result == -1 {
        // SAFETY: errno's location is always valid.
        Err((step, unsafe { *libc::__errno_location() }))
    } else {
        Ok(result)
    }
}

/// How many signals the kernel knows.
const SIGNALS: libc::c_long = 64;

/// Gives every signal its default action (std ignores SIGPIPE; tokio has handlers) and blocks none.
fn reset_signals() {
    for signal in 1..=SIGNALS {
        // The kernel's struct, all zero: SIG_DFL, no flags, no restorer, an empty mask. Not libc's call, which
        // refuses the two signals that it keeps for itself; they may be ignored like any other.
        let default = [0_u64; 4];
        let arguments = [signal, address(default.as_ptr()), 0, SIGNALS / 8, 0];
        // SIGKILL and SIGSTOP have no action to be changed.
        let _ = call(Step::None, libc::SYS_rt_sigaction, arguments);
    }
    // SAFETY: the set lives on this frame; only this process's mask changes.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Makes `sources` descriptors 0, 1, 2, …, and moves the notification socket out of their way.
fn place_descriptors(sources: &[RawFd], notify_socket: &mut RawFd) -> Result<(), Failure> {
    let count = libc::c_long::try_from(sources.len()).unwrap_or(libc::c_long::MAX);
    let lift = |fd: RawFd| {
        let number = libc::c_long::from(fd);
        call(Step::Descriptors, libc::SYS_fcntl, [number, self::number(libc::F_DUPFD_CLOEXEC), count, 0, 0])
    };
    *notify_socket = RawFd::try_from(lift(*notify_socket)?).unwrap_or(-1);
    // First all out of the way, one at a time as each is placed: a later source may sit at an earlier target.
    // The lifted copies follow each other from `count` on only by chance, so each is remembered on the stack.
    let mut lifted = [0 as libc::c_long; MAX_DESCRIPTORS];
    for (place, &source) in lifted.iter_mut().zip(sources) {
        *place = lift(source)?;
    }
    for (target, &source) in (0..count).zip(&lifted) {
        call(Step::Descriptors, libc::SYS_dup3, [source, target, 0, 0, 0])?;
    }
    Ok(())
}

/// How many descriptors a worker can be given; the child has no heap to count them on.
pub(crate) const MAX_DESCRIPTORS: usize = 256;

fn change_user(plan: &Plan<'_>) -> Result<(), Failure> {
    if let Some(groups) = &plan.groups {
        let count = libc::c_long::try_from(groups.len()).unwrap_or(0);
        call(Step::Groups, libc::SYS_setgroups, [count, address(groups.as_ptr()), 0, 0, 0])?;
    }
    if let Some(gid) = plan.gid {
        call(Step::Group, libc::SYS_setgid, [libc::c_long::from(gid), 0, 0, 0, 0])?;
    }
    if let Some(uid) = plan.uid {
        call(Step::User, libc::SYS_setuid, [libc::c_long::from(uid), 0, 0, 0, 0])?;
    }
    Ok(())
}

/// Installs the filter and sends its notification descriptor to the parent. Says why the kernel refuses it, if it does; once it
/// is in force, whatever else fails is the end of it all, since nobody would answer what it reports.
fn install(filter: &Filter, socket: RawFd) -> Result<Option<i32>, Failure> {
    let program = filter.program();
    let set = |flags: libc::c_ulong| {
        let flags = flags.cast_signed();
        call(
            Step::None,
            libc::SYS_seccomp,
            [libc::c_long::from(libc::SECCOMP_SET_MODE_FILTER), flags, address(&raw const program), 0, 0],
        )
        .map_err(|(_, errno)| errno)
    };
    let give_up_privileges = || {
        let arguments = [number(libc::PR_SET_NO_NEW_PRIVS), 1, 0, 0, 0];
        call(Step::None, libc::SYS_prctl, arguments).map_err(|(_, errno)| errno)
    };
    match set_as_allowed(set, give_up_privileges) {
        Ok(listener) => send_descriptor(socket, RawFd::try_from(listener).unwrap_or(-1))
            .map(|()| None)
            .map_err(|errno| (Step::Filter, errno)),
        Err(errno) => Ok(Some(errno)),
    }
}

/// Sets a filter with the flags that the kernel knows, and first gives up what it asks for to allow that. The kernel looks at
/// the flags before it looks at privileges.
fn set_as_allowed(
    set: impl Fn(libc::c_ulong) -> Result<libc::c_long, i32>,
    give_up_privileges: impl FnOnce() -> Result<libc::c_long, i32>,
) -> Result<libc::c_long, i32> {
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // With it a caller whose call has been taken up is interrupted only by a deadly signal (Linux 5.19).
    let killable = listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let set_with_known_flags = || match set(killable) {
        Err(libc::EINVAL) => set(listener),
        result => result,
    };
    match set_with_known_flags() {
        Err(libc::EACCES) => {
            give_up_privileges()?;
            set_with_known_flags()
        }
        result => result,
    }
}

/// Sends one descriptor, with buffers on this stack: there is no heap here.
fn send_descriptor(socket: RawFd, descriptor: RawFd) -> Result<(), i32> {
    #[repr(align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let byte = 0_u8;
    let data = libc::iovec { iov_base: (&raw const byte).cast_mut().cast(), iov_len: 1 };
    // SAFETY: CMSG_* compute sizes and addresses inside `control`, which is aligned for a cmsghdr and larger than
    // CMSG_SPACE(4); `message` points to locals that outlive the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = (&raw const data).cast_mut();
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
        let sent = libc::syscall(libc::SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL);
        if sent == 1 { Ok(()) } else { Err(*libc::__errno_location()) }
    }
}

/// Writes `LISTEN_PID=<pid>` and its NUL, without leading zeros: some readers take those for octal.
fn write_pid(entry: &mut [u8; 32], pid: libc::c_long) {
    let name = b"LISTEN_PID=";
    entry[..name.len()].copy_from_slice(name);
    let mut divisor = 1;
    while pid / divisor >= 10 {
        divisor *= 10;
    }
    let mut at = name.len();
    while divisor > 0 {
        entry[at] = b'0' + u8::try_from(pid / divisor % 10).unwrap_or(0);
        divisor /= 10;
        at += 1;
    }
    entry[at] = 0;
}

fn receive_descriptor(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8];
    let mut data = [io::IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    // The kernel leaves out one for which there is no room.
    received.ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))
}

/// Turns an environment or argument into what `exec` takes.
pub(crate) fn c_string(bytes: Vec<u8>) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "contains a NUL byte"))
}

#[cfg(test)]
mod tests;
