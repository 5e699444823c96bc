//! The one error that the crate's users meet.
//!
//! Opaque: its kind says what can be done about it, its text what was tried, its source why that failed.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::{fmt, io};

/// Why something could not be done.
///
/// The text says what was tried and on what; [`source`](StdError::source) says why it failed, and is not repeated in
/// the text. To decide what to do, look at the [`kind`](Error::kind).
pub struct Error {
    kind: ErrorKind,
    tried: Box<str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The program to be run does not exist.
    NotFound,
    /// The program to be run exists and can't be executed.
    NotExecutable,
    /// A worker's process could not be made, for another reason: a limit, a user that may not be become.
    Spawn,
    /// The address can't be had: it is in use, or not ours to use.
    AddressUnavailable,
    /// The channel to the other side has closed, or there never was one.
    Disconnected,
    /// A value can't be a message, or a message is not the value that was asked for.
    Message,
    /// Not a kind of handle that can be passed on.
    Handle,
    /// The cluster has stopped, or stops.
    Stopped,
    /// What was asked for could not be reached, or was overtaken by another wish.
    Unreached,
    /// New workers were no good, and those before them serve.
    ReloadFailed,
    /// What was set, or found in the environment, makes no sense.
    Settings,
    /// Known and not offered.
    Unsupported,
    /// The operating system refused something else.
    Io,
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// `tried`: what was tried and on what, as a lowercase fragment.
    pub(crate) fn new(kind: ErrorKind, tried: impl Into<String>) -> Self {
        Self { kind, tried: tried.into().into_boxed_str(), source: None }
    }

    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same once more, for who asks again for what has failed for good.
    pub(crate) fn again(&self) -> Self {
        let source = self.source.as_deref().map(|source| match source.downcast_ref::<io::Error>() {
            Some(error) => same_io(error).into(),
            None => source.to_string().into(),
        });
        Self { kind: self.kind, tried: self.tried.clone(), source }
    }

    /// A failure of the operating system's, while `tried` was tried.
    pub(crate) fn io(tried: impl Into<String>, source: io::Error) -> Self {
        Self::new(ErrorKind::Io, tried).because(source)
    }
}

fn same_io(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tried)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Error");
        shown.field("kind", &self.kind).field("tried", &self.tried);
        if let Some(source) = &self.source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::new(ErrorKind::Io, "a call to the operating system").because(source)
    }
}

/// Keeps the kind of the system's error where one is behind it, so that `main` may return `io::Result`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let behind = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let kind = behind.map_or(io::ErrorKind::Other, io::Error::kind);
        Self::new(kind, error)
    }
}
