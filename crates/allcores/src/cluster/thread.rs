//! The engine's own thread, for programs of which the primary is one part.
//!
//! A thread of its own because workers are told of the primary's death through the thread that forked them, so that it has
//! to live as long as they may; and so that whatever the program's runtime is busy with, no worker waits for it.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Shared;
use crate::error::{Error, ErrorKind};
use crate::primary::{Event, Guest, Outcome, Primary};

/// Starts the engine; the answer says whether the first workers could be started.
pub(super) fn start(
    primary: Primary,
    shared: Arc<Shared>,
) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
    let (begun, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name("allcores".into())
        .spawn(move || {
            // Whatever becomes of us, nobody waits for us in vain.
            let end = Finish(shared);
            let outcome = run(primary, &end.0, begun);
            end.0.finish(outcome);
        })
        .map_err(|error| Error::io("starting the thread of a cluster", error))?;
    Ok(answer)
}

fn run(
    primary: Primary,
    shared: &Arc<Shared>,
    begun: oneshot::Sender<Result<(), Error>>,
) -> Result<(), Error> {
    let failed = |error: io::Error| Error::io("starting the engine of a cluster", error);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
    let hearer = Arc::clone(shared);
    let guest = Guest {
        flow: Arc::clone(shared.hub.flow()),
        hear: Box::new(move |worker, said| hearer.hear(worker, said)),
    };
    let tell_begun = move |result| {
        let _ = begun.send(result);
    };
    let observer = Arc::clone(shared);
    let observe = move |event: Event<'_>| observer.observe(&event);
    let outcome = runtime.block_on(primary.run_with(Some(guest), Box::new(observe), Box::new(tell_begun)));
    match outcome {
        Ok(Outcome::Stopped) => Ok(()),
        Ok(outcome) => Err(outcome.into_error()),
        Err(error) => Err(Error::new(ErrorKind::Io, "starting the engine of a cluster").because(error)),
    }
}

struct Finish(Arc<Shared>);

impl Drop for Finish {
    fn drop(&mut self) {
        if self.0.ended.borrow().is_none() {
            self.0.finish(Err(Error::new(
                ErrorKind::Stopped,
                "the cluster's thread ended before its workers did",
            )));
        }
    }
}
