//! The one table of exit codes: what each means, for the program, its help and its documentation.
//!
//! Knows nothing of how an error came about; see `failure` and `verdict` for that.

use std::fmt::Write as _;

/// How `allcores` ends. Scripts rely on these numbers: they are never reused for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// Done, or stopped as asked.
    Success = 0,
    /// Anything that has no code of its own.
    Failure = 1,
    /// The command line can't be meant like that. Also what clap itself uses.
    Usage = 2,
    /// No worker ever became ready.
    NeverReady = 3,
    /// Another primary has the name.
    NameInUse = 4,
    /// There is no primary of that name.
    NotRunning = 5,
    /// The address that the workers ask for can't be had.
    AddressUnavailable = 6,
    /// The runtime folder can't be used.
    RuntimeFolder = 7,
    /// A reload failed: the new version was no good.
    ReloadFailed = 8,
    /// Requests of `reload --prove` failed.
    RequestsFailed = 9,
    /// The config file is wrong.
    Config = 10,
    /// The state folder can't be used.
    StateFolder = 11,
    /// An upgrade was refused.
    UpgradeRefused = 12,
    /// The command exists and can't be run; the shell's own code for it.
    NotExecutable = 126,
    /// The command doesn't exist; the shell's own code for it.
    CommandNotFound = 127,
    /// Ctrl-C ended the waiting; the shell's own code for it.
    Interrupted = 130,
}

impl ExitCode {
    /// Every code, in the order of the numbers.
    pub(crate) const ALL: [Self; 16] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::NeverReady,
        Self::NameInUse,
        Self::NotRunning,
        Self::AddressUnavailable,
        Self::RuntimeFolder,
        Self::ReloadFailed,
        Self::RequestsFailed,
        Self::Config,
        Self::StateFolder,
        Self::UpgradeRefused,
        Self::NotExecutable,
        Self::CommandNotFound,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The code of this number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Says what the code means, as a fragment.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done, or stopped as asked",
            Self::Failure => "failure",
            Self::Usage => "the command line is wrong",
            Self::NeverReady => "no worker ever became ready: a crash loop, or not a server",
            Self::NameInUse => "the name is in use by another primary",
            Self::NotRunning => "no app of that name is running",
            Self::AddressUnavailable => "the address can't be had",
            Self::RuntimeFolder => "the runtime folder can't be used",
            Self::ReloadFailed => "the reload failed, and the old version serves",
            Self::RequestsFailed => "the app was reloaded, and requests of `--prove` failed",
            Self::Config => "the config file is wrong",
            Self::StateFolder => "the state folder can't be used",
            Self::UpgradeRefused => "the upgrade was refused, and the primary runs on as it was",
            Self::NotExecutable => "the command is not executable",
            Self::CommandNotFound => "the command was not found",
            Self::Interrupted => "Ctrl-C ended the waiting for an app; what was asked of it goes on",
        }
    }

    /// Lists all codes for a help text.
    pub(crate) fn help() -> String {
        let mut text = String::from("Exit codes:\n");
        for code in Self::ALL {
            // Writing to a string can't fail.
            let _ = writeln!(text, "  {:>3}  {}", code.number(), code.meaning());
        }
        text
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::ExitCode;

    #[test]
    fn numbers_are_distinct_and_ascending() {
        assert!(ExitCode::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }

    #[test]
    fn every_code_is_in_the_reference() {
        let page = include_str!("../../../docs/reference/exit-codes.md");
        for code in ExitCode::ALL {
            let row = format!("| {} | {} |", code.number(), code.meaning());
            assert!(page.contains(&row), "docs/reference/exit-codes.md lacks the row {row}");
        }
    }
}
