//! A worker that nobody started as one.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::soon;
use crate::worker::{ListenOptions, Worker};
use crate::{ErrorKind, Policy};

#[tokio::test]
async fn a_worker_that_is_alone_serves_by_itself() {
    let worker = Worker::alone();
    let mut listener = worker.listen(("localhost", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::spawn(async move {
        let mut text = String::new();
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.read_to_string(&mut text).await.map(|_| text)
    });
    let (mut stream, _) = soon(listener.accept()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    drop(stream);
    assert_eq!(soon(client).await.unwrap().unwrap(), "hello");
    assert_eq!(worker.send("x").unwrap_err().kind(), ErrorKind::Disconnected);
    assert!(!worker.is_connected());
    let error = worker.listen(address).await.unwrap_err();
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    worker.listen_with(address, ListenOptions::new().policy(Policy::Lanes)).await.unwrap();
}

#[tokio::test]
async fn a_stranger_who_has_the_address_is_an_error() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Worker::alone().listen(stranger.local_addr().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddressUnavailable);
    assert_eq!(error.to_string(), format!("listening on {}", stranger.local_addr().unwrap()));
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn an_ipv6_listener_takes_ipv4_too_unless_it_is_not_to() {
    let worker = Worker::alone();
    let both = worker.listen("[::]:0").await.unwrap();
    let port = both.local_addr().unwrap().port();
    assert!(worker.listen(("127.0.0.1", port)).await.is_err(), "it is taken");
    let only = worker.listen_with("[::]:0", ListenOptions::new().ipv6_only(true)).await.unwrap();
    let port = only.local_addr().unwrap().port();
    worker.listen(("127.0.0.1", port)).await.unwrap();
}

#[tokio::test]
async fn a_socket_file_is_removed_with_its_listener() {
    let worker = Worker::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let options = ListenOptions::new().readable_by_all(true).writable_by_all(true);
    let mut listener = worker.listen_unix_with(&path, options).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o666, 0o666);
    let error = worker.listen_unix(&path).await.unwrap_err();
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
    let _client = tokio::net::UnixStream::connect(&path).await.unwrap();
    soon(listener.accept()).await.unwrap();
    drop(listener);
    assert!(!path.exists());
    let name = format!("\0allcores-test-{}", std::process::id());
    let _abstract = worker.listen_unix(&name).await.unwrap();
}

#[tokio::test]
async fn a_socket_file_that_another_server_has_put_in_its_place_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = Worker::alone().listen_unix(&path).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(listener);
    std::os::unix::net::UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn datagrams_arrive() {
    let socket = Worker::alone().bind_udp("127.0.0.1:0").await.unwrap();
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let (length, _) = soon(socket.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(&buffer[..length], b"hello");
}

#[tokio::test]
async fn disconnecting_alone_ends_the_listening() {
    let worker = Worker::alone();
    let mut listener = worker.listen("127.0.0.1:0").await.unwrap();
    let accept = tokio::spawn(async move { listener.accept().await.map(drop) });
    let shutdown = worker.shutdown();
    worker.kill();
    soon(shutdown).await;
    soon(worker.disconnect()).await;
    assert_eq!(soon(accept).await.unwrap().unwrap_err().kind(), io::ErrorKind::NotConnected);
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert!(soon(worker.next_message()).await.is_none());
    assert_eq!(worker.listen("127.0.0.1:0").await.unwrap_err().kind(), ErrorKind::Disconnected);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_serves_it_tells_the_client_and_stops_gracefully() {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use axum::serve::ListenerExt;

    let worker = Worker::alone();
    let listener = worker.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tell = |ConnectInfo(client): ConnectInfo<SocketAddr>| async move { client.to_string() };
    let app = axum::Router::new().route("/", axum::routing::get(tell));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let shutdown = worker.shutdown();
    let serving = tokio::spawn(async move {
        axum::serve(listener.tap_io(|_| {}), app).with_graceful_shutdown(shutdown).await
    });
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with(&client.local_addr().unwrap().to_string()), "{answer}");
    worker.kill();
    soon(serving).await.unwrap().unwrap();
}
