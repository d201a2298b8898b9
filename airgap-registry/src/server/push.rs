//! Handlers that write: uploads of blobs, manifests, deletion.
//!
//! Invariant: 201 is answered after bytes and names are durable. Bodies go to the disk in batches; memory does not
//! grow with their size.

use std::sync::Arc;

use bundle::oci::{Algorithm, Digest, Hasher, RepositoryName};
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::task::JoinHandle;

use super::answer::{self, CONTENT_DIGEST};
use super::body::Body;
use super::problem::Problem;
use super::route::{ManifestReference, Query};
use super::uploads::Held;
use super::{IDLE, Service, blocking, range};
use crate::error::{Error, Result as StoreResult};
use crate::manifest::{MAXIMUM_MANIFEST, Manifest};
use crate::store::{PutManifest, UploadId};

/// How many bytes of a body are gathered before they are hashed and written.
const BATCH: usize = 512 << 10;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl Service {
    pub(super) async fn start_upload(
        &self,
        name: RepositoryName,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        if let Some(digest) = &query.mount {
            let digest = parse_digest(digest)?;
            if self.mount(&name, digest, query).await? {
                return created(&format!("/v2/{name}/blobs/{digest}"), &digest);
            }
        }
        let expected = query.digest.as_deref().map(parse_digest).transpose()?;
        let algorithm = match query.digest_algorithm.as_deref() {
            None => expected.map_or(Algorithm::Sha256, |digest| digest.algorithm()),
            Some("sha256") => Algorithm::Sha256,
            Some("sha512") => Algorithm::Sha512,
            Some(_) => return Err(Problem::wrong_digest("digest-algorithm may be sha256 or sha512")),
        };
        let (store, repository) = (Arc::clone(&self.store), name.clone());
        let upload = blocking(move || store.begin_upload(&repository, algorithm)).await?;
        let id = upload.id().clone();
        self.uploads.insert(upload);
        match expected {
            Some(expected) => {
                let held = self.uploads.take(&self.store, &name, &id).await?;
                let held = receive(held, request.into_body()).await?;
                self.finish(held, &name, &id, expected).await
            }
            None => accepted(StatusCode::ACCEPTED, &name, &id, 0),
        }
    }

    /// Cross-repository mount. Without `from` any repository will do: who may push may read all of them.
    async fn mount(&self, name: &RepositoryName, digest: Digest, query: &Query) -> Result<bool, Problem> {
        let from: Option<RepositoryName> = match &query.from {
            Some(from) => match from.parse() {
                Ok(from) => Some(from),
                Err(error) => return Err(Problem::bad_name(&error)),
            },
            None => None,
        };
        let (store, name) = (Arc::clone(&self.store), name.clone());
        blocking(move || match from {
            Some(from) if store.linked_blob(&from, &digest)?.is_none() => Ok(false),
            _ => store.link_blob(&name, &digest),
        })
        .await
    }

    pub(super) async fn continue_upload(
        &self,
        name: RepositoryName,
        id: UploadId,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let held = self.uploads.take(&self.store, &name, &id).await?;
        check_order(&held, &request)?;
        let held = receive(held, request.into_body()).await?;
        accepted(StatusCode::ACCEPTED, &name, &id, offset(&held))
    }

    pub(super) async fn finish_upload(
        &self,
        name: RepositoryName,
        id: UploadId,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let expected =
            query.digest.as_deref().ok_or_else(|| Problem::wrong_digest("the parameter digest is missing"))?;
        let expected = parse_digest(expected)?;
        let held = self.uploads.take(&self.store, &name, &id).await?;
        check_order(&held, &request)?;
        let held = receive(held, request.into_body()).await?;
        self.finish(held, &name, &id, expected).await
    }

    async fn finish(
        &self,
        mut held: Held,
        name: &RepositoryName,
        id: &UploadId,
        expected: Digest,
    ) -> Result<Response<Body>, Problem> {
        let upload = held.take().ok_or_else(Problem::unknown_upload)?;
        let (store, uploads, id) = (Arc::clone(&self.store), Arc::clone(&self.uploads), id.clone());
        blocking(move || {
            let result = store.finish_upload(upload, &expected);
            // Whatever came of it, what was in hand is used up; after a failure of the disk the client can go on with
            // what lies there. Not before the end: another request must not open a file that is being published.
            uploads.forget(&id);
            drop(held);
            result
        })
        .await?;
        created(&format!("/v2/{name}/blobs/{expected}"), &expected)
    }

    pub(super) async fn upload_status(&self, name: RepositoryName, id: UploadId) -> Result<Response<Body>, Problem> {
        let held = self.uploads.take(&self.store, &name, &id).await?;
        accepted(StatusCode::NO_CONTENT, &name, &id, offset(&held))
    }

    pub(super) async fn cancel_upload(&self, name: RepositoryName, id: UploadId) -> Result<Response<Body>, Problem> {
        let mut held = self.uploads.take(&self.store, &name, &id).await?;
        let upload = held.take().ok_or_else(Problem::unknown_upload)?;
        let (store, uploads) = (Arc::clone(&self.store), Arc::clone(&self.uploads));
        blocking(move || {
            let result = store.cancel_upload(upload);
            uploads.forget(&id);
            drop(held);
            result
        })
        .await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn write_manifest(
        &self,
        name: RepositoryName,
        reference: ManifestReference,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let sent_as = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let sent_as = sent_as.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_owned());
        if content_length(&request).is_some_and(|length| length > MAXIMUM_MANIFEST as u64) {
            return Err(Problem::manifest_too_large(MAXIMUM_MANIFEST));
        }
        let bytes = collect(request.into_body(), MAXIMUM_MANIFEST).await?;
        let manifest = Manifest::parse(&bytes, sent_as.as_deref()).map_err(|error| Problem::bad_manifest(&error))?;
        let promised = match &reference {
            ManifestReference::Digest(digest) => Some(*digest),
            ManifestReference::Tag(_) => query.digest.as_deref().map(parse_digest).transpose()?,
        };
        let mut hasher = Hasher::new(promised.map_or(Algorithm::Sha256, |digest| digest.algorithm()));
        hasher.update(&bytes);
        let digest = hasher.finish();
        if let Some(promised) = promised.filter(|promised| *promised != digest) {
            return Err(Problem::wrong_digest(format!("the manifest has the digest {digest}, not {promised}")));
        }
        let subject = manifest.subject.as_ref().map(|subject| subject.digest);
        let location = match &reference {
            ManifestReference::Digest(digest) => format!("/v2/{name}/manifests/{digest}"),
            ManifestReference::Tag(tag) => format!("/v2/{name}/manifests/{tag}"),
        };
        let store = Arc::clone(&self.store);
        let outcome = blocking(move || {
            let tag = match &reference {
                ManifestReference::Tag(tag) => Some(tag),
                ManifestReference::Digest(_) => None,
            };
            store.put_manifest(&name, &digest, &bytes, &manifest, tag)
        });
        match outcome.await? {
            PutManifest::Missing(missing) => Err(Problem::missing_blobs(&missing)),
            PutManifest::Stored => {
                let mut response = created(&location, &digest)?;
                if let Some(subject) = subject {
                    answer::set(&mut response, OCI_SUBJECT, subject)?;
                }
                Ok(response)
            }
        }
    }

    pub(super) async fn delete_manifest(
        &self,
        name: RepositoryName,
        reference: ManifestReference,
    ) -> Result<Response<Body>, Problem> {
        let store = Arc::clone(&self.store);
        let shown = match &reference {
            ManifestReference::Digest(digest) => digest.to_string(),
            ManifestReference::Tag(tag) => tag.to_string(),
        };
        let was_there = blocking(move || match &reference {
            ManifestReference::Digest(digest) => store.delete_manifest(&name, digest),
            ManifestReference::Tag(tag) => store.delete_tag(&name, tag),
        });
        if was_there.await? { Ok(answer::empty(StatusCode::ACCEPTED)) } else { Err(Problem::unknown_manifest(shown)) }
    }

    pub(super) async fn delete_blob(&self, name: RepositoryName, digest: Digest) -> Result<Response<Body>, Problem> {
        let store = Arc::clone(&self.store);
        let was_there = blocking(move || store.unlink_blob(&name, &digest)).await?;
        if was_there { Ok(answer::empty(StatusCode::ACCEPTED)) } else { Err(Problem::unknown_blob(&digest)) }
    }
}

/// Writes a body to the end of an upload. While a batch is hashed and written, the next one is received.
async fn receive(held: Held, mut body: Incoming) -> Result<Held, Problem> {
    let mut writing: Option<JoinHandle<(Held, StoreResult<()>)>> = None;
    let mut idle = Some(held);
    let mut failure = None;
    loop {
        let mut batch: Vec<Bytes> = Vec::new();
        let mut length = 0;
        let mut is_end = false;
        while length < BATCH {
            match tokio::time::timeout(IDLE, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        length += data.len();
                        batch.push(data);
                    }
                }
                Ok(None) => {
                    is_end = true;
                    break;
                }
                // What arrived is kept: the client can ask how much that is, and go on.
                Ok(Some(Err(error))) => {
                    failure = Some(Problem::broken_upload(format!("the body ended early: {error}")));
                    break;
                }
                Err(_) => {
                    failure = Some(Problem::too_slow());
                    break;
                }
            }
        }
        let held = match (idle.take(), writing.take()) {
            (Some(held), _) => held,
            (None, Some(writing)) => settle(writing).await?,
            (None, None) => return Err(Problem::internal()),
        };
        let is_last = is_end || failure.is_some();
        let handle = tokio::task::spawn_blocking(move || write(held, &batch));
        if is_last {
            let held = settle(handle).await?;
            return match failure {
                None => Ok(held),
                Some(problem) => Err(problem),
            };
        }
        writing = Some(handle);
    }
}

async fn settle(writing: JoinHandle<(Held, StoreResult<()>)>) -> Result<Held, Problem> {
    let (held, result) = writing.await.map_err(|_| Problem::internal())?;
    result?;
    Ok(held)
}

fn write(mut held: Held, batch: &[Bytes]) -> (Held, StoreResult<()>) {
    let result = match held.as_mut() {
        Some(upload) => batch.iter().try_for_each(|bytes| upload.append(bytes)),
        None => Err(Error::Unexpected("an upload was used after its end")),
    };
    (held, result)
}

fn offset(held: &Held) -> u64 {
    held.as_ref().map_or(0, crate::store::Upload::offset)
}

/// A chunk that says where it belongs must follow the last byte that arrived.
fn check_order(held: &Held, request: &Request<Incoming>) -> Result<(), Problem> {
    let Some(header) = request.headers().get(header::CONTENT_RANGE) else { return Ok(()) };
    let Some((first, last)) = header.to_str().ok().and_then(range::chunk) else {
        return Err(Problem::broken_upload("Content-Range must be FIRST-LAST"));
    };
    let offset = offset(held);
    if first != offset {
        let there = format!("0-{}", offset.saturating_sub(1));
        return Err(Problem::bad_range(
            format!("the chunk begins at byte {first}, the upload goes on at {offset}"),
            header::RANGE,
            &there,
        ));
    }
    match content_length(request) {
        Some(length) if last - first != length.wrapping_sub(1) => {
            Err(Problem::broken_upload("Content-Range and Content-Length contradict each other"))
        }
        _ => Ok(()),
    }
}

fn content_length(request: &Request<Incoming>) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(IDLE, body.frame()).await {
            Err(_) => return Err(Problem::too_slow()),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(error))) => return Err(Problem::broken_upload(format!("the body ended early: {error}"))),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    if bytes.len() + data.len() > limit {
                        return Err(Problem::manifest_too_large(limit));
                    }
                    bytes.extend_from_slice(&data);
                }
            }
        }
    }
}

fn parse_digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|error| Problem::bad_digest(&error))
}

fn created(location: &str, digest: &Digest) -> Result<Response<Body>, Problem> {
    let mut response = answer::empty(StatusCode::CREATED);
    answer::set(&mut response, header::LOCATION, location)?;
    answer::set(&mut response, CONTENT_DIGEST, digest)?;
    Ok(response)
}

fn accepted(status: StatusCode, name: &RepositoryName, id: &UploadId, offset: u64) -> Result<Response<Body>, Problem> {
    let mut response = answer::empty(status);
    answer::set(&mut response, header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}"))?;
    answer::set(&mut response, header::RANGE, format!("0-{}", offset.saturating_sub(1)))?;
    answer::set(&mut response, UPLOAD_ID, id)?;
    Ok(response)
}
