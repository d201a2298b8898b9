//! A request, however it arrived. Made by the loop for plain reads and from what hyper gives.

use http::{HeaderMap, Method, Request, header};
use hyper::body::Incoming;

/// A request.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    /// None when there is no body.
    pub(crate) body: Option<Incoming>,
}

impl Call {
    pub(crate) fn of_hyper(request: Request<Incoming>) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
            body: Some(body),
        }
    }

    /// The text of a header that stands there.
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How many bytes the body says it has.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }
}
