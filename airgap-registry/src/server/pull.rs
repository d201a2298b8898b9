//! Handlers that read: blobs, manifests, tags, referrers, the catalog.

use std::fs::File;
use std::sync::Arc;

use bundle::oci::{Digest, RepositoryName, media_type};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::answer::{self, CONTENT_DIGEST};
use super::body::{Body, FileBody};
use super::cache::Kept;
use super::problem::Problem;
use super::query::Query;
use super::range::{self, Requested};
use super::route::ManifestReference;
use super::{Service, blocking};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// What a digest names never changes; who may see it does.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

impl Service {
    pub(super) async fn read_blob(
        &self,
        name: RepositoryName,
        digest: Digest,
        headers: &HeaderMap,
        is_head: bool,
    ) -> Result<Response<Body>, Problem> {
        let found = match self.look_up(&name, &digest, is_head).await? {
            None if self.take_blob(&name, &digest, headers).await? => self.look_up(&name, &digest, is_head).await?,
            other => other,
        };
        let (size, file) = found.ok_or_else(|| Problem::unknown_blob(&digest))?;
        let tag = etag(&digest);
        if matches_etag(headers, header::IF_NONE_MATCH, &tag) {
            return not_modified(&tag);
        }
        let wanted = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        let is_current = !headers.contains_key(header::IF_RANGE) || matches_etag(headers, header::IF_RANGE, &tag);
        let (status, start, end) = match range::requested(wanted.filter(|_| is_current && !is_head), size) {
            Requested::Whole => (StatusCode::OK, 0, size),
            Requested::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
            Requested::Unsatisfiable => {
                return Err(Problem::bad_range(size));
            }
        };
        let mut response = Response::new(file.map_or(Body::Empty, |file| Body::File(FileBody::new(file, start, end))));
        *response.status_mut() = status;
        if status == StatusCode::PARTIAL_CONTENT {
            answer::set(&mut response, header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1))?;
        }
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        answer::set(&mut response, header::CONTENT_LENGTH, end - start)?;
        answer::set(&mut response, header::ETAG, tag)?;
        answer::set(&mut response, CONTENT_DIGEST, digest)?;
        response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
        Ok(response)
    }

    /// The size of a blob that the repository holds, and its file when its bytes are wanted.
    async fn look_up(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        is_head: bool,
    ) -> Result<Option<(u64, Option<File>)>, Problem> {
        if is_head {
            // Two looks at the filesystem's index: not worth another thread.
            let Some(size) = self.store.linked_blob(name, digest)? else { return Ok(None) };
            self.lease(name, digest).await?;
            return Ok(Some((size, None)));
        }
        let (store, name, digest) = (Arc::clone(&self.store), name.clone(), *digest);
        let found = blocking(move || {
            let Some(size) = store.linked_blob(&name, &digest)? else { return Ok(None) };
            Ok(Some((size, Some(store.open_blob(&digest)?))))
        });
        found.await
    }

    pub(super) async fn read_manifest(
        &self,
        name: RepositoryName,
        reference: ManifestReference,
        headers: &HeaderMap,
        is_head: bool,
    ) -> Result<Response<Body>, Problem> {
        let found = match self.find_manifest(&name, &reference).await? {
            None if self.take_manifest(&name, &reference, headers).await? => {
                self.find_manifest(&name, &reference).await?
            }
            other => other,
        };
        let Kept { file, bytes } = found.ok_or_else(|| match &reference {
            ManifestReference::Digest(digest) => Problem::unknown_manifest(digest),
            ManifestReference::Tag(tag) => Problem::unknown_manifest(tag),
        })?;
        let tag = etag(&file.digest);
        if matches_etag(headers, header::IF_NONE_MATCH, &tag) {
            return not_modified(&tag);
        }
        let mut response = Response::new(if is_head { Body::Empty } else { Body::from(bytes) });
        answer::set(&mut response, header::CONTENT_TYPE, &file.media_type)?;
        answer::set(&mut response, header::CONTENT_LENGTH, file.size)?;
        answer::set(&mut response, header::ETAG, tag)?;
        answer::set(&mut response, CONTENT_DIGEST, file.digest)?;
        if matches!(reference, ManifestReference::Digest(_)) {
            response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
        }
        Ok(response)
    }

    async fn find_manifest(
        &self,
        name: &RepositoryName,
        reference: &ManifestReference,
    ) -> Result<Option<Kept>, Problem> {
        if let Some(kept) = self.manifests.get(name, reference) {
            return Ok(Some(kept));
        }
        let (store, manifests) = (Arc::clone(&self.store), Arc::clone(&self.manifests));
        let (name, wanted) = (name.clone(), reference.clone());
        blocking(move || manifests.load(&store, &name, &wanted)).await
    }

    /// Keeps a blob from being collected while the client that asked for it goes on with its push.
    async fn lease(&self, name: &RepositoryName, digest: &Digest) -> Result<(), Problem> {
        if !self.store.lease_is_due(name, digest)? {
            return Ok(());
        }
        let (store, name, digest) = (Arc::clone(&self.store), name.clone(), *digest);
        blocking(move || store.lease(&name, &digest)).await
    }

    pub(super) async fn list_tags(&self, name: RepositoryName, query: &Query) -> Result<Response<Body>, Problem> {
        let (store, wanted) = (Arc::clone(&self.store), name.clone());
        let tags = blocking(move || Ok(if store.has_repository(&wanted) { Some(store.tags(&wanted)?) } else { None }));
        let tags = tags.await?.ok_or_else(Problem::unknown_name)?;
        let (tags, is_more) = answer::page(tags.iter().map(|tag| tag.as_str().to_owned()), query)?;
        let mut response = answer::json(&json!({ "name": name, "tags": tags }));
        if let (true, Some(last)) = (is_more, tags.last()) {
            answer::link(&mut response, &format!("/v2/{name}/tags/list"), query, last)?;
        }
        Ok(response)
    }

    pub(super) async fn catalog(&self, query: &Query) -> Result<Response<Body>, Problem> {
        let store = Arc::clone(&self.store);
        let names = blocking(move || store.repositories()).await?;
        let (names, is_more) = answer::page(names.iter().map(|name| name.as_str().to_owned()), query)?;
        let mut response = answer::json(&json!({ "repositories": names }));
        if let (true, Some(last)) = (is_more, names.last()) {
            answer::link(&mut response, "/v2/_catalog", query, last)?;
        }
        Ok(response)
    }

    pub(super) async fn list_referrers(
        &self,
        name: RepositoryName,
        subject: Digest,
        query: &Query,
    ) -> Result<Response<Body>, Problem> {
        let store = Arc::clone(&self.store);
        let referrers = blocking(move || store.referrers(&name, &subject)).await?;
        let filter = query.artifact_type.as_deref();
        let descriptors: Vec<_> = referrers
            .into_iter()
            .filter(|(_, manifest)| filter.is_none() || manifest.artifact_type.as_deref() == filter)
            .map(|(file, manifest)| {
                let mut descriptor = json!({ "mediaType": file.media_type, "digest": file.digest, "size": file.size });
                if let Some(fields) = descriptor.as_object_mut() {
                    if let Some(kind) = manifest.artifact_type {
                        fields.insert("artifactType".to_owned(), kind.into());
                    }
                    if !manifest.annotations.is_empty() {
                        fields.insert("annotations".to_owned(), json!(manifest.annotations));
                    }
                }
                descriptor
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": descriptors });
        let mut response = answer::json(&index);
        answer::set(&mut response, header::CONTENT_TYPE, media_type::OCI_INDEX)?;
        if filter.is_some() {
            response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        Ok(response)
    }
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn matches_etag(headers: &HeaderMap, name: header::HeaderName, tag: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| matches!(value.trim(), value if value == tag || value == "*"))
}

fn not_modified(tag: &str) -> Result<Response<Body>, Problem> {
    let mut response = answer::empty(StatusCode::NOT_MODIFIED);
    answer::set(&mut response, header::ETAG, tag)?;
    Ok(response)
}
