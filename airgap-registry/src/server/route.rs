//! What a request asks for. Invariant: [`Endpoint::parse`] is pure, and all names in an endpoint were parsed, so that
//! no text of a request reaches the filesystem any other way. Called for each request; the "end-N" of the OCI
//! distribution-spec ("Endpoints") stand at the variants.

use bundle::oci::{Digest, RepositoryName, Tag};
use http::Method;

use super::problem::Problem;
use super::query::percent_decode;
use crate::identity::Permission;
use crate::store::UploadId;

/// The last part of a manifest's path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ManifestReference {
    Tag(Tag),
    Digest(Digest),
}

/// An operation of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `GET /healthz`: the process answers.
    Health,
    /// `GET /readyz`: the store answers.
    Ready,
    /// end-1 `GET /v2/`
    Base,
    /// `GET /v2/_catalog`
    Catalog,
    /// `GET /v2/_cofferdam/content`: all of it, for a registry that follows this one (OCI distribution-spec,
    /// "Extensions": a name with an underscore before it is no repository)
    Content,
    /// end-2 `GET, HEAD …/blobs/DIGEST`
    ReadBlob(RepositoryName, Digest),
    /// end-3 `GET, HEAD …/manifests/REFERENCE`
    ReadManifest(RepositoryName, ManifestReference),
    /// end-4a, end-4b, end-11 `POST …/blobs/uploads/`
    StartUpload(RepositoryName),
    /// end-5 `PATCH …/blobs/uploads/ID`
    ContinueUpload(RepositoryName, UploadId),
    /// end-6 `PUT …/blobs/uploads/ID`
    FinishUpload(RepositoryName, UploadId),
    /// end-13 `GET …/blobs/uploads/ID`
    UploadStatus(RepositoryName, UploadId),
    /// `DELETE …/blobs/uploads/ID`
    CancelUpload(RepositoryName, UploadId),
    /// end-7 `PUT …/manifests/REFERENCE`
    WriteManifest(RepositoryName, ManifestReference),
    /// end-8 `GET …/tags/list`
    ListTags(RepositoryName),
    /// end-9 `DELETE …/manifests/REFERENCE`
    DeleteManifest(RepositoryName, ManifestReference),
    /// end-10 `DELETE …/blobs/DIGEST`
    DeleteBlob(RepositoryName, Digest),
    /// end-12 `GET …/referrers/DIGEST`
    ListReferrers(RepositoryName, Digest),
    /// `GET /token`
    Token,
    /// `GET /metrics`
    Metrics,
}

impl Endpoint {
    /// Takes apart method and path of a request. The path may be percent-encoded.
    pub(crate) fn parse(method: &Method, path: &str) -> Result<Self, Problem> {
        let path = percent_decode(path).ok_or_else(|| Problem::bad_request("the path is not valid UTF-8"))?;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match path.as_str() {
            "/healthz" if reads => return Ok(Self::Health),
            "/readyz" if reads => return Ok(Self::Ready),
            "/v2" | "/v2/" if reads => return Ok(Self::Base),
            "/v2/_catalog" if reads => return Ok(Self::Catalog),
            "/v2/_cofferdam/content" if reads => return Ok(Self::Content),
            "/token" if *method == Method::GET => return Ok(Self::Token),
            "/metrics" if reads => return Ok(Self::Metrics),
            "/healthz" | "/readyz" | "/v2" | "/v2/" | "/v2/_catalog" | "/v2/_cofferdam/content" | "/metrics" => {
                return Err(Problem::method("GET, HEAD"));
            }
            "/token" => return Err(Problem::method("GET")),
            _ => {}
        }
        let rest = path.strip_prefix("/v2/").ok_or_else(Problem::no_such_page)?;
        // From the end, because the words in the middle may also be components of a repository's name.
        let mut parts = rest.rsplitn(4, '/');
        let (last, second, third, fourth) = (parts.next(), parts.next(), parts.next(), parts.next());
        match (fourth, third, second, last) {
            (Some(name), Some("blobs"), Some("uploads"), Some(id)) => Self::of_upload(method, name, id),
            (_, Some(_), Some("manifests"), Some(reference)) => {
                let name = repository(head(rest, &["manifests", reference]))?;
                let reference = manifest_reference(reference)?;
                match *method {
                    Method::GET | Method::HEAD => Ok(Self::ReadManifest(name, reference)),
                    Method::PUT => Ok(Self::WriteManifest(name, reference)),
                    Method::DELETE => Ok(Self::DeleteManifest(name, reference)),
                    _ => Err(Problem::method("GET, HEAD, PUT, DELETE")),
                }
            }
            (_, Some(_), Some("blobs"), Some("uploads")) => {
                Self::of_upload(method, head(rest, &["blobs", "uploads"]), "")
            }
            (_, Some(_), Some("blobs"), Some(digest)) => {
                let name = repository(head(rest, &["blobs", digest]))?;
                let digest = parse_digest(digest)?;
                match *method {
                    Method::GET | Method::HEAD => Ok(Self::ReadBlob(name, digest)),
                    Method::DELETE => Ok(Self::DeleteBlob(name, digest)),
                    _ => Err(Problem::method("GET, HEAD, DELETE")),
                }
            }
            (_, Some(_), Some("tags"), Some("list")) => {
                let name = repository(head(rest, &["tags", "list"]))?;
                if reads { Ok(Self::ListTags(name)) } else { Err(Problem::method("GET, HEAD")) }
            }
            (_, Some(_), Some("referrers"), Some(digest)) => {
                let name = repository(head(rest, &["referrers", digest]))?;
                let digest = parse_digest(digest)?;
                if reads { Ok(Self::ListReferrers(name, digest)) } else { Err(Problem::method("GET, HEAD")) }
            }
            _ => Err(Problem::no_such_page()),
        }
    }

    fn of_upload(method: &Method, name: &str, id: &str) -> Result<Self, Problem> {
        let name = repository(name)?;
        if id.is_empty() {
            return if *method == Method::POST { Ok(Self::StartUpload(name)) } else { Err(Problem::method("POST")) };
        }
        let id = id.parse().map_err(|()| Problem::unknown_upload())?;
        match *method {
            Method::GET | Method::HEAD => Ok(Self::UploadStatus(name, id)),
            Method::PATCH => Ok(Self::ContinueUpload(name, id)),
            Method::PUT => Ok(Self::FinishUpload(name, id)),
            Method::DELETE => Ok(Self::CancelUpload(name, id)),
            _ => Err(Problem::method("GET, PATCH, PUT, DELETE")),
        }
    }

    /// What the asker must be allowed.
    pub(crate) fn permission(&self) -> Permission {
        match self {
            Self::Health | Self::Ready | Self::Token => Permission::Nothing,
            Self::Base => Permission::Enter,
            Self::Metrics | Self::Content => Permission::Observe,
            Self::ReadBlob(..) | Self::ReadManifest(..) | Self::ListTags(_) | Self::ListReferrers(..) => {
                Permission::Pull
            }
            Self::StartUpload(_)
            | Self::ContinueUpload(..)
            | Self::FinishUpload(..)
            | Self::UploadStatus(..)
            | Self::CancelUpload(..)
            | Self::WriteManifest(..) => Permission::Push,
            Self::DeleteManifest(..) | Self::DeleteBlob(..) => Permission::Delete,
            Self::Catalog => Permission::Administer,
        }
    }

    /// The word for it in the audit log.
    pub(crate) fn action(&self) -> &'static str {
        match self {
            Self::Health | Self::Ready => "health",
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Content => "content",
            Self::ReadBlob(..) => "pull-blob",
            Self::ReadManifest(..) => "pull-manifest",
            Self::StartUpload(_) => "start-upload",
            Self::ContinueUpload(..) => "continue-upload",
            Self::FinishUpload(..) => "finish-upload",
            Self::UploadStatus(..) => "upload-status",
            Self::CancelUpload(..) => "cancel-upload",
            Self::WriteManifest(..) => "push-manifest",
            Self::ListTags(_) => "list-tags",
            Self::DeleteManifest(..) => "delete-manifest",
            Self::DeleteBlob(..) => "delete-blob",
            Self::ListReferrers(..) => "list-referrers",
            Self::Token => "token",
            Self::Metrics => "metrics",
        }
    }

    /// The repository it is about.
    pub(crate) fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Health | Self::Ready | Self::Base | Self::Catalog | Self::Content | Self::Token | Self::Metrics => {
                None
            }
            Self::ReadBlob(name, _)
            | Self::ReadManifest(name, _)
            | Self::StartUpload(name)
            | Self::ContinueUpload(name, _)
            | Self::FinishUpload(name, _)
            | Self::UploadStatus(name, _)
            | Self::CancelUpload(name, _)
            | Self::WriteManifest(name, _)
            | Self::ListTags(name)
            | Self::DeleteManifest(name, _)
            | Self::DeleteBlob(name, _)
            | Self::ListReferrers(name, _) => Some(name),
        }
    }

    /// The same operation on another repository.
    #[must_use]
    pub(crate) fn moved_to(self, name: RepositoryName) -> Self {
        match self {
            Self::Health | Self::Ready | Self::Base | Self::Catalog | Self::Content | Self::Token | Self::Metrics => {
                self
            }
            Self::ReadBlob(_, digest) => Self::ReadBlob(name, digest),
            Self::ReadManifest(_, reference) => Self::ReadManifest(name, reference),
            Self::StartUpload(_) => Self::StartUpload(name),
            Self::ContinueUpload(_, id) => Self::ContinueUpload(name, id),
            Self::FinishUpload(_, id) => Self::FinishUpload(name, id),
            Self::UploadStatus(_, id) => Self::UploadStatus(name, id),
            Self::CancelUpload(_, id) => Self::CancelUpload(name, id),
            Self::WriteManifest(_, reference) => Self::WriteManifest(name, reference),
            Self::ListTags(_) => Self::ListTags(name),
            Self::DeleteManifest(_, reference) => Self::DeleteManifest(name, reference),
            Self::DeleteBlob(_, digest) => Self::DeleteBlob(name, digest),
            Self::ListReferrers(_, digest) => Self::ListReferrers(name, digest),
        }
    }
}

/// What stands before `/TAIL/TAIL`.
fn head<'a>(rest: &'a str, tail: &[&str; 2]) -> &'a str {
    let length = tail.iter().map(|part| part.len() + 1).sum::<usize>();
    rest.len().checked_sub(length).and_then(|end| rest.get(..end)).unwrap_or_default()
}

fn repository(name: &str) -> Result<RepositoryName, Problem> {
    name.parse().map_err(|error: bundle::oci::ParseError| Problem::bad_name(&error))
}

fn parse_digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|error: bundle::oci::ParseError| Problem::bad_digest(&error))
}

fn manifest_reference(text: &str) -> Result<ManifestReference, Problem> {
    if text.contains(':') {
        return parse_digest(text).map(ManifestReference::Digest);
    }
    text.parse().map(ManifestReference::Tag).map_err(|error: bundle::oci::ParseError| Problem::bad_tag(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_endpoints_of_the_specification() {
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        let digest: Digest = DIGEST.parse().unwrap();
        let tag = |text: &str| ManifestReference::Tag(text.parse().unwrap());
        let id = "0123456789abcdef0123456789abcdef";
        let upload: UploadId = id.parse().unwrap();
        let encoded = DIGEST.replace(':', "%3A");
        for (method, path, endpoint) in [
            (Method::GET, "/v2/".to_owned(), Endpoint::Base),
            (Method::GET, "/v2".to_owned(), Endpoint::Base),
            (Method::HEAD, format!("/v2/a/blobs/{DIGEST}"), Endpoint::ReadBlob(name("a"), digest)),
            (Method::GET, format!("/v2/a/b/c/blobs/{encoded}"), Endpoint::ReadBlob(name("a/b/c"), digest)),
            (Method::GET, "/v2/a/manifests/v1".to_owned(), Endpoint::ReadManifest(name("a"), tag("v1"))),
            (
                Method::GET,
                "/v2/a/manifests/manifests/latest".to_owned(),
                Endpoint::ReadManifest(name("a/manifests"), tag("latest")),
            ),
            (
                Method::GET,
                "/v2/a/blobs/uploads/manifests/x".to_owned(),
                Endpoint::ReadManifest(name("a/blobs/uploads"), tag("x")),
            ),
            (Method::GET, "/v2/a/blobs/tags/list".to_owned(), Endpoint::ListTags(name("a/blobs"))),
            (Method::POST, "/v2/k8s.gcr.io/p/blobs/uploads/".to_owned(), Endpoint::StartUpload(name("k8s.gcr.io/p"))),
            (Method::POST, "/v2/a/blobs/uploads".to_owned(), Endpoint::StartUpload(name("a"))),
            (Method::PATCH, format!("/v2/a/blobs/uploads/{id}"), Endpoint::ContinueUpload(name("a"), upload.clone())),
            (Method::PUT, format!("/v2/a/blobs/uploads/{id}"), Endpoint::FinishUpload(name("a"), upload)),
            (Method::DELETE, "/v2/a/manifests/v1".to_owned(), Endpoint::DeleteManifest(name("a"), tag("v1"))),
            (Method::GET, format!("/v2/a/referrers/{DIGEST}"), Endpoint::ListReferrers(name("a"), digest)),
        ] {
            assert_eq!(Endpoint::parse(&method, &path).unwrap(), endpoint, "{method} {path}");
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        for (method, path, status) in [
            (Method::GET, "/", 404),
            (Method::GET, "/v1/", 404),
            (Method::GET, "/v2/a", 404),
            (Method::GET, "/v2/a/tags", 404),
            (Method::GET, "/v2//manifests/x", 400),
            (Method::GET, "/v2/manifests/x", 404),
            (Method::GET, "/v2/../manifests/x", 400),
            (Method::GET, "/v2/%2e%2e/%2e%2e/etc/manifests/x", 400),
            (Method::GET, "/v2/a/../b/manifests/x", 400),
            (Method::GET, "/v2/a/manifests/..", 400),
            (Method::GET, "/v2/a/manifests/%2e%2e%2f%2e%2e%2fetc", 404),
            (Method::GET, "/v2/_blobs/manifests/x", 400),
            (Method::GET, "/v2/A/manifests/x", 400),
            (Method::GET, "/v2/a%00/manifests/x", 400),
            (Method::GET, "/v2/a%ff/manifests/x", 400),
            (Method::GET, "/v2/a%2/manifests/x", 400),
            (Method::GET, "/v2/a/manifests/sha256:00", 400),
            (Method::GET, "/v2/a/blobs/x", 400),
            (Method::GET, "/v2/a/blobs/sha256:../../../../etc/passwd", 404),
            (Method::PATCH, "/v2/a/blobs/uploads/../../x", 404),
            (Method::PATCH, "/v2/a/blobs/uploads/..", 404),
            (Method::PATCH, "/v2/a/blobs/uploads/0123456789ABCDEF0123456789ABCDEF", 404),
            (Method::POST, "/v2/a/manifests/x", 405),
            (Method::DELETE, "/v2/", 405),
            (Method::TRACE, "/v2/a/tags/list", 405),
        ] {
            let problem = Endpoint::parse(&method, path).unwrap_err();
            assert_eq!(problem.status.as_u16(), status, "{method} {path}: {problem:?}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_a_repository(path in "/v2/[a-z./%_:0-9]{0,60}/(manifests|blobs|tags|referrers)/[a-z./%:0-9]{0,40}") {
            if let Ok(endpoint) = Endpoint::parse(&Method::GET, &path)
                && let Some(name) = endpoint.repository()
            {
                prop_assert!(name.as_str().split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '_'])));
            }
        }
    }
}
