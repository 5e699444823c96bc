//! An owned descriptor in tokio's reactor.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::ready;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Gives tokio what it needs of a descriptor, and nothing else: the descriptor can't be taken out or swapped.
#[derive(Debug)]
struct Owned(OwnedFd);

impl AsRawFd for Owned {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A descriptor that can be waited for. Closed on drop.
#[derive(Debug)]
pub(crate) struct Watch(AsyncFd<Owned>);

impl Watch {
    /// Registers `fd` for reading.
    pub(crate) fn readable(fd: OwnedFd) -> io::Result<Self> {
        Self::register(fd, Interest::READABLE)
    }

    /// Registers `fd` for reading and writing.
    pub(crate) fn duplex(fd: OwnedFd) -> io::Result<Self> {
        Self::register(fd, Interest::READABLE | Interest::WRITABLE)
    }

    fn register(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        // SAFETY: `Owned` holds the descriptor privately from here to its drop, which happens after the
        // deregistration by `AsyncFd`'s drop; nothing can close or replace it in between.
        let registered = unsafe { AsyncFd::register_with_interest(Owned(fd), interest) };
        registered.map(Self).map_err(io::Error::from)
    }

    /// Runs `operation` once the descriptor is readable; again after each `WouldBlock`.
    ///
    /// # Cancel safety
    ///
    /// Safe: `operation` runs to its end or not at all.
    pub(crate) async fn read<R>(
        &self,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        poll_fn(|context| {
            loop {
                let mut guard = ready!(self.0.poll_read_ready(context))?;
                if let Ok(done) = guard.try_io(|inner| operation(inner.get_ref().0.as_fd())) {
                    return std::task::Poll::Ready(done);
                }
            }
        })
        .await
    }

    /// Waits until the descriptor is readable, once, and leaves it so.
    pub(crate) async fn wait_readable(&self) -> io::Result<()> {
        poll_fn(|context| self.0.poll_read_ready(context)).await.map(drop)
    }

    /// Waits until the descriptor may be written to; `operation` as in [`Watch::read`].
    pub(crate) async fn write<R>(
        &self,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        poll_fn(|context| {
            loop {
                let mut guard = ready!(self.0.poll_write_ready(context))?;
                if let Ok(done) = guard.try_io(|inner| operation(inner.get_ref().0.as_fd())) {
                    return std::task::Poll::Ready(done);
                }
            }
        })
        .await
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().0.as_fd()
    }
}
