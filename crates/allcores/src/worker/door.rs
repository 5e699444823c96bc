//! Accepting from two sides: a socket of our own, and what the primary hands over.
//!
//! The same for TCP and Unix sockets. Says to the primary which of its connections were taken, when they are.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::link::Grant;

/// A kind of socket that connections come from.
pub(super) trait Lane: Unpin {
    type Stream;
    type Address;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Self::Address)>>;

    /// Makes a connection of what was handed over.
    fn take(connection: OwnedFd) -> io::Result<(Self::Stream, Self::Address)>;
}

/// What a listener accepts from.
#[derive(Debug)]
pub(super) struct Door<L> {
    lane: Option<L>,
    grant: Grant,
    /// The last connection was handed over: the lane is looked at first now.
    is_lanes_turn: bool,
}

impl<L: Lane> Door<L> {
    pub(super) fn new(lane: Option<L>, grant: Grant) -> Self {
        Self { lane, grant, is_lanes_turn: false }
    }

    pub(super) fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(L::Stream, L::Address)>> {
        if self.grant.link.has_left() {
            return Poll::Ready(Err(closed()));
        }
        if self.is_lanes_turn
            && let Poll::Ready(accepted) = self.poll_lane(context)
        {
            return Poll::Ready(accepted);
        }
        if let Poll::Ready(accepted) = self.poll_handed(context) {
            self.is_lanes_turn = true;
            return Poll::Ready(accepted);
        }
        if self.is_lanes_turn { Poll::Pending } else { self.poll_lane(context) }
    }

    fn poll_lane(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(L::Stream, L::Address)>> {
        let Some(lane) = &self.lane else { return Poll::Pending };
        let accepted = lane.poll_accept(context);
        self.is_lanes_turn &= accepted.is_pending();
        accepted
    }

    fn poll_handed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(L::Stream, L::Address)>> {
        loop {
            // What is handed over may never end: the reactor has to have its turn, to see what else there is.
            let budget = ready!(coop::poll_proceed(context));
            let handed = match ready!(self.grant.intake.poll_take(context)) {
                Ok(handed) => handed,
                // The primary is gone. What comes to our own socket is still served.
                Err(_) if self.lane.is_some() && !self.grant.link.has_left() => return Poll::Pending,
                Err(_) => return Poll::Ready(Err(closed())),
            };
            budget.made_progress();
            match L::take(handed.connection) {
                // Its client has gone. Nobody could do anything for it.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    self.grant.link.accept(&self.grant, handed.seq);
                }
                Err(error) => {
                    self.grant.link.refuse(handed.seq);
                    return Poll::Ready(Err(error));
                }
                Ok(taken) => {
                    if self.grant.link.accept(&self.grant, handed.seq) {
                        return Poll::Ready(Ok(taken));
                    }
                }
            }
        }
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the worker has left its primary")
}
