//! `allcores startup`: units for systemd, written or printed, looked at by systemd itself, and what to run next.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::{print, say};
use crate::app::as_typed;
use crate::args::StartupArgs;
use crate::config::File;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Failures};
use crate::runtime_folder;
use crate::settings::{self, AppName};
use crate::state_folder::{self, StateFolder};
use crate::units::{self, App, Unit};
use crate::whole::{self, Existing};

/// Where the system's units of its administrator are.
const SYSTEM: &str = "/etc/systemd/system";

/// What systemd allows a service to start by default.
const START: Duration = Duration::from_secs(90);

/// What ending takes besides what workers may take.
const SPARE: Duration = Duration::from_secs(10);

/// Writes the units, or prints them.
pub(super) fn execute(args: &StartupArgs) -> Result<ExitCode, Failure> {
    let units = units(args)?;
    if args.print {
        let texts = units.iter().map(|unit| format!("# {}\n{}", unit.file_name(), unit.text()));
        return print(texts.collect::<Vec<_>>().join("\n").as_bytes());
    }
    let folder = folder(args)?;
    let mut said = String::new();
    let units_at: Vec<(PathBuf, String)> =
        units.iter().map(|unit| (folder.join(unit.file_name()), unit.text())).collect();
    if !args.force {
        let mut changed = Failures::default();
        for (path, text) in &units_at {
            changed.keep(check_unchanged(path, text));
        }
        changed.none()?;
    }
    for (path, text) in &units_at {
        write(path, text, args)?;
        let _ = writeln!(said, "wrote {}", path.display());
        match units::complaints(path, args.user) {
            Some(complaints) if complaints.is_empty() => {}
            Some(complaints) => {
                let _ = writeln!(said, "systemd-analyze complains of it:\n{complaints}");
            }
            None => said.push_str("systemd-analyze can't be asked here, so nobody has looked at it\n"),
        }
    }
    let names = units.iter().map(Unit::file_name).collect::<Vec<_>>().join(" ");
    let systemctl = if args.user { "systemctl --user" } else { "systemctl" };
    let _ = writeln!(said, "next: {systemctl} daemon-reload && {systemctl} enable --now {names}");
    if args.user {
        said.push_str("to have it run while you are not logged in: loginctl enable-linger\n");
    }
    say(&said)
}

fn units(args: &StartupArgs) -> Result<Vec<Unit>, Failure> {
    let program =
        std::env::current_exe().context("find the program `allcores` itself, for systemd to run")?;
    let unit = |app, folders: Vec<PathBuf>| Unit {
        app,
        program: program.display().to_string(),
        is_users: args.user,
        user: args.user_name.clone(),
        places: places(args),
        folders: in_words(program.parent().map(Path::to_path_buf).into_iter().chain(folders)),
        version: units::systemd_version(),
    };
    if args.saved {
        let state = StateFolder::from_env().ok().map(|state| state.path().to_path_buf());
        return Ok(vec![unit(None, state.into_iter().collect())]);
    }
    if let Some(user) = &args.user_name {
        settings::check_user("as", user)?;
    }
    let file = File::read(&args.config)?;
    let all: Vec<AppName> = file.apps().cloned().collect();
    let wanted = if args.names.is_empty() { &all } else { &args.names };
    let app = |name: &AppName| -> Result<Unit, Failure> {
        let name = file.pick(Some(name))?;
        let mut app = file.alone(name, args.env_name.as_deref())?;
        let credentials = settings::leave_out_credentials(&mut app);
        // What it would fail for at boot is said now.
        let mut wrong = Failures::default();
        wrong.keep(settings::of_app(&app));
        let path = wrong.keep(settings::unit_path(&app));
        let program = settings::check_program(&app).ok();
        wrong.keep(settings::check_log(&app));
        wrong.none()?;
        let options = &app.options;
        let config = file.absolute();
        let files = options.env_file.iter().chain(&program).chain([&config]);
        let folders = files.filter_map(|file| file.parent()).chain(options.cwd.as_deref());
        let folders = folders.map(Path::to_path_buf).collect();
        let app = App {
            name: name.to_string(),
            config: config.display().to_string(),
            environment: args.env_name.clone(),
            path: path.flatten(),
            ready: START.max(options.upkeep.ready_timeout + SPARE),
            stop: options.drain_timeout + options.kill_timeout + SPARE,
            credentials,
            has_cgroups: !options.upkeep.cgroup.is_empty(),
        };
        Ok(unit(Some(app), folders))
    };
    wanted.iter().map(app).collect()
}

/// Folders as a unit has them: each once, and none that is relative to another.
fn in_words(folders: impl Iterator<Item = PathBuf>) -> Vec<String> {
    let folders: BTreeSet<PathBuf> = folders.filter(|folder| folder.is_absolute()).collect();
    folders.iter().map(|folder| folder.display().to_string()).collect()
}

/// The variables that a service manager does not have. Another user's service has its own.
fn places(args: &StartupArgs) -> Vec<(String, String)> {
    if args.user_name.is_some() {
        return Vec::new();
    }
    let set = |name: &&str| {
        let path = std::path::absolute(std::env::var_os(name)?).ok()?;
        Some(((*name).to_owned(), path.display().to_string()))
    };
    [runtime_folder::VARIABLE, state_folder::VARIABLE].iter().filter_map(set).collect()
}

fn folder(args: &StartupArgs) -> Result<PathBuf, Failure> {
    if let Some(folder) = &args.output_folder {
        return Ok(folder.clone());
    }
    if args.user {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || std::env::home_dir().filter(|home| home.is_absolute());
        let config = set("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")));
        let folder = config.map(|config| config.join("systemd/user"));
        return folder.ok_or_else(|| {
            Failure::from(anyhow!(
                "startup --user: neither XDG_CONFIG_HOME nor HOME nor /etc/passwd says where your units are"
            ))
            .next("say where: --output-folder")
        });
    }
    if rustix::process::geteuid().is_root() {
        return Ok(SYSTEM.into());
    }
    let mut again = vec!["sudo".to_owned()];
    let typed = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    again.extend(typed);
    Err(Failure::from(anyhow!("startup: only root can write to {SYSTEM}"))
        .next(format!("run it as root: {}; or for your own service manager: add --user", as_typed(&again))))
}

/// A unit that is there and says otherwise may be as somebody wants it.
fn check_unchanged(path: &Path, text: &str) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().display();
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(found) if found == text.as_bytes() => Ok(()),
        // Where it can't be read, it is not what would be written.
        _ => Err(Failure::from(anyhow!("startup: {} is there, and is another", path.display())).next(format!(
            "see what would be written: --print; have it replaced: --force; what you change belongs beside it: \
             systemctl edit {name}"
        ))),
    }
}

fn write(path: &Path, text: &str, args: &StartupArgs) -> Result<(), Failure> {
    let made = path.parent().filter(|_| args.user).map_or(Ok(()), fs::create_dir_all);
    // What masks a unit is a link to a device.
    let masked = || io::Error::other("it is masked: systemctl unmask");
    let made = made.and_then(|()| match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(masked()),
        _ => Ok(()),
    });
    made.and_then(|()| whole::write(path, text, Existing::Goes))
        .with_context(|| format!("write the unit {}", path.display()))
        .map_err(|error| {
            let otherwise = "write it elsewhere: --output-folder; or look at it: --print";
            Failure::from(error).next(whole::remedy(path, otherwise))
        })
}
