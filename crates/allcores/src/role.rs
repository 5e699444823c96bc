//! What this process is: a primary, or one of its workers.

use crate::{Builder, Error, Worker};

/// What this process is; from [`role`].
#[derive(Clone, Debug)]
#[doc(alias = "isPrimary")]
#[doc(alias = "isWorker")]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process, taken apart at once")]
pub enum Role {
    /// Nobody started it as a worker: it may become the primary of a cluster.
    Primary(Builder),
    /// It is to serve, with a primary or [alone](Worker::is_alone).
    Worker(Worker),
}

/// Finds out what this process is. The first thing that a program which clusters itself does.
///
/// A worker is what was started as one, as [`Worker::from_env`] says; everybody else is a primary. `ALLCORES_ROLE` in the
/// environment, `worker` or `primary`, has the last word: with `worker` a program that was started by hand serves alone,
/// for one that is looked at in a debugger.
///
/// Tells the primary that this worker is online. Needs no async runtime. Calling it again gives the same answer.
///
/// # Errors
///
/// As [`Worker::from_env`].
///
/// # Examples
///
/// ```no_run
/// use allcores::Role;
///
/// # async fn serve(_: allcores::Listener) {}
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// match allcores::role()? {
///     Role::Primary(builder) => {
///         builder.workers(4).keep(true).serve().await?;
///     }
///     Role::Worker(worker) => {
///         let listener = worker.listen("0.0.0.0:8080").await?;
///         serve(listener).await;
///     }
/// }
/// # Ok(()) }
/// ```
#[doc(alias = "cluster.isPrimary")]
pub fn role() -> Result<Role, Error> {
    Ok(Worker::from_env()?.map_or_else(|| Role::Primary(Builder::new()), Role::Worker))
}
