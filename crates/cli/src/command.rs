//! The commands: each takes what was typed and ends with an exit code, or with a failure to be printed.

mod check;
mod delete;
mod demo;
mod demo_worker;
mod describe;
mod doctor;
mod events;
mod import;
pub(crate) mod logs;
mod ls;
mod reload;
mod restart;
mod run;
mod save;
mod scale;
mod signal;
mod start;
mod startup;
mod status;
mod stop;
mod upgrade;

use std::future::Future;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use allcores::primary::{Legacy, Unreadable};
use anyhow::{Context as _, anyhow};
use clap::ArgMatches;
use clap_complete::env::Shells;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use tokio::time::timeout;

use crate::app;
use crate::args::{self, Command, CompletionsArgs, ManArgs, SchemaArgs};
use crate::client::{Client, RequestError};
use crate::config;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::AppFolder;
use crate::screen;
use crate::state_folder::StateFolder;
use crate::target;

/// How long an app may take to answer a question.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Carries out a command. `matches` is what it was made of: it tells what was typed from what is so by default.
pub(crate) fn execute(command: Command, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    // Every command is a subcommand.
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    match command {
        Command::Run(args) => block_on(run::execute(&args, matches)),
        Command::Start(args) => block_on(until_interrupted(start::execute(&args, matches))),
        Command::Restart(args) => block_on(until_interrupted(restart::execute(&args))),
        Command::Delete(args) => block_on(delete::execute(&args)),
        Command::Describe(args) => block_on(describe::execute(&args)),
        Command::Signal(args) => block_on(signal::signal(&args)),
        Command::Send(args) => block_on(signal::send(&args)),
        Command::Events(args) => block_on(events::execute(&args)),
        Command::Logs(args) => block_on(logs::execute(&args)),
        Command::Save(args) => block_on(save::save(&args)),
        Command::Resurrect(args) => block_on(until_interrupted(save::resurrect(&args))),
        Command::Startup(args) => startup::execute(&args),
        Command::Demo(args) => block_on(demo::execute(&args)),
        Command::Doctor(args) => doctor::execute(&args),
        Command::DemoWorker(args) => block_on(demo_worker::execute(&args)),
        Command::Ls(args) => block_on(ls::execute(&args)),
        Command::Status(args) => block_on(status::execute(&args)),
        Command::Stop(args) => block_on(stop::execute(&args)),
        Command::Reload(args) => block_on(reload::execute(&args)),
        Command::Scale(args) => block_on(scale::execute(&args)),
        Command::Upgrade(args) => block_on(upgrade::execute(&args)),
        Command::UpgradeCheck => upgrade::check(),
        Command::Import(args) => import::execute(&args),
        Command::Check(args) => check::execute(&args),
        Command::Schema(SchemaArgs {}) => print_json(&config::schema()),
        Command::Completions(args) => completions(&args),
        Command::Man(args) => man(&args),
    }
}

/// Goes on with what the program before has left, in whose place this one is.
pub(crate) fn resume(legacy: Result<Legacy, Unreadable>) -> Result<ExitCode, Failure> {
    let legacy = legacy.context("go on with what the program before has left")?;
    block_on(app::resume(legacy))
}

/// Ends at Ctrl-C, as it would by itself; but what is under way is dropped, and may say what becomes of it.
async fn until_interrupted(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    tokio::select! {
        result = command => result,
        // Where it can't be listened to, the kernel ends the program.
        Ok(()) = tokio::signal::ctrl_c() => Ok(ExitCode::Interrupted),
    }
}

/// Runs to the end on this thread: the engine needs it to be the main one.
fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(allcores::primary::deafen)
        .build()
        .context("start the runtime that waits for sockets, signals and timers")?;
    // Not by its type: tokio's part would be compiled once for each command.
    let command: Pin<Box<dyn Future<Output = _>>> = Box::pin(command);
    let result = runtime.block_on(command);
    // A thread that waits for a disk which does not answer is no reason to stay.
    runtime.shutdown_background();
    result
}

/// The script has the shell ask this program, which knows what runs.
fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let shells = Shells::builtins();
    let shell = args.shell.to_string();
    let completer = shells.completer(&shell).with_context(|| format!("complete in {shell}"))?;
    let mut script = Vec::new();
    completer
        .write_registration(args::COMPLETE, "allcores", "allcores", "allcores", &mut script)
        .context("write the completion script")?;
    print(&script)
}

fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    let mut cli = args::command();
    cli.build();
    let page = match &args.command {
        None => cli,
        Some(name) => match cli.get_subcommands().find(|command| command.get_name() == name) {
            // Its full name makes the title: allcores-run(1).
            Some(command) => command.clone().display_name(format!("allcores-{name}")),
            None => {
                return Err(Failure::usage(anyhow!("man {name}: there is no such command"))
                    .next("`allcores help` lists the commands"));
            }
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .source(concat!("allcores ", env!("CARGO_PKG_VERSION")))
        .render(&mut text)
        .context("write the manual page")?;
    print(&text)
}

/// What became of something that was printed. A reader who has read enough (`| head`) is no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Printed {
    Written,
    ReaderGone,
}

impl Printed {
    /// Tells a reader who has gone from a failure.
    fn of(written: anyhow::Result<()>) -> anyhow::Result<Self> {
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        match written {
            Ok(()) => Ok(Self::Written),
            Err(error) if error.downcast_ref().is_some_and(is_gone) => Ok(Self::ReaderGone),
            Err(error) => Err(error),
        }
    }
}

/// Writes to stdout.
fn write_out(text: &[u8]) -> Result<Printed, Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text).and_then(|()| stdout.flush());
    Printed::of(written.map_err(anyhow::Error::new)).map_err(|error| {
        Failure::from(error.context("write to stdout"))
            .next("see what stdout is, and whether its disk is full")
    })
}

/// Whether nobody reads stdout any more, which writing would show, too: for when there is nothing to write.
fn is_reader_gone() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let is_polled = poll(&mut polled, Some(&Timespec::default())).is_ok();
    is_polled && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Prints to stdout.
fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    write_out(text).map(|_| ExitCode::Success)
}

/// Says something to a person on stdout.
fn say(text: &str) -> Result<ExitCode, Failure> {
    print(screen::fit(text, screen::width(&io::stdout())).as_bytes())
}

fn print_json(value: &impl Serialize) -> Result<ExitCode, Failure> {
    let mut text = serde_json::to_vec_pretty(value).context("write JSON")?;
    text.push(b'\n');
    print(&text)
}

/// Asks an app something, and waits for the answer for so long.
async fn ask<T>(
    app: &AppFolder,
    tried: &str,
    patience: Duration,
    asked: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, Failure> {
    match timeout(patience, asked).await {
        Ok(answer) => answer.map_err(|error| explain(app, tried, error)),
        Err(_) => Err(unresponsive(app, tried, patience)),
    }
}

/// Says in full why an app didn't do what was asked.
fn explain(app: &AppFolder, tried: &str, error: RequestError) -> Failure {
    let name = app.name();
    match error {
        RequestError::NotRunning => not_running(app, tried),
        RequestError::Refused(reason) => Failure::from(anyhow!("{tried} {name}: refused: {reason}"))
            .next(format!("see how it is doing: allcores status {name}")),
        RequestError::Broken(error) => {
            let next = match app.holder() {
                Some(pid) => {
                    format!("see whether its primary, process {pid}, still runs, and what it printed last")
                }
                None => "see whether it still runs: allcores ls".to_owned(),
            };
            Failure::from(error.context(format!("{tried} {name}"))).next(next)
        }
    }
}

/// Whether `allcores start` has started an app that runs.
async fn is_background(app: &AppFolder, tried: &str) -> Result<bool, Failure> {
    let description = ask(app, tried, ANSWER_PATIENCE, Client::new(app).describe()).await?;
    Ok(description.background)
}

fn not_running(app: &AppFolder, tried: &str) -> Failure {
    let name = app.name();
    let left = app.left();
    if let Some(left) = left.as_ref().filter(|left| !left.is_empty()) {
        let text = format!("{tried} {name}: its primary was killed, and has left processes");
        return Failure::new(ExitCode::NotRunning, anyhow!("{text}: {}", readable::list(&left.pids())))
            .next(format!("end them: allcores stop {name}"));
    }
    if app.is_running() {
        let text = format!("{tried} {name}: {} has its name, and does not listen", holder_of(app));
        return Failure::new(ExitCode::NotRunning, anyhow!(text))
            .next("wait a moment: it is about to, or ends what a killed primary has left; `allcores ls` shows which apps run");
    }
    // Where the state folder can't be used, that is not what was asked for.
    let record = StateFolder::from_env().and_then(|state| state.record(name)).ok().flatten();
    match record {
        Some(_) if left.is_some() => {
            let text = format!("{tried} {name}: its primary was killed, and has left nothing");
            Failure::new(ExitCode::NotRunning, anyhow!(text)).next(format!("start it: allcores start {name}"))
        }
        Some(_) => Failure::new(ExitCode::NotRunning, anyhow!("{tried} {name}: {name} is stopped"))
            .next(format!("start it: allcores start {name}")),
        None => {
            let meant = target::suggestion(name);
            let text = format!("{tried} {name}: no app of this name is running{meant}");
            Failure::new(ExitCode::NotRunning, anyhow!(text)).next("`allcores ls` lists the apps that are")
        }
    }
}

/// Who has an app's name.
fn holder_of(app: &AppFolder) -> String {
    app.holder().map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Says that an app is there and gives no answer.
fn unresponsive(app: &AppFolder, tried: &str, patience: Duration) -> Failure {
    let patience = readable::duration(patience);
    let failure =
        Failure::from(anyhow!("{tried} {}: it runs and has not answered for {patience}", app.name()));
    match app.holder() {
        Some(pid) => {
            failure.next(format!("look at process {pid}; to end it and its workers by force: kill -9 {pid}"))
        }
        None => failure.next("see what its primary printed last; `allcores ls` lists the apps that run"),
    }
}

/// An address that a client can be given: all interfaces are no address to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// How long ago a time of a status was.
fn ago(time: &str) -> Option<Duration> {
    let time = humantime::parse_rfc3339(time).ok()?;
    Some(SystemTime::now().duration_since(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn clients_are_given_an_address_to_connect_to() {
        for (listened, shown) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.7:80", "10.0.0.7:80")]
        {
            assert_eq!(super::reachable(listened.parse().unwrap()).to_string(), shown);
        }
    }
}
