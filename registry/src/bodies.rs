//! Bodies of strangers' requests: small, in time, and paid for in memory while they are here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use crate::activity::Going;
use crate::fault::{Blame, Fault};
use crate::visitors::{Asking, Crowded, Held, Visit};

/// What a request's body may be.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub size: usize,
    /// From the end of the head to the end of the body.
    pub time: Duration,
}

/// The memory that one request's body takes: as long as the request is worked on, not only until
/// its body has been read.
#[derive(Clone)]
pub struct Memory {
    visit: Arc<Visit>,
    held: Arc<Mutex<Option<Held>>>,
}

impl Memory {
    /// Nothing is held yet.
    pub fn new(visit: Arc<Visit>) -> Memory {
        Memory {
            visit,
            held: Arc::default(),
        }
    }

    fn hold(&self, bytes: usize) -> Result<(), Crowded> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(held) => held.more(bytes),
            None => self.visit.hold(bytes).map(|new| *held = Some(new)),
        }
    }
}

/// A request's body within its limits. It ends with a [`Status`] that says which one was passed.
pub struct Limited {
    body: Incoming,
    limits: BodyLimits,
    read: usize,
    memory: Memory,
    /// Set when the first poll finds that the body is not there yet.
    late: Option<Pin<Box<Sleep>>>,
}

impl Limited {
    /// A body whose bytes are held in `memory`.
    pub fn new(body: Incoming, limits: BodyLimits, memory: Memory) -> Limited {
        Limited {
            body,
            limits,
            read: 0,
            memory,
            late: None,
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.read += bytes;
        if self.read > self.limits.size {
            return Err(Fault::new(
                Blame::LimitExceeded,
                format!("a request of more than {} bytes", self.limits.size),
            ));
        }
        self.memory.hold(bytes).map_err(|crowded| {
            metrics::counter!("jingwei_requests_refused_total", "reason" => "memory").increment(1);
            Fault::new(
                Blame::Overloaded,
                "too much is being sent to this server at once",
            )
            .retry_after(crowded.pause)
        })
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Fault> {
        let time = self.limits.time;
        let late = self
            .late
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Fault::new(
            Blame::TimedOut,
            format!("the request's body did not come within {time:?}"),
        ))
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let limited = self.get_mut();
        match Pin::new(&mut limited.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let taken = limited.take(bytes);
                Poll::Ready(Some(taken.map(|()| frame).map_err(Status::from)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(Status::from_error(Box::new(error)))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => limited
                .poll_late(context)
                .map(|fault| Some(Err(Status::from(fault)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, with which the request ends.
pub fn until_sent(body: Body, asking: Asking, going: Going) -> Body {
    Body::new(UntilSent {
        body,
        _request: (asking, going),
    })
}

struct UntilSent {
    body: Body,
    _request: (Asking, Going),
}

impl HttpBody for UntilSent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer that are held in the server's memory until the last of them has been sent.
pub struct HeldBytes {
    /// The answer.
    pub bytes: Vec<u8>,
    /// What it takes.
    pub held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
