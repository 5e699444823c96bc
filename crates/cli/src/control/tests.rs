//! The contract of the control API, over a real socket: our own client on one side, raw HTTP on the other.

mod contract;
mod malformed;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use allcores::primary::{
    Event, Outcome, Refusal, Reload, ReloadNews, ReloadOutcome, Upgrade, UpgradeNews, UpgradeProgress,
    WorkerRef,
};
use allcores::{Signal, Slot, WorkerId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::server::is_welcome;
use super::{Control, Lobby, Reloading, Server, bind};
use crate::args::Change;
use crate::client::{Client, RequestError};
use crate::hub::{Hub, Subscription};
use crate::metrics::{Reading, Tally};
use crate::runtime_folder::AppFolder;
use crate::verdict::Verdict;
use crate::view::{self, DescriptionView, StatusView};

/// Writes down what it is told; scales only to 2.
#[derive(Clone)]
struct Fake {
    told: Arc<Mutex<Vec<&'static str>>>,
    hub: Hub,
}

/// There is a worker in slot 0, and nowhere else.
fn reached(slot: Option<Slot>) -> Result<Vec<WorkerRef>, Refusal> {
    match slot {
        None | Some(Slot(0)) => Ok(vec![WorkerRef { id: WorkerId(1), slot: Slot(0), pid: 7 }]),
        Some(_) => Err(Refusal("no worker runs there".into())),
    }
}

impl Control for Fake {
    type Hold = ();

    fn hold(&self) {}

    fn stop(&self) {
        self.told.lock().unwrap().push("stop");
    }

    fn stop_now(&self) {
        self.told.lock().unwrap().push("stop now");
    }

    async fn scale(&self, change: Change) -> Result<StatusView, Refusal> {
        if matches!(change, Change::To(2) | Change::By(1)) {
            Ok(view::tests::web())
        } else {
            Err(Refusal("stopping".into()))
        }
    }

    async fn reload(&self, wish: Reload, environment: Option<String>) -> Result<Reloading, Refusal> {
        if let Some(name) = environment {
            return Err(Refusal(format!("no environment {name}")));
        }
        if wish.may_move {
            return Err(Refusal("web.toml:1:1: no".into()));
        }
        let (tell, news) = mpsc::unbounded_channel();
        let _ = tell.send(ReloadNews::Began { generation: 2, slots: wish.surge.unwrap_or(1) });
        let _ = tell.send(ReloadNews::Ended(ReloadOutcome::Stopped));
        Ok(Reloading { notices: vec!["policy stays".into()], news: news.into() })
    }

    fn describe(&self) -> DescriptionView {
        view::tests::description()
    }

    async fn signal(&self, slot: Option<Slot>, signal: Signal) -> Result<Vec<WorkerRef>, Refusal> {
        self.told.lock().unwrap().push(if signal == Signal::USR2 { "signal USR2" } else { "signal" });
        reached(slot)
    }

    async fn send(&self, slot: Option<Slot>, message: String) -> Result<Vec<WorkerRef>, Refusal> {
        assert!(!message.contains('\n'), "{message:?}");
        reached(slot)
    }

    fn subscribe(&self, has_output: bool) -> Option<Subscription> {
        self.hub.subscribe(has_output)
    }

    fn upgrade(&self, wish: Upgrade) -> UpgradeProgress {
        let (tell, news) = mpsc::unbounded_channel();
        let executable = wish.executable.unwrap_or_default();
        let _ = tell.send(UpgradeNews::Checking { executable });
        let _ = tell.send(UpgradeNews::Refused { reason: "too old".into() });
        news.into()
    }

    fn turned_away(&self, _: Option<u32>) {
        self.told.lock().unwrap().push("turned away");
    }

    async fn metrics(&self) -> Result<String, Refusal> {
        let connections = [(3, 5)].into();
        Ok(Reading::new(view::tests::web(), &mut Tally::default(), connections).into_open_metrics())
    }

    async fn status(&self) -> Result<StatusView, Refusal> {
        Ok(view::tests::web())
    }
}

#[tokio::test]
async fn an_upgrade_is_answered_line_by_line() {
    let running = started();
    let (status, body) = running.raw("POST /v1/upgrade", br#"{"executable": "/bin/new"}"#).await;
    assert_eq!(status, 200);
    for part in
        [r#"{"event":"checking","executable":"/bin/new"}"#, r#"{"event":"refused","reason":"too old"}"#]
    {
        assert!(body.contains(part), "{body}");
    }
    for wrong in [&br#"{"executable": "new"}"#[..], br#"{"check_seconds": -1}"#, br#"{"binary": "/bin/new"}"#]
    {
        let (status, _) = running.refused("POST /v1/upgrade", wrong).await;
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(wrong));
    }
}

#[tokio::test]
async fn a_reload_is_answered_line_by_line() {
    let running = started();
    let (status, body) = running.raw("POST /v1/reload", br#"{"surge": 3}"#).await;
    assert_eq!(status, 200);
    for part in [
        r#"{"event":"notice","text":"policy stays"}"#,
        r#"{"event":"began","generation":2,"slots":3}"#,
        r#"{"event":"ended","outcome":"stopped"}"#,
    ] {
        assert!(body.contains(part), "{body}");
    }
    let (_, refused) = running.refused("POST /v1/reload", br#"{"environment": "test"}"#).await;
    assert!(refused.contains("no environment test"), "{refused}");
    let refused = running.refused("POST /v1/reload", br#"{"may_move": true}"#).await;
    assert_eq!(refused, (409, "web.toml:1:1: no".into()));
    for wrong in [&br#"{"surge": 0}"#[..], br#"{"command": []}"#, br#"{"canary_seconds": -1}"#, b"7"] {
        let (status, _) = running.refused("POST /v1/reload", wrong).await;
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(wrong));
    }
}

#[tokio::test]
async fn orders_to_workers_tell_whom_they_reached() {
    let running = started();
    let whom = r#"{"workers":[{"id":1,"slot":0,"pid":7}]}"#;
    for (head, body) in [
        ("POST /v1/signal", r#"{"signal": "SIGUSR2"}"#),
        ("POST /v1/signal", r#"{"signal": "USR2", "slot": 0}"#),
        ("POST /v1/send", "{\"message\": {\n\"a\":\r 1}}"),
        ("POST /v1/send", r#"{"message": "NODE_x", "slot": 0}"#),
    ] {
        assert_eq!(running.raw(head, body.as_bytes()).await, (200, whom.to_owned()), "{head} {body}");
    }
    assert_eq!(running.told(), ["signal USR2", "signal USR2"]);
    for (head, body, status) in [
        ("POST /v1/signal", r#"{"signal": "USR2", "slot": 1}"#, 409),
        ("POST /v1/signal", r#"{"signal": "NONE"}"#, 400),
        ("POST /v1/signal", "", 400),
        ("POST /v1/send", r#"{"message": {"cmd": "NODE_CLUSTER"}}"#, 400),
        ("POST /v1/send", r#"{"message": {"#, 400),
        ("POST /v1/send", "{}", 400),
        ("GET /v1/events?outptu=true", "", 400),
    ] {
        assert_eq!(running.refused(head, body.as_bytes()).await.0, status, "{head} {body}");
    }
}

#[tokio::test]
async fn the_client_reads_the_description() {
    let running = started();
    let client = Client::new(&running.app);
    assert_eq!(client.describe().await.unwrap(), view::tests::description());
}

#[tokio::test]
async fn events_are_told_from_now_until_the_end() {
    let running = started();
    let client = Client::new(&running.app);
    let mut lines = client.events(false).await.unwrap();
    running.fake.hub.observe(&Event::Stopping);
    let verdict = Verdict::of(&Outcome::Stopped, "x");
    running.fake.hub.conclude(&Outcome::Stopped, &verdict);
    for event in ["stopping", "stopped"] {
        let line: serde_json::Value = serde_json::from_slice(&lines.next().await.unwrap()).unwrap();
        assert_eq!(line["event"], event);
    }
    assert_eq!(lines.next().await, None);
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
    let fake = Fake { told: Arc::default(), hub: Hub::new("web") };
    let server = Server::start(Arc::new(bind(&app.socket()).unwrap()), fake.clone(), Lobby::default());
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
async fn health_is_told_of_the_primary_and_of_its_workers() {
    let running = started();
    let live = running.raw("GET /v1/health/live", b"").await;
    assert_eq!(live, (200, r#"{"live":true}"#.to_owned()));
    let ready = running.raw("GET /v1/health/ready", b"").await;
    assert_eq!(ready, (200, r#"{"ready":1,"target":2}"#.to_owned()));
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
    assert_eq!(client.scale(Change::To(2)).await.unwrap(), view::tests::web());
    assert_eq!(client.scale(Change::By(1)).await.unwrap(), view::tests::web());
    let error = client.scale(Change::To(3)).await.unwrap_err();
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
        ("POST /v1/scale", br#"{"by":0}"#, 400),
        ("POST /v1/scale", br#"{"by":40000}"#, 400),
        ("POST /v1/scale", br#"{"by":1,"workers":2}"#, 400),
        ("POST /v1/scale", b"{}", 400),
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
