//! A witness over HTTP (C2SP tlog-witness): `POST /add-checkpoint` and, for monitors,
//! `GET /<SHA-256 of the origin>/checkpoint`.
//!
//! Everything here is signed, so that it needs no encryption, and nobody is asked who he is.
//! How much one address may ask is the server's matter ([`crate::serve::ServeLimits`]).

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jingwei_proto::digest::Digest;
use jingwei_proto::witness::{MAX_REQUEST, Refusal, SIZE_TYPE};

use super::{Denied, Witness};

const TEXT: &str = "text/plain; charset=utf-8";

/// The witness's routes.
pub fn router(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{origin}/checkpoint", get(newest))
        .with_state(witness)
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let Ok(body) = to_bytes(body, MAX_REQUEST).await else {
        let reason = format!("a request has at most {MAX_REQUEST} bytes\n");
        return (StatusCode::PAYLOAD_TOO_LARGE, reason).into_response();
    };
    // Hashing, signing and two fsyncs: not on a thread that serves others.
    let answer = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body)).await;
    let (status, kind, body) = match answer {
        Ok(Ok(lines)) => (StatusCode::OK, TEXT, lines),
        Ok(Err(Denied::Refused(refusal))) => refused(&refusal),
        Ok(Err(error @ Denied::Storage(_))) => {
            tracing::error!(%error, "nothing is co-signed");
            (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{error}\n"))
        }
        Err(error) => {
            tracing::error!(%error, "a request to co-sign failed");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let code = status.as_u16().to_string();
    metrics::counter!("jingwei_witness_requests_total", "status" => code).increment(1);
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

fn refused(refusal: &Refusal) -> (StatusCode, &'static str, String) {
    let kind = match refusal {
        Refusal::Conflict(_) => SIZE_TYPE,
        _ => TEXT,
    };
    if let Refusal::Inconsistent(_) = refusal {
        // It is signed by the log, so it may be the proof of a fork.
        tracing::error!(%refusal, "a log shows a checkpoint that does not follow from the last");
    }
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    (status, kind, refusal.body())
}

async fn newest(State(witness): State<Arc<Witness>>, Path(origin): Path<String>) -> Response {
    let found = origin
        .parse::<Digest>()
        .ok()
        .and_then(|origin| witness.newest(&origin));
    match found {
        Some(note) => ([(header::CONTENT_TYPE, TEXT)], note).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
