//! Runs one app from its first worker to its last: name, control socket, signals, primary, report.
//!
//! What `run` and `demo` share. Which workers there are and what becomes of them is the engine's affair.

mod signals;

use std::ffi::OsStr;

use allcores::primary::{Event, Primary, Settings};
use anyhow::Context as _;

use crate::args::OutputArgs;
use crate::control::{self, Server};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::report::Reporter;
use crate::runtime_folder::RuntimeFolder;
use crate::settings::AppName;
use crate::verdict::Verdict;

/// Runs an app in the foreground until it has ended, and says how it did. `explain` may put in a word after each
/// event. Must be awaited on the main thread: workers are told of its death.
///
/// # Errors
///
/// The app could not be begun. Its end, however bad, is no error: it has been told, and is the exit code.
pub(crate) async fn run(
    settings: Settings,
    output: &OutputArgs,
    mut explain: impl FnMut(&Reporter, &Event<'_>),
) -> Result<ExitCode, Failure> {
    let name = settings.name.clone();
    let command = as_typed(&settings.command);
    let runtime_folder = RuntimeFolder::from_env()?;
    runtime_folder.prepare()?;
    let folder = runtime_folder.app(&name.parse::<AppName>().map_err(anyhow::Error::msg)?);
    let claim = folder.claim()?;
    let listener = control::bind(&folder.socket()).map_err(|error| folder.unusable_socket(error))?;
    let reporter =
        Reporter::new(&name, settings.pool.workers, output).context("start the thread that writes output")?;
    let primary = Primary::new(settings);
    let handle = primary.handle();
    let server = Server::start(listener, handle.clone());
    let signals = signals::obey(handle, reporter.clone()).context("listen to signals");
    let signals = signals.inspect_err(|_| claim.clear(&folder.socket()))?;

    let outcome = primary
        .run(|event| {
            reporter.observe(&event);
            explain(&reporter, &event);
        })
        .await;

    server.finish().await;
    signals.abort();
    claim.clear(&folder.socket());
    let outcome = outcome.with_context(|| format!("start the app {name}"))?;
    let verdict = Verdict::of(&outcome, &command);
    reporter.conclude(&outcome, &verdict);
    // The name stays locked until this process has ended, so that who waits for that is not told too early.
    std::mem::forget(claim);
    Ok(verdict.code)
}

/// A command as one would type it into a shell.
fn as_typed(command: &[impl AsRef<OsStr>]) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-=:,@%+".contains(char);
    let words = command.iter().map(|word| {
        let word = word.as_ref().to_string_lossy();
        if !word.is_empty() && word.chars().all(is_plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::as_typed;

    #[test]
    fn commands_can_be_pasted_into_a_shell() {
        assert_eq!(as_typed(&["node", "server.js", "--port=80"]), "node server.js --port=80");
        assert_eq!(as_typed(&["sh", "-c", "echo it's", ""]), r"sh -c 'echo it'\''s' ''");
    }
}
