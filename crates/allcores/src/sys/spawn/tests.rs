use std::cell::Cell;

use super::*;

/// What comes of setting a filter where the kernel knows these flags and allows it with, or without, privileges; and whether
/// those were given up for it.
fn set_where(known: libc::c_ulong, is_privileged: bool) -> (Result<libc::c_long, i32>, bool) {
    let are_given_up = Cell::new(false);
    let set = |flags: libc::c_ulong| match flags {
        flags if flags & !known != 0 => Err(libc::EINVAL),
        _ if !is_privileged && !are_given_up.get() => Err(libc::EACCES),
        flags => Ok(flags.cast_signed()),
    };
    let give_up_privileges = || {
        are_given_up.set(true);
        Ok(0)
    };
    let result = set_as_allowed(set, give_up_privileges);
    (result, are_given_up.get())
}

#[test]
fn a_filter_is_set_with_the_flags_that_the_kernel_knows_whatever_it_takes() {
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let killable = listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    for known in [listener, killable] {
        assert_eq!(set_where(known, true), (Ok(known.cast_signed()), false));
        assert_eq!(set_where(known, false), (Ok(known.cast_signed()), true));
    }
    assert_eq!(set_where(0, true), (Err(libc::EINVAL), false));
}

#[test]
fn a_filter_in_force_that_nobody_can_answer_is_not_taken_for_one_that_was_refused() {
    // It holds for a thread.
    let installed = std::thread::spawn(|| install(&Filter::bind_and_listen(), -1)).join().unwrap();
    // Where the kernel refuses it there is none in force.
    assert!(matches!(installed, Err((Step::Filter, libc::EBADF)) | Ok(Some(_))), "{installed:?}");
}

#[test]
fn a_descriptor_that_does_not_come_is_an_error() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    send_descriptor(theirs.as_raw_fd(), theirs.as_raw_fd()).unwrap();
    receive_descriptor(&ours).unwrap();
    std::io::Write::write_all(&mut &theirs, b"x").unwrap();
    assert_eq!(receive_descriptor(&ours).unwrap_err().raw_os_error(), Some(libc::EMFILE));
    // Nor is one waited for.
    assert_eq!(receive_descriptor(&ours).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// Starts `true` with so many descriptors.
fn start_with(count: usize) -> Result<Spawned, SpawnError> {
    let null = std::fs::File::open("/dev/null").unwrap();
    spawn(&Plan {
        program: c"/bin/true".into(),
        args: vec![c"true".into()],
        env: Vec::new(),
        tells_pid: false,
        cwd: None,
        uid: None,
        gid: None,
        groups: None,
        descriptors: vec![null.as_fd(); count],
        filter: None,
        open_files: None,
        cgroup: None,
    })
}

#[test]
fn a_process_is_given_all_its_descriptors_or_is_not_started() {
    let started = start_with(MAX_DESCRIPTORS).unwrap();
    vfork::bury(&started.pidfd);
    let error = start_with(MAX_DESCRIPTORS + 1).unwrap_err();
    assert_eq!((error.step, error.source.raw_os_error()), (Step::Descriptors, Some(libc::E2BIG)));
}
