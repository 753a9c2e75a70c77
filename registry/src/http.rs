//! Reads of the log: static files over plain HTTP, in the layout of C2SP tlog-tiles.
//!
//! Everything served here is signed or is proved by what is, so it needs no encryption and may
//! come from any web server, cache or bucket. One thing a plain web server lacks is waiting:
//! `/checkpoint?after=N&wait=S` answers as soon as the log is larger than `N` entries, or
//! after `S` seconds; servers that do not know the query answer at once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use jingwei_proto::tile::TilePath;
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::bodies::HeldBytes;
use crate::connection::refusal;
use crate::log::{LogError, LogReader};
use crate::telemetry::Metrics;
use crate::visitors::Visit;

/// The longest that a caller may wait for a new checkpoint, in seconds; proxies commonly give
/// up on a quiet connection after 60.
const LONGEST_WAIT: u64 = 30;

/// Tiles that are read from disk at once; the largest takes 64 MiB.
const READING: usize = 4;

/// Full tiles never change.
const FOREVER: &str = "public, max-age=31536000, immutable";

#[derive(Clone)]
struct Served {
    log: LogReader,
    size: watch::Receiver<u64>,
    metrics: Option<&'static Metrics>,
    reading: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// The routes `/checkpoint`, `/tile/…` and, if there is a recorder, `/metrics`.
/// Whoever waits for a checkpoint is answered at `shutdown`.
pub fn router(
    log: LogReader,
    size: watch::Receiver<u64>,
    metrics: Option<&'static Metrics>,
    shutdown: CancellationToken,
) -> Router {
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .route("/metrics", get(render_metrics))
        .with_state(Served {
            log,
            size,
            metrics,
            reading: Arc::new(Semaphore::new(READING)),
            shutdown,
        })
}

#[derive(Deserialize)]
struct Wait {
    after: Option<u64>,
    wait: Option<u64>,
}

async fn checkpoint(State(mut served): State<Served>, Query(query): Query<Wait>) -> Response {
    if let (Some(after), Some(wait)) = (query.after, query.wait) {
        let wait = Duration::from_secs(wait.min(LONGEST_WAIT));
        // It has grown, or the time is over, or the registry stops; the answer is the same file.
        tokio::select! {
            _ = served.size.wait_for(|size| *size > after) => {}
            () = tokio::time::sleep(wait) => {}
            () = served.shutdown.cancelled() => {}
        }
    }
    match served.log.checkpoint_note() {
        Ok(note) => file(note.into_bytes(), "text/plain; charset=utf-8", "no-cache"),
        // A new log waits for its first quorum.
        Err(LogError::Empty { .. }) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(error) => broken(&error),
    }
}

async fn tile(
    State(served): State<Served>,
    Path(path): Path<String>,
    visit: Option<Extension<Arc<Visit>>>,
) -> Response {
    let Ok(path) = format!("tile/{path}").parse::<TilePath>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(place) = served.reading.clone().acquire_owned().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let read = tokio::task::spawn_blocking(move || served.log.tile(&path)).await;
    drop(place);
    match read {
        Ok(Ok(Some(bytes))) => tile_file(bytes, visit),
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(error)) => broken(&error),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn render_metrics(State(served): State<Served>) -> Response {
    match &served.metrics {
        Some(metrics) => file(
            metrics.render().into_bytes(),
            "text/plain; version=0.0.4",
            "no-store",
        ),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A tile stays in memory until its reader has taken it, which a slow one may never do.
fn tile_file(bytes: Vec<u8>, visit: Option<Extension<Arc<Visit>>>) -> Response {
    let kind = "application/octet-stream";
    let Some(Extension(visit)) = visit else {
        return file(bytes, kind, FOREVER);
    };
    match visit.hold(bytes.len()) {
        Ok(held) => file(Bytes::from_owner(HeldBytes { bytes, held }), kind, FOREVER),
        Err(crowded) => refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many answers wait to be read",
            Some(crowded.pause),
        ),
    }
}

fn file(bytes: impl Into<Body>, kind: &'static str, cache: &'static str) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)];
    (headers, bytes.into()).into_response()
}

fn broken(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "the log cannot be read");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
