//! `allcores events`: what happens to apps, as it happens.

use tokio::sync::mpsc;

use super::{explain, print};
use crate::args::EventsArgs;
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::runtime_folder::AppFolder;
use crate::target;

/// Prints events of all apps in the order in which they come, until the last app has gone.
pub(super) async fn execute(args: &EventsArgs) -> Result<ExitCode, Failure> {
    let (tell, mut told) = mpsc::channel(64);
    for folder in target::folders("events of", &args.names)? {
        tokio::spawn(follow(folder, args.output, tell.clone()));
    }
    drop(tell);
    let mut failures = Vec::new();
    while let Some(line) = told.recv().await {
        match line {
            Ok(line) => drop(print(&line)?),
            Err(failure) => failures.push(failure),
        }
    }
    Failure::of_all(failures)
}

async fn follow(folder: AppFolder, has_output: bool, tell: mpsc::Sender<Result<Vec<u8>, Failure>>) {
    let client = Client::new(&folder);
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
