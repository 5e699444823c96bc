//! `allcores upgrade`: has a running primary become another program, and says how it ended.
//!
//! The old program says why it does not; that it has, only the new one can say. So when the connection ends without a
//! refusal, the control socket is asked until a primary of the same process counts one upgrade more.

use std::io::Read as _;
use std::time::Duration;

use allcores::primary::own_executable;
use anyhow::{Context as _, anyhow};
use tokio::time::{Instant, sleep, timeout_at};

use super::{ask, explain, print, say};
use crate::args::UpgradeArgs;
use crate::client::{Client, RequestError};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::{AppFolder, RuntimeFolder};
use crate::view::{StatusView, UpgradeNewsView, UpgradeView};

/// How long after the old program's last word the new one may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks for an upgrade and waits for its outcome.
pub(super) async fn execute(args: &UpgradeArgs) -> Result<ExitCode, Failure> {
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    let client = Client::new(&folder);
    let deadline = Instant::now() + args.timeout;
    let before = ask(&folder, "upgrade", args.timeout, client.status()).await?;
    match timeout_at(deadline, follow(args, &client)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(reason))) => return Err(refused(args, &reason)),
        Ok(Err(error)) => return Err(explain(&folder, "upgrade", error)),
        Err(_) => return Err(not_done(args)),
    }
    let after = find_successor(&client, &before).await;
    let after = after.ok_or_else(|| lost(args, &folder, &before))?;
    say(&format!(
        "{}: upgraded from allcores {} to {}, pid {}\n",
        args.name, before.version, after.version, after.pid
    ))
}

/// Shows the news until there are no more; gives the reason of a refusal.
async fn follow(args: &UpgradeArgs, client: &Client<'_>) -> Result<Option<String>, RequestError> {
    let executable = match &args.executable {
        Some(path) => std::path::absolute(path).context("make --executable absolute")?,
        None => own_executable().context("find the program `allcores` itself; name it with --executable")?,
    };
    let check_seconds = Some(args.check_timeout.as_secs_f64());
    let wish = UpgradeView { executable: Some(executable), check_seconds };
    let mut news = client.upgrade(&wish).await?;
    loop {
        let text = match news.next().await? {
            None => return Ok(None),
            Some(UpgradeNewsView::Refused { reason }) => return Ok(Some(reason)),
            Some(UpgradeNewsView::Waiting { reason }) => format!("waits: {reason}"),
            Some(UpgradeNewsView::Checking { executable }) => format!("asks {}", executable.display()),
            Some(UpgradeNewsView::Checked { version }) => format!("allcores {version} can go on"),
        };
        // A reader who has read enough is no failure.
        let _ = say(&format!("{}: {text}\n", args.name));
    }
}

/// Asks until the new program answers.
async fn find_successor(client: &Client<'_>, before: &StatusView) -> Option<StatusView> {
    let deadline = Instant::now() + START_PATIENCE;
    while Instant::now() < deadline {
        if let Ok(Ok(status)) = timeout_at(deadline, client.status()).await
            && (status.pid != before.pid || status.upgrades > before.upgrades)
        {
            return Some(status).filter(|status| status.pid == before.pid);
        }
        sleep(PAUSE).await;
    }
    None
}

fn refused(args: &UpgradeArgs, reason: &str) -> Failure {
    Failure::from(anyhow!("upgrade {}: refused: {reason}", args.name))
        .ending(ExitCode::UpgradeRefused)
        .next(format!("the primary runs on as it was, and so do its workers: allcores status {}", args.name))
}

fn not_done(args: &UpgradeArgs) -> Failure {
    let patience = readable::duration(args.timeout);
    Failure::from(anyhow!(
        "upgrade {}: not done after {patience}; the app goes on with it as soon as it can",
        args.name
    ))
    .next(format!("see what is under way: allcores status {}", args.name))
}

fn lost(args: &UpgradeArgs, folder: &AppFolder, before: &StatusView) -> Failure {
    let name = &args.name;
    let failure = Failure::from(anyhow!(
        "upgrade {name}: process {} has executed the new program, which does not answer",
        before.pid
    ));
    match folder.holder() {
        Some(pid) => {
            failure.next(format!("see what process {pid} has printed; if it is gone, start {name} again"))
        }
        None => failure.next(format!("see what it printed last, and start {name} again")),
    }
}

/// Reads on stdin what a primary is about to leave, and says on stdout whether this program can go on with it.
pub(super) fn check() -> Result<ExitCode, Failure> {
    let mut state = Vec::new();
    std::io::stdin().lock().read_to_end(&mut state).context("read the state of a primary on stdin")?;
    let answer = allcores::primary::check(&state, |left| {
        crate::app::check(left).map_err(|error| format!("{error:#}"))
    });
    let answer = answer.map_err(|why| Failure::new(ExitCode::UpgradeRefused, anyhow!("{why}")))?;
    print(format!("{answer}\n").as_bytes())
}
