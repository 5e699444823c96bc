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
    /// Those of others that were asked for at the same time.
    others: Vec<Failure>,
}

impl Failure {
    /// Makes a failure that ends with `code`.
    pub(crate) fn new(code: ExitCode, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into(), next: None, others: Vec::new() }
    }

    /// Joins what several things that were tried at once ended with: all is told, and the first gives the exit code.
    ///
    /// # Errors
    ///
    /// If there is any failure.
    pub(crate) fn of_all(failures: Vec<Self>) -> Result<ExitCode, Self> {
        let mut failures = failures.into_iter();
        match failures.next() {
            None => Ok(ExitCode::Success),
            Some(first) => Err(Self { others: failures.collect(), ..first }),
        }
    }

    /// Ends with another code.
    pub(crate) fn ending(self, code: ExitCode) -> Self {
        Self { code, ..self }
    }

    /// Makes a failure of the command line.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(ExitCode::Usage, error)
    }

    /// Adds what the reader should do next.
    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// The same in one line, without excerpts of files: for logs and for others than the one who wrote them.
    pub(crate) fn in_a_line(&self) -> String {
        let text = format!("{:#}", self.error);
        text.lines().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>().join("; ")
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
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        self.others.iter().try_for_each(|other| write!(f, "\n{other}"))
    }
}
