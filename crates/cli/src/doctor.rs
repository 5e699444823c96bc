//! What this machine, container and user allow. What can be tried is tried; the rest is read from where the kernel tells.
//!
//! Changes nothing but the runtime folder, which it makes as `run` would.

mod trial;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, Resource, getrlimit};
use serde::Serialize;

use crate::failure::Failure;
use crate::runtime_folder::RuntimeFolder;
use crate::settings::find_program;
use trial::{Folder, Trial, Way};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    Good,
    /// It works, with less.
    Less,
    /// It does not.
    Bad,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) what: &'static str,
    pub(crate) grade: Grade,
    pub(crate) found: String,
    /// What to change, where there is something.
    pub(crate) advice: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, grade: Grade::Good, found: found.into(), advice: None }
    }

    fn less(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, grade: Grade::Less, found: found.into(), advice: Some(advice.into()) }
    }

    fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, grade: Grade::Bad, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Looks at everything, and at a command, if there is one.
pub(crate) fn examine(command: &[OsString]) -> Vec<Finding> {
    let folder = RuntimeFolder::from_env().and_then(|runtime| Folder::new(&runtime));
    let trial = match &folder {
        Ok(folder) => trial::run(folder),
        Err(_) => Trial::NotTried("it takes a runtime folder".into()),
    };
    let mut findings = vec![
        kernel(),
        workers(),
        runtime_folder(folder.as_ref().err()),
        adoption(&trial),
        descriptors(),
        privileges(),
        ports(),
    ];
    findings.extend([open_files(), backlog(), memory()]);
    if !command.is_empty() {
        findings.push(of_command(command, &trial));
    }
    findings
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let found = format!("Linux {release}, {}", std::env::consts::ARCH);
    match version(&release) {
        Some(version) if version < (5, 14) => Finding::less(
            "kernel",
            found,
            "before 5.14 no program can be adopted: node by its channel, others by LISTEN_FDS (--listen)",
        ),
        Some(version) if version < (6, 2) => Finding::less(
            "kernel",
            found,
            "from 6.2 on, connections that are kept open are spread evenly, too",
        ),
        _ => Finding::good("kernel", found),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn workers() -> Finding {
    match std::thread::available_parallelism() {
        Ok(cores) => Finding::good(
            "workers",
            format!("`-w auto` means {cores}: what affinity and the cgroup's quota leave of the cores"),
        ),
        Err(error) => {
            Finding::less("workers", format!("the cores can't be counted: {error}"), "say how many: -w 4")
        }
    }
}

fn runtime_folder(failure: Option<&Failure>) -> Finding {
    match failure {
        None => Finding::good("runtime folder", "control sockets can be made"),
        Some(failure) => {
            let advice = "name a folder of yours: ALLCORES_RUNTIME_DIR";
            Finding::bad("runtime folder", failure.in_a_line(), advice)
        }
    }
}

fn adoption(trial: &Trial) -> Finding {
    let advice = "allow it: see `seccomp` in docs/guide/containers.md; until then node by its channel, others by LISTEN_FDS \
                  (--listen)";
    match trial {
        Trial::Served(Way::Lanes) => Finding::good(
            "adoption",
            "tried: two workers that bind one port by themselves each got a lane of it",
        ),
        Trial::Served(Way::Other(how)) => {
            Finding::less("adoption", format!("tried: two workers share a port, {how}"), advice)
        }
        Trial::Failed(why) => Finding::bad("adoption", format!("tried, and not to be had: {why}"), advice),
        Trial::NotTried(why) => Finding::less(
            "adoption",
            format!("not tried: {why}"),
            "put that right, and ask again: whether it is allowed can't be told without",
        ),
    }
}

/// Whether a socket can be taken out of a process of ours, which says the same of workers.
fn descriptors() -> Finding {
    let own = rustix::process::getpid();
    let taken = rustix::process::pidfd_open(own, PidfdFlags::empty()).map_err(|error| ("pidfd_open", error));
    let taken = taken.and_then(|pidfd| {
        // Descriptor 2 is there, or this can't be read.
        let got = rustix::process::pidfd_getfd(pidfd, 2, PidfdGetfdFlags::empty());
        got.map(drop).map_err(|error| ("pidfd_getfd", error))
    });
    match taken {
        Ok(()) => Finding::good("sockets", "pidfd_open and pidfd_getfd are allowed"),
        Err(("pidfd_open", error)) => Finding::bad(
            "sockets",
            format!("pidfd_open: {}", io::Error::from(error)),
            "workers can't be watched without it: it takes Linux 5.3, and a container that allows it",
        ),
        Err((call, error)) => Finding::less(
            "sockets",
            format!("{call}: {}", io::Error::from(error)),
            "options that a program sets before it binds are lost, but for O_NONBLOCK, and one that has epoll watch its socket before \
             (Netty's native transport) can't share it; allow pidfd_getfd (in Docker's profile it comes with CAP_SYS_PTRACE)",
        ),
    }
}

fn privileges() -> Finding {
    // The name in it may be cut inside a character.
    let status = fs::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    let user = rustix::process::geteuid().as_raw();
    let filtered =
        if field("Seccomp:") == Some("2") { ", under a seccomp filter of somebody else's" } else { "" };
    let is_admin = capabilities & (1 << SYS_ADMIN) != 0;
    if is_admin {
        return Finding::good("privileges", format!("user {user} with CAP_SYS_ADMIN{filtered}"));
    }
    Finding::less(
        "privileges",
        format!("user {user} without CAP_SYS_ADMIN{filtered}"),
        "adopted workers get no_new_privs: sudo and other set-uid programs in them gain nothing. Else nothing is missing",
    )
}

/// capabilities(7).
const SYS_ADMIN: u32 = 21;

fn ports() -> Finding {
    let first = number("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    if rustix::process::geteuid().is_root() || first == 0 {
        return Finding::good("ports", "all");
    }
    Finding::less(
        "ports",
        format!("from {first} up"),
        "for lower ones: `setcap cap_net_bind_service+ep` on allcores, a socket unit of systemd, or the sysctl \
         net.ipv4.ip_unprivileged_port_start",
    )
}

fn open_files() -> Finding {
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < 4096 => Finding::less(
            "open files",
            format!("at most {most}"),
            "raise the hard limit: ulimit -Hn, LimitNOFILE=",
        ),
        Some(most) => {
            Finding::good("open files", format!("up to {most}; the primary raises its own limit to that"))
        }
        None => Finding::good("open files", "no limit"),
    }
}

fn backlog() -> Finding {
    match number("/proc/sys/net/core/somaxconn") {
        Some(most) if most < 1024 => Finding::less(
            "queues",
            format!("at most {most} connections wait in a lane"),
            "raise the sysctl net.core.somaxconn",
        ),
        Some(most) => Finding::good("queues", format!("up to {most} connections wait in a lane")),
        None => Finding::less("queues", "net.core.somaxconn can't be read", "mount /proc whole"),
    }
}

fn memory() -> Finding {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Finding::good(
            "memory",
            "cgroup v2: a worker that is killed for want of memory is told apart",
        );
    }
    Finding::less(
        "memory",
        "no cgroup v2",
        "a worker that is killed for want of memory is reported as killed by SIGKILL",
    )
}

fn of_command(command: &[OsString], trial: &Trial) -> Finding {
    let what = "command";
    let path = std::env::var_os("PATH");
    if let Err(why) = find_program(&command[0], Path::new(""), path.as_deref()) {
        return Finding::bad(what, why, "give its full path, or check the spelling");
    }
    if allcores::primary::is_offered_channel(command) {
        return Finding::good(
            what,
            "node running a program: it is asked over node:cluster's own channel, and listens through it",
        );
    }
    let found = "the program's own bind and listen are answered (adoption), and those of whatever it starts";
    match trial {
        Trial::Served(_) => Finding::good(what, found),
        Trial::Failed(_) => Finding::bad(
            what,
            "it would have to be adopted, and that is not to be had here",
            "if it takes sockets by LISTEN_FDS, name its address: --listen",
        ),
        Trial::NotTried(_) => Finding::less(
            what,
            "it would have to be adopted, and whether that is to be had was not tried",
            "put right what is said of adoption, and ask again",
        ),
    }
}

fn number(path: &str) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_kernels_version_is_its_first_two_numbers() {
        assert_eq!(version("6.18.5"), Some((6, 18)));
        assert_eq!(version("5.14-rc1-cloud"), Some((5, 14)));
        assert_eq!(version("unknown"), None);
    }
}
