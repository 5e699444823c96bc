//! Judges how a run ended: the exit code, why, and what to do next.

use std::path::Path;

use allcores::primary::{Holder, Outcome};

use crate::exit_code::ExitCode;
use crate::settings;

/// The end of a run, for scripts and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How the program is to end.
    pub(crate) code: ExitCode,
    /// What happened and why.
    pub(crate) message: String,
    /// What to do next, where there is something to do.
    pub(crate) next: Option<String>,
}

impl Verdict {
    /// Judges an outcome. `command` is the app's command as a person would type it.
    pub(crate) fn of(outcome: &Outcome, command: &str) -> Self {
        match outcome {
            Outcome::Stopped => Self { code: ExitCode::Success, message: "stopped".into(), next: None },
            Outcome::NeverReady { status, .. } => Self::failed(
                ExitCode::NeverReady,
                format!("gave up: no worker ever became ready, and the last one ended by {status}"),
                format!("run the command by itself and see why it ends: {command}"),
            ),
            Outcome::NeverStarted { reason } => Self::failed(
                ExitCode::NeverReady,
                format!("gave up: no worker could be started: {reason}"),
                "correct that, or the options that ask for it".into(),
            ),
            Outcome::NotAServer => Self::failed(
                ExitCode::NeverReady,
                "gave up: every worker ended with exit code 0 and none ever listened on an address".into(),
                format!(
                    "make sure that the command is a server, stays in the foreground and listens: {command}"
                ),
            ),
            Outcome::AddressUnavailable { address, reason, holder } => Self::failed(
                ExitCode::AddressUnavailable,
                format!("gave up: {}", address_unavailable(address, reason, holder.as_ref())),
                "free the address, or let the app listen on another one".into(),
            ),
            Outcome::CommandNotFound { program, reason } => Self {
                code: ExitCode::CommandNotFound,
                message: format!("can't run {program}: there is no such command"),
                next: Some(run_as(program).unwrap_or_else(|| reason.clone())),
            },
            Outcome::NotExecutable { program, reason } => Self::failed(
                ExitCode::NotExecutable,
                format!("can't run {program}: {reason}"),
                run_as(program).unwrap_or_else(|| {
                    "name a program, or an interpreter and the script for it; a file of your own needs chmod +x"
                        .into()
                }),
            ),
        }
    }

    fn failed(code: ExitCode, message: String, next: String) -> Self {
        Self { code, message, next: Some(next) }
    }
}

/// What to do where the program is a file of this folder, which runs in another way.
fn run_as(program: &str) -> Option<String> {
    let command = settings::run_as(program, Path::new(""))?;
    Some(format!("that is a file, and what runs it is `{command}`: allcores run -- {command}"))
}

/// Says why an address can't be had, and who has it.
pub(crate) fn address_unavailable(address: &str, reason: &str, holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, command }) => {
            let holder = match app_of(command) {
                Some(app) => format!("the app {app}, process {pid}"),
                None => format!("process {pid}: {command}"),
            };
            format!("{address} can't be had: {reason} (held by {holder})")
        }
        None => format!("{address} can't be had: {reason}"),
    }
}

/// The app whose primary runs as this command, where `allcores start` has started it.
fn app_of(command: &str) -> Option<&str> {
    let (program, arguments) = command.split_once(" run --background --name ")?;
    arguments.split(' ').next().filter(|_| program.ends_with("allcores"))
}

#[cfg(test)]
mod tests {
    use allcores::ExitStatus;
    use allcores::primary::{Holder, Outcome};

    use super::Verdict;
    use crate::exit_code::ExitCode;

    #[test]
    fn each_outcome_has_its_code_and_what_to_do() {
        let outcomes = [
            (Outcome::NeverReady { status: ExitStatus::Code(1), last_output: vec![] }, ExitCode::NeverReady),
            (Outcome::NeverStarted { reason: "denied".into() }, ExitCode::NeverReady),
            (Outcome::NotAServer, ExitCode::NeverReady),
            (
                Outcome::CommandNotFound { program: "x".into(), reason: "check the name".into() },
                ExitCode::CommandNotFound,
            ),
            (
                Outcome::NotExecutable { program: "x".into(), reason: "denied".into() },
                ExitCode::NotExecutable,
            ),
        ];
        for (outcome, code) in outcomes {
            let verdict = Verdict::of(&outcome, "./x");
            assert_eq!(verdict.code, code, "{outcome:?}");
            assert!(verdict.next.is_some(), "{outcome:?}");
        }
        assert_eq!(Verdict::of(&Outcome::Stopped, "./x").code, ExitCode::Success);
    }

    #[test]
    fn the_holder_of_an_address_is_named() {
        let holder = Some(Holder { pid: 7, command: "nginx -g x".into() });
        let outcome =
            Outcome::AddressUnavailable { address: "[::]:80".into(), reason: "in use".into(), holder };
        let verdict = Verdict::of(&outcome, "./x");
        assert_eq!(verdict.code, ExitCode::AddressUnavailable);
        for part in ["[::]:80", "in use", "7", "nginx -g x"] {
            assert!(verdict.message.contains(part), "{}", verdict.message);
        }
        let command = "/usr/bin/allcores run --background --name web -- node server.js".into();
        let told = super::address_unavailable("[::]:80", "in use", Some(&Holder { pid: 7, command }));
        assert_eq!(told, "[::]:80 can't be had: in use (held by the app web, process 7)");
    }
}
