//! `allcores logs`: what apps have written, from their logs, whether they run or not.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use allcores::primary::Stream;
use anyhow::{Context as _, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use rustix::io::Errno;

use super::{ANSWER_PATIENCE, Printed, ask, is_reader_gone};
use crate::args::LogsArgs;
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::log::{self, Filter, Line, Source, Tail};
use crate::paint::{Paint, Tone};
use crate::report::{Level, json};
use crate::runtime_folder::{AppFolder, RuntimeFolder};
use crate::screen;
use crate::settings::AppName;
use crate::state_folder::StateFolder;
use crate::target::Target;
use crate::view;
use crate::whole;

/// How many of the last lines are shown where nobody says.
const USUAL: usize = 20;

/// How long a change may be missed where the kernel does not tell of it, as on disks that are elsewhere.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How wide a line's time is.
const TIME: usize = 24;

/// One app's log.
struct Log {
    app: AppName,
    path: PathBuf,
    tail: Tail,
}

/// Shows the logs.
pub(super) async fn execute(args: &LogsArgs) -> Result<ExitCode, Failure> {
    let (mut logs, failures) = find(args).await?;
    let failed = Failure::of_all(failures);
    if args.follow
        && let Err(failure) = &failed
    {
        // There may be no end at which to tell it.
        screen::tell(&failure.to_string());
    }
    let style = Style::new(args, &logs);
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = show(args, &mut logs, &style, &mut out).and_then(|()| Ok(out.flush()?));
    Printed::of(shown).map_err(|error| {
        let next =
            "see that each log is a file that this user can read: allcores describe NAME says where it is";
        Failure::from(error).next(next)
    })?;
    match failed {
        Err(failure) if args.follow => Ok(failure.code()),
        failed => failed,
    }
}

/// Finds the logs, and why some that were asked for are not to be had.
async fn find(args: &LogsArgs) -> Result<(Vec<Log>, Vec<Failure>), Failure> {
    let (runtime, state) = (RuntimeFolder::from_env()?, StateFolder::find()?);
    // With each, whether it was asked for by its name.
    let mut names: BTreeMap<AppName, bool> = BTreeMap::new();
    for target in &args.names {
        match target {
            Target::App(name) => drop(names.insert(name.clone(), true)),
            Target::All => {
                let running = runtime.apps()?.into_iter().filter(AppFolder::is_running);
                let running = running.map(|folder| folder.name().clone());
                let kept = |state: &StateFolder| Ok::<_, Failure>([state.names()?, state.logs_left()?]);
                let kept = state.as_ref().map(kept).transpose()?.into_iter().flatten().flatten();
                for name in running.chain(kept) {
                    names.entry(name).or_default();
                }
            }
        }
    }
    let is_one = names.len() == 1;
    let (mut logs, mut failures) = (Vec::new(), Vec::new());
    for (name, is_named) in names {
        let path = path_of(&runtime.find(&name)?, state.as_ref()).await?;
        match path.and_then(|path| if log::is_odd(&path) { Err(unreadable(&name, &path)) } else { Ok(path) })
        {
            Ok(path) => logs.push(Log { tail: Tail::new(&path, filter(args)), path, app: name }),
            Err(failure) if is_named || is_one => failures.push(failure),
            // Of all, those are shown that have one.
            Err(_) => {}
        }
    }
    if !logs.is_empty() {
        return Ok((logs, failures));
    }
    Failure::of_all(failures)?;
    Err(Failure::new(ExitCode::NotRunning, anyhow!("logs: no app has one"))
        .next("apps in the background have: allcores start; others if they are given one: --log-file"))
}

/// Where an app's log is: as it says itself, or, where it does not, as it was when it was started, or where it usually is.
async fn path_of(
    folder: &AppFolder,
    state: Option<&StateFolder>,
) -> Result<Result<PathBuf, Failure>, Failure> {
    let name = folder.name();
    let description = match ask(folder, "logs of", ANSWER_PATIENCE, Client::new(folder).describe()).await {
        Ok(description) => description,
        Err(failure) => {
            let Some(state) = state else { return Ok(Err(failure)) };
            let known = state.record(name)?.map(|record| record.log());
            // One that failed to start, or was deleted, is not known, and its log may say why.
            return Ok(known.or_else(|| state.log_left(name)).ok_or(failure));
        }
    };
    Ok(description.log.map(PathBuf::from).ok_or_else(|| {
        Failure::from(anyhow!("logs of {name}: it has none; what it writes comes out where it was started"))
            .next(format!(
                "see it from now on: allcores events {name} --output; or give it a log: --log-file"
            ))
    }))
}

fn unreadable(name: &AppName, path: &Path) -> Failure {
    Failure::from(anyhow!("logs of {name}: {} is no regular file, and can't be read again", path.display()))
        .next(format!(
            "see what it writes from now on: allcores events {name} --output; or name a file: --log-file"
        ))
}

fn filter(args: &LogsArgs) -> Filter {
    let streams = [args.out.then_some(Stream::Stdout), args.err.then_some(Stream::Stderr)];
    let since = args.since.map(|moment| view::time(moment.time()));
    Filter { slot: args.slot, streams: streams.into_iter().flatten().collect(), since }
}

fn show(args: &LogsArgs, logs: &mut [Log], style: &Style, out: &mut impl Write) -> anyhow::Result<()> {
    let count = args.lines.or(args.since.is_none().then_some(USUAL));
    // Before anything is read, so that nothing is missed.
    let watch = args.follow.then(|| watch(logs)).flatten();
    let lines = logs.iter_mut().map(|log| Lines::new(log, count)).collect::<anyhow::Result<_>>()?;
    merge(lines, |app, line| style.write(out, app, line))?;
    out.flush()?;
    if !args.follow {
        return Ok(());
    }
    loop {
        for log in &mut *logs {
            let (app, mut written) = (&log.app, Ok(()));
            let read = log.tail.more(&mut |line| {
                if written.is_ok() {
                    written = style.write(out, app, line);
                }
            });
            read.with_context(|| unread(&log.path))?;
            written?;
        }
        out.flush()?;
        wait(watch.as_ref())?;
        if is_reader_gone() {
            return Ok(());
        }
    }
}

/// What stands in one log, line by line.
struct Lines<'a> {
    app: &'a AppName,
    path: &'a Path,
    rest: Box<dyn Iterator<Item = io::Result<Vec<u8>>> + 'a>,
    next: Option<Vec<u8>>,
    /// Of the next, or, where it has none, of the last that had one.
    time: String,
}

impl<'a> Lines<'a> {
    /// The last so many, or all.
    fn new(log: &'a mut Log, count: Option<usize>) -> anyhow::Result<Self> {
        let Log { app, path, tail } = log;
        let rest: io::Result<Box<dyn Iterator<Item = _>>> = match count {
            Some(count) => tail.last(count).map(|lines| Box::new(lines.into_iter().map(Ok)) as _),
            None => tail.all().map(|lines| Box::new(lines) as _),
        };
        let rest = rest.with_context(|| unread(path))?;
        let mut lines = Self { app, path, rest, next: None, time: String::new() };
        lines.advance()?;
        Ok(lines)
    }

    fn advance(&mut self) -> anyhow::Result<()> {
        self.next = self.rest.next().transpose().with_context(|| unread(self.path))?;
        let time = self.next.as_ref().map_or("", |line| Line::read(line).time);
        if !time.is_empty() {
            time.clone_into(&mut self.time);
        }
        Ok(())
    }
}

/// Shows lines by their times, those of one log in their order; of each log, only one is in memory.
fn merge(
    mut logs: Vec<Lines<'_>>,
    mut show: impl FnMut(&AppName, &[u8]) -> io::Result<()>,
) -> anyhow::Result<()> {
    while let Some(log) =
        logs.iter_mut().filter(|log| log.next.is_some()).min_by(|one, other| one.time.cmp(&other.time))
    {
        if let Some(line) = log.next.take() {
            show(log.app, &line)?;
        }
        log.advance()?;
    }
    Ok(())
}

fn unread(path: &Path) -> String {
    format!("read the log {}", path.display())
}

/// Has the kernel tell when something changes in the folders of the logs. Others may have used up what it has for that, and a
/// folder may not be there yet: then a change is seen at the next look.
fn watch(logs: &[Log]) -> Option<OwnedFd> {
    use inotify::{CreateFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    for log in logs {
        let real = whole::real(&log.path);
        let folder = real.parent().unwrap_or(Path::new("/"));
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE;
        let _ = inotify::add_watch(&watch, folder, what);
    }
    Some(watch)
}

/// Waits until something may have changed.
fn wait(watch: Option<&OwnedFd>) -> anyhow::Result<()> {
    let mut watched: Vec<_> = watch.iter().map(|watch| PollFd::new(*watch, PollFlags::IN)).collect();
    match poll(&mut watched, Some(&LOOK)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(anyhow::Error::new(error).context("wait for changes")),
    }
    // What has changed does not matter.
    let mut buffer = [0; 4096];
    while watch.is_some_and(|watch| rustix::io::read(watch, &mut buffer).is_ok_and(|count| count > 0)) {}
    Ok(())
}

/// How lines are shown.
struct Style {
    kind: Kind,
    has_time: bool,
    /// How wide the names are, where there are several.
    names: Option<usize>,
    paint: Paint,
    /// Whether it is a terminal, on which our own lines are broken to fit.
    fits: bool,
}

enum Kind {
    Words,
    Json,
    Raw,
}

impl Style {
    fn new(args: &LogsArgs, logs: &[Log]) -> Self {
        let kind = match (args.json, args.raw) {
            (true, _) => Kind::Json,
            (_, true) => Kind::Raw,
            _ => Kind::Words,
        };
        let names = logs.iter().map(|log| log.app.as_str().len()).max().filter(|_| logs.len() > 1);
        let stdout = io::stdout();
        Self {
            kind,
            has_time: args.time,
            names,
            paint: Paint::for_stream(&stdout),
            fits: stdout.is_terminal(),
        }
    }

    fn write(&self, out: &mut impl Write, app: &AppName, line: &[u8]) -> io::Result<()> {
        let line = Line::read(line);
        match self.kind {
            Kind::Raw => Self::raw(out, &line),
            Kind::Json => out.write_all(&json::of_line(app.as_str(), &line)),
            Kind::Words => self.words(out, app, &line),
        }
    }

    fn raw(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
        let Source::Worker { is_partial, .. } = line.source else { return Ok(()) };
        out.write_all(line.bytes)?;
        if is_partial { Ok(()) } else { out.write_all(b"\n") }
    }

    /// The columns before a line: the app's name and the time.
    fn margin(&self) -> usize {
        self.names.map_or(0, |width| width + 1) + if self.has_time { TIME + 1 } else { 0 }
    }

    /// As wide as the terminal is now.
    fn width(&self) -> Option<usize> {
        screen::width(&io::stdout()).filter(|_| self.fits)
    }

    fn words(&self, out: &mut impl Write, app: &AppName, line: &Line<'_>) -> io::Result<()> {
        if let Some(width) = self.names {
            write!(out, "{} ", self.paint.tone(Tone::Bold, format_args!("{:<width$}", app.as_str())))?;
        }
        if self.has_time {
            write!(out, "{} ", self.paint.tone(Tone::Dim, format_args!("{:<TIME$}", line.time)))?;
        }
        match line.source {
            Source::Worker { slot, .. } => {
                write!(out, "{} ", self.paint.tone(Tone::Slot(slot), format_args!("{slot} |")))?;
            }
            Source::Own(level) => {
                let tone = match level {
                    Level::Error => Tone::Bad,
                    Level::Warning => Tone::Warning,
                    Level::Info | Level::Detail => Tone::Dim,
                };
                let text = String::from_utf8_lossy(line.bytes);
                let text = screen::wrap(&text, self.margin() + "allcores  ".len(), self.width());
                return writeln!(out, "{}", self.paint.tone(tone, format_args!("allcores  {text}")));
            }
            Source::Foreign => {}
        }
        out.write_all(line.bytes)?;
        out.write_all(b"\n")
    }
}

/// A line of a log as people see it.
pub(crate) fn in_words(line: &[u8]) -> String {
    let style = Style { kind: Kind::Words, has_time: false, names: None, paint: Paint::off(), fits: false };
    let (mut text, line) = (Vec::new(), Line::read(line));
    // Writing to memory can't fail, and without names none is written.
    let Ok(name) = "app".parse() else { return String::new() };
    let _ = style.words(&mut text, &name, &line);
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Filter, Lines, Log, Tail, merge};

    #[test]
    fn lines_of_several_apps_are_shown_by_their_times_and_those_of_one_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |second: u64, text: &str| format!("2026-01-02T03:04:{second:02}.000Z 0:1 out {text}\n");
        let mut logs: Vec<Log> = [
            ("api", [at(1, "a"), at(4, "b"), "panicked\n".to_owned(), at(3, "c")].concat()),
            ("empty", String::new()),
            ("web", [at(1, "d"), at(2, "e"), at(5, "f")].concat()),
        ]
        .into_iter()
        .map(|(name, text)| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Log { app: name.parse().unwrap(), tail: Tail::new(&path, Filter::default()), path }
        })
        .collect();
        let mut shown = |count| {
            let lines = logs.iter_mut().map(|log| Lines::new(log, count).unwrap()).collect();
            let mut shown = Vec::new();
            merge(lines, |app, line| {
                let text = String::from_utf8_lossy(super::Line::read(line).bytes);
                shown.push(format!("{app} {text}"));
                Ok(())
            })
            .unwrap();
            shown
        };
        let all = ["api a", "web d", "web e", "api b", "api panicked", "api c", "web f"];
        assert_eq!(shown(None), all);
        assert_eq!(shown(Some(3)), all[1..]);
    }
}
