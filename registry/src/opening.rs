//! The first bytes of an HTTP connection: they tell HTTP/2 from HTTP/1.1, and come in time or not.
//!
//! hyper waits for them without any limit, so a client that connects and stays silent would hold
//! its slot for ever. They are read here first and given to hyper again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose protocol is known.
pub enum Opened<S> {
    /// It began with the preface of HTTP/2.
    Http2(Rewound<S>),
    /// It began with anything else.
    Http1(Rewound<S>),
    /// It ended before its first byte.
    Closed,
}

/// Reads until it is clear which protocol the other side speaks, at most 24 bytes.
pub async fn open<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<Opened<S>> {
    let mut first = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() && first[..length] == PREFACE[..length] {
        match stream.read(&mut first[length..]).await? {
            0 if length == 0 => return Ok(Opened::Closed),
            0 => break,
            more => length += more,
        }
    }
    let rewound = Rewound {
        first,
        next: 0,
        length,
        stream,
    };
    Ok(match &first == PREFACE {
        true => Opened::Http2(rewound),
        false => Opened::Http1(rewound),
    })
}

/// A stream that gives its first bytes once more.
pub struct Rewound<S> {
    first: [u8; PREFACE.len()],
    next: usize,
    length: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.next == self.length {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let end = self.length.min(self.next + buffer.remaining());
        buffer.put_slice(&self.first[self.next..end]);
        self.next = end;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rest<S: AsyncRead + Unpin>(mut stream: Rewound<S>) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn nothing_that_was_read_is_lost() {
        let two = [&PREFACE[..], b"settings"].concat();
        match open(&two[..]).await.unwrap() {
            Opened::Http2(stream) => assert_eq!(rest(stream).await, two),
            _ => panic!("HTTP/2 expected"),
        }
        for one in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
            b"PRI",
        ] {
            match open(one).await.unwrap() {
                Opened::Http1(stream) => assert_eq!(rest(stream).await, one),
                _ => panic!("HTTP/1.1 expected"),
            }
        }
        assert!(matches!(open(&b""[..]).await.unwrap(), Opened::Closed));
    }
}
