//! `allcores signal` and `allcores send`: a word to the workers.

use anyhow::anyhow;
use serde_json::value::RawValue;

use super::{ANSWER_PATIENCE, ask, say};
use crate::args::{SendArgs, SignalArgs};
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::{AppFolder, RuntimeFolder};
use crate::screen;
use crate::target::{self, All};
use crate::view::{MessageView, ReachedView, SignalView, WorkerRefView};

/// Sends a signal to the workers of each app.
pub(super) async fn signal(args: &SignalArgs) -> Result<ExitCode, Failure> {
    let wish = SignalView { signal: args.signal.to_string(), slot: args.slot };
    let mut failures = Vec::new();
    for folder in target::folders("signal", &args.names, All::Running)? {
        let asked = ask(&folder, "signal", ANSWER_PATIENCE, Client::new(&folder).signal(&wish)).await;
        let told = asked.and_then(|reached| tell(&folder, &format!("{} sent to", args.signal), &reached));
        failures.extend(told.err());
    }
    Failure::of_all(failures)
}

/// Sends a message to the workers of an app.
pub(super) async fn send(args: &SendArgs) -> Result<ExitCode, Failure> {
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    let wish = MessageView { message: message(&args.message)?, slot: args.slot };
    if is_meant_as_json(&args.message) && serde_json::from_str::<&RawValue>(&args.message).is_err() {
        screen::tell("warning: the message begins as JSON does and is none: it is sent as a string");
    }
    let reached = ask(&folder, "send to", ANSWER_PATIENCE, Client::new(&folder).send(&wish)).await?;
    tell(&folder, "sent to", &reached)
}

fn is_meant_as_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// JSON as it is, and anything else as a string.
fn message(text: &str) -> Result<Box<RawValue>, Failure> {
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let json = if is_json { Ok(text.trim().to_owned()) } else { serde_json::to_string(text) };
    let message = json.and_then(RawValue::from_string);
    message.map_err(|error| Failure::usage(anyhow!(error).context(format!("write {text} as JSON"))))
}

fn tell(folder: &AppFolder, what: &str, reached: &ReachedView) -> Result<ExitCode, Failure> {
    let one = |worker: &WorkerRefView| format!("slot {} (pid {})", worker.slot, worker.pid);
    let all = reached.workers.iter().map(one).collect::<Vec<_>>().join(", ");
    let count = readable::count(reached.workers.len(), "worker");
    say(&format!("{}: {what} {count}: {all}\n", folder.name()))
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn json_is_sent_as_it_is_and_words_as_strings() {
        for (text, json) in [
            ("{\"a\": 1}", "{\"a\": 1}"),
            (" [1] ", "[1]"),
            ("7", "7"),
            ("flush", "\"flush\""),
            ("say \"hi\"", "\"say \\\"hi\\\"\""),
            ("", "\"\""),
        ] {
            assert_eq!(message(text).unwrap().get(), json, "{text:?}");
        }
    }
}
