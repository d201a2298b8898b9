//! Answers that say what went wrong, in the JSON of the OCI distribution-spec ("Error Codes").
//!
//! Invariant: what happens inside (paths, causes) goes to the log, not to the client. Made by the handlers.

use bundle::oci::{Digest, ParseError};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::body::Body;
use crate::error::Error;
use crate::manifest::ManifestError;

/// A refusal.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    detail: Option<Box<Value>>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, headers: Vec::new() }
    }

    /// Adds a header to the answer; one of the same name stays beside it.
    pub(crate) fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
    }

    pub(crate) fn no_such_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "the OCI distribution specification has no such path")
    }

    pub(crate) fn method(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the path does not take this method")
            .with_header(header::ALLOW, HeaderValue::from_static(allowed))
    }

    /// 401; the caller adds what it takes to be known ([`super::Service::challenge`]).
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "say who you are: client certificate, or name and password")
    }

    /// Too many passwords wait to be compared.
    pub(crate) fn too_many_attempts() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many sign-ins at once: try again in a moment")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// Too many uploads are going on.
    pub(crate) fn too_many_uploads() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many uploads are going on")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("10"))
    }

    /// 507, before the disk is full.
    pub(crate) fn disk_nearly_full() -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "DENIED", "the registry's disk is nearly full: nothing is taken")
    }

    pub(crate) fn denied() -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", "your identity may not do this")
    }

    pub(crate) fn bad_name(error: &ParseError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", error.to_string())
    }

    pub(crate) fn bad_tag(error: &ParseError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "TAG_INVALID", error.to_string())
    }

    pub(crate) fn bad_digest(error: &ParseError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.to_string())
    }

    pub(crate) fn wrong_digest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(crate) fn unknown_name() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "the registry has no such repository")
    }

    pub(crate) fn unknown_blob(digest: &Digest) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("the repository does not hold the blob {digest}"))
    }

    pub(crate) fn unknown_manifest(what: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            format!("the repository does not hold the manifest {what}"),
        )
    }

    pub(crate) fn missing_blobs(missing: &[Digest]) -> Self {
        let mut problem = Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_BLOB_UNKNOWN",
            "the manifest refers to what the repository does not hold",
        );
        problem.detail = Some(Box::new(json!({ "digests": missing })));
        problem
    }

    pub(crate) fn bad_manifest(error: &ManifestError) -> Self {
        let status = match error {
            ManifestError::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, "MANIFEST_INVALID", error.to_string())
    }

    pub(crate) fn manifest_too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", format!("a manifest may have at most {limit} bytes"))
    }

    pub(crate) fn unknown_upload() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
    }

    pub(crate) fn busy_upload() -> Self {
        Self::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", "another request is writing to this upload")
    }

    pub(crate) fn broken_upload(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    pub(crate) fn wrong_size(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message)
    }

    /// 414: more `tag` parameters than are taken.
    pub(crate) fn too_many_tags(limit: usize) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "TAG_INVALID", format!("at most {limit} tags may be given at once"))
    }

    pub(crate) fn blob_too_large(limit: u64) -> Self {
        let message = format!("a blob may have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
    }

    /// 416: the blob has no such bytes.
    pub(crate) fn bad_range(size: u64) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", "the blob has no such bytes")
            .with_text(header::CONTENT_RANGE, &format!("bytes */{size}"))
    }

    /// 416: the chunk does not follow what arrived; says where the upload goes on.
    pub(crate) fn out_of_order(message: impl Into<String>, location: &str, offset: u64) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
            .with_text(header::LOCATION, location)
            .with_text(header::RANGE, &format!("0-{}", offset.saturating_sub(1)))
    }

    fn with_text(self, name: header::HeaderName, text: &str) -> Self {
        match HeaderValue::from_str(text) {
            Ok(value) => self.with_header(name, value),
            Err(_) => self,
        }
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", "no byte of the body arrived for too long")
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the registry failed; its log says why")
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let (Some(detail), Some(error)) = (self.detail, error.as_object_mut()) {
            error.insert("detail".to_owned(), *detail);
        }
        let body = json!({ "errors": [error] }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::WrongDigest { expected, actual, size, .. } => {
                Self::wrong_digest(format!("the {size} bytes that arrived have the digest {actual}, not {expected}"))
            }
            Error::DiskNearlyFull { .. } => {
                tracing::error!(%error, "a push was refused");
                Self::disk_nearly_full()
            }
            Error::Io { source, .. }
                if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) =>
            {
                tracing::error!(%error, "the store is full");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", "the registry's disk is full")
            }
            _ => {
                tracing::error!(%error, "a request failed");
                Self::internal()
            }
        }
    }
}
