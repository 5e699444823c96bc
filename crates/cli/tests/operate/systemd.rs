//! What systemd is told, over a real NOTIFY_SOCKET; and the units that are written for it, looked at by itself.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use allcores_testing::app::App;
use allcores_testing::process::Process;
use allcores_testing::{address, skip};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, geteuid};

use crate::folder::{Folder, Run};

const LONG: Duration = Duration::from_secs(30);

/// systemd's end of the socket.
pub(crate) struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self { socket, folder }
    }

    /// What NOTIFY_SOCKET is to be.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    fn app(&self) -> App {
        let served = address::unused().to_string();
        let command = [env!("CARGO_BIN_EXE_allcores"), "demo-worker", &served];
        App::new(command).binary(env!("CARGO_BIN_EXE_allcores")).workers(2).env("NOTIFY_SOCKET", self.path())
    }

    /// The next datagram that says this, with signs of life passed over.
    pub(crate) fn hear(&self, wanted: &str) -> Vec<String> {
        let deadline = Instant::now() + LONG;
        loop {
            let (lines, _) = self.receive();
            if lines.iter().any(|line| line == wanted) {
                return lines;
            }
            let is_other = lines.iter().any(|line| line == "WATCHDOG=1" || line.starts_with("STATUS="));
            assert!(is_other && Instant::now() < deadline, "{lines:?} while {wanted} is awaited");
        }
    }

    /// What is put into its store next, and the name. Nothing else is said before that.
    pub(crate) fn stored(&self) -> (String, OwnedFd) {
        loop {
            let (lines, mut descriptors) = self.receive();
            if lines.iter().any(|line| line == "WATCHDOG=1" || line.starts_with("STATUS=")) {
                continue;
            }
            let ["FDSTORE=1", name, "FDPOLL=0"] = lines.iter().map(String::as_str).collect::<Vec<_>>()[..]
            else {
                panic!("{lines:?}")
            };
            assert_eq!(descriptors.len(), 1, "{lines:?}");
            return (name.strip_prefix("FDNAME=").unwrap().to_owned(), descriptors.remove(0));
        }
    }

    fn receive(&self) -> (Vec<String>, Vec<OwnedFd>) {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut text)];
        let got = recvmsg(&self.socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        let text = std::str::from_utf8(&text[..got.bytes]).unwrap();
        (text.lines().map(str::to_owned).collect(), descriptors)
    }
}

/// When a reload that it is told of is said to have begun.
fn begun(reloading: &[String]) -> u128 {
    reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap().parse().unwrap()
}

fn monotonic() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u128::from(now.tv_sec.unsigned_abs()) * 1_000_000 + u128::from(now.tv_nsec.unsigned_abs()) / 1_000
}

#[test]
fn systemd_is_told_of_readiness_reloads_and_the_end() {
    let manager = Manager::new();
    let app = manager.app().start().unwrap();
    let ready = manager.hear("READY=1");
    assert!(ready.iter().any(|line| line.starts_with("STATUS=2 workers ready on 127.")), "{ready:?}");
    app.wait_ready(2).unwrap();

    let before = monotonic();
    app.signal(Signal::HUP).unwrap();
    let reloading = manager.hear("RELOADING=1");
    assert!((before..=monotonic()).contains(&begun(&reloading)), "{reloading:?}");
    let ready = manager.hear("READY=1");
    assert!(ready.iter().any(|line| line == "STATUS=reloaded, generation 2 serves"), "{ready:?}");

    // One that fails is over, too, and says so.
    let failed = app.run(["reload", app.name(), "--", "false"]).unwrap();
    Run::from(failed).code(8);
    manager.hear("RELOADING=1");
    let ready = manager.hear("READY=1");
    let status = ready.iter().find(|line| line.starts_with("STATUS=reload failed, the old version serves"));
    assert!(status.is_some(), "{ready:?}");

    app.signal(Signal::TERM).unwrap();
    manager.hear("STOPPING=1");
    assert!(app.wait(LONG).unwrap().success());
}

#[test]
fn a_reload_that_is_refused_is_over_at_once_and_all_are_told_why() {
    let (folder, manager) = (Folder::new(), Manager::new());
    let config = "[apps.web]\ncommand = $COMMAND\nworkers = 1\nenv = { HOST = \"$HOST\", PORT = $PORT }\n";
    folder.write("allcores.toml", config);
    let mut command = folder.command(&["run", "--config", "allcores.toml"]);
    let app = Process::spawn(command.env("NOTIFY_SOCKET", manager.path())).unwrap();
    manager.hear("READY=1");
    let mut events = folder.events("web");

    folder.write("allcores.toml", &config.replace("workers", "wokers"));
    let before = monotonic();
    app.signal(Signal::HUP).unwrap();
    let reloading = manager.hear("RELOADING=1");
    assert!((before..=monotonic()).contains(&begun(&reloading)), "{reloading:?}");
    let ready = manager.hear("READY=1");
    let status = ready.iter().find_map(|line| line.strip_prefix("STATUS=")).unwrap();
    let expected = "not reloaded: allcores.toml:3:1: unknown key `wokers`; did you mean `workers`?";
    assert_eq!(status, expected, "{ready:?}");
    assert!(events.any(|line| line.contains("\"notice\"") && line.contains(expected)));

    // It reloads as ever once the file is right again.
    folder.write("allcores.toml", config);
    app.signal(Signal::HUP).unwrap();
    manager.hear("RELOADING=1");
    let ready = manager.hear("READY=1");
    assert!(ready.iter().any(|line| line == "STATUS=reloaded, generation 2 serves"), "{ready:?}");
    assert!(app.stop().unwrap().success());
}

#[test]
fn signs_of_life_come_as_often_as_they_are_wanted_and_only_then() {
    let manager = Manager::new();
    let app = manager.app().env("WATCHDOG_USEC", "200000").start().unwrap();
    manager.hear("READY=1");
    let begin = Instant::now();
    for _ in 0..5 {
        manager.hear("WATCHDOG=1");
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "twice in each limit: {:?}", begin.elapsed());
    assert!(app.stop().unwrap().success());

    // What is meant for another process is none of ours: its watchdog is not asked for.
    let manager = Manager::new();
    let app = manager.app().env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1").start().unwrap();
    manager.hear("READY=1");
    app.signal(Signal::TERM).unwrap();
    let mut buffer = [0; 4096];
    loop {
        let length = manager.socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(!text.contains("WATCHDOG"), "{text}");
        if text.contains("STOPPING=1") {
            break;
        }
    }
    assert!(app.wait(LONG).unwrap().success());
}

fn two_apps(folder: &Folder) {
    folder.write(
        "allcores.toml",
        "[apps.web]\ncommand = $COMMAND\nworkers = 1\ndrain-timeout = \"20s\"\n[apps.web.environments.production]\nworkers = 2\n\
         [apps.api]\ncommand = $COMMAND\nready-timeout = \"5m\"\n",
    );
}

#[test]
fn units_are_written_and_systemd_has_nothing_to_complain_of() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skip!("systemd-analyze: it is not installed");
    }
    let folder = Folder::new();
    two_apps(&folder);
    let units = folder.path().join("units");
    fs::create_dir(&units).unwrap();
    for (options, written) in [
        (&["--env-name", "production", "web"][..], &["allcores-web.service"][..]),
        (&["--as", "daemon"], &["allcores-web.service", "allcores-api.service"]),
        (&["--user"], &["allcores-web.service", "allcores-api.service"]),
        (&["--saved"], &["allcores-resurrect.service"]),
    ] {
        let arguments = [&["startup", "--output-folder", "units", "--force"], options].concat();
        let mut command = folder.command(&arguments);
        let run: Run = command.env("XDG_RUNTIME_DIR", folder.path()).output().unwrap().into();
        let run = run.code(0).has(&["systemctl", "daemon-reload", "enable --now"]);
        assert!(
            !run.out.contains("complains") && !run.out.contains("can't be asked"),
            "{options:?}: {}",
            run.out
        );
        for name in written {
            let manager = if options.contains(&"--user") { "--user" } else { "--system" };
            let mut verify = Command::new("systemd-analyze");
            verify.args([manager, "verify"]).arg(units.join(name)).env("XDG_RUNTIME_DIR", folder.path());
            let Run { code, out, err } = verify.output().unwrap().into();
            assert_eq!((code, out.trim(), err.trim()), (Some(0), "", ""), "{name} by {options:?}");
        }
    }
    // What it has is passed on.
    let mut arguments = vec!["startup", "--output-folder", "units", "--as", "nobody", "api"];
    let refused = folder.allcores(&arguments).code(1);
    refused.has(&[
        "units/allcores-api.service is there, and is another",
        "--print",
        "--force",
        "systemctl edit",
    ]);
    arguments.push("--force");
    folder.allcores(&arguments).code(0).has(&["systemd-analyze complains of it:", "user nobody"]);
    // As it is there already.
    arguments.pop();
    folder.allcores(&arguments).code(0);
    let text = fs::read_to_string(units.join("allcores-api.service")).unwrap();
    assert!(text.contains("TimeoutStartSec=310\n") && text.contains("TimeoutStopSec=25\n"), "{text}");
}

#[test]
fn a_unit_waits_for_the_mounts_of_all_that_the_app_needs_to_begin() {
    let folder = Folder::new();
    for made in ["my app", "bin"] {
        fs::create_dir(folder.path().join(made)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_allcores"), folder.path().join("bin/server")).unwrap();
    folder.write("set/100%.env", "A=b\n");
    folder.write(
        "allcores.toml",
        "[apps.web]\ncommand = \"../bin/server\"\ncwd = \"my app\"\nenv-file = \"set/100%.env\"\n",
    );
    let text = folder.allcores(&["startup", "--print"]).code(0).out;
    let own = Path::new(env!("CARGO_BIN_EXE_allcores")).parent().unwrap();
    let wanted = text.lines().find_map(|line| line.strip_prefix("RequiresMountsFor=")).unwrap();
    let at = folder.path().display();
    for part in [own.display().to_string(), format!("{at}"), format!("\"{at}/my app\""), format!("{at}/set")]
    {
        assert!(wanted.contains(&part), "{part} in {wanted}");
    }
    assert!(wanted.contains("/bin") && !wanted.contains(".env"), "{wanted}");
    let state = format!("{at}/state");
    let saved = folder.allcores(&["startup", "--print", "--saved"]).code(0);
    saved.has(&["\nRequiresMountsFor=", &state, "\nOOMPolicy=continue\n"]);
}

#[test]
fn what_only_the_unit_can_have_is_written_into_it() {
    let folder = Folder::new();
    folder.write(
        "allcores.toml",
        "[apps.web]\ncommand = $COMMAND\nsecret = { DB_PASSWORD = \"credential:db\" }\n\
         cgroup = \"memory.max=512M\"\n",
    );
    folder.allcores(&["startup", "--print"]).code(0).has(&["\nLoadCredential=db\n", "\nDelegate=yes\n"]);
    folder.allcores(&["check"]).code(0);
    // Without the unit it has none.
    let config = ["run", "--config", "allcores.toml"];
    folder.allcores(&config).code(10).has(&["credential:db", "LoadCredential="]);
}

#[test]
fn units_can_be_looked_at_first_and_what_is_wrong_is_said() {
    let folder = Folder::new();
    two_apps(&folder);
    let config = folder.path().join("allcores.toml");
    let start = format!("run --config {} --app web --env-name production", config.display());
    folder
        .allcores(&["startup", "--print", "--env-name", "production", "web"])
        .code(0)
        .has(&["[Service]", &start]);
    folder.allcores(&["startup", "--print", "wed"]).code(10).has(&["there is no app wed in it", "web"]);
    folder.allcores(&["startup", "--config", "none.toml"]).code(10).has(&["none.toml"]);
    let nobody = folder.allcores(&["startup", "--print", "--as", "no-such-user"]).code(2);
    nobody.has(&["--as no-such-user: no user of that name in /etc/passwd", "next:"]);
    folder.write("gone.toml", "[apps.web]\ncommand = \"no-such-program app.js\"\n");
    let gone = folder.allcores(&["startup", "--print", "--config", "gone.toml"]).code(10);
    gone.has(&["gone.toml:2:1: command = \"no-such-program\"", "is in no folder of PATH"]);
    // What only a shell's PATH has is found in the unit, too.
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_allcores"), bin.join("no-such-program")).unwrap();
    let mut print = folder.command(&["startup", "--print", "--config", "gone.toml"]);
    let run: Run = print.env("PATH", format!("/usr/bin:{}", bin.display())).output().unwrap().into();
    run.code(0).has(&[&format!("Environment=\"PATH={}:/usr/local/sbin:", bin.display())]);
    folder.allcores(&["startup", "--saved", "web"]).code(2).has(&["--saved", "cannot be used with"]);
    let nowhere = folder.allcores(&["startup", "--output-folder", "nowhere"]).code(1);
    nowhere.has(&["write the unit nowhere/allcores-", "--print"]);
    if !geteuid().is_root() || !Path::new("/usr/bin/setpriv").exists() {
        skip!("we are not root: who is not can't be tried as somebody else");
    }
    let mut other = vec!["--reuid=65534", "--clear-groups", env!("CARGO_BIN_EXE_allcores"), "startup"];
    let copy = std::env::temp_dir().join(format!("allcores-startup-{}.toml", std::process::id()));
    // Anybody may run it, wherever the tests' own programs are.
    fs::write(&copy, "[apps.web]\ncommand = \"sh app.sh\"\n").unwrap();
    other.extend(["--config", copy.to_str().unwrap()]);
    let run: Run = folder.command_of("setpriv".as_ref(), &other).current_dir("/").output().unwrap().into();
    fs::remove_file(&copy).unwrap();
    run.code(1).has(&["only root can write to /etc/systemd/system", "sudo ", "startup --config", "--user"]);
}
