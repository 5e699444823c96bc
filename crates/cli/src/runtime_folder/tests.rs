//! Which folder is chosen, which are refused, and that one name has one holder.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process;

use super::claim::{Look, holder, lock_file, look};
use super::{Claim, ClaimError, Place, RuntimeFolder, wait_until_free};
use crate::exit_code::ExitCode;
use crate::settings::AppName;

fn chosen(variables: &[(&str, &str)], uid: u32) -> PathBuf {
    let find =
        |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    RuntimeFolder::choose(find, uid).place.path
}

fn folder_in(parent: &tempfile::TempDir) -> RuntimeFolder {
    RuntimeFolder::at(parent.path().join("runtime"), false)
}

fn claimed(folder: &Path) -> Result<Claim, ClaimError> {
    Claim::new(folder, &folder.join("control.sock"))
}

fn mark_left(folder: &Path) -> Option<String> {
    match look(folder, &folder.join("control.sock")) {
        Look::Left { mark } => Some(mark),
        Look::Free | Look::Held { .. } => None,
    }
}

fn web() -> AppName {
    "web".parse().unwrap()
}

#[test]
fn the_folder_is_the_first_that_applies() {
    let xdg = ("XDG_RUNTIME_DIR", "/run/user/7");
    assert_eq!(chosen(&[("ALLCORES_RUNTIME_DIR", "/x"), xdg], 0), PathBuf::from("/x"));
    assert_eq!(chosen(&[xdg], 0), PathBuf::from("/run/allcores"));
    assert_eq!(chosen(&[("ALLCORES_RUNTIME_DIR", ""), xdg], 7), PathBuf::from("/run/user/7/allcores"));
    assert_eq!(chosen(&[("XDG_RUNTIME_DIR", "relative")], 7), PathBuf::from("/tmp/allcores-7"));
    assert_eq!(chosen(&[], 7), PathBuf::from("/tmp/allcores-7"));
}

#[test]
fn a_missing_folder_is_made_for_its_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let folder = folder_in(&parent);
    folder.prepare().unwrap();
    folder.prepare().unwrap();
    assert_eq!(fs::metadata(&folder.place.path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let folder = folder_in(&parent);
    folder.prepare().unwrap();
    fs::set_permissions(&folder.place.path, Permissions::from_mode(0o770)).unwrap();
    let failure = folder.prepare().unwrap_err();
    assert_eq!(failure.code(), ExitCode::RuntimeFolder);
    assert!(failure.to_string().contains("mode 770"), "{failure}");
}

#[test]
fn a_folder_in_public_must_be_0700_and_no_link() {
    let parent = tempfile::tempdir().unwrap();
    let folder = RuntimeFolder::at(parent.path().join("runtime"), true);
    folder.prepare().unwrap();
    fs::set_permissions(&folder.place.path, Permissions::from_mode(0o750)).unwrap();
    assert!(folder.prepare().is_err());
    let link = RuntimeFolder::at(parent.path().join("link"), true);
    std::os::unix::fs::symlink(&folder.place.path, &link.place.path).unwrap();
    assert!(link.prepare().is_err());
}

#[test]
fn a_socket_path_that_is_too_long_is_explained() {
    let folder = RuntimeFolder::at(PathBuf::from("/").join("x".repeat(120)), false);
    let failure = folder.app(&web()).claim("start").unwrap_err();
    assert_eq!(failure.code(), ExitCode::RuntimeFolder);
    assert!(failure.to_string().contains("107"), "{failure}");
}

#[test]
fn a_name_has_one_holder_at_a_time() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("web");
    let claim = claimed(&folder).unwrap();
    assert_eq!(holder(&folder), Some(process::id()));
    assert!(matches!(claimed(&folder), Err(ClaimError::Held { pid: Some(pid) }) if pid == process::id()));
    drop(claim);
    claimed(&folder).unwrap();
}

#[test]
fn a_primary_was_killed_if_its_lock_is_there_and_free() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("web");
    assert_eq!(mark_left(&folder), None);
    let socket = folder.join("control.sock");
    let claim = Claim::new(&folder, &socket).unwrap();
    assert_eq!(mark_left(&folder), None);
    drop(claim);
    assert_eq!(mark_left(&folder), None);
    // As one leaves it that was killed.
    fs::create_dir(&folder).unwrap();
    fs::write(lock_file(&folder), "1").unwrap();
    let mark = mark_left(&folder).unwrap();
    let next = Claim::new(&folder, &socket).unwrap();
    assert_eq!((next.is_left(), next.mark().unwrap()), (true, mark));
    next.clear();
    drop(next);
    assert_eq!(mark_left(&folder), None);
}

#[test]
fn what_can_not_be_locked_holds_nobody_up_and_is_told() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let parent = tempfile::tempdir().unwrap();
    let runtime = RuntimeFolder::at(parent.path().to_path_buf(), false);
    let app = runtime.app(&web());
    fs::create_dir(app.path()).unwrap();
    mknodat(CWD, lock_file(app.path()), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(!app.is_running() && app.left().is_none());
    assert_eq!(app.holder(), None);
    let failure = app.claim("start").unwrap_err();
    assert_eq!(failure.code(), ExitCode::RuntimeFolder);
    assert!(failure.to_string().contains("`lock` is no regular file"), "{failure}");
}

#[test]
fn clearing_leaves_nothing_and_ends_the_wait_only_with_the_claim() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("web");
    let claim = claimed(&folder).unwrap();
    let reader = File::open(lock_file(&folder)).unwrap();
    let waiting = std::thread::spawn(move || wait_until_free(&reader));
    claim.clear();
    assert!(!folder.exists());
    assert!(!waiting.is_finished());
    drop(claim);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_claim_that_came_to_nothing_leaves_nothing_and_one_of_a_killed_primary_stays() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("web");
    let claim = claimed(&folder).unwrap();
    fs::write(folder.join("control.sock"), "").unwrap();
    drop(claim);
    assert!(!folder.exists());

    // A primary that is killed drops nothing.
    let claim = claimed(&folder).unwrap();
    let mark = claim.mark().unwrap();
    let lock = File::from(claim.lock().try_clone_to_owned().unwrap());
    std::mem::forget(claim);
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock).unwrap();
    for _ in 0..2 {
        let claim = claimed(&folder).unwrap();
        assert!(claim.is_left());
        assert_eq!(claim.mark().unwrap(), mark);
    }
}

#[test]
fn what_others_have_put_in_its_place_is_not_cleared() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("web");
    let claim = claimed(&folder).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let other = claimed(&folder).unwrap();
    claim.clear();
    drop(claim);
    assert_eq!(holder(&folder), Some(process::id()));
    drop(other);
    assert!(!folder.exists());
}

#[test]
fn apps_are_listed_by_name() {
    let parent = tempfile::tempdir().unwrap();
    let folder = folder_in(&parent);
    assert!(folder.apps().unwrap().is_empty());
    for name in ["web", "api", "not a name"] {
        fs::create_dir_all(folder.place.path.join(name)).unwrap();
    }
    fs::set_permissions(&folder.place.path, Permissions::from_mode(0o700)).unwrap();
    let names: Vec<_> = folder.apps().unwrap().iter().map(|app| app.name().to_string()).collect();
    assert_eq!(names, ["api", "web"]);
}

/// Two runtime folders of one user: of a login, and of what was begun without one.
fn folders_of_one_user(parent: &tempfile::TempDir) -> (RuntimeFolder, RuntimeFolder) {
    let place = |name| Place { path: parent.path().join(name), is_in_public: true };
    let (one, other) = (place("session"), place("public"));
    let folder =
        |place: &Place, other: &Place| RuntimeFolder { place: place.clone(), others: vec![other.clone()] };
    let (session, public) = (folder(&one, &other), folder(&other, &one));
    session.prepare().unwrap();
    public.prepare().unwrap();
    (session, public)
}

#[test]
fn an_app_is_found_where_the_same_user_began_it_from_another_environment() {
    let parent = tempfile::tempdir().unwrap();
    let (session, public) = folders_of_one_user(&parent);
    assert_eq!(session.find(&web()).unwrap().path(), session.place.path.join("web"));
    let claim = public.app(&web()).claim("start").unwrap();
    assert_eq!(session.find(&web()).unwrap().path(), public.place.path.join("web"));
    assert_eq!(session.apps().unwrap().len(), 1);
    // Nor is there a second one.
    let failure = session.app(&web()).claim("start").unwrap_err();
    assert_eq!(failure.code(), ExitCode::NameInUse);
    drop(claim);
    assert_eq!(session.find(&web()).unwrap().path(), session.place.path.join("web"));
    assert!(session.apps().unwrap().is_empty());
}

#[test]
fn another_folder_that_can_t_be_trusted_has_no_apps() {
    let parent = tempfile::tempdir().unwrap();
    let (session, public) = folders_of_one_user(&parent);
    let _claim = public.app(&web()).claim("start").unwrap();
    fs::set_permissions(&public.place.path, Permissions::from_mode(0o770)).unwrap();
    assert_eq!(session.find(&web()).unwrap().path(), session.place.path.join("web"));
    assert!(session.apps().unwrap().is_empty());
}
