//! The head of a request that has no body, for the loop that answers those without hyper.
//!
//! Invariant: [`parse`] is pure, and takes only what every reader of HTTP/1.1 (RFC 9112) reads in the same way: a GET
//! or HEAD in origin-form without body, upgrade or expectation. Everything else is left to hyper, byte for byte.
//! Called by [`super::exchange`].

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, header};

/// The most bytes that a head may have.
pub(crate) const MAXIMUM_BYTES: usize = 32 << 10;
/// The most headers that a request may have.
pub(crate) const MAXIMUM_HEADERS: usize = 64;

/// What the bytes that arrived are.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Not yet a whole head.
    Partial,
    /// A request of ours, and how many bytes its head has.
    Simple(Head, usize),
    /// For hyper.
    Other,
}

/// A request without body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    /// Whether the connection goes on after the answer.
    pub(crate) keep_alive: bool,
}

/// Takes apart what arrived.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAXIMUM_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAXIMUM_BYTES => return Parsed::Partial,
        // hyper has the words for what is wrong.
        Ok(httparse::Status::Partial) | Err(_) => return Parsed::Other,
    };
    match simple(&request) {
        Some(head) => Parsed::Simple(head, length),
        None => Parsed::Other,
    }
}

fn simple(request: &httparse::Request<'_, '_>) -> Option<Head> {
    let method = match request.method? {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        _ => return None,
    };
    if request.version? != 1 {
        return None;
    }
    let target = request.path?;
    let is_plain = |byte: u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    if !target.starts_with('/') || !target.bytes().all(is_plain) || target.len() > MAXIMUM_BYTES / 2 {
        return None;
    }
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    let mut keep_alive = true;
    for line in request.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(line.value).ok()?;
        match name {
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::UPGRADE | header::EXPECT | header::TE => {
                return None;
            }
            header::CONNECTION => match value.to_str().ok()? {
                text if text.eq_ignore_ascii_case("close") => keep_alive = false,
                text if text.eq_ignore_ascii_case("keep-alive") => {}
                _ => return None,
            },
            _ => {}
        }
        headers.append(name, value);
    }
    // RFC 9112, 3.2: exactly one Host.
    (headers.get_all(header::HOST).iter().count() == 1).then_some(Head {
        method,
        path: path.to_owned(),
        query,
        headers,
        keep_alive,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_reads_are_ours_and_all_else_is_not() {
        for (text, expected) in [
            ("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", Some(("/v2/", None, true))),
            ("HEAD /a?b=c&d HTTP/1.1\r\nhost: x\r\nConnection: close\r\n\r\nmore", Some(("/a", Some("b=c&d"), false))),
            ("GET / HTTP/1.1\nHost: x\n\n", Some(("/", None, true))),
            ("GET / HTTP/1.0\r\nHost: x\r\n\r\n", None),
            ("GET / HTTP/1.1\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", None),
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ("GET /# HTTP/1.1\r\nHost: x\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", None),
            ("\x16\x03\x01\x02\x00\x01\x00", None),
        ] {
            let found = match parse(text.as_bytes()) {
                Parsed::Simple(head, length) => {
                    assert!(text[..length].ends_with("\n\r\n") || text[..length].ends_with("\n\n"), "{text:?}");
                    Some((head.path, head.query, head.keep_alive))
                }
                Parsed::Other => None,
                Parsed::Partial => panic!("{text:?} is not whole"),
            };
            let expected = expected.map(|(path, query, alive): (&str, Option<&str>, bool)| {
                (path.to_owned(), query.map(str::to_owned), alive)
            });
            assert_eq!(found, expected, "{text:?}");
        }
        assert!(matches!(parse(b"GET /v2/ HT"), Parsed::Partial));
        assert!(matches!(parse(b""), Parsed::Partial));
        assert!(matches!(parse(&vec![b'G'; MAXIMUM_BYTES]), Parsed::Other));
    }

    proptest! {
        #[test]
        fn a_head_that_is_ours_is_one_by_its_first_bytes_alone(tail: Vec<u8>, path in "/[a-z/?=]{0,20}") {
            let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            let Parsed::Simple(alone, length) = parse(head.as_bytes()) else { panic!("{head:?}") };
            prop_assert_eq!(length, head.len());
            let Parsed::Simple(followed, same) = parse(&[head.as_bytes(), &tail].concat()) else { panic!("{head:?}") };
            prop_assert_eq!((alone, length), (followed, same));
        }

        #[test]
        fn no_bytes_make_it_fail(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
