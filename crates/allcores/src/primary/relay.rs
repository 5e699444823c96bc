//! Passing on a connection that its worker would not have accepted, by carrying its bytes.
//!
//! The last resort, for any program: the worker sees the connection come from this machine. From its loopback
//! address only if the client was there too, so that no client gains a trust that it did not have.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::recall::Recall;
use crate::carry::{BytesSaved, FdSaved, Inherited, Manifest};
use crate::ports::Stray;

/// How much of one direction is in our hands at a time.
const CHUNK: usize = 16 * 1024;

/// How long the client may go on sending after the worker has closed its side. Hardly any server reads on then.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that is passed on.
#[derive(Debug)]
pub(super) struct Relay {
    /// The address that it was for.
    address: SocketAddr,
    client: TcpStream,
    /// `None` until it is made.
    worker: Option<TcpStream>,
    to_worker: Flow,
    to_client: Flow,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// What was read and not written.
    bytes: Vec<u8>,
    /// The end was read.
    is_read: bool,
    /// The end was written.
    is_over: bool,
}

impl Relay {
    /// # Errors
    ///
    /// If there are no descriptors left to watch it by.
    pub(super) fn new(stray: Stray) -> io::Result<Self> {
        Ok(Self {
            address: stray.address,
            client: TcpStream::from_std(stray.connection.into())?,
            worker: None,
            to_worker: Flow::default(),
            to_client: Flow::default(),
        })
    }

    /// Carries until both sides are done, or until it is called back.
    pub(super) async fn carry(mut self, mut recall: Recall) -> Option<Self> {
        if self.worker.is_none() {
            let connected = tokio::select! {
                biased;
                () = recall.called() => return Some(self),
                connected = self.connect() => connected,
            };
            // Whatever goes wrong ends the connection, which is what the client would have seen anyway.
            self.worker = Some(connected.ok()?);
        }
        tokio::select! {
            biased;
            () = recall.called() => {}
            _ = self.run() => return None,
        }
        Some(self)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let here = self.client.local_addr()?;
        let socket = if here.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // From the address that the client came to, which is a loopback address only if the client's is one.
        socket.bind(SocketAddr::new(here.ip(), 0))?;
        let ip: IpAddr = if self.address.ip().is_unspecified() { here.ip() } else { self.address.ip() };
        let worker = socket.connect(SocketAddr::new(ip, self.address.port())).await?;
        let _ = worker.set_nodelay(true);
        let _ = self.client.set_nodelay(true);
        Ok(worker)
    }

    /// # Cancel safety
    ///
    /// Safe: what was read is in the flows until it is written.
    async fn run(&mut self) -> io::Result<()> {
        let Self { client, worker, to_worker, to_client, .. } = self;
        let Some(worker) = worker else { return Ok(()) };
        while !to_client.is_over {
            tokio::select! {
                moved = to_client.step(worker, client) => moved?,
                moved = to_worker.step(client, worker), if !to_worker.is_over => moved?,
            }
        }
        let rest = async {
            while !to_worker.is_over {
                to_worker.step(client, worker).await?;
            }
            Ok(())
        };
        tokio::time::timeout(LINGER, rest).await.unwrap_or(Ok(()))
    }

    /// Takes it down, with what is in its hands.
    pub(super) fn save(&self, manifest: &mut Manifest) -> RelaySaved {
        RelaySaved {
            address: self.address,
            client: manifest.note(self.client.as_fd()),
            worker: self.worker.as_ref().map(|worker| manifest.note(worker.as_fd())),
            to_worker: self.to_worker.save(),
            to_client: self.to_client.save(),
        }
    }

    /// Makes it again.
    ///
    /// # Errors
    ///
    /// If a connection of it was not left.
    pub(super) fn restore(saved: RelaySaved, inherited: &mut Inherited) -> io::Result<Self> {
        let mut stream = |number| -> io::Result<TcpStream> {
            let descriptor: OwnedFd = inherited.take(number)?;
            TcpStream::from_std(descriptor.into())
        };
        Ok(Self {
            address: saved.address,
            client: stream(saved.client)?,
            worker: saved.worker.map(stream).transpose()?,
            to_worker: saved.to_worker.into(),
            to_client: saved.to_client.into(),
        })
    }
}

impl Flow {
    /// Reads a little, or writes a little of what was read.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only waits between the two.
    async fn step(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        if !self.bytes.is_empty() {
            to.writable().await?;
            return match to.try_write(&self.bytes) {
                Ok(count) => {
                    self.bytes.drain(..count);
                    Ok(())
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(error),
            };
        }
        if self.is_read {
            self.is_over = true;
            return SockRef::from(to).shutdown(Shutdown::Write);
        }
        from.readable().await?;
        self.bytes.reserve(CHUNK);
        match from.try_read_buf(&mut self.bytes) {
            Ok(0) => self.is_read = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn save(&self) -> FlowSaved {
        FlowSaved { bytes: self.bytes.as_slice().into(), is_read: self.is_read, is_over: self.is_over }
    }
}

/// A connection that is passed on, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RelaySaved {
    address: SocketAddr,
    client: FdSaved,
    #[serde(default)]
    worker: Option<FdSaved>,
    to_worker: FlowSaved,
    to_client: FlowSaved,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FlowSaved {
    bytes: BytesSaved,
    is_read: bool,
    is_over: bool,
}

impl From<FlowSaved> for Flow {
    fn from(saved: FlowSaved) -> Self {
        Self { bytes: saved.bytes.into(), is_read: saved.is_read, is_over: saved.is_over }
    }
}
