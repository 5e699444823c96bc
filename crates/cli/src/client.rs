//! The other end of the control API: one request, one answer, over an app's Unix socket.

use std::fmt;
use std::io;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::runtime_folder::AppFolder;
use crate::view::{ErrorView, ScaleView, StatusView, StopView, StoppingView};

/// The longest answer that is read, in bytes: a status of 256 workers has some 100 KiB.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

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
        self.send(Method::GET, "/v1/status", Bytes::new()).await
    }

    /// Asks it to stop. It has accepted when this returns, and has not stopped yet.
    pub(crate) async fn stop(&self, now: bool) -> Result<(), RequestError> {
        let StoppingView { .. } = self.send(Method::POST, "/v1/stop", json(&StopView { now })?).await?;
        Ok(())
    }

    /// Asks for another number of workers, and waits until there are so many.
    pub(crate) async fn scale(&self, workers: u16) -> Result<StatusView, RequestError> {
        self.send(Method::POST, "/v1/scale", json(&ScaleView { workers })?).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, RequestError> {
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
        let answer = sender.send_request(request).await.context("send a request over the control socket")?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!(error).context("read the answer of the control socket"))?
            .to_bytes();
        read_answer(status, &body)
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
    match serde_json::from_slice(body) {
        Ok(ErrorView { error }) => Err(RequestError::Refused(error)),
        Err(_) => Err(RequestError::Refused(format!("the control socket answered {status}"))),
    }
}
