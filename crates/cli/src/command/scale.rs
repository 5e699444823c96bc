//! `allcores scale`: changes the number of workers and waits until it is so.

use anyhow::anyhow;
use tokio::time::{Instant, timeout_at};

use super::{ask, explain, say};
use crate::args::{Change, ScaleArgs};
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::{AppFolder, RuntimeFolder};

/// Asks for so many workers.
pub(super) async fn execute(args: &ScaleArgs) -> Result<ExitCode, Failure> {
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    let deadline = Instant::now() + args.timeout;
    let workers = wanted(args, &folder).await?;
    // A difference is one to what there is to be when it is heard: others may scale meanwhile.
    match timeout_at(deadline, Client::new(&folder).scale(args.workers)).await {
        Ok(Ok(status)) => {
            say(&format!("{}: {} ready\n", args.name, readable::count(status.ready(), "worker")))
        }
        Ok(Err(error)) => Err(explain(&folder, "scale", error)),
        Err(_) => Err(not_done(args, workers)),
    }
}

/// How many that makes by now.
async fn wanted(args: &ScaleArgs, folder: &AppFolder) -> Result<u16, Failure> {
    let now = match args.workers {
        Change::To(workers) => workers,
        Change::By(_) => ask(folder, "scale", args.timeout, Client::new(folder).status()).await?.target,
    };
    args.workers.from(now).ok_or_else(|| {
        let text = format!("scale {}: it has {now}, and that would leave none, or too many", args.name);
        Failure::usage(anyhow!(text))
            .next(format!("say how many it should have: allcores scale {} 1", args.name))
    })
}

fn not_done(args: &ScaleArgs, workers: u16) -> Failure {
    let (name, patience) = (&args.name, readable::duration(args.timeout));
    Failure::from(anyhow!("scale {name} to {workers}: not done after {patience}; the app goes on trying"))
        .next(format!("see how far it is: allcores status {name}"))
}
