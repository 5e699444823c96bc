//! Tells what happens while an app runs, on stdout and stderr and in a log, without ever holding the app up.
//!
//! `pretty` and `json` put an event into words, `writer` gets them out. Where stdout and stderr go to systemd's journal, it gets
//! entries with fields instead. Nothing here decides anything.

pub(crate) mod json;
mod loss;
mod pretty;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use allcores::primary::{Event, Outcome, Stream};

use crate::args::{LogFormat, OutputArgs};
use crate::journal::{self, Journal};
use crate::log::{self, LogFile, Meter};
use crate::paint::{Paint, Tone};
use crate::screen;
use crate::verdict::Verdict;
use loss::Dropped;
pub(crate) use loss::Loss;
use pretty::{Pretty, Words};
pub(crate) use writer::{Out, Sink, ended};
use writer::{Streams, Writer};

/// More waiting output than this, in bytes, and workers' lines are dropped.
const QUEUE_LIMIT: usize = 8 * 1024 * 1024;

/// How long the last lines may take to be read.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warning,
    Info,
    Detail,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Detail => "detail",
        }
    }

    /// The least that still is shown.
    fn threshold(args: &OutputArgs) -> Self {
        match (args.quiet, args.verbose) {
            (2.., _) => Self::Error,
            (1, _) => Self::Warning,
            (0, 0) => Self::Info,
            (0, _) => Self::Detail,
        }
    }
}

/// Tells of one app's run. Clones tell of the same.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    app: String,
    threshold: Level,
    pretty: Pretty,
    terminal: Option<Terminal>,
    log: Option<Log>,
    /// What programs before this one have written of the app, and lost.
    before: (AtomicU64, AtomicU64),
}

/// Stdout and stderr, or the journal that they go to.
struct Terminal {
    form: Form,
    writer: Writer,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Also where workers write by themselves: what is left is our own.
    Text,
    Json,
    Entries,
}

struct Log {
    writer: Writer,
    meter: Arc<Meter>,
    path: PathBuf,
}

/// What became of workers' lines, and where they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) log: Option<PathBuf>,
    /// How many stand in the log.
    pub(crate) written: u64,
    /// How many were lost, as nobody read them or they could not be written.
    pub(crate) dropped: u64,
    /// Why the log could not be written, the last time.
    pub(crate) reason: Option<String>,
}

impl Reporter {
    /// Begins to tell of an app that wants so many workers: on the terminal, in a log, both or neither.
    pub(crate) fn new(
        app: &str,
        workers: u16,
        args: &OutputArgs,
        has_terminal: bool,
        log: Option<LogFile>,
    ) -> io::Result<Self> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let pretty = Pretty::new(app, workers, Paint::for_stream(&stdout), Paint::for_stream(&stderr));
        let terminal = has_terminal.then(|| Terminal::start(app, args.log_format, &pretty)).transpose()?;
        Ok(Self {
            shared: Arc::new(Shared {
                app: app.to_owned(),
                threshold: Level::threshold(args),
                pretty,
                terminal,
                log: log.map(Log::start).transpose()?,
                before: Default::default(),
            }),
        })
    }

    /// Tells of an event. Never blocks.
    pub(crate) fn observe(&self, event: &Event<'_>) {
        if let Event::Output { worker, stream, line, is_partial } = *event {
            if let Some(terminal) = &self.shared.terminal {
                terminal.output(&self.shared, event);
            }
            if let Some(log) = &self.shared.log {
                let source = log::Source::Worker { slot: worker.slot.0, id: worker.id.0, stream, is_partial };
                log.writer.push_line(Sink::Stdout, &log::write(SystemTime::now(), source, line));
            }
            return;
        }
        if let Some(Terminal { form: Form::Json, writer, .. }) = &self.shared.terminal {
            writer.push(Sink::Stdout, &json::event(&self.shared.app, event));
        }
        if let Some((level, words)) = Pretty::event(event) {
            self.say(level, &words);
        }
    }

    /// Tells a person that all is well, for the first time.
    pub(crate) fn ready(&self, text: &str) {
        self.say(Level::Info, &Words::new(Tone::Good, text));
    }

    /// Waits a moment for everything to be read that was told so far; false if it is not.
    pub(crate) fn flush(&self) -> bool {
        let shared = &*self.shared;
        let log = shared.log.iter().map(|log| &log.writer);
        let mut writers = log.chain(shared.terminal.iter().map(|terminal| &terminal.writer));
        writers.all(|writer| writer.flush(FLUSH_PATIENCE))
    }

    /// Explains something to a person; programs and those who asked for quiet are spared.
    pub(crate) fn explain(&self, text: &str) {
        self.say(Level::Info, &Words::new(Tone::Plain, text));
    }

    /// Opens the log anew: somebody has moved the file away.
    pub(crate) fn reopen(&self) {
        if let Some(log) = &self.shared.log {
            log.writer.reopen();
        }
    }

    /// What became of lines until now.
    pub(crate) fn account(&self) -> Account {
        let shared = &*self.shared;
        let (written, dropped) = &shared.before;
        let terminal = shared.terminal.as_ref().map_or(0, |terminal| terminal.writer.lost());
        let (written, dropped) =
            (written.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed) + terminal);
        match &shared.log {
            None => Account { log: None, written, dropped, reason: None },
            Some(log) => Account {
                log: Some(log.path.clone()),
                written: written + log.meter.written(),
                dropped: dropped + log.writer.lost(),
                reason: log.meter.reason(),
            },
        }
    }

    /// Goes on counting where another program has ended.
    pub(crate) fn count_from(&self, written: u64, dropped: u64) {
        self.shared.before.0.store(written, Ordering::Relaxed);
        self.shared.before.1.store(dropped, Ordering::Relaxed);
    }

    /// Tells how the run ended, and waits a moment for everything to be read.
    pub(crate) fn conclude(&self, outcome: &Outcome, verdict: &Verdict) {
        let shared = &*self.shared;
        if let Some(Terminal { form: Form::Json, writer, .. }) = &shared.terminal {
            writer.push_last(Sink::Stdout, &json::stopped(&shared.app, outcome, verdict));
        }
        let level = if *outcome == Outcome::Stopped { Level::Info } else { Level::Error };
        self.say(level, &Pretty::verdict(verdict));
        for writer in
            shared.log.iter().map(|log| &log.writer).chain(shared.terminal.iter().map(|it| &it.writer))
        {
            writer.finish(FLUSH_PATIENCE);
        }
    }

    /// Says something of our own, in words. Who reads JSON has it as such.
    fn say(&self, level: Level, words: &Words) {
        if level > self.shared.threshold {
            return;
        }
        match &self.shared.terminal {
            None | Some(Terminal { form: Form::Json, .. }) => {}
            Some(Terminal { form: Form::Text, writer, .. }) => {
                let width = screen::width(&io::stderr());
                writer.push(Sink::Stderr, self.shared.pretty.dress(words, width).as_bytes());
            }
            Some(Terminal { form: Form::Entries, writer, .. }) => {
                let text = words.lines().collect::<Vec<_>>().join("\n");
                writer.push(Sink::Stderr, &journal::own(&self.shared.app, level, &text));
            }
        }
        if let Some(log) = &self.shared.log {
            for line in words.lines() {
                let line = log::write(SystemTime::now(), log::Source::Own(level), line.as_bytes());
                log.writer.push(Sink::Stdout, &line);
            }
        }
    }
}

impl Terminal {
    fn start(app: &str, format: LogFormat, pretty: &Pretty) -> io::Result<Self> {
        let (name, pretty) = (app.to_owned(), pretty.clone());
        if format == LogFormat::Pretty
            && let Some(journal) = Journal::find(app)
        {
            let note = move |dropped: &Dropped| {
                (Sink::Stderr, journal::own(&name, Level::Warning, &dropped.to_string()))
            };
            let writer = Writer::start(QUEUE_LIMIT, journal, "the journal was not read", note)?;
            return Ok(Self { form: Form::Entries, writer });
        }
        let form = if format == LogFormat::Json { Form::Json } else { Form::Text };
        let note = move |dropped: &Dropped| match form {
            Form::Json => (Sink::Stdout, json::dropped(&name, dropped.lines)),
            Form::Text | Form::Entries => {
                let width = screen::width(&io::stderr());
                let words = Words::new(Tone::Warning, &dropped.to_string());
                (Sink::Stderr, pretty.dress(&words, width).into_bytes())
            }
        };
        let out = Streams::new(io::stdout(), io::stderr(), note.clone());
        Ok(Self { form, writer: Writer::start(QUEUE_LIMIT, out, "output is not being read", note)? })
    }

    fn output(&self, shared: &Shared, event: &Event<'_>) {
        let Event::Output { worker, stream, line, .. } = event else { return };
        let sink = match stream {
            Stream::Stdout => Sink::Stdout,
            Stream::Stderr => Sink::Stderr,
        };
        match self.form {
            Form::Json => self.writer.push_line(Sink::Stdout, &json::event(&shared.app, event)),
            Form::Text => self.writer.push_line(sink, &shared.pretty.output(worker.slot, *stream, line)),
            Form::Entries => {
                self.writer.push_line(Sink::Stderr, &journal::worker(&shared.app, worker, *stream, line));
            }
        }
    }
}

impl Log {
    fn start(file: LogFile) -> io::Result<Self> {
        let (meter, path) = (file.meter(), file.path().to_path_buf());
        let note = |dropped: &Dropped| {
            let source = log::Source::Own(Level::Warning);
            (Sink::Stdout, log::write(SystemTime::now(), source, dropped.to_string().as_bytes()))
        };
        let why = "the log was not written fast enough";
        Ok(Self { writer: Writer::start(QUEUE_LIMIT, file, why, note)?, meter, path })
    }
}
