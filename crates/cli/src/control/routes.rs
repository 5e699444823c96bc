//! The routes, version 1. Every answer is JSON, every error is `{"error": "…"}`.

use std::time::Duration;

use allcores::primary::{AppSnapshot, Refusal};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;

use super::Control;
use crate::args::MAX_WORKERS;
use crate::view::{ErrorView, ScaleView, StatusView, StopView, StoppingView, VersionView};

/// The longest body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds the API over a primary.
pub(super) fn router<C: Control>(control: C) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/status", get(status::<C>))
        .route("/v1/stop", post(stop::<C>))
        .route("/v1/scale", post(scale::<C>))
        .fallback(async || Error::new(StatusCode::NOT_FOUND, "no such route"))
        .method_not_allowed_fallback(async || {
            Error::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(control)
}

/// Answers everything with 403, for users who have no business here.
pub(super) fn denied() -> Router {
    Router::new().fallback(async || Error::new(StatusCode::FORBIDDEN, "this app belongs to another user"))
}

async fn version() -> Json<VersionView> {
    Json(VersionView { version: env!("CARGO_PKG_VERSION").to_owned() })
}

async fn status<C: Control>(State(control): State<C>) -> Result<Json<StatusView>, Error> {
    done(control.snapshot().await)
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
    let workers = match body {
        Some(ScaleView { workers }) if (1..=MAX_WORKERS).contains(&workers) => workers,
        Some(ScaleView { workers }) => {
            let text = format!("{workers} workers: an app has from 1 to {MAX_WORKERS}");
            return Err(Error::new(StatusCode::BAD_REQUEST, text));
        }
        None => return Err(Error::new(StatusCode::BAD_REQUEST, "no body: send {\"workers\": N}")),
    };
    done(control.scale(workers).await)
}

/// The state after a command, or why it was not carried out.
fn done(answer: Result<AppSnapshot, Refusal>) -> Result<Json<StatusView>, Error> {
    match answer {
        Ok(snapshot) => Ok(Json(snapshot.into())),
        Err(Refusal(reason)) => Err(Error::new(StatusCode::CONFLICT, reason)),
    }
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
