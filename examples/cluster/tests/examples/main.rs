//! Each example, started as a user would, and what it is an example of.

mod program;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;

use allcores_testing::{address, machine};
use program::{BOUND, Program};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// Asks by HTTP over a connection of its own; the body of the answer.
fn get(address: SocketAddr, path: &str) -> String {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    ask(stream, path)
}

fn ask(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

#[test]
fn axum() {
    let _turn = machine::together();
    let address = address::unused();
    let axum = Program::start(env!("CARGO_BIN_EXE_axum"), address, &[]);
    let cores = std::thread::available_parallelism().unwrap().get();
    axum.wait("listens", cores);
    let answers: BTreeSet<_> = (0..200).map(|_| get(address, "/")).collect();
    assert_eq!(answers.len(), cores, "{answers:?}");
    axum.stop();
}

#[test]
fn messages() {
    let _turn = machine::together();
    let address = address::unused();
    let messages = Program::start(env!("CARGO_BIN_EXE_messages"), address, &[]);
    messages.wait("listens", 2);
    for number in 1..=20 {
        let answer = get(address, "/");
        assert!(answer.starts_with(&format!("{number} requests")), "{number}: {answer}");
    }
    messages.stop();
}

/// A member of a room, and in which worker that is.
fn enter(address: SocketAddr, room: &str) -> (WebSocket<TcpStream>, String) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let url = format!("ws://{address}/?room={room}");
    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
    let welcome = socket.read().unwrap().into_text().unwrap();
    let worker = welcome.rsplit(' ').next().unwrap().to_owned();
    (socket, worker)
}

#[test]
fn chat() {
    let _turn = machine::together();
    let address = address::unused();
    let chat = Program::start(env!("CARGO_BIN_EXE_chat"), address, &[]);
    chat.wait("listens", 4);
    let mut workers = BTreeSet::new();
    for number in 0..20 {
        let room = format!("room{number}");
        let ((mut one, here), (mut other, there)) = (enter(address, &room), enter(address, &room));
        assert_eq!(here, there, "a room is in one worker");
        one.send(Message::from("hello")).unwrap();
        for member in [&mut one, &mut other] {
            assert_eq!(member.read().unwrap().into_text().unwrap(), "hello");
        }
        workers.insert(here);
    }
    assert!(workers.len() > 1, "twenty rooms are in worker {workers:?}");
    chat.stop();
}

#[test]
fn unix() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let unix = Program::start(env!("CARGO_BIN_EXE_unix"), address::unused(), &[path.to_str().unwrap()]);
    unix.wait("listens", 2);
    let answer = ask(UnixStream::connect(&path).unwrap(), "/");
    assert!(answer.starts_with("hello from worker "), "{answer}");
    unix.stop();
    assert!(!path.exists(), "the file goes with the cluster");
}

#[test]
fn udp_echo() {
    let _turn = machine::together();
    let address = address::unused();
    let echo = Program::start(env!("CARGO_BIN_EXE_udp_echo"), address, &[]);
    echo.wait("listens", 4);
    let mut workers = BTreeSet::new();
    for _ in 0..100 {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(BOUND)).unwrap();
        let mut of_this_client = BTreeSet::new();
        for _ in 0..3 {
            client.send_to(b"hello", address).unwrap();
            let mut buffer = [0; 64];
            let length = client.recv(&mut buffer).unwrap();
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            assert!(answer.ends_with(": hello"), "{answer}");
            of_this_client.insert(answer);
        }
        assert_eq!(of_this_client.len(), 1, "a client stays with its worker");
        workers.append(&mut of_this_client);
    }
    assert_eq!(workers.len(), 4, "{workers:?}");
    echo.stop();
}

#[test]
fn restart() {
    let _turn = machine::together();
    let address = address::unused();
    let restart = Program::start(env!("CARGO_BIN_EXE_restart"), address, &[]);
    restart.wait("listens", 2);
    let before: BTreeSet<_> = (0..100).map(|_| get(address, "/")).collect();
    assert_eq!(get(address, "/crash"), "", "it dies of it");
    restart.wait("died: ", 1);
    restart.wait("worker 3 listens", 1);
    let after: BTreeSet<_> = (0..100).map(|_| get(address, "/")).collect();
    assert_eq!((before.len(), after.len()), (2, 2), "{before:?} {after:?}");
    assert!(after.iter().any(|who| who.starts_with("3 ")), "{after:?}");
    restart.stop();
}

#[test]
fn handles() {
    let _turn = machine::together();
    let address = address::unused();
    let handles = Program::start(env!("CARGO_BIN_EXE_handles"), address, &[]);
    handles.wait("listening", 1);
    for (host, service) in [([127, 0, 0, 2], "special"), ([127, 0, 0, 3], "normal")] {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        let mut answer = String::new();
        TcpStream::from(socket).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("{service} service for {}\n", Ipv4Addr::from(host)));
    }
    handles.stop();
}
