//! Why a command failed: an error for people, the exit code for scripts, and what to do next.
//!
//! Only the program's edge uses it. What the engine reports about a run is judged in `verdict`.

use std::io::{self, ErrorKind};
use std::{fmt, iter, mem};

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
        let mut told: Vec<Self> = Vec::new();
        for mut failure in failures {
            let others = mem::take(&mut failure.others);
            for failure in iter::once(failure).chain(others) {
                // What several have in common is said once.
                let text = failure.to_string();
                if told.iter().all(|known| known.to_string() != text) {
                    told.push(failure);
                }
            }
        }
        let mut failures = told.into_iter();
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
        let all = iter::once(self).chain(&self.others);
        let texts: Vec<String> = all.map(|failure| format!("{:#}", failure.error)).collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines.filter(|line| !line.starts_with(' ')).collect::<Vec<_>>().join("; ")
    }

    /// The same with what to do next.
    pub(crate) fn with_next_in_a_line(&self) -> String {
        match &self.next {
            Some(next) => format!("{}; next: {next}", self.in_a_line()),
            None => self.in_a_line(),
        }
    }

    /// Says which variable could name another folder, or what else to do about one that can't be used.
    pub(crate) fn of_folder(self, variable: &str) -> Self {
        let next = if is_full(&self.error) {
            format!("make room there, or name a folder on another disk: {variable}")
        } else {
            format!("set {variable} to a folder that you own and nobody else may write to")
        };
        self.next(next)
    }

    /// How the program is to end.
    pub(crate) fn code(&self) -> ExitCode {
        self.code
    }
}

/// Whether something failed as there is no room for it.
fn is_full(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

/// What is wrong, gathered so that all of it is told at once.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<Failure>);

impl Failures {
    /// Keeps what failed; what did not is there to go on with.
    pub(crate) fn keep<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        result.map_err(|failure| self.0.push(failure)).ok()
    }

    /// Says whether nothing has failed.
    ///
    /// # Errors
    ///
    /// All that has.
    pub(crate) fn none(self) -> Result<(), Failure> {
        Failure::of_all(self.0).map(drop)
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

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{ErrorKind, ExitCode, Failure, Failures, io};

    #[test]
    fn all_that_failed_is_told_once_and_the_first_gives_the_code() {
        let failure = |text: &'static str| Failure::new(ExitCode::Config, anyhow!(text)).next("mend it");
        let mut inner = Failures::default();
        assert_eq!(inner.keep(Ok(1)), Some(1));
        for text in ["a", "b"] {
            assert_eq!(inner.keep::<()>(Err(failure(text))), None);
        }
        let inner = inner.none().unwrap_err();
        let all = Failure::of_all(vec![inner, failure("b"), Failure::usage(anyhow!("c\n  excerpt"))]);
        let all = all.unwrap_err();
        assert_eq!(
            all.to_string(),
            "error: a\n  next: mend it\nerror: b\n  next: mend it\nerror: c\n  excerpt"
        );
        assert_eq!((all.code(), all.in_a_line().as_str()), (ExitCode::Config, "a; b; c"));
        assert_eq!(failure("a").with_next_in_a_line(), "a; next: mend it");
        assert_eq!(Failure::usage(anyhow!("a")).with_next_in_a_line(), "a");
        Failures::default().none().unwrap();
    }

    #[test]
    fn a_folder_on_a_disk_that_is_full_wants_room_and_no_other_owner() {
        let next = |kind: ErrorKind| {
            let error = anyhow::Error::new(io::Error::from(kind)).context("write x");
            Failure::new(ExitCode::StateFolder, error).of_folder("ALLCORES_STATE_DIR").to_string()
        };
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let shown = next(kind);
            assert!(
                shown
                    .ends_with("next: make room there, or name a folder on another disk: ALLCORES_STATE_DIR"),
                "{shown}"
            );
        }
        let shown = next(ErrorKind::PermissionDenied);
        assert!(shown.contains("set ALLCORES_STATE_DIR to a folder that you own"), "{shown}");
    }
}
