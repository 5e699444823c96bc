//! Limits that the kernel holds workers to, where there is a cgroup file system of version 2 that can be written to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allcores_testing::app::App;
use allcores_testing::process::Event;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine, skip};
use rustix::process::Signal;

use crate::{app, proc};

const PATIENCE: Duration = Duration::from_secs(20);

/// Limits by which a test can see that they are set, and what reading them gives.
const LIMITS: [(&str, &str, &str); 3] =
    [("memory.max", "512M", "536870912"), ("pids.max", "64", "64"), ("hugetlb.2MB.max", "0", "0")];

/// A cgroup for one test; the app is started in it.
struct Place {
    path: PathBuf,
    limit: (&'static str, &'static str, &'static str),
}

impl Place {
    fn make(name: &str) -> Option<Self> {
        match Self::try_make(name) {
            Ok(place) => Some(place),
            Err(why) => {
                skip::report(&why);
                None
            }
        }
    }

    fn try_make(name: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root =
            PathBuf::from(mount.and_then(|line| line.split(' ').nth(1)).ok_or("no cgroup2 is mounted")?);
        let controllers =
            fs::read_to_string(root.join("cgroup.controllers")).map_err(|error| error.to_string())?;
        let of = |limit: &str| limit.split('.').next().unwrap().to_owned();
        let is_offered =
            |limit: &&(&str, _, _)| controllers.split_whitespace().any(|name| name == of(limit.0));
        let limit = *LIMITS.iter().find(is_offered).ok_or("it has no controller that a test knows")?;
        let failed = |error: std::io::Error| format!("{}: {error}", root.display());
        fs::write(root.join("cgroup.subtree_control"), format!("+{}", of(limit.0))).map_err(failed)?;
        let path = root.join(format!("allcores-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).map_err(failed)?;
        Ok(Self { path, limit })
    }

    /// Has an app started in it.
    fn around(&self, app: App) -> App {
        let enter = format!("echo $$ > {} && exec \"$@\"", self.path.join("cgroup.procs").display());
        app.wrapper(["sh", "-c", &enter, "enter"])
    }

    fn below(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in self.below() {
            let _ = fs::remove_dir(self.path.join(name));
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// The last part of the path of the cgroup that a process is in.
fn cgroup_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    Path::new(path).file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn each_worker_has_a_cgroup_with_the_limit_for_as_long_as_it_lives() {
    let Some(python) = require(Runtime::Python) else { return };
    let Some(place) = Place::make("lives") else { return };
    let _turn = machine::together();
    let (file, value, read) = place.limit;
    let app = place.around(app::server(python, address::unused()).workers(2));
    let app = app.option(format!("--cgroup={file}={value}")).start().unwrap();
    app.wait_ready(2).unwrap();
    assert_eq!(cgroup_of(app.pid()), "allcores.primary");
    let workers = app::workers(&app.status().unwrap());
    let mut names: Vec<String> = workers.values().map(|pid| cgroup_of(*pid)).collect();
    for name in &names {
        assert_eq!(fs::read_to_string(place.path.join(name).join(file)).unwrap().trim(), read);
    }
    names.push("allcores.primary".into());
    names.sort_unstable();
    assert_eq!(place.below(), names);

    let victim = workers[&0];
    let (old, position) = (cgroup_of(victim), app.position());
    proc::Process::open(victim).unwrap().signal(Signal::KILL);
    let is_ready = |event: &Event| event.kind() == "ready";
    let successor = app.wait_for_since(position, is_ready, PATIENCE).unwrap().worker_pid().unwrap();
    let new = cgroup_of(successor);
    assert_ne!(new, old);
    assert!(place.below().contains(&new) && !place.below().contains(&old), "{:?}", place.below());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    assert_eq!(place.below(), ["allcores.primary"], "those of workers are gone");
}

/// An app with this limit fails at once; what it said.
fn fails(name: &str, limit: impl FnOnce(&Place) -> String) -> Option<String> {
    let python = require(Runtime::Python)?;
    let place = Place::make(name)?;
    let _turn = machine::together();
    let app = place.around(app::server(python, address::unused()).workers(2));
    let app = app.option(format!("--cgroup={}", limit(&place))).start().unwrap();
    let said = app.wait_output(PATIENCE).unwrap().join("\n");
    let code = app.wait(PATIENCE).unwrap().code();
    assert_eq!(code, Some(3), "{said}");
    assert_eq!(place.below(), ["allcores.primary"]);
    assert!(!said.contains("forked"), "{said}");
    Some(said)
}

#[test]
fn a_limit_that_the_kernel_refuses_is_told_at_once_and_nothing_is_started() {
    let Some(said) = fails("refused", |place| format!("{}=lots", place.limit.0)) else { return };
    assert!(said.contains("writing lots to ") && said.contains("Invalid argument"), "{said}");
}

#[test]
fn a_limit_that_nobody_could_hold_to_is_told_at_once_and_nothing_is_started() {
    let Some(said) = fails("unknown", |_| "nonsense.max=1".into()) else { return };
    assert!(said.contains("has no controller nonsense: it has "), "{said}");
}
