//! Blobs and manifests from another registry.
//!
//! Invariant: a blob goes on behind the bytes that an earlier fetch left; it becomes visible once its digest was
//! checked. A slow peer costs time, a false one costs the bytes it sent: neither harms the store. Called by
//! [`super::Peers`] and [`super::sync`].

use std::sync::Arc;
use std::time::Duration;

use bundle::oci::{Digest, RepositoryName};
use http::{Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};

use super::Received;
use super::connection::Peer;
use crate::config::Limits;
use crate::error::{Error, Result};
use crate::manifest::MAXIMUM_MANIFEST;
use crate::server::{Outcome, Progress, gather};
use crate::store::{Begun, Fetch, Store};

/// How often it is looked whether somebody else's fetch of the same blob has ended.
const TURN: Duration = Duration::from_millis(50);

/// What a fetch must observe.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Bytes of the store's filesystem that stay free.
    pub(crate) watermark: u64,
    /// Bytes that one blob may have.
    pub(crate) largest: u64,
    /// Within which a body must go on.
    pub(crate) idle: Duration,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self {
            watermark: limits.free_space_mib << 20,
            largest: limits.blob_gib << 30,
            idle: Duration::from_secs(limits.idle_seconds),
        }
    }
}

/// Whether a peer's repository holds a blob.
pub(super) async fn has_blob(peer: &Peer, name: &RepositoryName, digest: &Digest) -> Result<bool> {
    match peer.head(&format!("/v2/{name}/blobs/{digest}")).await? {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        status => Err(refused(peer, status)),
    }
}

/// Takes a blob over into a repository that holds it at the peer, as the caller knows; `false` when the peer does not have it. `arrived` is told of each part's bytes.
///
/// # Errors
/// [`Error::WrongDigest`] when the peer sent something else: asking it again is no use. [`Error::Peer`] when it broke
/// off: the next call goes on there.
pub(super) async fn blob(
    store: &Arc<Store>,
    peer: &Peer,
    name: &RepositoryName,
    digest: &Digest,
    bounds: &Bounds,
    arrived: &(dyn Fn(u64) + Sync),
) -> Result<bool> {
    let mut may_restart = true;
    loop {
        let (own, wanted, asked) = (Arc::clone(store), name.clone(), *digest);
        let fetch = match blocking(move || own.begin_fetch(&wanted, &asked)).await? {
            Begun::Held => return Ok(true),
            Begun::Busy => {
                tokio::time::sleep(TURN).await;
                continue;
            }
            Begun::Ours(fetch) => *fetch,
        };
        let offset = fetch.offset();
        let answer = peer.get(&format!("/v2/{name}/blobs/{digest}"), offset).await?;
        let fetch = match answer.status() {
            StatusCode::OK if offset == 0 => receive(store, peer, fetch, answer, bounds, arrived).await?,
            StatusCode::PARTIAL_CONTENT if begins_at(&answer, offset) => {
                receive(store, peer, fetch, answer, bounds, arrived).await?
            }
            // All of it was there already when the fetch was cut off.
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => fetch,
            StatusCode::NOT_FOUND => {
                if offset == 0 {
                    let own = Arc::clone(store);
                    blocking(move || own.cancel_fetch(fetch)).await?;
                }
                return Ok(false);
            }
            StatusCode::OK if may_restart => {
                may_restart = false;
                let own = Arc::clone(store);
                blocking(move || own.cancel_fetch(fetch)).await?;
                continue;
            }
            status => return Err(refused(peer, status)),
        };
        let own = Arc::clone(store);
        match blocking(move || own.finish_fetch(fetch)).await {
            Ok(()) => return Ok(true),
            // What another peer had sent may have been wrong: once more from the beginning.
            Err(Error::WrongDigest { .. }) if offset > 0 && may_restart => may_restart = false,
            Err(error) => return Err(error),
        }
    }
}

fn begins_at(answer: &Response<Incoming>, offset: u64) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

fn refused(peer: &Peer, status: StatusCode) -> Error {
    let may_it = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => " (it needs a node's or an administrator's certificate)",
        _ => "",
    };
    peer.error(format!("it answered {status}{may_it}"))
}

async fn receive(
    store: &Arc<Store>,
    peer: &Peer,
    mut fetch: Fetch,
    answer: Response<Incoming>,
    bounds: &Bounds,
    arrived: &(dyn Fn(u64) + Sync),
) -> Result<Fetch> {
    let mut body = answer.into_body();
    let mut progress = Progress::new(bounds.idle);
    loop {
        let (batch, outcome) = gather(&mut body, &mut progress).await;
        let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
        if fetch.offset().saturating_add(length) > bounds.largest {
            return Err(peer.error("it sends more than a blob may have"));
        }
        let (own, watermark) = (Arc::clone(store), bounds.watermark);
        fetch = blocking(move || {
            own.require_free(watermark)?;
            batch.iter().try_for_each(|bytes| own.append_to_fetch(&mut fetch, bytes))?;
            Ok(fetch)
        })
        .await?;
        arrived(length);
        match outcome {
            Outcome::More => {}
            Outcome::End => return Ok(fetch),
            Outcome::Failure(problem) => return Err(peer.error(problem.message)),
        }
    }
}

/// A manifest by tag or digest; `None` when the peer does not have it.
pub(super) async fn manifest(peer: &Peer, name: &RepositoryName, reference: &str) -> Result<Option<Received>> {
    let answer = peer.get(&format!("/v2/{name}/manifests/{reference}"), 0).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        status => return Err(refused(peer, status)),
    }
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let media_type = text("content-type").ok_or_else(|| peer.error("a manifest came without its media type"))?;
    let said = text("docker-content-digest").ok_or_else(|| peer.error("a manifest came without its digest"))?;
    let digest: Digest = said.parse().map_err(|_| peer.error("a manifest came with a digest that is none"))?;
    let bytes = small(peer, answer, MAXIMUM_MANIFEST).await?;
    let mut hasher = bundle::oci::Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    let is_asked_for = reference.parse::<Digest>().map_or(true, |asked| asked == digest);
    if hasher.finish() != digest || !is_asked_for {
        return Err(peer.error(format!("what it sent for the manifest {reference} has another digest")));
    }
    Ok(Some(Received { digest, media_type, bytes }))
}

/// A whole answer of at most so many bytes.
pub(super) async fn small(peer: &Peer, answer: Response<Incoming>, most: usize) -> Result<Vec<u8>> {
    let body = http_body_util::Limited::new(answer.into_body(), most).collect();
    let body = tokio::time::timeout(Duration::from_mins(2), body).await;
    let body = body.map_err(|_| peer.error("its answer did not end in time"))?;
    body.map(|body| Bytes::into(body.to_bytes())).map_err(|error| peer.error(format!("its answer broke off: {error}")))
}

/// Runs what waits for the disk on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Unexpected("a worker failed"))?
}
