//! Units for systemd: what stands in them, and why.
//!
//! Only words; where they are written and who may do so is the command's affair.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The first version of systemd that knows `Type=notify-reload`.
const NOTIFY_RELOAD: u32 = 253;

/// How long all that were saved may take to stop: how long each may, its own config says.
const STOP_ALL: Duration = Duration::from_mins(10);

/// What systemd waits longer for.
const SPARE: Duration = Duration::from_secs(10);

/// What a unit is to run.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// The app; or none, for all that were saved.
    pub(crate) app: Option<App>,
    pub(crate) program: String,
    /// For a user's own manager, which may set up less.
    pub(crate) is_users: bool,
    /// Who runs it.
    pub(crate) user: Option<String>,
    /// What says where running apps are found and what is kept of them: names and values of variables.
    pub(crate) places: Vec<(String, String)>,
    /// What has to be mounted before it starts: absolute paths.
    pub(crate) folders: Vec<String>,
    /// systemd's version here.
    pub(crate) version: Option<u32>,
}

/// An app of a config file.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) config: String,
    pub(crate) environment: Option<String>,
    /// Where its program is found, if the manager's own PATH does not have it.
    pub(crate) path: Option<String>,
    /// How long its workers may take to be ready.
    pub(crate) ready: Duration,
    /// How long it may take to stop.
    pub(crate) stop: Duration,
    /// The names of those that its secrets are.
    pub(crate) credentials: Vec<String>,
    /// Whether its workers have cgroups of their own.
    pub(crate) has_cgroups: bool,
}

/// What holds in either manager: seccomp's and the kernel's own, for which nothing has to be mounted.
const SANDBOX: &str = "\
# Adoption answers workers' bind and listen by way of seccomp, pidfd_getfd and process_vm_readv, and reads /proc. What is
# set here leaves it that. Not to be set: SystemCallFilter= without pidfd_getfd and process_vm_readv, ProcSubset=pid, PrivateUsers=,
# and AF_NETLINK is needed to see when a worker has finished.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
";

/// What becomes of the other workers.
const OUT_OF_MEMORY: &str = "\
# A worker that dies for want of memory is replaced; the others serve on.
OOMPolicy=continue";

/// What only the system's manager can set up.
const SYSTEM_SANDBOX: &str = "\
PrivateDevices=yes
ProtectSystem=full
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
";

impl Unit {
    /// The name of its file.
    pub(crate) fn file_name(&self) -> String {
        let name = self.app.as_ref().map_or("resurrect", |app| &app.name);
        format!("allcores-{name}.service")
    }

    /// What stands in it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = match &self.app {
            Some(app) => self.write_app(app, &mut text),
            None => self.write_saved(&mut text),
        };
        let target = if self.is_users { "default.target" } else { "multi-user.target" };
        let _ = write!(text, "\n[Install]\nWantedBy={target}\n");
        text
    }

    fn write_app(&self, app: &App, text: &mut String) -> std::fmt::Result {
        writeln!(text, "[Unit]\nDescription={} (allcores)", escaped(&app.name))?;
        self.write_before(text)?;
        // That an address is taken shows within a second, and five such starts are all that systemd makes by default.
        writeln!(
            text,
            "# Who has its address may go later than after the few starts that are usual; RestartSec= paces them.\n\
             StartLimitIntervalSec=0"
        )?;
        writeln!(text, "\n[Service]")?;
        let program = quoted(&self.program);
        if self.version.is_none_or(|version| version >= NOTIFY_RELOAD) {
            // systemd sends SIGHUP, and waits for the READY=1 that follows RELOADING=1.
            writeln!(text, "Type=notify-reload")?;
        } else {
            writeln!(text, "Type=notify\nExecReload={program} reload {}", quoted(&app.name))?;
        }
        write!(text, "ExecStart={program} run --config {} --app {}", quoted(&app.config), quoted(&app.name))?;
        if let Some(environment) = &app.environment {
            write!(text, " --env-name {}", quoted(environment))?;
        }
        writeln!(text)?;
        if let Some(path) = &app.path {
            writeln!(
                text,
                "# The program is in no folder of the PATH that units have.\n{}",
                variable("PATH", path)
            )?;
        }
        self.write_places(text)?;
        writeln!(text, "Restart=always\nRestartSec=1")?;
        writeln!(
            text,
            "# Who connects while it is restarted waits for the next one.\nFileDescriptorStoreMax=256"
        )?;
        writeln!(
            text,
            "# A command line or a config file that is wrong, or a program that is not there or can't be executed, does not get \
             better by trying again."
        )?;
        writeln!(text, "RestartPreventExitStatus=2 10 126 127")?;
        writeln!(text, "WatchdogSec=30\nTimeoutStartSec={}", app.ready.as_secs())?;
        writeln!(text, "# The primary alone is told, lets its workers finish, and ends them.")?;
        writeln!(text, "KillMode=mixed\nTimeoutStopSec={}", app.stop.as_secs())?;
        writeln!(text, "{OUT_OF_MEMORY}")?;
        if let Some(user) = &self.user {
            let user = escaped(user);
            writeln!(
                text,
                "User={user}\n# Where its own control socket is: ALLCORES_RUNTIME_DIR=/run/allcores-{user}"
            )?;
            writeln!(
                text,
                "RuntimeDirectory=allcores-{user}\nRuntimeDirectoryMode=0700\nRuntimeDirectoryPreserve=yes"
            )?;
            writeln!(text, "Environment=ALLCORES_RUNTIME_DIR=%t/allcores-{user}")?;
        }
        if !app.credentials.is_empty() {
            writeln!(
                text,
                "# Read from /etc/credstore, or from where a path says: NAME:FILE. Encrypted ones: LoadCredentialEncrypted="
            )?;
        }
        for name in &app.credentials {
            writeln!(text, "LoadCredential={}", escaped(name))?;
        }
        if app.has_cgroups {
            writeln!(text, "# Each worker has a cgroup of its own, below the unit's.\nDelegate=yes")?;
        }
        write!(text, "\n{SANDBOX}")?;
        if self.is_users {
            return Ok(());
        }
        write!(text, "{SYSTEM_SANDBOX}")?;
        // It would have the primary write to none of them.
        if app.has_cgroups { Ok(()) } else { writeln!(text, "ProtectControlGroups=yes") }
    }

    fn write_saved(&self, text: &mut String) -> std::fmt::Result {
        let program = quoted(&self.program);
        writeln!(text, "[Unit]\nDescription=apps that `allcores save` has saved")?;
        self.write_before(text)?;
        writeln!(text, "\n[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=10min")?;
        writeln!(
            text,
            "# An app that does not come back is in the journal, and must not take the others with it."
        )?;
        self.write_places(text)?;
        writeln!(text, "ExecStart=-{program} resurrect")?;
        // What does not go by itself is killed by its own kill-timeout; this is for long drains.
        let (minutes, spare) = (STOP_ALL.as_secs() / 60, SPARE.as_secs());
        // That nothing runs any more is no failure; who runs in the foreground has a unit of his own.
        writeln!(text, "ExecStop=-{program} stop all --background --timeout {minutes}min")?;
        writeln!(text, "TimeoutStopSec={}", STOP_ALL.as_secs() + spare)?;
        // By default, one of them would take all apps with it.
        writeln!(text, "{OUT_OF_MEMORY}")
    }

    fn write_places(&self, text: &mut String) -> std::fmt::Result {
        if !self.places.is_empty() {
            writeln!(text, "# Where the commands look for it that are typed where this was written.")?;
        }
        self.places.iter().try_for_each(|(name, value)| writeln!(text, "{}", variable(name, value)))
    }

    /// What is to be there before. A user's manager knows nothing of the network, nor of what is still to be mounted.
    fn write_before(&self, text: &mut String) -> std::fmt::Result {
        if self.is_users {
            return Ok(());
        }
        writeln!(text, "Wants=network-online.target\nAfter=network-online.target")?;
        if self.folders.is_empty() {
            return Ok(());
        }
        let folders: Vec<String> = self.folders.iter().map(|folder| path(folder)).collect();
        writeln!(text, "# Where a file system comes late at boot, it is waited for.")?;
        writeln!(text, "RequiresMountsFor={}", folders.join(" "))
    }
}

/// A word of a command line, as of systemd.service(5).
fn quoted(word: &str) -> String {
    path(&word.replace('$', "$$"))
}

/// A path among others, as of systemd.unit(5): there are no variables in such.
fn path(path: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-=:,@+".contains(char);
    if !path.is_empty() && path.chars().all(is_plain) {
        return path.to_owned();
    }
    let path = path.replace('\\', r"\\").replace('"', "\\\"");
    format!("\"{}\"", escaped(&path))
}

/// A variable that a service is to have.
fn variable(name: &str, value: &str) -> String {
    let value = escaped(value).replace('\\', r"\\").replace('"', "\\\"");
    format!("Environment=\"{name}={value}\"")
}

/// Text in which systemd is to replace nothing.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

/// The version of systemd that is installed here.
pub(crate) fn systemd_version() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

fn version_in(text: &str) -> Option<u32> {
    let word = text.lines().next()?.strip_prefix("systemd ")?;
    word.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// What systemd itself has to complain of in a unit; `None` where it can't be asked.
pub(crate) fn complaints(unit: &Path, is_users: bool) -> Option<String> {
    let manager = if is_users { "--user" } else { "--system" };
    let output = Command::new("systemd-analyze").args([manager, "verify"]).arg(unit).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // Then it has not come to the unit: outside of a login a user's manager has no folder for its sockets.
    (!text.contains("Failed to initialize manager")).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        let app = App {
            name: "web".into(),
            config: "/srv/my apps/100%/allcores.toml".into(),
            environment: Some("production".into()),
            path: None,
            ready: Duration::from_secs(90),
            stop: Duration::from_secs(20),
            credentials: Vec::new(),
            has_cgroups: false,
        };
        let program = "/usr/bin/allcores".into();
        let (user, places) = (Some("www-data".into()), Vec::new());
        let folders = vec!["/usr/bin".to_owned(), "/srv/my $apps/100%".to_owned()];
        Unit { app: Some(app), program, is_users: false, user, places, folders, version: Some(257) }
    }

    #[test]
    fn an_app_is_reloaded_by_notifying_where_systemd_knows_that() {
        let text = unit().text();
        let start = r#"ExecStart=/usr/bin/allcores run --config "/srv/my apps/100%%/allcores.toml" --app web --env-name production"#;
        for line in [
            start,
            "Type=notify-reload",
            "WatchdogSec=30",
            "TimeoutStopSec=20",
            "User=www-data",
            "KillMode=mixed",
            "RestartPreventExitStatus=2 10 126 127",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("ExecReload"), "{text}");
        for version in [NOTIFY_RELOAD - 1, NOTIFY_RELOAD] {
            let text = Unit { version: Some(version), ..unit() }.text();
            let is_new = text.contains("\nType=notify-reload\n");
            assert_eq!(is_new, version == NOTIFY_RELOAD);
            assert_ne!(
                is_new,
                text.contains("\nType=notify\nExecReload=/usr/bin/allcores reload web\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_unit_has_a_path_where_its_program_needs_one() {
        assert!(!unit().text().contains("PATH="), "{}", unit().text());
        let mut unit = unit();
        let path = Some("/opt/my node/100%/bin:/bin".to_owned());
        unit.app = unit.app.map(|app| App { path, ..app });
        let text = unit.text();
        let line = "Environment=\"PATH=/opt/my node/100%%/bin:/bin\"";
        assert!(text.lines().any(|written| written == line), "{text}");
    }

    #[test]
    fn a_unit_looks_where_the_commands_look() {
        let places = vec![("ALLCORES_STATE_DIR".to_owned(), "/srv/100%/\"state\"".to_owned())];
        for app in [unit().app, None] {
            let text = Unit { app, places: places.clone(), ..unit() }.text();
            let line = r#"Environment="ALLCORES_STATE_DIR=/srv/100%%/\"state\"""#;
            assert!(text.lines().any(|written| written == line), "{text}");
        }
    }

    #[test]
    fn a_users_unit_has_what_its_manager_can_do() {
        let text = Unit { is_users: true, user: None, ..unit() }.text();
        assert!(text.contains("WantedBy=default.target") && text.contains("NoNewPrivileges=yes"), "{text}");
        for absent in ["Protect", "PrivateDevices", "User=", "network-online", "RequiresMountsFor"] {
            assert!(
                !text.lines().any(|line| line.starts_with(absent) || line.contains("=network")),
                "{absent}: {text}"
            );
        }
        let saved = Unit { app: None, is_users: true, user: None, ..unit() };
        assert_eq!(saved.file_name(), "allcores-resurrect.service");
        let saved = saved.text();
        assert!(
            saved.contains(
                "ExecStart=-/usr/bin/allcores resurrect\nExecStop=-/usr/bin/allcores stop all \
                 --background --timeout 10min\nTimeoutStopSec=610\n"
            ),
            "{saved}"
        );
    }

    #[test]
    fn one_worker_that_dies_for_want_of_memory_takes_nobody_with_it() {
        for app in [unit().app, None] {
            let text = Unit { app, ..unit() }.text();
            assert!(text.contains("\nOOMPolicy=continue\n"), "{text}");
        }
    }

    #[test]
    fn what_comes_late_at_boot_is_waited_for_and_what_is_taken_tried_for_ever() {
        let text = unit().text();
        let (before, _) = text.split_once("\n[Service]\n").unwrap();
        let wanted = "\nRequiresMountsFor=/usr/bin \"/srv/my $apps/100%%\"\n";
        assert!(before.contains(wanted) && before.contains("\nStartLimitIntervalSec=0"), "{before}");
        assert!(text.contains("\nRestart=always\nRestartSec=1\n"), "{text}");
        let saved = Unit { app: None, ..unit() }.text();
        assert!(saved.contains(wanted), "{saved}");
        let none = Unit { folders: Vec::new(), ..unit() }.text();
        assert!(!none.contains("RequiresMountsFor"), "{none}");
    }

    #[test]
    fn credentials_are_loaded_and_cgroups_delegated_where_the_app_has_some() {
        let without = unit().text();
        assert!(!without.contains("LoadCredential") && !without.contains("Delegate"), "{without}");
        assert!(without.contains("\nProtectControlGroups=yes\n"), "{without}");
        let mut unit = unit();
        let app = unit.app.as_mut().unwrap();
        (app.credentials, app.has_cgroups) = (vec!["api".into(), "db".into()], true);
        let text = unit.text();
        assert!(text.contains("\nLoadCredential=api\nLoadCredential=db\n"), "{text}");
        assert!(text.contains("\nDelegate=yes\n") && !text.contains("ProtectControlGroups"), "{text}");
    }

    #[test]
    fn words_come_through_systemd_as_they_are() {
        assert_eq!(quoted("plain/word-1"), "plain/word-1");
        assert_eq!(quoted(r#"a "b" $c \d 5%"#), r#""a \"b\" $$c \\d 5%%""#);
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(path(r#"/a "b" $c \d 5%"#), r#""/a \"b\" $c \\d 5%%""#);
    }

    #[test]
    fn the_version_is_the_first_number() {
        assert_eq!(version_in("systemd 252 (252.38-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(version_in("systemd 257.4\n"), Some(257));
        assert_eq!(version_in("s6"), None);
    }
}
