//! Connections that the primary accepts and hands to workers: in turn, or each client's to its own.

mod refusal;
mod silence;
mod sticky;
mod turns;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use allcores_testing::app::App;
use allcores_testing::runtimes::Runtime;
use serde_json::Value;

use crate::app;

/// How long an answer may take that nothing is in the way of.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's connection, from this source address.
pub(crate) fn connect_from(source: impl Into<IpAddr>, target: SocketAddr) -> TcpStream {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(target), socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source.into(), 0).into()).unwrap();
    socket.connect(&target.into()).unwrap();
    let stream = TcpStream::from(OwnedFd::from(socket));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A client's connection.
fn connect(target: SocketAddr) -> TcpStream {
    connect_from([127, 0, 0, 1], target)
}

/// Asks for a path with further fields, and reads who answers: the pid.
fn ask(mut stream: &TcpStream, path: &str, fields: &str) -> io::Result<u32> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n{fields}\r\n")?;
    answer(stream)
}

/// Reads who answers.
fn answer(mut stream: impl Read) -> io::Result<u32> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let pid = text.lines().find(|line| line.len() > 1 && line.parse::<u32>().is_ok());
    let is_good = text.starts_with("HTTP/1.1 200");
    pid.filter(|_| is_good)
        .and_then(|pid| pid.parse().ok())
        .ok_or_else(|| io::Error::other(format!("{text:?}")))
}

/// A node app whose program is this text. `listen(server)` listens where it should.
fn program(node: Runtime, folder: &Path, address: SocketAddr, text: &str) -> App {
    let listen = "const listen = server => server.listen(process.env.PORT, process.env.HOST);";
    let script = folder.join("server.js");
    std::fs::write(&script, format!("'use strict';\n{listen}\n{text}\n")).unwrap();
    let app = app::command([node.program().unwrap(), script.into()]);
    app.address(address)
}

/// How many accepted connections wait for a worker at the app's one address.
fn pending(status: &Value) -> u64 {
    status["addresses"][0]["pending"].as_u64().unwrap_or_else(|| panic!("{status:#}"))
}
