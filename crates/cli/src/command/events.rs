//! `allcores events`: what happens to apps, as it happens.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ANSWER_PATIENCE, Printed, ask, explain, is_reader_gone, write_out};
use crate::args::EventsArgs;
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::runtime_folder::AppFolder;
use crate::target::{self, All};

/// How often it is seen whether anybody still reads, while nothing happens.
const LOOK: Duration = Duration::from_secs(1);

/// Prints events of all apps in the order in which they come, until the last app has gone, or who reads them.
pub(super) async fn execute(args: &EventsArgs) -> Result<ExitCode, Failure> {
    let (tell, mut told) = mpsc::channel(64);
    for folder in target::folders("events of", &args.names, All::Running)? {
        tokio::spawn(follow(folder, args.output, tell.clone()));
    }
    drop(tell);
    let mut failures = Vec::new();
    loop {
        let is_over = match timeout(LOOK, told.recv()).await {
            Ok(Some(Ok(line))) => write_out(&line)? == Printed::ReaderGone,
            Ok(Some(Err(failure))) => {
                failures.push(failure);
                false
            }
            Ok(None) => true,
            Err(_) => is_reader_gone(),
        };
        if is_over {
            break;
        }
    }
    Failure::of_all(failures)
}

async fn follow(folder: AppFolder, has_output: bool, tell: mpsc::Sender<Result<Vec<u8>, Failure>>) {
    let client = Client::new(&folder);
    // Nothing may happen for a long time; that somebody is there to tell of it is known at once.
    if let Err(failure) = ask(&folder, "events of", ANSWER_PATIENCE, client.status()).await {
        return drop(tell.send(Err(failure)).await);
    }
    let mut is_heard = false;
    loop {
        let mut lines = match client.events(has_output).await {
            Ok(lines) => lines,
            // It has gone, and said so.
            Err(_) if is_heard => return,
            Err(error) => return drop(tell.send(Err(explain(&folder, "events of", error))).await),
        };
        while let Some(line) = lines.next().await {
            if tell.send(Ok(line)).await.is_err() {
                return;
            }
        }
        // An upgrade ends the connections that there are, and the new program goes on.
        is_heard = true;
    }
}
