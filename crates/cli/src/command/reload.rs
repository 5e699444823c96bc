//! `allcores reload`: replaces apps' workers by new ones, shows how it goes on, and says how it ended.

mod progress;
mod prove;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, timeout_at};

use super::{ANSWER_PATIENCE, ask, explain, print, say, unresponsive};
use crate::args::ReloadArgs;
use crate::client::{Client, News, RequestError};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::AppFolder;
use crate::settings::AppName;
use crate::target::{self, All};
use crate::view::{EndedView, FailureView, FaultView, ReloadNewsView, ReloadView, StatusView};

use progress::Progress;
use prove::Proof;

/// What a reload is asked for with, and how it is watched.
#[derive(Debug, Default)]
pub(super) struct Wish<'a> {
    view: ReloadView,
    /// What requests of its own ask for, if it is to make some.
    prove: Option<&'a str>,
    /// How long to wait for the whole.
    timeout: Option<Duration>,
    is_json: bool,
}

impl Wish<'_> {
    fn limit(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_hours(24 * 365))
    }
}

/// Reloads the apps, one after another: each when the one before it serves.
pub(super) async fn execute(args: &ReloadArgs) -> Result<ExitCode, Failure> {
    let folders = target::folders("reload", &args.names, All::Running)?;
    let for_one = [(!args.command.is_empty(), "a command is"), (args.json, "--json is")];
    if let (true, Some((_, what))) = (folders.len() > 1, for_one.iter().find(|(is_given, _)| *is_given)) {
        return Err(Failure::usage(anyhow!("reload: {what} for one app, and here are {}", folders.len()))
            .next("reload one at a time"));
    }
    let wish = wish(args)?;
    let mut failures = Vec::new();
    for folder in folders {
        failures.extend(roll(&folder, &wish).await.err());
    }
    Failure::of_all(failures)
}

/// Asks an app for a reload, and waits for its outcome.
pub(super) async fn roll(folder: &AppFolder, wish: &Wish<'_>) -> Result<(), Failure> {
    let name = folder.name();
    let deadline = Instant::now() + wish.limit();
    let begun = timeout_at(deadline, begin(wish, folder)).await;
    let (proof, mut news) = begun.unwrap_or_else(|_| Err(unresponsive(folder, "reload", wish.limit())))?;
    let ended = follow(wish, folder, &mut news, deadline).await;
    let status = match &ended {
        Ok(EndedView::Failed { .. }) => {
            ask(folder, "status of", ANSWER_PATIENCE, Client::new(folder).status()).await.ok()
        }
        _ => None,
    };
    let proven = match proof {
        Some(proof) => Some(proof.end().await),
        None => None,
    };
    if let (Some(proven), true) = (&proven, wish.is_json) {
        print(proven.json().as_bytes())?;
    } else if let Some(proven) = &proven {
        say(&format!("{name}: {proven}\n"))?;
    }
    report(name, &ended?, status.as_ref())?;
    match proven.filter(|proven| proven.failed() > 0) {
        Some(proven) => Err(Failure::from(anyhow!("reload {name}: reloaded, but {proven}"))
            .ending(ExitCode::RequestsFailed)
            .next(format!(
                "see whether they fail without a reload too, and what the workers say: allcores status {name}"
            ))),
        None => Ok(()),
    }
}

/// Begins with requests of its own, where they are asked for, and with the reload.
async fn begin(
    wish: &Wish<'_>,
    folder: &AppFolder,
) -> Result<(Option<Proof>, News<ReloadNewsView>), Failure> {
    let client = Client::new(folder);
    // A reload takes as long as it takes; to be heard does not.
    let status = ask(folder, "reload", ANSWER_PATIENCE, client.status()).await?;
    let proof = wish.prove.map(|path| Proof::begin(&status, path)).transpose()?;
    let news = client.reload(&wish.view).await.map_err(|error| not_begun(folder, error))?;
    Ok((proof, news))
}

/// Says why the app would not begin; nothing has changed.
fn not_begun(folder: &AppFolder, error: RequestError) -> Failure {
    let is_refused = matches!(error, RequestError::Refused(_));
    let failure = explain(folder, "reload", error);
    if !is_refused {
        return failure;
    }
    failure
        .ending(ExitCode::ReloadFailed)
        .next(format!("put it right, and again: allcores reload {} (nothing has changed)", folder.name()))
}

fn wish(args: &ReloadArgs) -> Result<Wish<'_>, Failure> {
    let text = |what: &str, value: &OsStr| {
        value.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::usage(anyhow!("reload: {what} {} is not UTF-8", value.display()))
                .next("start the app anew with it")
        })
    };
    let command: Vec<String> =
        args.command.iter().map(|word| text("the word", word)).collect::<Result<_, _>>()?;
    let env = args.env.iter().map(|(key, value)| Ok((text("the name", key)?, text("the value", value)?)));
    let view = ReloadView {
        command: (!command.is_empty()).then_some(command),
        env: env.collect::<Result<BTreeMap<_, _>, Failure>>()?,
        surge: Some(args.surge),
        canary_seconds: args.canary.map(|time| time.as_secs_f64()),
        ready_timeout_seconds: args.ready_timeout.map(|time| time.as_secs_f64()),
        may_move: args.may_move,
        environment: args.env_name.clone(),
    };
    let prove = args.prove.then_some(args.prove_path.as_str());
    Ok(Wish { view, prove, timeout: args.timeout, is_json: args.json })
}

/// Shows the news until the last.
async fn follow(
    wish: &Wish<'_>,
    folder: &AppFolder,
    news: &mut News<ReloadNewsView>,
    deadline: Instant,
) -> Result<EndedView, Failure> {
    let name = folder.name();
    let mut progress = Progress::new(name.as_str(), wish.is_json);
    loop {
        let next = timeout_at(deadline, news.next()).await.map_err(|_| {
            let patience = readable::duration(wish.limit());
            Failure::from(anyhow!("reload {name}: not done after {patience}; the app goes on with it"))
                .next(format!("see how far it is: allcores status {name}"))
        })?;
        match next.map_err(|error| explain(folder, "reload", error))? {
            Some(news) => {
                progress.show(&news)?;
                if let ReloadNewsView::Ended(ended) = news {
                    return Ok(ended);
                }
            }
            None => {
                return Err(Failure::from(anyhow!(
                    "reload {name}: the app has gone before it said how it ended"
                ))
                .next("see what its primary printed last"));
            }
        }
    }
}

/// Says how it ended, to which belongs what the app is like now.
fn report(name: &AppName, ended: &EndedView, status: Option<&StatusView>) -> Result<(), Failure> {
    match ended {
        EndedView::Reloaded { .. } => Ok(()),
        EndedView::Stopped => {
            Err(Failure::from(anyhow!("reload {name}: the app was told to stop meanwhile"))
                .next("start it again, if nobody meant that"))
        }
        EndedView::Failed { failure, rolled_back } => {
            let FailureView { id, slot, reason, last_output, .. } = failure;
            let kept = if *rolled_back && status.is_some_and(|status| status.ready() == 0) {
                "the old version goes on, of which no worker is ready"
            } else if *rolled_back {
                "the old version has served all the time, and serves"
            } else {
                "what had been replaced could not be put back; each slot has kept what serves"
            };
            let mut text = format!("reload {name}: worker {id} (slot {slot}) was no good: {reason}; {kept}");
            if !last_output.is_empty() {
                text.push_str("\n  the last lines of its output:");
                for line in last_output {
                    text.push_str("\n    ");
                    text.push_str(line);
                }
            }
            Err(Failure::from(anyhow!(text))
                .ending(ExitCode::ReloadFailed)
                .next(advice(name, failure, status)))
        }
    }
}

/// What to do about a reload that failed.
fn advice(name: &AppName, failure: &FailureView, status: Option<&StatusView>) -> String {
    let listens = status.is_none_or(|status| !status.listening.is_empty());
    let others = if !failure.missing.is_empty() {
        format!("; or, if it is not to listen there any more: allcores reload {name} --may-move")
    } else if failure.fault == FaultView::NotReady && !listens {
        format!("; or, if it is not meant to listen on anything: allcores restart {name} --hard")
    } else {
        String::new()
    };
    let has_log = status.is_some_and(|status| status.output.log.is_some());
    let all = if has_log && !failure.last_output.is_empty() {
        format!("; all of its output: allcores logs {name}")
    } else {
        String::new()
    };
    format!("put it right, and again: allcores reload {name}{others}{all}")
}

#[cfg(test)]
mod tests {
    use super::{advice, report};
    use crate::view::tests::web;
    use crate::view::{EndedView, FailureView, FaultView, StateView};

    #[test]
    fn of_an_old_version_that_is_not_ready_it_is_not_said_that_it_serves() {
        let failure = FailureView {
            generation: 2,
            id: 7,
            slot: 0,
            fault: FaultView::NotReady,
            reason: String::new(),
            missing: Vec::new(),
            last_output: Vec::new(),
        };
        let ended = EndedView::Failed { failure, rolled_back: true };
        let mut status = web();
        let said =
            |status: &_| report(&"web".parse().unwrap(), &ended, Some(status)).unwrap_err().to_string();
        assert!(said(&status).contains("the old version has served all the time"), "{}", said(&status));
        status.workers.iter_mut().for_each(|worker| worker.state = StateView::Online);
        assert!(said(&status).contains("goes on, of which no worker is ready"), "{}", said(&status));
    }

    #[test]
    fn who_does_not_listen_where_it_did_is_told_of_the_way_to_have_that() {
        let name = "web".parse().unwrap();
        let mut failure = FailureView {
            generation: 2,
            id: 7,
            slot: 0,
            fault: FaultView::NotReady,
            reason: String::new(),
            missing: vec!["127.0.0.1:8081".into()],
            last_output: Vec::new(),
        };
        assert!(advice(&name, &failure, Some(&web())).contains("allcores reload web --may-move"));
        failure.missing.clear();
        assert_eq!(advice(&name, &failure, Some(&web())), "put it right, and again: allcores reload web");
        let mut nowhere = web();
        nowhere.listening.clear();
        assert!(advice(&name, &failure, Some(&nowhere)).contains("allcores restart web --hard"));
        failure.fault = FaultView::Exited;
        assert_eq!(advice(&name, &failure, Some(&nowhere)), "put it right, and again: allcores reload web");
    }
}
