//! Bodies of requests: to the end of an upload, or into memory when they are small.
//!
//! Invariant: memory does not grow with the size of a body or the slowness of a client; a body that makes progress is
//! taken to its end, one that does not is cut off, and what arrived of an upload is kept. Called by the handlers that
//! write.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::task::JoinHandle;

use super::call::Call;
use super::patience::Progress;
use super::problem::Problem;
use super::uploads::Held;
use super::{Service, metrics};
use crate::error::{Error, Result as StoreResult};
use crate::store::{Store, Upload};

/// How many bytes of a body are gathered before they are hashed and written.
const BATCH: usize = 512 << 10;

/// What a batch must observe before it is written.
struct Bounds {
    store: Arc<Store>,
    watermark: u64,
    largest: u64,
}

impl Service {
    /// Writes a body to the end of an upload. While a batch is hashed and written, the next one is received.
    pub(super) async fn receive(&self, held: Held, call: Call) -> Result<Held, Problem> {
        let largest = self.config.limits.blob_gib << 30;
        let offset = held.as_ref().map_or(0, Upload::offset);
        if call.content_length().is_some_and(|length| offset.saturating_add(length) > largest) {
            return Err(Problem::blob_too_large(largest));
        }
        let Some(mut body) = call.body else { return Ok(held) };
        let bounds = Arc::new(Bounds { store: Arc::clone(&self.store), watermark: self.watermark(), largest });
        let mut progress = Progress::new(Duration::from_secs(self.config.limits.idle_seconds));
        let mut writing: Option<JoinHandle<(Held, StoreResult<bool>)>> = None;
        let mut idle = Some(held);
        loop {
            let (batch, outcome) = gather(&mut body, &mut progress).await;
            metrics::add(&self.metrics.received, batch.iter().map(|bytes| bytes.len() as u64).sum());
            let held = match (idle.take(), writing.take()) {
                (Some(held), _) => held,
                (None, Some(writing)) => settle(writing, largest).await?,
                (None, None) => return Err(Problem::internal()),
            };
            let bounds = Arc::clone(&bounds);
            let handle = tokio::task::spawn_blocking(move || write(held, &batch, &bounds));
            match outcome {
                Outcome::More => writing = Some(handle),
                Outcome::End => return settle(handle, largest).await,
                // What arrived is kept: the client can ask how much that is, and go on.
                Outcome::Failure(problem) => {
                    settle(handle, largest).await?;
                    return Err(problem);
                }
            }
        }
    }

    /// A whole body that may have at most so many bytes.
    pub(super) async fn collect(&self, body: Option<Incoming>, limit: usize) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        let Some(mut body) = body else { return Ok(bytes) };
        let mut progress = Progress::new(Duration::from_secs(self.config.limits.idle_seconds));
        loop {
            let (batch, outcome) = gather(&mut body, &mut progress).await;
            if bytes.len() + batch.iter().map(Bytes::len).sum::<usize>() > limit {
                return Err(Problem::manifest_too_large(limit));
            }
            for part in &batch {
                bytes.extend_from_slice(part);
            }
            match outcome {
                Outcome::More => {}
                Outcome::End => return Ok(bytes),
                Outcome::Failure(problem) => return Err(problem),
            }
        }
    }
}

/// What comes after a batch.
pub(crate) enum Outcome {
    More,
    End,
    Failure(Problem),
}

/// The next parts of a body, [`BATCH`] bytes or a little more, or what there is before its end.
pub(crate) async fn gather(body: &mut Incoming, progress: &mut Progress) -> (Vec<Bytes>, Outcome) {
    let (mut batch, mut length) = (Vec::new(), 0);
    while length < BATCH {
        let frame = progress.wait(async { Ok(body.frame().await) }).await;
        match frame {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    progress.add(data.len() as u64);
                    length += data.len();
                    batch.push(data);
                }
            }
            Ok(None) => return (batch, Outcome::End),
            Ok(Some(Err(error))) => {
                let problem = Problem::broken_upload(format!("the body ended early: {error}"));
                return (batch, Outcome::Failure(problem));
            }
            Err(_) => return (batch, Outcome::Failure(Problem::too_slow())),
        }
    }
    (batch, Outcome::More)
}

async fn settle(writing: JoinHandle<(Held, StoreResult<bool>)>, largest: u64) -> Result<Held, Problem> {
    let (held, result) = writing.await.map_err(|_| Problem::internal())?;
    if result? { Ok(held) } else { Err(Problem::blob_too_large(largest)) }
}

/// Whether it was written: `false` when the blob would be too large.
fn write(mut held: Held, batch: &[Bytes], bounds: &Bounds) -> (Held, StoreResult<bool>) {
    let result = match held.as_mut() {
        Some(upload) => append(upload, batch, bounds),
        None => Err(Error::Unexpected("an upload was used after its end")),
    };
    (held, result)
}

fn append(upload: &mut Upload, batch: &[Bytes], bounds: &Bounds) -> StoreResult<bool> {
    let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
    if upload.offset().saturating_add(length) > bounds.largest {
        return Ok(false);
    }
    if length > 0 {
        bounds.store.require_free(bounds.watermark)?;
    }
    batch.iter().try_for_each(|bytes| bounds.store.append_to_upload(upload, bytes))?;
    Ok(true)
}
