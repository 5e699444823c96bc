//! A client of HTTP/1.1 that keeps its connection, and is told by its source address.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::handoff::connect_from;

/// Where clients come from: who is passed on is seen to come from the address that it came to, which is another.
pub(crate) const HERE: &str = "127.0.0.2";

/// A client that keeps its connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    patience: Duration,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, patience: Duration) -> Self {
        let stream = connect_from([127, 0, 0, 2], address);
        stream.set_read_timeout(Some(patience)).unwrap();
        Self { stream: BufReader::new(stream), patience }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// What has not been read.
    pub(crate) fn rest(&mut self) -> &mut impl Read {
        &mut self.stream
    }

    pub(crate) fn send(&mut self, path: &str) {
        // In one piece. That it can't be sent is noticed by who reads.
        let request = format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n");
        let _ = self.stream.get_mut().write_all(request.as_bytes());
    }

    /// Whether an answer comes within this time.
    pub(crate) fn is_answered(&self, within: Duration) -> bool {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(within)).unwrap();
        let is_answered = stream.peek(&mut [0; 1]).is_ok();
        stream.set_read_timeout(Some(self.patience)).unwrap();
        is_answered
    }

    /// Waits until an answer has begun; false if the connection is closed instead.
    pub(crate) fn has_begun(&mut self) -> bool {
        self.stream.fill_buf().is_ok_and(|begun| !begun.is_empty())
    }

    /// Reads an answer, and returns its body.
    #[track_caller]
    pub(crate) fn read(&mut self) -> String {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "closed before the answer was whole");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap().trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, path: &str) -> String {
        self.send(path);
        self.read()
    }
}
