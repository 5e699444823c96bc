//! The hidden `demo-worker`: a web server like any other. It opens its port by itself and knows nothing of allcores
//! but three variables of its environment, which it shows.

use std::future::Future;
use std::io::{self, Write as _};
use std::process;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::DemoWorkerArgs;
use crate::exit_code::ExitCode;
use crate::failure::Failure;

const PAGE: &str = include_str!("demo_worker/page.html");

/// Between the answer that announces a crash and the crash.
const CRASH_DELAY: Duration = Duration::from_secs(1);

/// Serves until it is told to stop, or to crash.
pub(super) async fn execute(args: &DemoWorkerArgs) -> Result<ExitCode, Failure> {
    let address = args.address;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    let stop = stopped().context("listen to signals")?;
    let _ = writeln!(io::stdout(), "demo worker listens on {address}");
    axum::serve(listener, routes(Worker::from_env()))
        .with_graceful_shutdown(stop)
        .await
        .with_context(|| format!("serve on {address}"))?;
    Ok(ExitCode::Success)
}

/// Which worker this is.
#[derive(Clone, Debug)]
struct Worker {
    slot: String,
    id: String,
    pid: u32,
}

impl Worker {
    fn from_env() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_else(|_| "-".into());
        Self { slot: variable("ALLCORES_SLOT"), id: variable("ALLCORES_WORKER_ID"), pid: process::id() }
    }

    /// A page for browsers, a line for everything else.
    fn answer(&self, headers: &HeaderMap, text: &str) -> Response {
        if !wants_html(headers) {
            let Self { slot, id, pid } = self;
            return format!("worker {id} (slot {slot}, pid {pid}): {text}\n").into_response();
        }
        // The golden angle keeps the hues of neighbouring slots far apart.
        let hue = self.slot.parse::<u32>().unwrap_or(0) * 137 % 360;
        let page = PAGE
            .replace("{{hue}}", &hue.to_string())
            .replace("{{slot}}", &self.slot)
            .replace("{{id}}", &self.id)
            .replace("{{pid}}", &self.pid.to_string())
            .replace("{{text}}", text);
        ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.into_iter().any(|value| value.contains("text/html"))
}

fn routes(worker: Worker) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/crash", get(crash))
        .fallback(async || (StatusCode::NOT_FOUND, "there is only / and /crash\n"))
        .with_state(worker)
}

async fn home(State(worker): State<Worker>, headers: HeaderMap) -> Response {
    worker.answer(&headers, "hello")
}

async fn crash(State(worker): State<Worker>, headers: HeaderMap) -> Response {
    tokio::spawn(async {
        tokio::time::sleep(CRASH_DELAY).await;
        let _ = writeln!(io::stderr(), "crashing, as asked");
        process::exit(1);
    });
    worker.answer(&headers, "crashing in a second; another worker takes this slot")
}

/// Makes the future that is done on SIGTERM or SIGINT.
fn stopped() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::HeaderMap;
    use axum::http::header::ACCEPT;

    use super::Worker;

    async fn answer(accept: Option<&'static str>) -> String {
        let worker = Worker { slot: "3".into(), id: "7".into(), pid: 4242 };
        let mut headers = HeaderMap::new();
        headers.extend(accept.map(|accept| (ACCEPT, accept.parse().unwrap())));
        let body = to_bytes(worker.answer(&headers, "hello").into_body(), 1 << 20).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn browsers_get_a_page_and_others_a_line() {
        assert_eq!(answer(Some("*/*")).await, "worker 7 (slot 3, pid 4242): hello\n");
        assert_eq!(answer(None).await, "worker 7 (slot 3, pid 4242): hello\n");
        let page = answer(Some("text/html,application/xhtml+xml")).await;
        assert!(
            page.starts_with("<!doctype html>") && page.contains("4242") && !page.contains("{{"),
            "{page}"
        );
    }
}
