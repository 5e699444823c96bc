//! How letters reach who started us: each a datagram for the socket that NOTIFY_SOCKET names.
//!
//! Nobody is waited for: the primary must not stand still because a service manager does, or an `allcores start` that was put
//! to sleep in its terminal. What there is no room for in the socket's queue waits here, in its order.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;

use super::NOTIFY_SOCKET;

/// How many letters wait at most. Who has not read for so long learns no more of what was meanwhile.
const MOST_WAITING: usize = 256;

/// A way to whoever started us. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Post {
    address: SocketAddr,
    waiting: Arc<Mutex<VecDeque<Letter>>>,
}

#[derive(Clone, Debug)]
struct Letter {
    text: String,
    enclosed: Option<Arc<OwnedFd>>,
}

impl Post {
    /// The way to who wants to be told how we do, if anybody.
    pub(super) fn find() -> Option<Self> {
        Self::to(&std::env::var_os(NOTIFY_SOCKET)?).ok()
    }

    /// The way to a path; or, behind an `@`, to a name in the abstract namespace.
    fn to(address: &OsString) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [] => return Err(io::ErrorKind::InvalidInput.into()),
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        Ok(Self { address, waiting: Arc::default() })
    }

    /// Sends a letter, behind those that wait. It may be lost where nobody is there any more, which changes nothing for us.
    pub(super) fn send(&self, text: String, enclosed: Option<BorrowedFd<'_>>) {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            match self.send_now(&text, enclosed) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(()) | Err(_) => return,
            }
        }
        if waiting.len() == MOST_WAITING {
            return;
        }
        let Ok(enclosed) = enclosed.map(|fd| fd.try_clone_to_owned().map(Arc::new)).transpose() else {
            return;
        };
        waiting.push_back(Letter { text, enclosed });
        if waiting.len() == 1 {
            tokio::spawn(self.clone().deliver());
        }
    }

    /// Sends a letter, if there is room for it at once, and nobody else's before it.
    pub(super) fn send_now(&self, text: &str, enclosed: Option<BorrowedFd<'_>>) -> io::Result<()> {
        send(&self.connect()?, text, enclosed)
    }

    /// Sends what waits, as there is room for it.
    async fn deliver(self) {
        let mut letter = self.waiting().front().cloned();
        while let Some(first) = letter.take() {
            // Who has gone needs it no more. It stays the first until then, so that none overtakes it.
            let _ = self.send_patiently(&first).await;
            let mut waiting = self.waiting();
            waiting.pop_front();
            letter = waiting.front().cloned();
        }
    }

    async fn send_patiently(&self, letter: &Letter) -> io::Result<()> {
        let socket = self.connect()?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        let enclosed = letter.enclosed.as_deref().map(OwnedFd::as_fd);
        socket.async_io(Interest::WRITABLE, || send(&socket, &letter.text, enclosed)).await
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&self.address)?;
        Ok(socket)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Letter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(socket: &impl AsFd, text: &str, enclosed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let enclosed = enclosed.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !enclosed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(enclosed));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(text.as_bytes())], &mut control, flags)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(folder: &tempfile::TempDir) -> OsString {
        folder.path().join("notify").into()
    }

    fn read(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn who_does_not_read_holds_nobody_up_and_misses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let post = Post::to(&path(&folder)).unwrap();
        post.send("nobody is there".into(), None);
        let reader = UnixDatagram::bind(path(&folder)).unwrap();
        // More than the queue of a socket holds.
        for nth in 0..200 {
            post.send(nth.to_string(), None);
        }
        assert!(!post.waiting().is_empty());
        let all = tokio::task::spawn_blocking(move || (0..200).map(|_| read(&reader)).collect::<Vec<_>>());
        assert_eq!(all.await.unwrap(), (0..200).map(|nth| nth.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_waits_for_who_goes_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let post = Post::to(&path(&folder)).unwrap();
        let reader = UnixDatagram::bind(path(&folder)).unwrap();
        for nth in 0..1000 {
            post.send(nth.to_string(), None);
        }
        assert_eq!(post.waiting().len(), MOST_WAITING);
        drop(reader);
        while !post.waiting().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_name_in_the_abstract_namespace_is_reached_too() {
        let name = format!("allcores-post-{}", std::process::id());
        let reader = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Post::to(&format!("@{name}").into()).unwrap().send("READY=1".into(), None);
        assert_eq!(read(&reader), "READY=1");
        assert!(Post::to(&OsString::new()).is_err());
    }
}
