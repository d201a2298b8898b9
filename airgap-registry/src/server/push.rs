//! Handlers that write: uploads of blobs, manifests, deletion.
//!
//! Invariant: 201 is answered after bytes and names are durable. Bodies go to the disk in batches; memory does not
//! grow with their size.

use std::sync::Arc;

use bundle::oci::{Algorithm, Digest, Hasher, RepositoryName, Tag};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::answer::{self, CONTENT_DIGEST};
use super::body::Body;
use super::call::Call;
use super::problem::Problem;
use super::query::Query;
use super::route::ManifestReference;
use super::uploads::Held;
use super::{Asker, Service, blocking, range};
use crate::identity::Permission;
use crate::manifest::{MAXIMUM_MANIFEST, Manifest};
use crate::store::{PutManifest, UploadId};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// Asks clients for chunks of a useful size; smaller ones are taken all the same.
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
const CHUNK_MIN: HeaderValue = HeaderValue::from_static("65536");
/// The most `tag` parameters of one request (OCI distribution-spec, "Pushing Manifests with Tags": at least 10).
const MAXIMUM_TAGS: usize = 16;

impl Service {
    pub(super) async fn start_upload(
        &self,
        name: RepositoryName,
        query: &Query,
        call: Call,
        asker: &Asker,
    ) -> Result<Response<Body>, Problem> {
        if let Some(digest) = &query.mount {
            let digest = parse_digest(digest)?;
            if self.mount(&name, digest, query, asker).await? {
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
        let (watermark, most) = (self.watermark(), self.config.limits.uploads);
        let upload = blocking(move || {
            store.require_free(watermark)?;
            if store.uploads()? >= most { Ok(None) } else { store.begin_upload(&repository, algorithm).map(Some) }
        });
        let upload = upload.await?.ok_or_else(Problem::too_many_uploads)?;
        let id = upload.id().clone();
        self.uploads.insert(upload);
        let Some(expected) = expected else {
            let mut response = accepted(StatusCode::ACCEPTED, &name, &id, 0)?;
            response.headers_mut().insert(CHUNK_MIN_LENGTH, CHUNK_MIN);
            return Ok(response);
        };
        let held = self.uploads.take(&self.store, &name, &id).await?;
        match self.receive(held, call).await {
            Ok(held) => self.finish(held, &name, &id, expected).await,
            Err(problem) => {
                // Its name was told to nobody who could go on with it.
                let _ = self.cancel_upload(name, id).await;
                Err(problem)
            }
        }
    }

    /// Cross-repository mount, from a repository that the asker may pull from. Without `from` any of those will do.
    async fn mount(
        &self,
        name: &RepositoryName,
        digest: Digest,
        query: &Query,
        asker: &Asker,
    ) -> Result<bool, Problem> {
        let from: Option<RepositoryName> = match &query.from {
            Some(from) => match from.parse() {
                Ok(from) => Some(from),
                Err(error) => return Err(Problem::bad_name(&error)),
            },
            None => None,
        };
        let readable = self.readable(asker);
        let (store, name) = (Arc::clone(&self.store), name.clone());
        blocking(move || {
            let may_read = match from {
                Some(from) => readable(&from) && store.linked_blob(&from, &digest)?.is_some(),
                None => store.is_linked_in(&digest, &*readable)?,
            };
            if may_read { store.link_blob(&name, &digest) } else { Ok(false) }
        })
        .await
    }

    /// Which repositories the asker may pull from.
    fn readable(&self, asker: &Asker) -> Box<dyn Fn(&RepositoryName) -> bool + Send> {
        let (rights, asker) = (self.rights(), asker.clone());
        Box::new(move |name| asker.may(&rights, Permission::Pull, Some(name)))
    }

    pub(super) async fn continue_upload(
        &self,
        name: RepositoryName,
        id: UploadId,
        call: Call,
    ) -> Result<Response<Body>, Problem> {
        let held = self.uploads.take(&self.store, &name, &id).await?;
        check_order(&held, &call)?;
        let held = self.receive(held, call).await?;
        accepted(StatusCode::ACCEPTED, &name, &id, offset(&held))
    }

    pub(super) async fn finish_upload(
        &self,
        name: RepositoryName,
        id: UploadId,
        query: &Query,
        call: Call,
    ) -> Result<Response<Body>, Problem> {
        let expected =
            query.digest.as_deref().ok_or_else(|| Problem::wrong_digest("the parameter digest is missing"))?;
        let expected = parse_digest(expected)?;
        let held = self.uploads.take(&self.store, &name, &id).await?;
        check_order(&held, &call)?;
        let held = self.receive(held, call).await?;
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
        call: Call,
        asker: &Asker,
    ) -> Result<Response<Body>, Problem> {
        let sent_as = call.header(header::CONTENT_TYPE);
        let sent_as = sent_as.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_owned());
        let (promised, tags) = named(&reference, query)?;
        if call.content_length().is_some_and(|length| length > MAXIMUM_MANIFEST as u64) {
            return Err(Problem::manifest_too_large(MAXIMUM_MANIFEST));
        }
        let bytes = self.collect(call.body, MAXIMUM_MANIFEST).await?;
        let manifest = Manifest::parse(&bytes, sent_as.as_deref()).map_err(|error| Problem::bad_manifest(&error))?;
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
        let (store, is_sparse_taken, watermark) =
            (Arc::clone(&self.store), self.config.sparse_manifests, self.watermark());
        let (readable, stored_tags) = (self.readable(asker), tags.clone());
        let outcome = blocking(move || {
            store.require_free(watermark)?;
            // A blob of another repository becomes one of this, as by a mount, when the asker may read it there.
            store.adopt_blobs(&name, &manifest, &*readable)?;
            store.put_manifest(&name, &digest, &bytes, &manifest, &stored_tags, is_sparse_taken)
        });
        let missing = match outcome.await? {
            PutManifest::Missing(missing) => return Err(Problem::missing_blobs(&missing)),
            PutManifest::Stored { missing } => missing,
        };
        let mut response = created(&location, &digest)?;
        if let Some(subject) = subject {
            answer::set(&mut response, OCI_SUBJECT, subject)?;
        }
        if matches!(reference, ManifestReference::Digest(_)) {
            for tag in tags {
                let value = HeaderValue::from_str(tag.as_str()).map_err(|_| Problem::internal())?;
                response.headers_mut().append(OCI_TAG, value);
            }
        }
        if missing > 0 {
            answer::warn(&mut response, &format!("the repository does not hold {missing} of the manifest's blobs"))?;
        }
        Ok(response)
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

fn offset(held: &Held) -> u64 {
    held.as_ref().map_or(0, crate::store::Upload::offset)
}

/// A chunk that says where it belongs must follow the last byte that arrived.
fn check_order(held: &Held, call: &Call) -> Result<(), Problem> {
    let Some(range) = call.headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let Some(upload) = held.as_ref() else { return Err(Problem::unknown_upload()) };
    let location = format!("/v2/{}/blobs/uploads/{}", upload.repository(), upload.id());
    let refuse = |why: String| Err(Problem::out_of_order(why, &location, upload.offset()));
    let Some((first, last)) = range.to_str().ok().and_then(range::chunk) else {
        return refuse("Content-Range must be FIRST-LAST".to_owned());
    };
    if first != upload.offset() {
        return refuse(format!("the chunk begins at byte {first}, the upload goes on at {}", upload.offset()));
    }
    match call.content_length() {
        Some(length) if last - first != length.wrapping_sub(1) => {
            Err(Problem::wrong_size("Content-Range and Content-Length contradict each other"))
        }
        _ => Ok(()),
    }
}

/// The digest that a manifest must have, when one was named, and the tags that it is to get.
fn named(reference: &ManifestReference, query: &Query) -> Result<(Option<Digest>, Vec<Tag>), Problem> {
    if query.tags.len() > MAXIMUM_TAGS {
        return Err(Problem::too_many_tags(MAXIMUM_TAGS));
    }
    let mut tags = query
        .tags
        .iter()
        .map(|tag| tag.parse().map_err(|error| Problem::bad_tag(&error)))
        .collect::<Result<Vec<Tag>, _>>()?;
    let promised = match reference {
        ManifestReference::Digest(digest) => Some(*digest),
        ManifestReference::Tag(tag) => {
            tags.push(tag.clone());
            query.digest.as_deref().map(parse_digest).transpose()?
        }
    };
    Ok((promised, tags))
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
