//! Requests without body (GET and HEAD), one after the other on a connection, without hyper: that is where nearly all
//! bytes of a registry go out, and a file needs no copy through this process.
//!
//! Invariant: what is not a plain read is handed over with all bytes that arrived, and hyper has the connection from
//! then on. Called for each connection.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::body::Body;
use super::call::Call;
use super::head::{self, Parsed};
use super::patience::Progress;
use super::transport::Transport;
use super::{Peer, Service};

/// How much of an answer goes out in one piece with its head.
const TOGETHER: usize = 64 << 10;

/// How the loop ended.
pub(crate) enum End {
    /// The connection is over.
    Closed,
    /// The rest is for hyper, beginning with these bytes.
    HandOver(Vec<u8>),
}

/// Answers until the connection is over or something else than a plain read arrives.
pub(crate) async fn run(
    transport: &mut Transport,
    peer: &Arc<Peer>,
    service: &Arc<Service>,
    end: &mut watch::Receiver<bool>,
) -> io::Result<End> {
    let limits = &service.config.limits;
    let (idle, whole_head) = (Duration::from_secs(limits.idle_seconds), Duration::from_secs(limits.head_seconds));
    let mut buffer = Vec::with_capacity(2048);
    let mut out = Vec::with_capacity(1024);
    loop {
        // From the first byte of a head its time runs; before it the connection may be idle.
        let mut deadline = None;
        let (head, length) = loop {
            match head::parse(&buffer) {
                Parsed::Simple(head, length) => break (head, length),
                Parsed::Other => return Ok(End::HandOver(buffer)),
                Parsed::Partial => {}
            }
            if deadline.is_none() && !buffer.is_empty() {
                deadline = Some(tokio::time::Instant::now() + whole_head);
            }
            let until = deadline.unwrap_or_else(|| tokio::time::Instant::now() + idle);
            let count = tokio::select! {
                count = tokio::time::timeout_at(until, transport.read_buf(&mut buffer)) => match count {
                    Ok(count) => count?,
                    Err(_) => return Ok(End::Closed),
                },
                _ = end.changed() => return Ok(End::Closed),
            };
            if count == 0 {
                return Ok(End::Closed);
            }
        };
        buffer.drain(..length);
        let is_head = head.method == Method::HEAD;
        let keep_alive = head.keep_alive && !*end.borrow();
        let call = Call { method: head.method, path: head.path, query: head.query, headers: head.headers, body: None };
        let response = Arc::clone(service).answer(Arc::clone(peer), call).await;
        let mut progress = Progress::new(idle);
        write_head(&mut out, &response, keep_alive);
        send(transport, &mut out, response, is_head, &mut progress, service).await?;
        if !keep_alive {
            let _ = transport.shutdown().await;
            return Ok(End::Closed);
        }
    }
}

async fn send(
    transport: &mut Transport,
    out: &mut Vec<u8>,
    response: Response<Body>,
    is_head: bool,
    progress: &mut Progress,
    service: &Service,
) -> io::Result<()> {
    match response.into_body() {
        Body::Bytes(bytes) if !is_head => {
            super::metrics::add(&service.metrics.sent, bytes.len() as u64);
            if bytes.len() <= TOGETHER {
                out.extend_from_slice(&bytes);
                transport.send(out, progress).await
            } else {
                transport.send(out, progress).await?;
                transport.send(&bytes, progress).await
            }
        }
        Body::File(file) if !is_head => {
            let (file, start, end) = file.into_parts();
            super::metrics::add(&service.metrics.sent, end - start);
            transport.send(out, progress).await?;
            transport.send_file(&file, start, end, progress).await
        }
        Body::Empty | Body::Bytes(_) | Body::File(_) => transport.send(out, progress).await,
    }
}

fn write_head(out: &mut Vec<u8>, response: &Response<Body>, keep_alive: bool) {
    out.clear();
    let status = response.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let has_length = response.headers().contains_key(http::header::CONTENT_LENGTH);
    if !has_length && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        let mut line = String::new();
        let _ = write!(line, "content-length: {}\r\n", response.body().length());
        out.extend_from_slice(line.as_bytes());
    }
    date(out);
    if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// `Date` (RFC 9110, 6.6.1), written anew once a second on each thread.
fn date(out: &mut Vec<u8>) {
    thread_local! {
        static WRITTEN: std::cell::RefCell<Option<(Instant, String)>> = const { std::cell::RefCell::new(None) };
    }
    WRITTEN.with_borrow_mut(|written| {
        if written.as_ref().is_none_or(|(when, _)| when.elapsed() >= Duration::from_secs(1)) {
            *written = Some((Instant::now(), format!("date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()))));
        }
        out.extend_from_slice(written.as_ref().map_or("", |(_, line)| line.as_str()).as_bytes());
    });
}
