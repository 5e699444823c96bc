//! The other end of the control API: one request, one answer, over an app's Unix socket.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::args::Change;
use crate::runtime_folder::AppFolder;
use crate::view::{
    DescriptionView, ErrorView, MessageView, ReachedView, ReloadNewsView, ReloadView, ScaleView, SignalView,
    StatusView, StopView, StoppingView, UpgradeNewsView, UpgradeView,
};

/// The longest answer that is read, in bytes: a status of 256 workers has some 100 KiB.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// How often a question is asked again whose connection broke.
const RETRIES: usize = 3;

/// How long after.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// Nobody listens on the socket.
    NotRunning,
    /// The primary said no, and why.
    Refused(String),
    /// The connection broke, or what came is no answer.
    Broken(anyhow::Error),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("not running"),
            Self::Refused(reason) => f.write_str(reason),
            Self::Broken(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for RequestError {}

impl From<anyhow::Error> for RequestError {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Speaks to one app. Sets no time limits: callers know how long they can wait.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    app: &'a AppFolder,
}

impl<'a> Client<'a> {
    /// Makes a client; connects only when asked something.
    pub(crate) fn new(app: &'a AppFolder) -> Self {
        Self { app }
    }

    /// Asks how the app is doing.
    pub(crate) async fn status(&self) -> Result<StatusView, RequestError> {
        for _ in 0..RETRIES {
            match self.send_json(Method::GET, "/v1/status", Bytes::new()).await {
                // An upgrade ends the connections that there are.
                Err(RequestError::Broken(_)) => tokio::time::sleep(RETRY_PAUSE).await,
                answer => return answer,
            }
        }
        self.send_json(Method::GET, "/v1/status", Bytes::new()).await
    }

    /// Asks it to stop. It has accepted when this returns, and has not stopped yet.
    pub(crate) async fn stop(&self, now: bool) -> Result<(), RequestError> {
        let StoppingView { .. } = self.send_json(Method::POST, "/v1/stop", json(&StopView { now })?).await?;
        Ok(())
    }

    /// Asks for another number of workers, and waits until there are so many.
    pub(crate) async fn scale(&self, change: Change) -> Result<StatusView, RequestError> {
        self.send_json(Method::POST, "/v1/scale", json(&ScaleView::from(change))?).await
    }

    /// Asks for a reload, and tells how it goes on.
    pub(crate) async fn reload(&self, wish: &ReloadView) -> Result<News<ReloadNewsView>, RequestError> {
        self.lines(Method::POST, "/v1/reload", json(wish)?).await.map(News::of)
    }

    /// Asks for an upgrade, and tells how it goes on. It is refused or, when nothing more comes, the app goes on as
    /// another program, or has gone.
    pub(crate) async fn upgrade(&self, wish: &UpgradeView) -> Result<News<UpgradeNewsView>, RequestError> {
        self.lines(Method::POST, "/v1/upgrade", json(wish)?).await.map(News::of)
    }

    /// Asks how the app was made.
    pub(crate) async fn describe(&self) -> Result<DescriptionView, RequestError> {
        self.send_json(Method::GET, "/v1/describe", Bytes::new()).await
    }

    /// Asks for a signal to be sent to workers.
    pub(crate) async fn signal(&self, wish: &SignalView) -> Result<ReachedView, RequestError> {
        self.send_json(Method::POST, "/v1/signal", json(wish)?).await
    }

    /// Asks for a message to be sent to workers.
    pub(crate) async fn send(&self, wish: &MessageView) -> Result<ReachedView, RequestError> {
        self.send_json(Method::POST, "/v1/send", json(wish)?).await
    }

    /// Asks to be told what happens, from now on.
    pub(crate) async fn events(&self, has_output: bool) -> Result<Lines, RequestError> {
        self.lines(Method::GET, &format!("/v1/events?output={has_output}"), Bytes::new()).await
    }

    async fn lines(&self, method: Method, path: &str, body: Bytes) -> Result<Lines, RequestError> {
        let answer = self.request(method, path, body).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Lines { body: answer.into_body(), read: Vec::new() });
        }
        Err(refusal(status, &read_body(answer).await?))
    }

    async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, RequestError> {
        let answer = self.request(method, path, body).await?;
        let status = answer.status();
        read_answer(status, &read_body(answer).await?)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, RequestError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("begin to speak HTTP over the control socket")?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "allcores")
            .body(Full::new(body))
            .context("make a request")?;
        Ok(sender.send_request(request).await.context("send a request over the control socket")?)
    }

    async fn connect(&self) -> Result<UnixStream, RequestError> {
        let socket = self.app.socket();
        match UnixStream::connect(&socket).await {
            Ok(stream) => Ok(stream),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(RequestError::NotRunning)
            }
            Err(error) => {
                let context = format!("connect to the control socket {}", socket.display());
                Err(RequestError::Broken(anyhow::Error::new(error).context(context)))
            }
        }
    }
}

fn json(body: &impl Serialize) -> Result<Bytes, RequestError> {
    Ok(serde_json::to_vec(body).context("write a request as JSON")?.into())
}

fn read_answer<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, RequestError> {
    if status.is_success() {
        return Ok(serde_json::from_slice(body).context("read the answer of the control socket as JSON")?);
    }
    Err(refusal(status, body))
}

fn refusal(status: StatusCode, body: &[u8]) -> RequestError {
    match serde_json::from_slice(body) {
        Ok(ErrorView { error }) => RequestError::Refused(error),
        Err(_) => RequestError::Refused(format!("the control socket answered {status}")),
    }
}

async fn read_body(answer: Response<Incoming>) -> Result<Bytes, RequestError> {
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
    Ok(body
        .map_err(|error| anyhow::anyhow!(error).context("read the answer of the control socket"))?
        .to_bytes())
}

/// An answer that comes line by line.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    /// Waits for the next line, its end included; `None` when there are no more, as the app has gone or has said all.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return Some(self.read.drain(..=end).collect());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                // It ends its workers and then itself, and with it the connection.
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// News of what was asked for, as they come.
#[derive(Debug)]
pub(crate) struct News<T> {
    lines: Lines,
    is_of: PhantomData<T>,
}

impl<T: DeserializeOwned> News<T> {
    fn of(lines: Lines) -> Self {
        Self { lines, is_of: PhantomData }
    }

    /// Waits for the next piece of news; `None` when the app has gone without a last word.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, RequestError> {
        let Some(line) = self.lines.next().await else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&line).context("read news as JSON")?))
    }
}
