//! The query string of a request. Invariant: [`Query::parse`] is pure; what it does not know it leaves out, and what
//! could be read in two ways it refuses. Called for each request.

use super::problem::Problem;

/// The parameters of a query string that this server knows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) namespace: Option<String>,
    pub(crate) digest: Option<String>,
    pub(crate) digest_algorithm: Option<String>,
    pub(crate) mount: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) number: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) service: Option<String>,
    /// `tag`, which may stand there several times (OCI distribution-spec, "Pushing Manifests").
    pub(crate) tags: Vec<String>,
    /// `scope`, which may stand there several times and hold several, separated by spaces.
    pub(crate) scopes: Vec<String>,
}

impl Query {
    /// Takes a query string apart. A parameter that stands there twice is refused: two readers could differ. Those of
    /// which there may be several are kept in their order.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut parsed = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode(value).ok_or_else(|| Problem::bad_request("the query is not valid UTF-8"))?;
            let field = match key {
                "tag" => {
                    parsed.tags.push(value);
                    continue;
                }
                "scope" => {
                    parsed.scopes.extend(value.split([' ', '+']).filter(|part| !part.is_empty()).map(str::to_owned));
                    continue;
                }
                "service" => &mut parsed.service,
                "ns" => &mut parsed.namespace,
                "digest" => &mut parsed.digest,
                "digest-algorithm" => &mut parsed.digest_algorithm,
                "mount" => &mut parsed.mount,
                "from" => &mut parsed.from,
                "n" => &mut parsed.number,
                "last" => &mut parsed.last,
                "artifactType" => &mut parsed.artifact_type,
                _ => continue,
            };
            if field.replace(value).is_some() {
                return Err(Problem::bad_request("a parameter of the query is given twice"));
            }
        }
        Ok(parsed)
    }
}

/// Decodes `%HH` (RFC 3986, 2.1). A plus sign stays one: media types hold it.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_query_is_decoded_once_and_without_doubles() {
        let query = Query::parse(Some("digest=sha256%3Aab&ns=k8s.gcr.io&x=1&artifactType=a%2Bb+c")).unwrap();
        assert_eq!(query.digest.as_deref(), Some("sha256:ab"));
        assert_eq!(query.namespace.as_deref(), Some("k8s.gcr.io"));
        assert_eq!(query.artifact_type.as_deref(), Some("a+b+c"));
        let query = Query::parse(Some("tag=a&tag=b&scope=x%20y&scope=z+w")).unwrap();
        assert_eq!(
            (query.tags, query.scopes),
            (vec!["a".into(), "b".into()], ["x", "y", "z", "w"].map(String::from).into())
        );
        assert!(Query::parse(Some("n=1&n=2")).is_err());
        assert!(Query::parse(Some("n=%zz")).is_err());
    }
}
