//! The channel's own thread: hears the primary, and answers what can't wait for the program.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use allcores_core::channel::{FromPrimary, Serialization, WorkerSpeaker};
use allcores_core::worker::{Slot, WorkerId};

use super::inbox::TOGETHER;
use super::link::Link;
use crate::channel::{self, Arrival, Carrier, Sender};
use crate::{Error, ErrorKind, Handle, Message};

/// Takes a channel, and returns when the primary has been told that this worker is online.
pub(super) fn start(
    socket: OwnedFd,
    serialization: Serialization,
    id: WorkerId,
    slot: Slot,
) -> Result<Arc<Link>, Error> {
    let (tell, told) = mpsc::sync_channel(1);
    let failed = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        Error::new(kind, "opening the channel to the primary").because(error)
    };
    let thread = std::thread::Builder::new().name("allcores-channel".into());
    let run = move || {
        let started =
            tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                // The reactor has to be there before the socket comes into it.
                let entered = runtime.enter();
                let ends = channel::from_socket(socket, serialization)?;
                drop(entered);
                Ok((runtime, ends))
            });
        match started {
            Ok((runtime, (sender, carrier))) => {
                let link = Link::new(id, slot, Some(sender.clone()));
                runtime.block_on(async {
                    tokio::join!(greet(Arc::clone(&link), sender, tell), carry(&link, carrier));
                });
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    };
    thread.spawn(run).map_err(failed)?;
    told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(failed)
}

/// Says that this worker is online, and then that it is said.
async fn greet(link: Arc<Link>, sender: Sender, tell: mpsc::SyncSender<io::Result<Arc<Link>>>) {
    link.say(WorkerSpeaker::online);
    sender.drained().await;
    let _ = tell.send(Ok(link));
}

/// Carries the channel until it ends.
async fn carry(link: &Arc<Link>, mut carrier: Carrier) {
    // Messages that are to be put into the inbox together.
    let mut come = Vec::new();
    loop {
        // The program is behind with its messages, and waits for nothing that may be behind them.
        let is_behind = link.inbox.is_behind() && !link.awaits_answer() && !carrier.awaits_receipt();
        let read = if is_behind || come.len() >= TOGETHER { Ok(None) } else { carrier.next_read() };
        let arrival = if let Some(arrival) = read.transpose() {
            arrival
        } else {
            link.inbox.push(&mut come);
            if is_behind {
                tokio::select! {
                    () = link.stirred() => continue,
                    () = link.inbox.caught_up() => continue,
                    end = carrier.only_write(true) => match end {
                        Some(end) => Err(end),
                        None => continue,
                    },
                }
            } else {
                carrier.next().await
            }
        };
        match arrival {
            Ok(Arrival::Message { message, descriptor }) => hear(link, &mut come, message, descriptor),
            Ok(Arrival::Lost { message: FromPrimary::Handle { message, .. } }) => {
                if let FromPrimary::Answer { ack, key, .. } = *message {
                    link.answer_lost(ack, &key);
                }
            }
            // What the program sends can't be had back by it: it was sent again for as long as is of use.
            Ok(Arrival::Lost { .. } | Arrival::Unreceived(_)) => {}
            Err(_) => break,
        }
    }
    drop(carrier);
    link.inbox.push(&mut come);
    link.end();
}

/// Takes in what the primary says: a user's messages to be put into the inbox with others, all else at once and behind them.
fn hear(link: &Arc<Link>, come: &mut Vec<Message>, message: FromPrimary, descriptor: Option<OwnedFd>) {
    if !matches!(message, FromPrimary::User(_) | FromPrimary::Handle { .. }) {
        link.inbox.push(come);
    }
    match message {
        FromPrimary::Handle { message, .. } => hear(link, come, *message, descriptor),
        FromPrimary::Answer { ack, errno, key, sockname, .. } => {
            link.answered(ack, errno, key, descriptor, sockname);
        }
        FromPrimary::Connection { seq, key } => match descriptor {
            Some(connection) => link.handed(seq, &key, connection),
            None => link.refuse(seq),
        },
        FromPrimary::Disconnect => link.told_to_go(),
        FromPrimary::Acknowledged { ack } => link.acknowledged(ack),
        FromPrimary::Socket(message) => link.answer_about(message),
        FromPrimary::User(json) => {
            let handle = descriptor.and_then(|descriptor| Handle::of(descriptor).ok());
            come.push(Message::new(json, handle));
        }
        FromPrimary::HandleAck | FromPrimary::HandleNack | FromPrimary::Ignored => {}
    }
}
