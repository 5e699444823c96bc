//! Signals by name.

use std::fmt;
use std::str::FromStr;

use allcores_core::exit::signal_name;

use crate::error::{Error, ErrorKind};

/// A signal that can be sent to a worker, as of signal(7).
///
/// ```
/// use allcores::Signal;
///
/// assert_eq!("SIGTERM".parse::<Signal>()?, Signal::TERM);
/// assert_eq!(Signal::KILL.to_string(), "SIGKILL");
/// # Ok::<(), allcores::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// Hang up.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// Interrupt, as by Ctrl-C.
    pub const INT: Self = Self(libc::SIGINT);
    /// Quit, with a core dump by default.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// Ends a process, which can neither catch nor ignore it.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// The program's own; node opens its inspector.
    pub const USR1: Self = Self(libc::SIGUSR1);
    /// The program's own.
    pub const USR2: Self = Self(libc::SIGUSR2);
    /// Asks a process to end; Node's default for `kill`.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// Goes on after `STOP`.
    pub const CONT: Self = Self(libc::SIGCONT);
    /// Holds a process still.
    pub const STOP: Self = Self(libc::SIGSTOP);
    /// The window's size has changed; often used for a program's own ends.
    pub const WINCH: Self = Self(libc::SIGWINCH);

    /// The signal of this number, if it is one that has a name.
    pub fn from_number(number: i32) -> Option<Self> {
        signal_name(number).map(|_| Self(number))
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }

    pub(crate) fn raw(self) -> Option<rustix::process::Signal> {
        rustix::process::Signal::from_named_raw(self.0)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(signal_name(self.0).unwrap_or("signal"))
    }
}

/// By its name, `SIGTERM` or `TERM`.
impl FromStr for Signal {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let is_meant = |known: &str| known == name || known.strip_prefix("SIG") == Some(name);
        (1..=31).find(|number| signal_name(*number).is_some_and(is_meant)).map(Self).ok_or_else(|| {
            Error::new(
                ErrorKind::Settings,
                format!("no signal is called {name:?}: TERM, HUP or SIGUSR1 would be one"),
            )
        })
    }
}
