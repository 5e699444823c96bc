//! The folders of apps: whose they are, and what is missing in them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use allcores_testing::skip;
use rustix::process::geteuid;
use serde_json::json;

use crate::folder::Folder;

/// Somebody else.
const NOBODY: u32 = 65534;

const WEB: &str = "
[apps.web]
command = $COMMAND
workers = 1
kill-timeout = \"1s\"
env = { HOST = \"$HOST\", PORT = $PORT }
";

#[test]
fn an_app_whose_lock_file_somebody_has_removed_is_found_all_the_same() {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    folder.allcores(&["start"]).code(0);
    let lock = folder.path().join("run/web/lock");
    let primary = || folder.status("web")["pid"].as_i64().unwrap();
    let pid = primary();
    fs::remove_file(&lock).unwrap();
    folder.allcores(&["ls"]).code(0).has(&["web", "1/1"]);
    folder.allcores(&["start"]).code(0).has(&["web: runs already"]);
    let config = folder.path().join("allcores.toml");
    let other = folder.allcores(&["run", "--config", config.to_str().unwrap()]).code(4);
    other.has(&["already runs an app of this name"]);
    assert_eq!(primary(), pid);
    assert!(!lock.exists(), "who did not get the name has left a lock");
    folder.allcores(&["stop", "web"]).code(0).has(&["web: stopped"]);
    // Nobody may have taken its exit so far.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "it was to have gone: {stat}");
    folder.allcores(&["stop", "web"]).code(5);
    folder.allcores(&["start", "web"]).code(0).has(&["1 worker ready"]);
    assert!(lock.exists());
}

#[test]
fn what_a_killed_primary_has_left_in_a_folder_of_somebody_else_is_theirs_to_end() {
    if !geteuid().is_root() {
        skip!("no other user can be had here");
    }
    let folder = Folder::new();
    let run = folder.path().join("run");
    let victim = folder.path().join("victim");
    fs::create_dir_all(&victim).unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(victim.join("lock"), "1").unwrap();
    let mode = || fs::metadata(&victim).unwrap().permissions().mode() & 0o777;
    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&run, Some(NOBODY), Some(NOBODY)).unwrap();
    // By a link to what is no folder of theirs.
    std::os::unix::fs::symlink(&victim, run.join("web")).unwrap();
    folder.allcores(&["stop", "web"]).code(7);
    assert_eq!((mode(), victim.join("lock").exists()), (0o755, true));
    // And where it is one.
    fs::remove_file(run.join("web")).unwrap();
    fs::create_dir(run.join("web")).unwrap();
    fs::write(run.join("web/lock"), "1").unwrap();
    for path in ["web", "web/lock"] {
        chown(run.join(path), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let refused = ["it belongs to user 65534 and this is user 0", "sudo -u '#65534'"];
    for arguments in [["stop", "web"], ["delete", "web"]] {
        folder.allcores(&arguments).code(7).has(&refused);
    }
    assert_eq!(fs::read_to_string(run.join("web/lock")).unwrap(), "1");
    chown(&run, Some(0), Some(0)).unwrap();
}

#[test]
fn a_state_folder_of_somebody_else_is_not_believed() {
    if !geteuid().is_root() {
        skip!("no other user can be had here");
    }
    let folder = Folder::new();
    let (state, victim) = (folder.path().join("state"), folder.path().join("victim"));
    fs::create_dir_all(state.join("apps")).unwrap();
    fs::write(&victim, "precious").unwrap();
    let record = json!({
        "version": 1, "name": "web", "arguments": ["--name", "web", "--", "true"], "folder": "/", "log": victim,
        "environment": {},
    });
    fs::write(state.join("apps/web.json"), record.to_string()).unwrap();
    let list = json!({"version": 1, "apps": [{"record": record, "workers": null}]});
    fs::write(state.join("saved.json"), list.to_string()).unwrap();
    for path in [&state, &state.join("apps"), &state.join("apps/web.json"), &state.join("saved.json")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let refused = ["use the state folder", "it belongs to user 65534 and this is user 0"];
    for arguments in [
        &["delete", "web", "--logs"][..],
        &["delete", "all", "--logs"],
        &["logs", "web"],
        &["ls"],
        &["start", "web"],
        &["save"],
        &["resurrect"],
    ] {
        folder.allcores(arguments).code(11).has(&refused);
    }
    chown(&state, Some(0), Some(0)).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o770)).unwrap();
    folder.allcores(&["delete", "web", "--logs"]).code(11).has(&["others may write to it (mode 770"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}
