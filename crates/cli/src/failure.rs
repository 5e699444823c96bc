//! Why a command failed: an error for people, the exit code for scripts, and what to do next.
//!
//! Only the program's edge uses it. What the engine reports about a run is judged in `verdict`.

use std::fmt;

use crate::exit_code::ExitCode;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: ExitCode,
    error: anyhow::Error,
    next: Option<String>,
}

impl Failure {
    /// Makes a failure that ends with `code`.
    pub(crate) fn new(code: ExitCode, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into(), next: None }
    }

    /// Makes a failure of the command line.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ExitCode::Usage, error)
    }

    /// Adds what the reader should do next.
    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// How the program is to end.
    pub(crate) fn code(&self) -> ExitCode {
        self.code
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(ExitCode::Failure, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {:#}", self.error)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}
