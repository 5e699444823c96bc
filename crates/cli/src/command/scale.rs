//! `allcores scale`: changes the number of workers and waits until it is so.

use anyhow::anyhow;
use tokio::time::timeout;

use super::{explain, print};
use crate::args::ScaleArgs;
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::RuntimeFolder;

/// Asks for so many workers.
pub(super) async fn execute(args: &ScaleArgs) -> Result<ExitCode, Failure> {
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    match timeout(args.timeout, Client::new(&folder).scale(args.workers)).await {
        Ok(Ok(status)) => {
            print(format!("{}: {} ready\n", args.name, readable::count(status.ready(), "worker")).as_bytes())
        }
        Ok(Err(error)) => Err(explain(&folder, "scale", error)),
        Err(_) => Err(not_done(args)),
    }
}

fn not_done(args: &ScaleArgs) -> Failure {
    let (name, workers, patience) = (&args.name, args.workers, readable::duration(args.timeout));
    Failure::from(anyhow!("scale {name} to {workers}: not done after {patience}; the app goes on trying"))
        .next(format!("see how far it is: allcores status {name}"))
}
