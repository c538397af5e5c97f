//! Connections: how many, how long each may take over its head, and how they end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};
use tower::ServiceExt as _;

use super::problem::{Code, Problem};

/// A request's head must be there this soon after its connection, or after the answer before it.
const HEAD: Duration = Duration::from_secs(10);
/// Longest head of a request.
const MOST_HEAD_BYTES: usize = 64 << 10;
/// How long a client that still sends may take to read an answer before its connection is reset,
/// and how many of its bytes are read for that.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;
/// Most connections that are being told that there are too many; more are closed without a word.
const MOST_REFUSALS: usize = 256;

/// Open connections, for /metrics.
#[derive(Debug, Default)]
pub struct Connections {
    pub open: AtomicUsize,
    pub refused: AtomicUsize,
}

/// Serves until `stop` is done, then lets what is being answered end within `grace`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    most: usize,
    connections: Arc<Connections>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) {
    let places = Arc::new(Semaphore::new(most));
    let refusals = Arc::new(Semaphore::new(MOST_REFUSALS));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // A client that went away again is nothing; no descriptors left passes.
                tracing::debug!("accept: {e}");
                if !matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) {
                    sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
        };
        // Small answers go out at once.
        let _ = stream.set_nodelay(true);
        let Ok(place) = places.clone().try_acquire_owned() else {
            connections.refused.fetch_add(1, Ordering::Relaxed);
            if let Ok(refusal) = refusals.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    refuse(stream).await;
                    drop(refusal);
                });
            }
            continue;
        };
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            router.clone().oneshot(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_header_size(MOST_HEAD_BYTES)
            .serve_connection(Wire::new(stream), service);
        let connection = graceful.watch(connection);
        let connections = connections.clone();
        connections.open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // Whatever ends a connection is the client's affair.
            if let Err(e) = connection.await {
                tracing::debug!("{peer}: {e}");
            }
            connections.open.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections that did not end in {} s are cut", grace.as_secs());
    }
}

async fn refuse(mut stream: TcpStream) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let problem = Problem::new(Code::Busy, "too many connections").json();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{problem}",
        problem.len()
    );
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would take the answer back.
        let mut bytes = [0; 4096];
        for _ in 0..16 {
            if stream.read(&mut bytes).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, told).await;
}

/// A connection that gives hyper's own errors a body and closes so that a client which still sends
/// can read the answer.
struct Wire {
    inner: TokioIo<TcpStream>,
    /// An answer of ours in place of hyper's, and how much of it is out.
    answer: Option<(Vec<u8>, usize)>,
    /// Runs since the writing half was closed.
    linger: Option<Pin<Box<Sleep>>>,
    lingered: usize,
    /// The client closed its half.
    ended: bool,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self { inner: TokioIo::new(stream), answer: None, linger: None, lingered: 0, ended: false }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((answer, out)) = &mut self.answer {
            if *out == answer.len() {
                self.answer = None;
                break;
            }
            match std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, &answer[*out..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => *out += n,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The answer in place of one that hyper makes by itself, for requests that it cannot read: those
/// have no body. The router's answers never look like that.
fn in_place_of(head: &[u8]) -> Option<Vec<u8>> {
    let status = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (code, detail, line) = match status.get(..3)? {
        b"400" => (Code::BadRequest, "the request's head cannot be read", "400 Bad Request"),
        b"414" => (Code::UriTooLong, "the request's address is too long", "414 URI Too Long"),
        b"431" => (
            Code::HeadersTooLarge,
            "at most 100 header lines and 64 KiB of them are read",
            "431 Request Header Fields Too Large",
        ),
        _ => return None,
    };
    let text = std::str::from_utf8(head.strip_suffix(b"\r\n\r\n")?).ok()?;
    if !text.split("\r\n").any(|line| line.eq_ignore_ascii_case("content-length: 0")) {
        return None;
    }
    let body = Problem::new(code, detail).json();
    Some(
        format!(
            "HTTP/1.1 {line}\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, cursor)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_answer(cx))?;
        if let Some(answer) = in_place_of(bytes) {
            self.answer = Some((answer, 0));
            // What does not go out now goes with the flush.
            if let Poll::Ready(Err(e)) = self.poll_answer(cx) {
                return Poll::Ready(Err(e));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        std::task::ready!(this.poll_answer(cx))?;
        if this.linger.is_none() {
            std::task::ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.linger = Some(Box::pin(tokio::time::sleep_until(Instant::now() + LINGER)));
        }
        let mut bytes = [std::mem::MaybeUninit::uninit(); 8192];
        while !this.ended && this.lingered < LINGER_BYTES {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut this.inner).poll_read(cx, buffer.unfilled()) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => this.ended = true,
                Poll::Ready(Ok(())) => this.lingered += buffer.filled().len(),
                Poll::Ready(Err(_)) => this.ended = true,
                Poll::Pending => {
                    let Some(linger) = &mut this.linger else { break };
                    return linger.as_mut().poll(cx).map(Ok);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        // hyper writes heads and bodies it was given one after the other into one buffer.
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_hyper_makes_by_itself_are_replaced() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
            content-length: 0\r\ndate: x\r\n\r\n";
        let answer = String::from_utf8(in_place_of(own).unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 Request"), "{answer}");
        assert!(answer.ends_with('}') && answer.contains("\"headers_too_large\""), "{answer}");
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n{}",
            b"some of a body",
            b"",
        ] {
            assert!(in_place_of(other).is_none(), "{}", other.escape_ascii());
        }
    }
}
