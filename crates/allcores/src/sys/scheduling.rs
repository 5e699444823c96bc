//! How soon the kernel lets this thread run when there is something for it to do.
//!
//! On a machine whose cores are all busy, a thread that wakes up waits until one of those that run has used up its
//! slice: three milliseconds and more. A primary has little to do and its clients wait for it. Since Linux 6.12 a thread
//! can ask for shorter slices of the same share (sched_setattr(2), `sched_runtime`): it runs sooner and for less long, which
//! takes nothing from anybody and no privilege.
//!
//! Who runs sooner interrupts somebody. Where that is a worker that is done in a moment, and the next thing to be done comes
//! with the next, nobody is served sooner for it, and both find their caches used by the other. Such a time is for
//! `SCHED_BATCH` (sched(7)): who wakes up takes a core that is free, and else the next that becomes so.

use std::cell::Cell;
use std::io;
use std::time::Duration;

/// The shortest that the kernel grants.
const SLICE: Duration = Duration::from_micros(100);

/// How a thread is scheduled, as the kernel takes it.
pub(crate) type Scheduling = libc::sched_attr;

thread_local! {
    /// How this thread is scheduled is for us to say: nobody else had said anything when we first did.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Has this thread run soon when it wakes up. Older kernels take no notice.
///
/// # Errors
///
/// If the kernel refuses, as a container's filter may have it do.
pub(crate) fn be_prompt() -> io::Result<()> {
    let now = own()?;
    if is_ordinary(&now) {
        IS_OURS.set(true);
    }
    change(now, libc::SCHED_OTHER, slice())
}

/// Has this thread, which was [prompt](be_prompt), interrupt nobody when it wakes up, until it is prompt again.
///
/// # Errors
///
/// As for [`be_prompt`].
pub(crate) fn be_patient() -> io::Result<()> {
    change(own()?, libc::SCHED_BATCH, 0)
}

fn change(now: Scheduling, policy: i32, slice: u64) -> io::Result<()> {
    if !IS_OURS.get() {
        return Ok(());
    }
    set(&Scheduling { sched_policy: policy.cast_unsigned(), sched_runtime: slice, ..now })
}

/// How children of this thread are to be scheduled, where not as it is itself: promptness and patience are ours alone.
pub(crate) fn of_children() -> Option<Scheduling> {
    if !IS_OURS.get() {
        return None;
    }
    let now = own().ok()?;
    let is_changed = now.sched_runtime == slice() || !is_ordinary(&now);
    let ordinary = Scheduling { sched_policy: libc::SCHED_OTHER.cast_unsigned(), sched_runtime: 0, ..now };
    is_changed.then_some(ordinary)
}

fn slice() -> u64 {
    u64::try_from(SLICE.as_nanos()).unwrap_or(u64::MAX)
}

/// Real-time threads run at once anyway.
fn is_ordinary(scheduling: &Scheduling) -> bool {
    i64::from(scheduling.sched_policy) == i64::from(libc::SCHED_OTHER)
}

fn own() -> io::Result<Scheduling> {
    let mut own = Scheduling {
        size: u32::try_from(size_of::<Scheduling>()).unwrap_or(u32::MAX),
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes to `own`, which has that many; 0 is this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut own, own.size, 0) };
    if result == 0 { Ok(own) } else { Err(io::Error::last_os_error()) }
}

fn set(scheduling: &Scheduling) -> io::Result<()> {
    // SAFETY: the kernel reads `size` bytes of it; 0 is this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(scheduling), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, as it changes how that is scheduled.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn children_of_an_ordinary_thread_are_scheduled_as_it_is() {
        on_a_thread(|| assert!(of_children().is_none()));
    }

    #[test]
    fn patience_is_not_inherited_and_ends() {
        on_a_thread(|| {
            be_patient().unwrap();
            assert!(is_ordinary(&own().unwrap()), "who was not prompt is left alone");
            be_prompt().unwrap();
            be_patient().unwrap();
            assert_eq!(own().unwrap().sched_policy, libc::SCHED_BATCH.cast_unsigned());
            let children = of_children().unwrap();
            assert!(is_ordinary(&children) && children.sched_runtime == 0);
            be_prompt().unwrap();
            assert!(is_ordinary(&own().unwrap()));
        });
    }

    #[test]
    fn who_was_told_otherwise_stays_as_it_is() {
        on_a_thread(|| {
            set(&Scheduling { sched_policy: libc::SCHED_BATCH.cast_unsigned(), ..own().unwrap() }).unwrap();
            be_prompt().unwrap();
            be_patient().unwrap();
            assert_eq!(own().unwrap().sched_policy, libc::SCHED_BATCH.cast_unsigned());
            assert!(of_children().is_none());
        });
    }

    #[test]
    fn promptness_is_not_inherited() {
        on_a_thread(|| {
            be_prompt().unwrap();
            if own().unwrap().sched_runtime != slice() {
                // A kernel that does not know of slices has nothing to be undone.
                return assert!(of_children().is_none());
            }
            set(&of_children().unwrap()).unwrap();
            assert_ne!(own().unwrap().sched_runtime, slice());
            assert!(of_children().is_none());
        });
    }
}
