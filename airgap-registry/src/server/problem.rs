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
    header: Option<Box<(header::HeaderName, HeaderValue)>>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, header: None }
    }

    fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
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

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "say who you are: client certificate, or name and password")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(super::CHALLENGE))
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
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "MANIFEST_INVALID",
            format!("a manifest may have at most {limit} bytes"),
        )
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

    /// 416, with what there is.
    pub(crate) fn bad_range(message: impl Into<String>, name: header::HeaderName, there: &str) -> Self {
        let problem = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message);
        match HeaderValue::from_str(there) {
            Ok(value) => problem.with_header(name, value),
            Err(_) => problem,
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
        if let Some(header) = self.header {
            let (name, value) = *header;
            response.headers_mut().insert(name, value);
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
