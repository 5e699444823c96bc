//! Colours for terminals, and for nothing else.

use std::fmt;
use std::io::IsTerminal;

/// Whether to colour what goes to one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint {
    is_on: bool,
}

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
    /// One of a few colours, by slot.
    Slot(u16),
}

impl Paint {
    /// Colours a terminal, unless `NO_COLOR` (<https://no-color.org>) or `TERM=dumb` ask for none.
    pub(crate) fn for_stream(stream: &impl IsTerminal) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { is_on: stream.is_terminal() && !is_set("NO_COLOR") && !is_dumb }
    }

    /// Colours nothing.
    pub(crate) fn off() -> Self {
        Self { is_on: false }
    }

    /// Colours regardless.
    #[cfg(test)]
    pub(crate) fn on() -> Self {
        Self { is_on: true }
    }

    /// Wraps a text in the codes of its tone.
    pub(crate) fn tone<T: fmt::Display>(self, tone: Tone, text: T) -> Painted<T> {
        Painted { code: if self.is_on { tone.code() } else { None }, text }
    }
}

impl Tone {
    /// SGR parameters (ECMA-48), from the 16 colours that every theme sets.
    fn code(self) -> Option<&'static str> {
        const SLOTS: [&str; 6] = ["36", "33", "35", "32", "34", "96"];
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Bad => Some("1;31"),
            Self::Slot(slot) => Some(SLOTS[usize::from(slot) % SLOTS.len()]),
        }
    }
}

/// A text with its tone, to be written once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Painted<T> {
    code: Option<&'static str>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "\x1b[{code}m{}\x1b[0m", self.text),
            None => self.text.fmt(f),
        }
    }
}
