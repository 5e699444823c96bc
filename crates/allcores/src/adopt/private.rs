//! Which Unix sockets a program makes for itself alone: to speak with its own children, not with clients.
//!
//! Such a one is no address of the app's. Another worker makes another, so that nothing is to be shared, and a reload would
//! wait in vain for the new worker to listen where the old one does. Told by marks that others' sockets do not have.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::address::Address;
use crate::proc::{self, Stat};

/// Below it, process ids are as small as what people number things with: there are such in containers.
const TELLING: u32 = 1000;

/// Where temporary files are, beside what a program's TMPDIR says.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Whether an address is one that only `process` itself, which is about to bind it, and its children can mean.
pub(super) fn is_private(address: &Address, process: u32) -> bool {
    let Address::Unix(name) = address else { return false };
    let Ok(stat) = Stat::read(process) else { return false };
    let is_of_session = |pid: &u32| Stat::read(*pid).is_ok_and(|other| other.session == stat.session);
    let line: Vec<u32> = proc::line(process).take_while(is_of_session).collect();
    let temporary = proc::initial_env(process, "TMPDIR").filter(|folder| folder.starts_with('/'));
    let temporary = || temporary.iter().map(String::as_str).chain(TEMPORARY).map(Path::new);
    let path = Path::new(OsStr::from_bytes(name));
    let is_temporary = temporary().any(|folder| path.starts_with(folder));
    let folder = path.parent().filter(|folder| temporary().any(|above| folder.parent() == Some(above)));
    let is_new_folder = || {
        let first = line.last().and_then(|first| Stat::read(*first).ok());
        let (Some(folder), Some(first), Ok(owner)) = (folder, first, proc::Owner::of(process)) else {
            return false;
        };
        is_made_since(folder, owner.user, first.started)
    };
    is_named_by(name, &line, is_temporary) || is_new_folder()
}

/// Whether the last part of a path has one of these process ids in it: whole, not as a part of a longer number.
fn is_named_by(name: &[u8], line: &[u32], is_temporary: bool) -> bool {
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let numbers = file.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.starts_with(b"0"));
    let mut numbers = numbers.filter_map(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    numbers.any(|number| line.contains(&number) && (number >= TELLING || is_temporary))
}

/// Whether a folder is as mkdtemp(3) makes them, for this user, and was not there yet at that time after the machine's start.
/// False where the file system does not say when it was made.
fn is_made_since(folder: &Path, user: u32, since: Duration) -> bool {
    let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::UID | StatxFlags::BTIME;
    let Ok(found) = rustix::fs::statx(CWD, folder, AtFlags::SYMLINK_NOFOLLOW, wanted) else { return false };
    let is_told = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    is_told && is_made_by(&found, user) && made(&found).is_some_and(|made| made >= since)
}

fn is_made_by(found: &Statx, user: u32) -> bool {
    u32::from(found.stx_mode) == libc::S_IFDIR | 0o700 && found.stx_uid == user
}

/// When it was made, after the machine's start.
fn made(found: &Statx) -> Option<Duration> {
    let made = &found.stx_btime;
    let made = Duration::new(u64::try_from(made.tv_sec).ok()?, made.tv_nsec);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let up = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    made.checked_sub(now.checked_sub(up)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_name_with_the_callers_or_an_ancestors_number_in_it_is_private() {
        let line = [27_398, 27_390];
        for name in [&b"/tmp/tsx-0/27398.pipe"[..], b"/run/app/ipc-27390.sock", b"\0ipc.27398.x", b"27398"] {
            assert!(is_named_by(name, &line, false), "{}", name.escape_ascii());
        }
        for name in [
            &b"/run/app.sock"[..],
            b"/run/127398.sock",
            b"/run/273980.sock",
            b"/run/027398.sock",
            b"/run/27398/app.sock",
            b"/run/27399.sock",
            b"/run/99999999999999999999.sock",
            b"",
        ] {
            assert!(!is_named_by(name, &line, false), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn small_numbers_tell_nothing_but_among_temporary_files() {
        assert!(!is_named_by(b"/run/web-8.sock", &[8], false));
        assert!(is_named_by(b"/tmp/tsx-0/8.pipe", &[8], true));
    }

    #[test]
    fn a_folder_of_ones_own_is_private_if_it_was_made_since_the_worker_started() {
        let started = Stat::read(std::process::id()).unwrap().started;
        // Both times are told in ticks.
        std::thread::sleep(Duration::from_millis(50));
        let folder =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
        let user = fs::metadata(folder.path()).unwrap().uid();
        assert!(is_made_since(folder.path(), user, started));
        assert!(!is_made_since(folder.path(), user + 1, started));
        let now = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap();
        assert!(!is_made_since(folder.path(), user, now + Duration::from_secs(1)));
        assert!(!is_made_since(&folder.path().join("none"), user, started));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!is_made_since(folder.path(), user, started));
        assert!(!is_made_since(Path::new("/tmp"), 0, started));
    }
}
