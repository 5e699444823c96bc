//! What a worker serves.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use allcores::{Error, Handle, ListenOptions, Listener, Worker};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::order::{Listen, Service};

/// The servers of this worker, by their ports.
pub(crate) struct Servers {
    worker: Worker,
    open: HashMap<u16, JoinHandle<()>>,
}

impl Servers {
    pub(crate) fn new(worker: Worker) -> Self {
        Self { worker, open: HashMap::new() }
    }

    pub(crate) async fn listen(&mut self, listen: Listen) -> Value {
        let mut options = ListenOptions::new().ipv6_only(listen.only_v6);
        if let Some(backlog) = listen.backlog {
            options = options.backlog(backlog);
        }
        if let Some(policy) = &listen.policy {
            options = options.policy(policy.parse().expect("a policy"));
        }
        match self.worker.listen_with(listen.at, options).await {
            Ok(listener) => {
                let port = listener.local_addr().expect("an address").port();
                let name = self.worker.id().to_string();
                self.open.insert(port, tokio::spawn(serve(listener, listen.service, name)));
                json!({ "listening": port })
            }
            Err(error) => refusal(&error),
        }
    }

    pub(crate) async fn listen_unix(&mut self, path: &str) -> Value {
        match self.worker.listen_unix(path).await {
            Ok(mut listener) => {
                let name = self.worker.id().to_string();
                let serving = tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        answer(stream, Service::Number, &name).await;
                    }
                });
                self.open.insert(0, serving);
                json!({ "listening": path })
            }
            Err(error) => refusal(&error),
        }
    }

    pub(crate) async fn bind_udp(&mut self, at: &str, only_v6: bool) -> Value {
        let options = ListenOptions::new().ipv6_only(only_v6);
        match self.worker.bind_udp_with(at, options).await {
            Ok(socket) => {
                let port = socket.local_addr().expect("an address").port();
                self.open.insert(port, tokio::spawn(answer_datagrams(socket, self.worker.clone())));
                json!({ "listening": port })
            }
            Err(error) => refusal(&error),
        }
    }

    pub(crate) fn close(&mut self, port: u16) {
        if let Some(serving) = self.open.remove(&port) {
            serving.abort();
        }
    }

    pub(crate) fn close_all(&mut self) {
        for (_, serving) in self.open.drain() {
            serving.abort();
        }
    }

    /// Serves what came with a message.
    pub(crate) fn serve(&mut self, handle: Option<Handle>) {
        let name = self.worker.id().to_string();
        let worker = self.worker.clone();
        tokio::spawn(async move {
            match handle {
                Some(Handle::TcpStream(stream)) => {
                    let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
                    answer(stream, Service::Number, &name).await;
                }
                Some(Handle::UnixStream(stream)) => {
                    let stream = tokio::net::UnixStream::from_std(stream).expect("a socket");
                    answer(stream, Service::Number, &name).await;
                }
                Some(Handle::TcpListener(listener)) => {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                    let _ = worker
                        .send(&json!({ "listening": listener.local_addr().expect("an address").port() }));
                    while let Ok((stream, _)) = listener.accept().await {
                        answer(stream, Service::Number, &name).await;
                    }
                }
                Some(Handle::UdpSocket(socket)) => {
                    let socket = tokio::net::UdpSocket::from_std(socket).expect("a socket");
                    let _ = worker.send("bound");
                    answer_datagrams(socket, worker).await;
                }
                other => panic!("nothing to serve: {other:?}"),
            }
        });
    }
}

/// What went wrong, as a test looks at it.
fn refusal(error: &Error) -> Value {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let cause = source.map(|source| format!("{:?}", source.kind()));
    json!({ "error": format!("{:?}", error.kind()), "cause": cause })
}

async fn serve(mut listener: Listener, service: Service, name: String) {
    if let Service::Nothing = service {
        return std::future::pending().await;
    }
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
            // Its client has gone.
            Err(_) => continue,
        };
        if let Service::OneByOne = service {
            answer(stream, service, &name).await;
        } else {
            let name = name.clone();
            tokio::spawn(async move { answer(stream, service, &name).await });
        }
    }
}

/// A client that goes away is none of our business.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, service: Service, name: &str) {
    let mut text = Vec::new();
    match service {
        Service::Echo => {
            let _ = stream.read_to_end(&mut text).await;
            let _ = stream.write_all(&text).await;
        }
        Service::OneByOne => {
            let _ = stream.write_all(name.as_bytes()).await;
            let _ = stream.read_to_end(&mut text).await;
        }
        Service::Number | Service::Nothing => {
            let _ = stream.write_all(name.as_bytes()).await;
        }
    }
    let _ = stream.shutdown().await;
}

/// Answers with this worker's number, and tells the primary what it got.
async fn answer_datagrams(socket: tokio::net::UdpSocket, worker: Worker) {
    let name = worker.id().to_string();
    let mut datagram = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut datagram).await {
        let text = String::from_utf8_lossy(&datagram[..length]);
        let _ = worker.send(&json!({ "datagram": text }));
        let _ = socket.send_to(name.as_bytes(), client).await;
    }
}

/// The descriptor of this number, which was inherited.
fn inherited(number: i32) -> rustix::io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    pidfd_getfd(&own, number, PidfdGetfdFlags::empty())
}

/// Reads a line from an inherited socket and writes it back.
pub(crate) fn talk_over(number: i32) -> Value {
    let stream = UnixStream::from(inherited(number).expect("a descriptor of this number"));
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("a line");
    (&stream).write_all(line.as_bytes()).expect("it is written");
    json!(line)
}

/// An inherited listener.
pub(crate) fn inherited_listener(number: i32) -> Handle {
    let listener = std::net::TcpListener::from(inherited(number).expect("a descriptor of this number"));
    listener.set_nonblocking(true).expect("a socket");
    listener.into()
}
