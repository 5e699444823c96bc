//! `allcores check`: whether a config file is good, every app in every environment.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use anyhow::anyhow;

use crate::app::as_typed;
use crate::args::CheckArgs;
use crate::config::{App, File};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Failures};
use crate::log;
use crate::readable;
use crate::screen;
use crate::settings;
use crate::whole;

/// Reads the file, and puts together whatever could be asked for.
pub(super) fn execute(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let file = File::read(&args.file)?;
    let environments = file.environments();
    let mut wrong = Failures::default();
    for environment in std::iter::once(None).chain(environments.iter().copied().map(Some)) {
        let apps = file.apps().map(|name| file.alone(name, environment));
        let mut apps: Vec<App> = apps.filter_map(|app| wrong.keep(app)).collect();
        if !args.elsewhere {
            // Only a unit has them.
            for app in &mut apps {
                settings::leave_out_credentials(app);
            }
        }
        for (at, app) in apps.iter().enumerate() {
            if !args.elsewhere {
                look_around(app, &mut wrong);
            }
            compare(app, &apps[..at], &mut wrong);
        }
    }
    wrong.none()?;
    let columns = screen::width(&io::stdout());
    let mut text =
        format!("{} is good: {}", args.file.display(), readable::count(file.apps().count(), "app"));
    if !environments.is_empty() {
        let _ = write!(text, ", environments {}", environments.join(", "));
    }
    text.push('\n');
    let width = file.apps().map(|name| name.as_str().len()).max().unwrap_or(0);
    for name in file.apps() {
        let command = as_typed(&file.alone(name, None)?.command);
        let command = screen::wrap(&command, 2 + width + 2, columns);
        let _ = writeln!(text, "  {:<width$}  {command}", name.as_str());
    }
    super::print(text.as_bytes())
}

/// Looks whether there is on this machine what an app needs.
fn look_around(app: &App, wrong: &mut Failures) {
    wrong.keep(settings::of_app(app));
    wrong.keep(settings::check_program(app));
    wrong.keep(settings::check_log(app));
}

/// Looks whether an app is to have what one before it has already.
fn compare(app: &App, before: &[App], wrong: &mut Failures) {
    let refuse = |option: &str, value: &str, other: &App| -> Result<(), Failure> {
        let of = other.name.as_ref().map(|name| format!(": {name} has it, too")).unwrap_or_default();
        Err(app
            .places
            .refuse(option, value, anyhow!("no two apps can have the same `{option}`{of}"))
            .next(format!("give each app its own `{option}`, below [apps.NAME]")))
    };
    if let Some(path) = app.options.log.file.as_ref().filter(|path| !log::is_odd(path)) {
        let same = |other: &&App| {
            other.options.log.file.as_deref().is_some_and(|log| whole::real(log) == whole::real(path))
        };
        if let Some(other) = before.iter().find(same) {
            wrong.keep(refuse("log-file", &path.to_string_lossy(), other));
        }
    }
    if let Some(address) = app.options.metrics {
        let same = |other: &&App| other.options.metrics.is_some_and(|metrics| overlap(metrics, address));
        if let Some(other) = before.iter().find(same) {
            wrong.keep(refuse("metrics", &address.to_string(), other));
        }
    }
}

/// Whether nobody can listen on both.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = |address: SocketAddr| address.ip().is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || is_any(one) || is_any(other))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn compared(text: &str) -> String {
        let file = File::parse(Path::new("allcores.toml"), "/srv/app".into(), text.to_owned()).unwrap();
        let apps: Vec<App> = file.apps().map(|name| file.alone(name, None).unwrap()).collect();
        let mut wrong = Failures::default();
        compare(&apps[1], &apps[..1], &mut wrong);
        wrong.none().map_or_else(|failure| failure.to_string(), |()| String::new())
    }

    #[test]
    fn what_only_one_app_can_have_is_not_given_to_two() {
        let of = |web: &str, api: &str| {
            compared(&format!("[apps.web]\ncommand = \"x\"\n{web}\n[apps.api]\ncommand = \"y\"\n{api}\n"))
        };
        let both =
            of("log-file = \"a.log\"\nmetrics = 9000", "log-file = \"/srv/app/a.log\"\nmetrics = \":9000\"");
        assert!(both.contains("allcores.toml:7:1: log-file = \"/srv/app/a.log\": no two apps"), "{both}");
        assert!(both.contains("allcores.toml:8:1: metrics = \"127.0.0.1:9000\""), "{both}");
        assert!(both.contains("web has it, too"), "{both}");
        assert_eq!(of("log-file = \"a.log\"\nmetrics = 9000", "log-file = \"b.log\"\nmetrics = 9001"), "");
        assert_ne!(of("metrics = \"0.0.0.0:9000\"", "metrics = \"127.0.0.1:9000\""), "");
        assert_eq!(of("metrics = \"127.0.0.2:9000\"", "metrics = \"127.0.0.1:9000\""), "");
    }
}
