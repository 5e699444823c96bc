//! The contract of the control API, over a real socket: our own client on one side, raw HTTP on the other.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use allcores::primary::{AppSnapshot, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::server::is_welcome;
use super::{Control, Server, bind};
use crate::client::{Client, RequestError};
use crate::runtime_folder::AppFolder;
use crate::view;

/// Writes down what it is told; scales only to 2.
#[derive(Clone, Default)]
struct Fake {
    told: Arc<Mutex<Vec<&'static str>>>,
}

impl Control for Fake {
    fn stop(&self) {
        self.told.lock().unwrap().push("stop");
    }

    fn stop_now(&self) {
        self.told.lock().unwrap().push("stop now");
    }

    async fn scale(&self, workers: u16) -> Result<AppSnapshot, Refusal> {
        if workers == 2 { Ok(view::tests::snapshot()) } else { Err(Refusal("stopping".into())) }
    }

    async fn snapshot(&self) -> Result<AppSnapshot, Refusal> {
        Ok(view::tests::snapshot())
    }
}

struct Running {
    app: AppFolder,
    fake: Fake,
    server: Server,
    _folder: tempfile::TempDir,
}

fn started() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let app = AppFolder::at("web".parse().unwrap(), folder.path());
    let fake = Fake::default();
    let server = Server::start(bind(&app.socket()).unwrap(), fake.clone());
    Running { app, fake, server, _folder: folder }
}

impl Running {
    /// Sends a request as curl would and returns status and body.
    async fn raw(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = UnixStream::connect(self.app.socket()).await.unwrap();
        let length = body.len();
        let head =
            format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // A body that is refused for its length may not be read to its end.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn refused(&self, head: &str, body: &[u8]) -> (u16, String) {
        let (status, body) = self.raw(head, body).await;
        let view::ErrorView { error } = serde_json::from_str(&body).unwrap();
        (status, error)
    }

    fn told(&self) -> Vec<&'static str> {
        self.fake.told.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn the_client_reads_the_status() {
    let running = started();
    assert_eq!(Client::new(&running.app).status().await.unwrap(), view::tests::web());
}

#[tokio::test]
async fn stop_is_accepted_in_peace_and_now() {
    let running = started();
    let client = Client::new(&running.app);
    client.stop(false).await.unwrap();
    client.stop(true).await.unwrap();
    let (status, body) = running.raw("POST /v1/stop", b"").await;
    assert_eq!((status, body.as_str()), (202, r#"{"stopping":true}"#));
    assert_eq!(running.told(), ["stop", "stop now", "stop"]);
}

#[tokio::test]
async fn scale_answers_with_the_new_state_or_the_refusal() {
    let running = started();
    let client = Client::new(&running.app);
    assert_eq!(client.scale(2).await.unwrap(), view::tests::web());
    let error = client.scale(3).await.unwrap_err();
    assert!(matches!(&error, RequestError::Refused(reason) if reason == "stopping"), "{error:?}");
    assert_eq!(running.refused("POST /v1/scale", br#"{"workers":3}"#).await, (409, "stopping".into()));
}

#[tokio::test]
async fn the_version_can_be_asked() {
    let running = started();
    let (status, body) = running.raw("GET /v1/version", b"").await;
    assert_eq!((status, body), (200, format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_in_json() {
    let running = started();
    let huge = vec![b' '; 65 * 1024];
    for (head, body, status) in [
        ("GET /", &b""[..], 404),
        ("GET /v2/status", b"", 404),
        ("GET /v1/stop", b"", 405),
        ("POST /v1/status", b"", 405),
        ("POST /v1/stop", b"now", 400),
        ("POST /v1/stop", br#"{"noww":true}"#, 400),
        ("POST /v1/scale", b"", 400),
        ("POST /v1/scale", br#"{"workers":0}"#, 400),
        ("POST /v1/scale", br#"{"workers":257}"#, 400),
        ("POST /v1/scale", br#"{"workers":-1}"#, 400),
        ("POST /v1/scale", &huge, 413),
    ] {
        let (got, error) = running.refused(head, body).await;
        assert_eq!(got, status, "{head}: {error}");
    }
    assert!(running.told().is_empty());
}

#[tokio::test]
async fn nobody_listens_once_it_is_finished() {
    let running = started();
    running.server.finish().await;
    let error = Client::new(&running.app).status().await.unwrap_err();
    assert!(matches!(error, RequestError::NotRunning), "{error:?}");
}

#[tokio::test]
async fn the_socket_of_a_dead_primary_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    drop(bind(&path).unwrap());
    assert!(path.exists());
    let _listener: UnixListener = bind(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn only_the_own_user_and_root_are_welcome() {
    for (peer, own, welcome) in
        [(Some(7), 7, true), (Some(0), 7, true), (Some(8), 7, false), (Some(7), 0, false), (None, 7, false)]
    {
        assert_eq!(is_welcome(peer, own), welcome, "{peer:?} {own}");
    }
}
