//! Tells what happens while an app runs, on stdout and stderr, without ever holding the app up.
//!
//! `pretty` and `json` put an event into words, `writer` gets them out. Nothing here decides anything.

mod json;
mod pretty;
mod readiness;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use allcores::primary::{Event, Outcome, Stream};

use crate::args::{LogFormat, OutputArgs};
use crate::paint::Paint;
use crate::verdict::Verdict;
use pretty::Pretty;
use readiness::Readiness;
use writer::{Sink, Writer};

/// More waiting output than this, in bytes, and workers' lines are dropped.
const QUEUE_LIMIT: usize = 8 * 1024 * 1024;

/// How long the last lines may take to be read.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error,
    Warning,
    Info,
    Detail,
}

impl Level {
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
    format: LogFormat,
    threshold: Level,
    pretty: Pretty,
    writer: Writer,
    readiness: Mutex<Readiness>,
}

impl Reporter {
    /// Begins to tell of an app that wants so many workers.
    pub(crate) fn new(app: &str, workers: u16, args: &OutputArgs) -> std::io::Result<Self> {
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        let pretty = Pretty::new(app, workers, Paint::for_stream(&stdout), Paint::for_stream(&stderr));
        let (name, format, lost) = (app.to_owned(), args.log_format, pretty.clone());
        let note = move |lines| match format {
            LogFormat::Json => (Sink::Stdout, json::dropped(&name, lines)),
            LogFormat::Pretty | LogFormat::Raw => (Sink::Stderr, lost.dropped(lines)),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                app: app.to_owned(),
                format: args.log_format,
                threshold: Level::threshold(args),
                pretty,
                writer: Writer::start(QUEUE_LIMIT, stdout, stderr, note)?,
                readiness: Mutex::new(Readiness::new(workers)),
            }),
        })
    }

    /// Tells of an event. Never blocks.
    pub(crate) fn observe(&self, event: &Event<'_>) {
        let shared = &*self.shared;
        match (shared.format, event) {
            (LogFormat::Json, Event::Output { .. }) => {
                shared.writer.push_line(Sink::Stdout, &json::event(&shared.app, event));
            }
            (LogFormat::Json, _) => shared.writer.push(Sink::Stdout, &json::event(&shared.app, event)),
            (_, Event::Output { worker, stream, line }) => {
                let sink = match stream {
                    Stream::Stdout => Sink::Stdout,
                    Stream::Stderr => Sink::Stderr,
                };
                shared.writer.push_line(sink, &shared.pretty.output(worker.slot, *stream, line));
            }
            _ => self.observe_in_words(event),
        }
    }

    fn observe_in_words(&self, event: &Event<'_>) {
        if let Some((level, text)) = self.shared.pretty.event(event) {
            self.say(level, &text);
        }
        let mut readiness = self.shared.readiness.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = readiness.observe(event) {
            self.say(Level::Info, &self.shared.pretty.good(&text));
        }
    }

    /// Tells the operator something that is no event of the engine.
    pub(crate) fn notice(&self, text: &str) {
        self.observe(&Event::Notice { text });
    }

    /// Explains something to a person; programs and those who asked for quiet are spared.
    pub(crate) fn explain(&self, text: &str) {
        if self.shared.format != LogFormat::Json {
            self.say(Level::Info, &self.shared.pretty.own(text));
        }
    }

    /// Tells how the run ended, and waits a moment for everything to be read.
    pub(crate) fn conclude(&self, outcome: &Outcome, verdict: &Verdict) {
        let shared = &*self.shared;
        match shared.format {
            LogFormat::Json => {
                shared.writer.push(Sink::Stdout, &json::stopped(&shared.app, outcome, verdict));
            }
            LogFormat::Pretty | LogFormat::Raw => {
                let level = if *outcome == Outcome::Stopped { Level::Info } else { Level::Error };
                self.say(level, &shared.pretty.verdict(verdict));
            }
        }
        shared.writer.finish(FLUSH_PATIENCE);
    }

    fn say(&self, level: Level, text: &str) {
        if level <= self.shared.threshold {
            self.shared.writer.push(Sink::Stderr, text.as_bytes());
        }
    }
}
