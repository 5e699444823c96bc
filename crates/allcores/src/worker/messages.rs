//! Talking with the primary.

use std::sync::Arc;

use serde::Serialize;

use super::Worker;
use super::link::Link;
use crate::channel::Sender;
use crate::handle::send_with_handle;
use crate::message::to_json;
use crate::{Error, ErrorKind, Handle, Message, SendHandleError};

impl Worker {
    /// Sends a message to the primary: any value that serde can write as JSON.
    ///
    /// Does not wait. False means that more than 128 KiB or 64 sockets wait to be written, as in Node: it is queued all the same,
    /// and who has much to send waits until they are [`drained`](Self::drained). Of many sent without a pause the later ones are
    /// written together, when the task that sends them yields: a program that exits after them waits for that too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`] without a primary, or when it is gone; [`ErrorKind::Message`] for a value that is not
    /// to be written as JSON, or that Node would take for its own: an object whose `cmd` begins with `NODE_`; or for
    /// one of more than 64 MiB.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// #[derive(serde::Serialize)]
    /// struct Served {
    ///     requests: u64,
    /// }
    ///
    /// # async fn example(worker: allcores::Worker) -> Result<(), allcores::Error> {
    /// for requests in 0..1_000_000 {
    ///     if !worker.send(&Served { requests })? {
    ///         worker.drained().await;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn send<T: Serialize + ?Sized>(&self, message: &T) -> Result<bool, Error> {
        self.sender()?.send_user(to_json(message)?).map_err(|_| closed())
    }

    /// Sends a message with a socket, which is closed here once the primary has it, or if it goes without having taken it.
    ///
    /// Each that waits to be sent is a descriptor of this process: what is returned says, as of [`send`](Self::send), when to wait
    /// until they are [`drained`](Self::drained).
    ///
    /// Once this has returned `Ok` the socket can't be had back. A primary that lacks descriptors is sent it again for a second, and
    /// what follows waits for that; one that can't take it in by then does not get the message either, and the socket is closed.
    /// Nothing tells of that: where it matters, have the primary answer.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`ErrorKind::Handle`] or [`ErrorKind::Io`] for a socket that can't be sent. The error
    /// [has the socket](SendHandleError::into_handle), which this worker may serve itself.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(worker: allcores::Worker) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut listener = worker.listen("0.0.0.0:8080").await?;
    /// let (stream, client) = listener.accept().await?;
    /// // Somebody else's: the primary decides whose.
    /// worker.send_with_handle(&client, stream)?;
    /// # Ok(()) }
    /// ```
    pub fn send_with_handle<T: Serialize + ?Sized>(
        &self,
        message: &T,
        handle: impl TryInto<Handle, Error: Into<Error>>,
    ) -> Result<bool, SendHandleError> {
        send_with_handle(self.sender(), message, handle, closed)
    }

    /// Completes when nothing that was sent waits to be written any more, or when the channel has closed.
    pub async fn drained(&self) {
        // No sender is held meanwhile: the channel would stay open for it.
        let drained = self.link.sender().map(|sender| sender.drained());
        if let Some(drained) = drained {
            drained.await;
        }
    }

    /// Waits for the next message of the primary's; `None` when the channel has closed and all have been taken.
    ///
    /// Each message goes to one caller. Up to 4096 are kept until the program asks for the first, so that none is lost
    /// at the start; what comes beyond that is dropped, as the program may never ask. From then on none is dropped:
    /// when so many wait, the channel is read no further until half have been taken, and with them waits all else that the
    /// primary says. So who has asked once should go on. Of messages with sockets none is dropped at any time: the channel is
    /// read no further while 64 wait. So who may be sent any should ask.
    ///
    /// That the primary wants this worker to go does not end it, as more may come: [`shutdown`](Self::shutdown) tells of that. A
    /// program that asks for messages alone is ended by the stop signal, when it has not gone by itself.
    ///
    /// For a worker that is alone it waits until that has been told to [go](Self::disconnect).
    ///
    /// # Cancel safety
    ///
    /// Safe: a message is taken by the very step that returns it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// #[derive(serde::Deserialize)]
    /// #[serde(rename_all = "lowercase")]
    /// enum Order {
    ///     Reload,
    ///     Log(String),
    /// }
    ///
    /// # async fn example(worker: allcores::Worker) -> Result<(), allcores::Error> {
    /// while let Some(message) = worker.next_message().await {
    ///     match message.parse()? {
    ///         Order::Reload => println!("reloading"),
    ///         Order::Log(text) => println!("{text}"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn next_message(&self) -> Option<Message> {
        self.link.inbox.next().await
    }

    /// The primary's messages, to be taken in another place; as [`next_message`](Self::next_message).
    pub fn messages(&self) -> Messages {
        Messages(Arc::clone(&self.link))
    }

    fn sender(&self) -> Result<Sender, Error> {
        let sender = self.link.sender().filter(|sender| !sender.is_closed());
        sender.ok_or_else(closed)
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Disconnected, "sending a message to the primary")
}

/// The messages of the primary's; from [`Worker::messages`].
#[derive(Debug)]
pub struct Messages(Arc<Link>);

impl Messages {
    /// Waits for the next; as [`Worker::next_message`].
    pub async fn next(&mut self) -> Option<Message> {
        self.0.inbox.next().await
    }
}
