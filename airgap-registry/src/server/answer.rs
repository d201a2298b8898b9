//! Answers that several handlers give.

use std::fmt::Display;

use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode, header};
use serde_json::Value;

use super::body::Body;
use super::problem::Problem;
use super::query::Query;

/// The digest of what is answered or was stored.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Says to old clients that this is a registry of version 2.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// An answer without content.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

/// An answer in plain text.
pub(crate) fn text(text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Numbers in the text format of Prometheus.
pub(crate) fn numbers(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}

/// An answer in JSON.
pub(crate) fn json(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// Sets a header whose value is made of names, digests and numbers only.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: impl Display) -> Result<(), Problem> {
    let value = HeaderValue::from_str(&value.to_string()).map_err(|_| Problem::internal())?;
    response.headers_mut().insert(name, value);
    Ok(())
}

/// Adds a warning for people (OCI distribution-spec, "Warnings"; RFC 7234, 5.5). The text has no quotes.
pub(crate) fn warn(response: &mut Response<Body>, text: &str) -> Result<(), Problem> {
    let value = HeaderValue::from_str(&format!("299 - \"{text}\"")).map_err(|_| Problem::internal())?;
    response.headers_mut().append(header::WARNING, value);
    Ok(())
}

/// One page of a sorted list, and whether more follows (OCI distribution-spec, "Listing Tags").
pub(crate) fn page(all: impl IntoIterator<Item = String>, query: &Query) -> Result<(Vec<String>, bool), Problem> {
    let number = match query.number.as_deref() {
        None => usize::MAX,
        Some(text) => text.parse().map_err(|_| Problem::bad_request("n must be a number"))?,
    };
    let after = |item: &String| query.last.as_deref().is_none_or(|last| item.as_str() > last);
    let mut rest: Vec<String> = all.into_iter().filter(after).collect();
    let is_more = rest.len() > number && number > 0;
    rest.truncate(number);
    Ok((rest, is_more))
}

/// The `Link` to the next page (RFC 8288).
pub(crate) fn link(response: &mut Response<Body>, path: &str, query: &Query, last: &str) -> Result<(), Problem> {
    let number = query.number.as_deref().unwrap_or_default();
    set(response, header::LINK, format!("<{path}?n={number}&last={last}>; rel=\"next\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let all = ["a", "b", "c"].map(str::to_owned);
        for (query, expected, more) in [
            ("", vec!["a", "b", "c"], false),
            ("n=2", vec!["a", "b"], true),
            ("n=2&last=b", vec!["c"], false),
            ("n=3", vec!["a", "b", "c"], false),
            ("n=0", vec![], false),
            ("last=aa", vec!["b", "c"], false),
            ("n=1&last=z", vec![], false),
        ] {
            let query_ = Query::parse(Some(query)).unwrap();
            let (found, is_more) = page(all.clone(), &query_).unwrap();
            assert_eq!((found.iter().map(String::as_str).collect(), is_more), (expected, more), "{query}");
        }
        for bad in ["n=-1", "n=x", "n=", "n=99999999999999999999999"] {
            assert!(page(all.clone(), &Query::parse(Some(bad)).unwrap()).is_err(), "{bad}");
        }
    }
}
