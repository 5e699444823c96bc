//! Sending a message with a socket, over whichever end of a channel; and the socket's way back where that fails.

use std::borrow::Borrow;
use std::error::Error as StdError;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{fmt, io};

use serde::Serialize;

use super::Handle;
use crate::channel::Sender;
use crate::error::Error;
use crate::message;

/// A message with a socket could not be sent: why, and the socket.
///
/// From [`WorkerHandle::send_with_handle`](crate::WorkerHandle::send_with_handle) and
/// [`Worker::send_with_handle`](crate::Worker::send_with_handle). It becomes an [`Error`] by `?`, and the socket is closed
/// then; who wants it back takes it by [`into_handle`](Self::into_handle).
///
/// # Examples
///
/// A connection goes to whichever worker there is:
///
/// ```no_run
/// use allcores::{Handle, WorkerHandle};
///
/// fn pass_on(workers: &[WorkerHandle], mut connection: Handle) -> Option<Handle> {
///     for worker in workers {
///         match worker.send_with_handle("yours", connection) {
///             Ok(_) => return None,
///             Err(error) => connection = error.into_handle()?,
///         }
///     }
///     Some(connection)
/// }
/// ```
pub struct SendHandleError {
    error: Error,
    handle: Option<Handle>,
}

impl SendHandleError {
    fn new(error: impl Into<Error>, handle: Option<Handle>) -> Self {
        Self { error: error.into(), handle }
    }

    /// Why it could not be sent.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The socket, which is non-blocking by now. `None` in two cases: it could not be made a [`Handle`], as its runtime did not
    /// let go of it, or the channel broke in the middle of the message, so that the other side may have it.
    pub fn into_handle(self) -> Option<Handle> {
        self.handle
    }

    /// Why, and [the socket](Self::into_handle).
    pub fn into_parts(self) -> (Error, Option<Handle>) {
        (self.error, self.handle)
    }
}

impl fmt::Display for SendHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for SendHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHandleError").field("error", &self.error).field("handle", &self.handle).finish()
    }
}

impl StdError for SendHandleError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl From<SendHandleError> for Error {
    fn from(error: SendHandleError) -> Self {
        error.error
    }
}

impl From<SendHandleError> for io::Error {
    fn from(error: SendHandleError) -> Self {
        error.error.into()
    }
}

/// Sends `message` with `handle`. `channel`: where to, or why there is nowhere; `closed`: what to say if it turns out to have
/// closed.
pub(crate) fn send_with_handle<T: Serialize + ?Sized>(
    channel: Result<impl Borrow<Sender>, Error>,
    message: &T,
    handle: impl TryInto<Handle, Error: Into<Error>>,
    closed: impl FnOnce() -> Error,
) -> Result<bool, SendHandleError> {
    // First of all: whatever fails then, there is something to give back.
    let handle: Handle = handle.try_into().map_err(|error| SendHandleError::new(error, None))?;
    let readied = channel.and_then(|channel| {
        let json = message::to_json(message)?;
        Ok((channel, handle.announce(&json)?))
    });
    let (channel, line) = match readied {
        Ok(readied) => readied,
        Err(error) => return Err(SendHandleError::new(error, Some(handle))),
    };
    let same = handle.kept();
    let sent = channel.borrow().send_user_with(line, Arc::new(OwnedFd::from(handle)));
    sent.map_err(|unsent| {
        // Nobody else has it: it was never in the channel's hands, or is not any more.
        let socket = unsent.and_then(Arc::into_inner);
        SendHandleError::new(closed(), socket.map(same))
    })
}
