//! The id of a request: one name for one piece of work in the logs of every node it touches.
//!
//! It comes in as the header `x-request-id` or is made here, stands in the span of everything
//! logged for the request (its handler and its streamed answer), goes back in the response, and
//! goes out with every call made on its behalf (`connect::Link` adds it).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Frame, SizeHint};
use tracing::{Instrument as _, Span};

use crate::serve::PeerKey;

/// The header that carries the id, in requests and in responses.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static CURRENT: RequestId;
}

/// A request's id: 1 to 64 of A-Z, a-z, 0-9 and `-`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

/// The text is not a request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request id is 1 to 64 of A-Z, a-z, 0-9 and -")]
pub struct RequestIdError;

impl RequestId {
    /// A new id, 32 hexadecimal digits.
    pub fn random() -> RequestId {
        RequestId(format!("{:032x}", rand::random::<u128>()).into())
    }

    /// The id of the request that this task works for. `None` outside a request, and in tasks
    /// spawned without [`RequestId::scope`].
    pub fn current() -> Option<RequestId> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs a future on behalf of this request; needed where work is spawned. What it logs
    /// stands in the request's span, which a new task would otherwise leave.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        let current = Span::current();
        let span = match current.is_none() {
            true => span(&self, None),
            false => current,
        };
        CURRENT.scope(self, work.instrument(span))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Puts the id into the headers of a request or a response.
    pub fn attach(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            headers.insert(HEADER, value);
        }
    }

    /// The id in the headers, if there is a valid one.
    pub fn of(headers: &HeaderMap) -> Option<RequestId> {
        headers.get(HEADER)?.to_str().ok()?.parse().ok()
    }
}

impl FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<RequestId, RequestIdError> {
        // It is written to logs as it came, so nothing that could forge a line may be in it.
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match plain && (1..=64).contains(&text.len()) {
            true => Ok(RequestId(text.into())),
            false => Err(RequestIdError),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A router whose requests each have an id: as an extension, in a tracing span, in the response.
pub fn with_request_ids(router: Router) -> Router {
    router.layer(from_fn(identify))
}

async fn identify(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers()).unwrap_or_else(RequestId::random);
    id.attach(request.headers_mut());
    request.extensions_mut().insert(id.clone());
    let span = span(&id, request.extensions().get());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let started = Instant::now();
    let answer = CURRENT.scope(id.clone(), next.run(request));
    let mut response = answer.instrument(span.clone()).await;
    id.attach(response.headers_mut());
    span.in_scope(|| {
        let (status, elapsed) = (response.status().as_u16(), started.elapsed());
        tracing::debug!(%method, path, status, ?elapsed, "answered");
    });
    response.map(|body| Body::new(Scoped { body, id, span }))
}

fn span(id: &RequestId, peer: Option<&PeerKey>) -> Span {
    match peer {
        Some(PeerKey(Some(key))) => tracing::info_span!("request", %id, peer = %key),
        _ => tracing::info_span!("request", %id),
    }
}

/// A body whose frames are made within the request's span: a streamed answer is most of its work.
struct Scoped {
    body: Body,
    id: RequestId,
    span: Span,
}

impl HttpBody for Scoped {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let scoped = self.get_mut();
        let Scoped { body, id, span } = scoped;
        let _entered = span.enter();
        CURRENT.sync_scope(id.clone(), || Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn ask(header: Option<&str>) -> (String, String) {
        let handler = || async { RequestId::current().map_or(String::new(), |id| id.to_string()) };
        let router = with_request_ids(Router::new().route("/", get(handler)));
        let mut request = Request::builder().uri("/");
        if let Some(value) = header {
            request = request.header(HEADER, value);
        }
        let response = router
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let echoed = RequestId::of(response.headers()).unwrap().to_string();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (echoed, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_valid_id_is_kept_and_given_to_the_handler() {
        let (echoed, seen) = ask(Some("Abc-123")).await;
        assert_eq!((echoed.as_str(), seen.as_str()), ("Abc-123", "Abc-123"));
    }

    #[tokio::test]
    async fn a_bad_or_missing_id_is_replaced() {
        for bad in [None, Some(""), Some("a b"), Some("x".repeat(65).as_str())] {
            let (echoed, seen) = ask(bad).await;
            assert_eq!(echoed.len(), 32);
            assert_eq!(echoed, seen);
        }
    }

    #[tokio::test]
    async fn a_streamed_body_is_still_within_the_request() {
        let handler = || async {
            Body::from_stream(futures::stream::once(async {
                Ok::<_, std::io::Error>(RequestId::current().unwrap().to_string())
            }))
        };
        let router = with_request_ids(Router::new().route("/", get(handler)));
        let request = Request::builder()
            .header(HEADER, "stream-1")
            .body(Body::empty())
            .unwrap();
        let response = router.oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "stream-1");
    }
}
