//! An owned descriptor in tokio's reactor.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdRegisterError};

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

    /// Registers `fd` for writing.
    pub(crate) fn writable(fd: OwnedFd) -> io::Result<Self> {
        Self::register(fd, Interest::WRITABLE)
    }

    /// Registers `fd` for reading, or gives it back.
    pub(crate) fn try_readable(fd: OwnedFd) -> Result<Self, OwnedFd> {
        Self::try_register(fd, Interest::READABLE).map_err(|failed| failed.into_parts().0.0)
    }

    /// Ends the waiting for it, and gives it back.
    pub(crate) fn into_inner(self) -> OwnedFd {
        self.0.into_inner().0
    }

    fn register(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        Self::try_register(fd, interest).map_err(io::Error::from)
    }

    fn try_register(fd: OwnedFd, interest: Interest) -> Result<Self, AsyncFdRegisterError<Owned>> {
        // SAFETY: `Owned` holds the descriptor privately from here until it is dropped or given back, both of which
        // happen after the deregistration by `AsyncFd`; nothing can close or replace it in between.
        unsafe { AsyncFd::register_with_interest(Owned(fd), interest) }.map(Self)
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
                    return Poll::Ready(done);
                }
            }
        })
        .await
    }

    /// As [`Watch::read`], but also once the descriptor is said to have failed. Epoll tells that, and not that there is something
    /// to be read, of a listener of seccomp's that the kernel could not look at because of a signal.
    pub(crate) async fn read_or_fail<R>(
        &self,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            let mut guard = self.0.ready(Interest::READABLE | Interest::ERROR).await?;
            if let Ok(done) = guard.try_io(|inner| operation(inner.get_ref().0.as_fd())) {
                return done;
            }
        }
    }

    /// Runs `operation`, as [`Watch::read`] does, which also says whether nothing is left to be read: that saves asking.
    pub(crate) fn poll_read_part<R>(
        &self,
        context: &mut Context<'_>,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<(R, bool)>,
    ) -> Poll<io::Result<R>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            if let Ok(done) = guard.try_io(|inner| operation(inner.get_ref().0.as_fd())) {
                // What comes from now on is told of anew.
                if let Ok((_, true)) = done {
                    guard.clear_ready();
                }
                return Poll::Ready(done.map(|(done, _)| done));
            }
        }
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
                    return Poll::Ready(done);
                }
            }
        })
        .await
    }

    /// Waits until the descriptor may be written to, or has failed: once for each time that it becomes so.
    pub(crate) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        if let Ok(mut guard) = ready!(self.0.poll_write_ready(context)) {
            guard.clear_ready();
        }
        Poll::Ready(())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_said_to_have_failed_is_looked_at_too() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let watch = Watch::readable(writer).unwrap();
        // Epoll says EPOLLERR, and nothing of reading.
        drop(reader);
        let looked = tokio::time::timeout(Duration::from_secs(30), watch.read_or_fail(|_| Ok(()))).await;
        looked.unwrap().unwrap();
    }
}
