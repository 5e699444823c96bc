//! `allcores start`: apps in the background, of a config file, of a command, or known from before.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{ANSWER_PATIENCE, ask, say, stop};
use crate::args::StartArgs;
use crate::background::{self, Started};
use crate::client::Client;
use crate::config::{App, DEFAULT_NAME, File, Typed, nearest};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::runtime_folder::{AppFolder, RuntimeFolder};
use crate::screen;
use crate::settings::{self, AppName};
use crate::state_folder::{Record, StateFolder};
use crate::target;

/// What an app is to be started from.
struct Launch {
    record: Record,
    /// It is named in a file or from before, so that it running already is as good as starting it.
    may_run: bool,
}

/// Starts what was asked for, all at once, and waits.
pub(super) async fn execute(args: &StartArgs, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let state = StateFolder::from_env()?;
    let launches = launches(args, matches, &state)?;
    let named = launches.iter().filter(|launch| launch.may_run);
    let may_run: Vec<AppName> = named.map(|launch| launch.record.name().clone()).collect();
    let apps = launches.into_iter().map(|launch| (launch.record, None)).collect();
    let Outcome { running, failed } = start_each(apps, &state, args.timeout).await?;
    let mut failures = Vec::new();
    for folder in running {
        failures.extend(runs_already(&folder, may_run.contains(folder.name()), args).await.err());
    }
    failures.extend(failed);
    Failure::of_all(failures)
}

/// Says that an app runs, which is as good as starting it where it `may_run`.
async fn runs_already(folder: &AppFolder, may_run: bool, args: &StartArgs) -> Result<(), Failure> {
    let name = folder.name();
    if !may_run {
        return Err(folder.in_use("start", folder.holder()));
    }
    if let Some(wanted) = &args.env_name {
        runs_in(folder, wanted).await?;
    }
    let pid = folder.holder().map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    say(&format!("{name}: runs already{pid}; for its new settings: allcores reload {name}\n")).map(drop)
}

/// Makes sure that an app which runs does so in this environment of its file.
async fn runs_in(folder: &AppFolder, wanted: &str) -> Result<(), Failure> {
    let name = folder.name();
    let config = ask(folder, "start", ANSWER_PATIENCE, Client::new(folder).describe()).await?.config;
    let (environment, is_of_file) = match config {
        Some(config) => (config.environment, true),
        None => (None, false),
    };
    if environment.as_deref() == Some(wanted) {
        return Ok(());
    }
    let environment = environment
        .map_or_else(|| "without an environment".to_owned(), |name| format!("in the environment {name}"));
    let next = if is_of_file {
        format!("to change it: allcores reload {name} --env-name {wanted}")
    } else {
        format!("to change it: allcores stop {name}, then allcores start {name} --env-name {wanted}")
    };
    let text = format!("start {name} --env-name {wanted}: it runs already, {environment}");
    Err(Failure::new(ExitCode::NameInUse, anyhow!(text)).next(next))
}

/// What became of apps that were to be started, besides those that were.
pub(super) struct Outcome {
    /// They ran already, or somebody else has started them meanwhile.
    pub(super) running: Vec<AppFolder>,
    pub(super) failed: Vec<Failure>,
}

/// Starts apps at once, with so many workers where that is not what is recorded; says of each that is ready that it is.
pub(super) async fn start_each(
    apps: Vec<(Record, Option<u16>)>,
    state: &StateFolder,
    patience: Duration,
) -> Result<Outcome, Failure> {
    let (runtime, mut starting) = (RuntimeFolder::from_env()?, JoinSet::new());
    let mut outcome = Outcome { running: Vec::new(), failed: Vec::new() };
    for (record, workers) in apps {
        let folder = runtime.find(record.name())?;
        let state = state.clone();
        starting.spawn(async move {
            let started = match runs_on(&folder, patience).await {
                Ok(true) => return (None, folder),
                Ok(false) => background::start(&record, workers, &state, patience).await,
                Err(failure) => Err(failure),
            };
            (Some(started), folder)
        });
    }
    while let Some(ended) = starting.join_next().await {
        match ended.context("start an app")? {
            (None, folder) => outcome.running.push(folder),
            (Some(Ok(Started { pid, status })), folder) => {
                say(&format!("{}: {status} (pid {pid})\n", folder.name()))?;
            }
            (Some(Err(failure)), folder) if failure.code() == ExitCode::NameInUse && folder.is_running() => {
                outcome.running.push(folder);
            }
            (Some(Err(failure)), _) => outcome.failed.push(failure),
        }
    }
    Ok(outcome)
}

/// Whether an app runs, and goes on to. One that was asked to stop is waited for, and then does not.
async fn runs_on(folder: &AppFolder, patience: Duration) -> Result<bool, Failure> {
    if !folder.is_running() {
        return Ok(false);
    }
    // Who does not answer is asked again by whoever tells that it runs.
    match timeout(ANSWER_PATIENCE, Client::new(folder).status()).await {
        Ok(Ok(status)) if status.stopping => {}
        _ => return Ok(folder.is_running()),
    }
    let name = folder.name();
    screen::tell(&format!("{name} is stopping, and is started when it has gone"));
    stop::wait_until_gone(folder, patience).await?;
    Ok(false)
}

fn launches(args: &StartArgs, matches: &ArgMatches, state: &StateFolder) -> Result<Vec<Launch>, Failure> {
    let typed = Typed::of_start(args, matches);
    if !args.command.is_empty() {
        if let Some(what) = args.what.first() {
            return Err(Failure::usage(anyhow!("start {what}: there is a command too"))
                .next("give either a file and its apps, or a command behind `--`; a name by --name"));
        }
        return Ok(vec![of_command(args, &typed)?]);
    }
    let (file, names) = match args.what.split_first() {
        Some((first, _)) if is_path(first) && is_script(first) => return Err(no_config_file(first)),
        Some((first, names)) if is_path(first) && !is_app(first, state) => {
            (Some(PathBuf::from(first)), names)
        }
        _ => (Some(PathBuf::from(DEFAULT_NAME)).filter(|path| path.exists()), &args.what[..]),
    };
    let file = file.map(|path| File::read(&path)).transpose()?;
    let names: Vec<AppName> = match (names.is_empty(), &file) {
        (true, Some(file)) => file.apps().cloned().collect(),
        (true, None) => {
            return Err(Failure::usage(anyhow!("start: there is no {DEFAULT_NAME} in this folder"))
                .next("name a file, or an app that was started before, or a command: allcores start -- node server.js"));
        }
        (false, _) => names.iter().map(|name| name_of(name)).collect::<Result<_, _>>()?,
    };
    if args.name.is_some() && names.len() > 1 {
        return Err(Failure::usage(anyhow!("start --name: there are {} apps to start", names.len()))
            .next("start one at a time to call it otherwise"));
    }
    names.iter().map(|name| of_name(name, args, &typed, file.as_ref(), state)).collect()
}

/// Whether a word names a file rather than an app.
pub(super) fn is_path(word: impl AsRef<Path>) -> bool {
    let word = word.as_ref();
    word.as_os_str().as_bytes().contains(&b'/')
        || word.extension().is_some_and(|extension| extension == "toml")
}

/// Whether a word is the name of an app though it looks like a file's: there is no such file.
fn is_app(word: &str, state: &StateFolder) -> bool {
    let is_known = |name: AppName| state.record(&name).is_ok_and(|record| record.is_some());
    !Path::new(word).exists() && word.parse().is_ok_and(is_known)
}

/// Whether a word leads to a program for an interpreter, which is not meant as a config file.
fn is_script(word: &str) -> bool {
    let extension = Path::new(word).extension().and_then(OsStr::to_str);
    extension.and_then(settings::interpreter).is_some() && Path::new(word).is_file()
}

fn no_config_file(word: &str) -> Failure {
    Failure::usage(anyhow!("start {word}: that is no config file, nor the name of an app"))
        .next(format!("to run it: {}", start_of(word)))
}

/// What starts a command of one word, which may be a file that is here.
fn start_of(word: &str) -> String {
    let command = settings::run_as(word, Path::new(""));
    format!("allcores start -- {}", command.as_deref().unwrap_or(word))
}

fn name_of(word: &str) -> Result<AppName, Failure> {
    word.parse().map_err(|reason: String| {
        Failure::usage(anyhow!("start {word}: {reason}"))
            .next(format!("to run a command: {}", start_of(word)))
    })
}

fn of_command(args: &StartArgs, typed: &Typed) -> Result<Launch, Failure> {
    if args.env_name.is_some() {
        return Err(Failure::usage(anyhow!("start --env-name: a command has no environments"))
            .next("write it into allcores.toml"));
    }
    // What can be seen to be wrong here is not left for the log.
    let app = typed.resolve()?;
    let name: AppName = settings::of_app(&app)?.name.parse().map_err(anyhow::Error::msg)?;
    let log = log_of(&app, &name)?;
    let mut arguments = vec!["--name".into(), name.as_str().into()];
    arguments.extend(typed.options());
    arguments.push("--".into());
    arguments.extend(args.command.iter().cloned());
    Ok(Launch { record: record(name, arguments, log)?, may_run: false })
}

fn of_name(
    name: &AppName,
    args: &StartArgs,
    typed: &Typed,
    file: Option<&File>,
    state: &StateFolder,
) -> Result<Launch, Failure> {
    if let Some(file) = file.filter(|file| file.has(name)) {
        let typed = typed.clone().with_file(file, name);
        let app = typed.resolve()?;
        settings::of_app(&app)?;
        let called = args.name.as_ref().unwrap_or(name);
        let log = log_of(&app, called)?;
        let mut arguments: Vec<OsString> = vec!["--name".into(), called.as_str().into()];
        arguments.extend(["--config".into(), file.absolute().into(), "--app".into(), name.as_str().into()]);
        if let Some(environment) = &args.env_name {
            arguments.extend(["--env-name".into(), environment.into()]);
        }
        arguments.extend(typed.options());
        return Ok(Launch { record: record(called.clone(), arguments, log)?, may_run: true });
    }
    match state.record(name)? {
        Some(_) if typed.has_options() || args.env_name.is_some() || args.name.is_some() => Err(
            Failure::usage(anyhow!("start {name}: it is started as it was before, without other options"))
                .next("start it anew, with its command and all options, or from its file"),
        ),
        Some(record) => Ok(Launch { record, may_run: true }),
        None => Err(unknown(name, file)),
    }
}

fn unknown(name: &AppName, file: Option<&File>) -> Failure {
    let text = match file {
        Some(file) => {
            format!("start {name}: there is no such app in {}, nor was one started before", file.shown())
        }
        None => format!(
            "start {name}: no app of this name was started before, and there is no {DEFAULT_NAME} here"
        ),
    };
    let apps = file.into_iter().flat_map(File::apps).map(AppName::as_str);
    let meant = match nearest(name.as_str(), apps) {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None => target::suggestion(name),
    };
    Failure::new(ExitCode::NotRunning, anyhow!("{text}{meant}")).next(format!(
        "to run a command: {}; `allcores ls` lists the apps that are known",
        start_of(name.as_str())
    ))
}

fn log_of(app: &App, name: &AppName) -> Result<PathBuf, Failure> {
    let log = settings::log_of(&app.options, name, true)?;
    Ok(log.map(|log| log.path).unwrap_or_default())
}

fn record(name: AppName, arguments: Vec<OsString>, log: PathBuf) -> Result<Record, Failure> {
    let folder = match settings::folder_as_typed() {
        Some(folder) => folder,
        None => std::env::current_dir()
            .context("find the present folder, to start the app in")
            .map_err(|error| Failure::from(error).next("go to a folder that is there"))?,
    };
    Ok(Record::new(name, arguments, folder, log, background::environment()))
}
