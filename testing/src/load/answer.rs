//! Reads one HTTP/1.x answer, and says exactly how it broke if it did.
//!
//! Knows heads (by `httparse`), `Content-Length`, chunks, and bodies that last until the connection ends. Nothing
//! else of HTTP.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// How many header fields an answer may have.
const MAX_FIELDS: usize = 64;

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Whether another request may follow on this connection.
    pub(super) is_kept_alive: bool,
}

/// Why an answer could not be read to its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The read failed.
    Io(io::Error),
    /// The connection ended before the body began.
    Closed,
    /// The connection ended within the body.
    Short,
    /// This is no HTTP.
    Malformed(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

#[derive(Debug)]
struct Head {
    length: usize,
    status: u16,
    framing: Framing,
    is_kept_alive: bool,
}

/// Reads answers from a stream; what was read past the end of one stays for the next.
#[derive(Debug, Default)]
pub(super) struct AnswerReader {
    buffer: Vec<u8>,
}

impl AnswerReader {
    /// True when bytes were read that belong to no answer yet.
    pub(super) fn has_leftover(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Reads the next answer.
    pub(super) async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Answer, Broken> {
        let head = loop {
            if let Some(head) = parse_head(&self.buffer).map_err(Broken::Malformed)? {
                break head;
            }
            if !self.fill(stream).await? {
                return Err(Broken::Closed);
            }
        };
        self.buffer.drain(..head.length);
        let body = match head.framing {
            Framing::Length(length) => self.take(stream, length).await?,
            Framing::Chunked => self.chunks(stream).await?,
            Framing::UntilClose => {
                while self.fill(stream).await? {}
                std::mem::take(&mut self.buffer)
            }
        };
        Ok(Answer { status: head.status, body, is_kept_alive: head.is_kept_alive })
    }

    async fn chunks(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let line = self.line(stream).await?;
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
            match size {
                None => return Err(Broken::Malformed("a chunk without a size".into())),
                Some(0) => break,
                Some(size) => body.extend(self.take(stream, size).await?),
            }
            if !self.line(stream).await?.is_empty() {
                return Err(Broken::Malformed("a chunk longer than its size".into()));
            }
        }
        while !self.line(stream).await?.is_empty() {}
        Ok(body)
    }

    async fn take(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        length: usize,
    ) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < length {
            if !self.fill(stream).await? {
                return Err(Broken::Short);
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Takes a line without its end.
    async fn line(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer[..end].to_vec();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if !self.fill(stream).await? {
                return Err(Broken::Short);
            }
        }
    }

    /// Reads some bytes; false when the other side has ended the connection.
    async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        Ok(stream.read_buf(&mut self.buffer).await? > 0)
    }
}

/// Parses a head, if all of it is there.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err("a head without a status".into());
    };
    let field = |name: &str| {
        response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let has = |name: &str, word: &str| {
        field(name).is_some_and(|value| {
            String::from_utf8_lossy(value).split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
        })
    };
    let framing = if matches!(status, 204 | 304) {
        Framing::Length(0)
    } else if has("transfer-encoding", "chunked") {
        Framing::Chunked
    } else if let Some(length) = field("content-length") {
        let length = str::from_utf8(length).ok().and_then(|length| length.trim().parse().ok());
        Framing::Length(length.ok_or("a content-length that is no number")?)
    } else {
        Framing::UntilClose
    };
    let is_kept_alive = match version {
        0 => has("connection", "keep-alive"),
        _ => !has("connection", "close"),
    } && !matches!(framing, Framing::UntilClose);
    Ok(Some(Head { length, status, framing, is_kept_alive }))
}
