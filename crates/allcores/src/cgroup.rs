//! A cgroup (version 2) of each worker's own, with limits that the kernel holds it and its descendants to.
//!
//! Below the cgroup that the primary was started in, `allcores.primary` gets the primary itself, since the kernel wants no
//! processes where limits are handed down from, and each worker one of its own. Which controllers there are, and what their
//! files take, is the kernel's business: what is asked for is written, and what it says is passed on. Source: the kernel's
//! `Documentation/admin-guide/cgroup-v2.rst`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use allcores_core::worker::WorkerId;

use crate::proc;

/// Where the primary itself goes.
const OWN: &str = "allcores.primary";

/// What begins the names of workers' cgroups.
const PREFIX: &str = "allcores.worker-";

/// Where the cgroups of an app's workers are made.
#[derive(Debug)]
pub(crate) struct Cgroups {
    base: PathBuf,
    /// Files, and what is written to them.
    limits: Vec<(String, String)>,
}

/// A worker's cgroup. Dropped, whoever is left in it is killed, and it is removed.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Makes the place for them, and sees whether the limits can be set.
    ///
    /// # Errors
    ///
    /// What was tried, why it failed and what to do, in words.
    pub(crate) fn prepare(limits: &[(String, String)]) -> Result<Option<Arc<Self>>, String> {
        if limits.is_empty() {
            return Ok(None);
        }
        let base = base()?;
        leave(&base, limits)?;
        let cgroups = Self { base, limits: limits.to_vec() };
        cgroups.sweep(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        // Worker 0 does not exist: what is wrong with the limits is known before there is a worker.
        cgroups.make(WorkerId(0))?;
        Ok(Some(Arc::new(cgroups)))
    }

    /// Makes a worker's.
    ///
    /// # Errors
    ///
    /// What was tried and why it failed, in words.
    pub(crate) fn make(&self, id: WorkerId) -> Result<Cgroup, String> {
        // What could not be removed before, as somebody was still on his way out.
        self.sweep(|pid| pid == std::process::id());
        let path = self.base.join(format!("{PREFIX}{}-{id}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("making the cgroup {}: {error}", path.display()))?;
        let cgroup = Cgroup { path };
        for (file, value) in &self.limits {
            let at = cgroup.path.join(file);
            fs::write(&at, value).map_err(|error| format!("writing {value} to {}: {error}", at.display()))?;
        }
        Ok(cgroup)
    }

    /// Removes those in which nobody is, of primaries that are meant.
    fn sweep(&self, is_meant: impl Fn(u32) -> bool) {
        for entry in fs::read_dir(&self.base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let numbers = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
            if numbers.and_then(|(pid, _)| pid.parse().ok()).is_some_and(&is_meant) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Cgroup {
    /// One that was made before.
    pub(crate) fn resume(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whoever writes to it enters.
    pub(crate) fn door(&self) -> io::Result<File> {
        File::options().write(true).open(self.path.join("cgroup.procs"))
    }

    /// Whether the kernel has killed somebody in it for want of memory; `None` where that is not told.
    pub(crate) fn was_out_of_memory(&self) -> Option<bool> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        Some(kills.trim() != "0")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Linux 5.14; nobody is left in it as a rule.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let _ = fs::remove_dir(&self.path);
    }
}

/// The cgroup that this process was started in.
fn base() -> Result<PathBuf, String> {
    const NONE: &str = "there is no cgroup version 2 here; limits need it mounted, and a part of it that is ours to divide: as \
                        a systemd service with `Delegate=yes`, or in a container with a writable cgroup file system";
    let mounts = proc::text("/proc/self/mountinfo").map_err(|error| format!("/proc: {error}"))?;
    let own = proc::text("/proc/self/cgroup").map_err(|error| format!("/proc: {error}"))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or(NONE)?;
    let own = place_of(own, &mounts).filter(|path| path.join("cgroup.procs").exists()).ok_or(NONE)?;
    Ok(if own.ends_with(OWN) { own.parent().unwrap_or(&own).to_owned() } else { own })
}

/// Where a cgroup is to be found, as `/proc/self/mountinfo` tells.
fn place_of(cgroup: &str, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut fields = front.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(cgroup).strip_prefix(root).ok()?;
        back.starts_with("cgroup2 ").then(|| Path::new(point).join(below))
    })
}

/// Leaves the base, and has it hand down what the limits are about.
fn leave(base: &Path, limits: &[(String, String)]) -> Result<(), String> {
    let shown = base.display();
    let read = |file: &str| fs::read_to_string(base.join(file));
    let offered =
        read("cgroup.controllers").map_err(|error| format!("reading what {shown} offers: {error}"))?;
    let offered: BTreeSet<&str> = offered.split_whitespace().collect();
    let of = |file: &String| file.split_once('.').map(|(controller, _)| controller.to_owned());
    let wanted: BTreeSet<String> = limits.iter().filter_map(|(file, _)| of(file)).collect();
    // Its own files need no controller.
    let mut wanted = wanted.iter().map(String::as_str).filter(|name| *name != "cgroup").peekable();
    if wanted.peek().is_none() {
        return Ok(());
    }
    let own = base.join(OWN);
    let moved = || {
        fs::create_dir(&own).or_else(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
        })?;
        fs::write(own.join("cgroup.procs"), "0")
    };
    // The root is the one that may have both.
    if base.join("cgroup.type").exists() {
        moved().map_err(|error| {
            format!(
                "moving to a cgroup below {shown}: {error}; it has to be ours to divide: as a systemd service with \
                 `Delegate=yes`, or by `systemd-run --user --scope -p Delegate=yes allcores …`"
            )
        })?;
    }
    for controller in wanted {
        if !offered.contains(controller) {
            let all = offered.iter().copied().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "the cgroup {shown} has no controller {controller}: it has {}; under systemd, `Delegate=yes` hands down \
                 those that there are",
                if all.is_empty() { "none" } else { &all }
            ));
        }
        fs::write(base.join("cgroup.subtree_control"), format!("+{controller}")).map_err(|error| {
            let busy = error.kind() == io::ErrorKind::ResourceBusy;
            let why = if busy { "; there are processes in it that are not ours" } else { "" };
            format!("having the cgroup {shown} hand down {controller}: {error}{why}")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
33 22 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 22 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn a_cgroup_is_found_below_where_its_root_is_mounted() {
        assert_eq!(place_of("/a.slice/b", MOUNTS), Some("/sys/fs/cgroup/a.slice/b".into()));
        assert_eq!(place_of("/", MOUNTS), Some("/sys/fs/cgroup/".into()));
        let of_container = MOUNTS.replace("0:29 / ", "0:29 /docker/1 ");
        assert_eq!(place_of("/docker/1/x", &of_container), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(place_of("/other", &of_container), None);
        let old = MOUNTS.lines().take(2).collect::<Vec<_>>().join("\n");
        assert_eq!(place_of("/", &old), None);
    }
}
