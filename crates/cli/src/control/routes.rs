//! The routes, version 1. Every answer is JSON, every error is `{"error": "…"}`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use allcores::primary::{Refusal, Reload, Upgrade, WorkerRef, is_own};
use allcores::{Signal, Slot};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get, post};
use hyper::body::Frame;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::document::{self, About, Answer, of};
use super::{Control, Reloading};
use crate::args::{Change, MAX_WORKERS};
use crate::hub::{MAX_SUBSCRIBERS, Subscription};
use crate::metrics;
use crate::view::{
    DescriptionView, ErrorView, LiveView, MessageView, ReachedView, ReadyView, ReloadNewsView, ReloadView,
    ScaleView, SignalView, StatusView, StopView, StoppingView, UpgradeNewsView, UpgradeView, VersionView,
};

/// The longest body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON value in each line.
const NDJSON: &str = "application/x-ndjson";

/// A request that is answered, by what, and what is to be known of it.
struct Route<C> {
    about: About,
    handler: MethodRouter<C>,
}

impl<C> Route<C> {
    fn get(path: &'static str, summary: &'static str, answer: Answer, handler: MethodRouter<C>) -> Self {
        let about =
            About { method: "get", path, summary, query: None, body: None, answer, or: None, errors: &[] };
        Self { about, handler }
    }

    fn post(path: &'static str, summary: &'static str, answer: Answer, handler: MethodRouter<C>) -> Self {
        let about = Self::get(path, summary, answer, handler);
        Self { about: About { method: "post", errors: &[400, 409], ..about.about }, ..about }
    }

    fn taking<T: JsonSchema>(mut self, is_required: bool) -> Self {
        self.about.body = Some(document::Body { schema: of::<T>, is_required });
        self
    }

    fn or(mut self, status: u16, description: &'static str) -> Self {
        self.about.or = Some((status, description));
        self
    }

    fn failing(mut self, errors: &'static [u16]) -> Self {
        self.about.errors = errors;
        self
    }

    fn asked(mut self, name: &'static str, description: &'static str) -> Self {
        self.about.query = Some(document::Query { name, description });
        self
    }
}

/// All that can be asked.
fn table<C: Control>() -> Vec<Route<C>> {
    use Answer::{Anything, Json, Lines, Metrics};
    vec![
        Route::get("/v1/version", "Which allcores this is", Json(200, of::<VersionView>), get(version)),
        Route::get("/v1/openapi.json", "This document", Anything, get(openapi::<C>)),
        Route::get("/v1/health/live", "That the primary answers", Json(200, of::<LiveView>), get(live)),
        Route::get(
            "/v1/health/ready",
            "How many workers are ready; 503 if none is",
            Json(200, of::<ReadyView>),
            get(ready::<C>),
        )
        .or(503, "No worker is ready.")
        .failing(&[409]),
        Route::get("/v1/status", "How the app is doing", Json(200, of::<StatusView>), get(status::<C>))
            .failing(&[409]),
        Route::post("/v1/stop", "Stop it; answered at once", Json(202, of::<StoppingView>), post(stop::<C>))
            .taking::<StopView>(false)
            .failing(&[400]),
        Route::post(
            "/v1/scale",
            "Change the number of workers; answered when it is so",
            Json(200, of::<StatusView>),
            post(scale::<C>),
        )
        .taking::<ScaleView>(true),
        Route::post(
            "/v1/reload",
            "Replace all workers; a line for each piece of news",
            Lines(of::<ReloadNewsView>),
            post(reload::<C>),
        )
        .taking::<ReloadView>(false),
        Route::post(
            "/v1/upgrade",
            "Have the primary become another program; a line for each piece of news",
            Lines(of::<UpgradeNewsView>),
            post(upgrade::<C>),
        )
        .taking::<UpgradeView>(false),
        Route::get("/v1/describe", "How it was made", Json(200, of::<DescriptionView>), get(describe::<C>)),
        Route::post("/v1/signal", "Send workers a signal", Json(200, of::<ReachedView>), post(signal::<C>))
            .taking::<SignalView>(true),
        Route::post("/v1/send", "Send workers a message", Json(200, of::<ReachedView>), post(send::<C>))
            .taking::<MessageView>(true),
        Route::get(
            "/v1/events",
            "What happens from now on, a line each",
            Lines(document::object),
            get(events::<C>),
        )
        .asked("output", "With what workers write")
        .failing(&[400, 503]),
        Route::get("/metrics", "Numbers for Prometheus", Metrics, get(metrics::<C>)).failing(&[409]),
    ]
}

/// What can be asked, as an OpenAPI document.
pub(super) fn document<C: Control>() -> serde_json::Value {
    document::document(table::<C>().into_iter().map(|route| route.about))
}

/// Builds the API over a primary.
pub(super) fn router<C: Control>(control: C) -> Router {
    let routes = table().into_iter();
    routes
        .fold(Router::new(), |router, route| router.route(route.about.path, route.handler))
        .fallback(async || Error::new(StatusCode::NOT_FOUND, "no such route"))
        .method_not_allowed_fallback(async || {
            Error::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(control.clone(), held::<C>))
        .with_state(control)
}

async fn openapi<C: Control>() -> Json<serde_json::Value> {
    Json(document::<C>())
}

/// What may be asked by whoever can connect: how the app is doing, in numbers.
pub(super) fn monitoring<C: Control>(control: C) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<C>))
        .route("/live", get(live))
        .route("/ready", get(ready::<C>))
        .fallback(async || {
            Error::new(StatusCode::NOT_FOUND, "no such route: there are /metrics, /ready and /live")
        })
        .with_state(control)
}

/// Has no upgrade come between a question and the beginning of its answer. What is told for longer, line by line, ends with
/// the program.
async fn held<C: Control>(State(control): State<C>, request: Request, next: Next) -> Response {
    let _hold = control.hold();
    next.run(request).await
}

/// Answers everything with 403, for users who have no business here.
pub(super) fn denied() -> Router {
    Router::new().fallback(async || Error::new(StatusCode::FORBIDDEN, "this app belongs to another user"))
}

async fn version() -> Json<VersionView> {
    Json(VersionView { version: env!("CARGO_PKG_VERSION").to_owned() })
}

async fn status<C: Control>(State(control): State<C>) -> Result<Json<StatusView>, Error> {
    done(control.status().await)
}

/// For whoever restarts what does not answer at all.
async fn live() -> Json<LiveView> {
    Json(LiveView { live: true })
}

/// For whoever sends traffic here.
async fn ready<C: Control>(State(control): State<C>) -> Result<impl IntoResponse, Error> {
    let status = done(control.status().await)?.0;
    let view = ReadyView { ready: status.ready(), target: status.target };
    let code = if view.ready > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((code, Json(view)))
}

/// As OpenMetrics to who asks for that, as Prometheus does; else in the older text format.
async fn metrics<C: Control>(State(control): State<C>, headers: HeaderMap) -> Result<Response, Error> {
    let text = control.metrics().await.map_err(conflict)?;
    let accepts = headers.get_all(ACCEPT).iter().any(|accepted| {
        accepted.to_str().is_ok_and(|accepted| accepted.contains("application/openmetrics-text"))
    });
    let (kind, text) =
        if accepts { (metrics::OPEN_METRICS, text) } else { (metrics::PLAIN_TEXT, metrics::plain(&text)) };
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

async fn stop<C: Control>(State(control): State<C>, Body(body): Body<StopView>) -> impl IntoResponse {
    if body.unwrap_or_default().now {
        control.stop_now();
    } else {
        control.stop();
    }
    (StatusCode::ACCEPTED, Json(StoppingView { stopping: true }))
}

async fn scale<C: Control>(
    State(control): State<C>,
    Body(body): Body<ScaleView>,
) -> Result<Json<StatusView>, Error> {
    let view = body.ok_or_else(|| no_body("{\"workers\": N}, or {\"by\": N}"))?;
    let change = Change::try_from(view).map_err(|reason| Error::new(StatusCode::BAD_REQUEST, reason))?;
    done(control.scale(change).await)
}

/// Answers at once, with a line for each piece of news, until it is over. Who goes away has asked for it all the same.
async fn reload<C: Control>(
    State(control): State<C>,
    Body(body): Body<ReloadView>,
) -> Result<Response, Error> {
    let mut view = body.unwrap_or_default();
    let environment = view.environment.take();
    let wish = Reload::try_from(view).map_err(|reason| Error::new(StatusCode::BAD_REQUEST, reason))?;
    if wish.surge.is_some_and(|surge| !(1..=MAX_WORKERS).contains(&surge)) {
        let text = format!("a surge is from 1 to {MAX_WORKERS}");
        return Err(Error::new(StatusCode::BAD_REQUEST, text));
    }
    let Reloading { notices, mut news } = control.reload(wish, environment).await.map_err(conflict)?;
    let mut notices: VecDeque<_> = notices.into_iter().map(|text| ReloadNewsView::Notice { text }).collect();
    Ok(lines(move |context| match notices.pop_front() {
        Some(notice) => Poll::Ready(Some(notice)),
        None => news.poll_next(context).map(|news| news.map(ReloadNewsView::from)),
    }))
}

/// The same. The new program does not end the answer: the connection ends with the old one.
async fn upgrade<C: Control>(
    State(control): State<C>,
    Body(body): Body<UpgradeView>,
) -> Result<Response, Error> {
    let wish = Upgrade::try_from(body.unwrap_or_default())
        .map_err(|reason| Error::new(StatusCode::BAD_REQUEST, reason))?;
    let mut progress = control.upgrade(wish);
    Ok(lines(move |context| progress.poll_next(context).map(|news| news.map(UpgradeNewsView::from))))
}

async fn describe<C: Control>(State(control): State<C>) -> Json<DescriptionView> {
    Json(control.describe())
}

async fn signal<C: Control>(
    State(control): State<C>,
    Body(body): Body<SignalView>,
) -> Result<Json<ReachedView>, Error> {
    let SignalView { signal, slot } = body.ok_or_else(|| no_body("{\"signal\": \"USR2\"}"))?;
    let signal: Signal = signal
        .parse()
        .map_err(|error: allcores::Error| Error::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    reached(control.signal(slot.map(Slot), signal).await)
}

async fn send<C: Control>(
    State(control): State<C>,
    Body(body): Body<MessageView>,
) -> Result<Json<ReachedView>, Error> {
    let MessageView { message, slot } = body.ok_or_else(|| no_body("{\"message\": …}"))?;
    // A line of the channel is a message; between the tokens of JSON a line end is only a space.
    let line = message.get().replace(['\n', '\r'], " ");
    if is_own(line.as_bytes()) {
        let text = "a message whose `cmd` begins with NODE_ is node's own: it would be taken for an order of the primary";
        return Err(Error::new(StatusCode::BAD_REQUEST, text));
    }
    reached(control.send(slot.map(Slot), line).await)
}

/// What is asked of `GET /v1/events`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EventsQuery {
    output: bool,
}

/// Answers with a line for each event, from now until the app has ended.
async fn events<C: Control>(
    State(control): State<C>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(query) = query.map_err(|error| Error::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let subscription = control.subscribe(query.output).ok_or_else(|| {
        let text = format!("{MAX_SUBSCRIBERS} are told of events already");
        Error::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let lines = axum::body::Body::new(Told(subscription));
    Ok(([(CONTENT_TYPE, NDJSON)], lines).into_response())
}

/// Events as a body, a line each.
struct Told(Subscription);

impl hyper::body::Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = |line: Arc<[u8]>| Ok(Frame::data(Bytes::copy_from_slice(&line)));
        self.0.poll_next(context).map(|next| next.map(line))
    }
}

/// Answers with news as they come, a line each.
fn lines<T: Serialize + 'static>(
    poll: impl FnMut(&mut task::Context<'_>) -> Poll<Option<T>> + Send + Unpin + 'static,
) -> Response {
    let lines = axum::body::Body::new(Lines(poll));
    ([(CONTENT_TYPE, NDJSON)], lines).into_response()
}

/// News as a body, a line each.
struct Lines<F>(F);

impl<T: Serialize, F: FnMut(&mut task::Context<'_>) -> Poll<Option<T>> + Unpin> hyper::body::Body
    for Lines<F>
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        (self.0)(context).map(|news| {
            // These shapes have no map with keys that aren't strings, the one thing that can't be written.
            let mut line = serde_json::to_vec(&news?).unwrap_or_default();
            line.push(b'\n');
            Some(Ok(Frame::data(line.into())))
        })
    }
}

/// The state after a command, or why it was not carried out.
fn done(answer: Result<StatusView, Refusal>) -> Result<Json<StatusView>, Error> {
    answer.map(Json).map_err(conflict)
}

/// Whom an order reached, or why it was not carried out.
fn reached(answer: Result<Vec<WorkerRef>, Refusal>) -> Result<Json<ReachedView>, Error> {
    answer.map(|workers| Json(workers.into())).map_err(conflict)
}

fn no_body(wanted: &str) -> Error {
    Error::new(StatusCode::BAD_REQUEST, format!("no body: send {wanted}"))
}

fn conflict(Refusal(reason): Refusal) -> Error {
    Error::new(StatusCode::CONFLICT, reason)
}

/// An answer that isn't a success.
#[derive(Debug)]
struct Error {
    status: StatusCode,
    text: String,
}

impl Error {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorView { error: self.text })).into_response()
    }
}

/// A body of JSON, whatever its content type says; `None` if it is empty.
struct Body<T>(Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let bytes = match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(rejection)) => return Err(Error::new(rejection.status(), rejection.body_text())),
            Err(_) => {
                return Err(Error::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"));
            }
        };
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        match serde_json::from_slice(&bytes) {
            Ok(body) => Ok(Self(Some(body))),
            Err(error) => Err(Error::new(StatusCode::BAD_REQUEST, format!("not the JSON expected: {error}"))),
        }
    }
}
