//! What arrives from outside, given to each parser as any bytes: one `fuzz_*` function per parser, which fails when the
//! parser does or when what it found breaks the parser's promise.
//!
//! They are plain functions, so that `cargo fuzz` can call them where a nightly compiler is at hand; the tests below
//! feed them mutated samples with the stable one. Called by tests only.

use http::Method;
use http::header::HeaderValue;

use crate::identity::{Policy, Scope};
use crate::manifest::Manifest;
use crate::server::fuzzed::{Endpoint, Parsed, Query, Requested, basic_credentials, chunk, parse_head, requested};

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Paths: no name that comes out could leave its folder.
pub fn fuzz_route(bytes: &[u8]) {
    let Some(path) = text(bytes) else { return };
    for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
        let Ok(endpoint) = Endpoint::parse(&method, path) else { continue };
        if let Some(name) = endpoint.repository() {
            let is_good = |part: &str| !part.is_empty() && !part.starts_with(['.', '_', '-']);
            assert!(name.as_str().len() <= 255 && name.as_str().split('/').all(is_good), "{name}");
        }
    }
}

/// Query strings: read twice, the same comes out.
pub fn fuzz_query(bytes: &[u8]) {
    let Some(query) = text(bytes) else { return };
    if let Ok(parsed) = Query::parse(Some(query)) {
        assert!(Query::parse(Some(query)).is_ok_and(|again| again == parsed));
    }
}

/// Heads of requests: what is taken has a path that begins with a slash, and is taken by its own bytes alone.
pub fn fuzz_head(bytes: &[u8]) {
    let Parsed::Simple(head, length) = parse_head(bytes) else { return };
    assert!(length <= bytes.len() && head.path.starts_with('/'));
    let alone = bytes.get(..length).unwrap_or_default();
    assert!(matches!(parse_head(alone), Parsed::Simple(again, same) if again == head && same == length));
}

/// Manifests: what is an index has no layers, and what is an image lists no manifests.
pub fn fuzz_manifest(bytes: &[u8]) {
    for kind in [None, Some(bundle::oci::media_type::OCI_MANIFEST), Some(bundle::oci::media_type::OCI_INDEX)] {
        let Ok(manifest) = Manifest::parse(bytes, kind) else { continue };
        assert!(manifest.blobs.is_empty() || manifest.manifests.is_empty());
        assert!(kind.is_none_or(|kind| kind == manifest.media_type));
    }
}

/// Ranges: what is asked for lies inside, and chunks are not turned around.
pub fn fuzz_range(bytes: &[u8]) {
    let Some(header) = text(bytes) else { return };
    for size in [0, 1, 10, 700_001, u64::MAX] {
        if let Requested::Part(start, end) = requested(Some(header), size) {
            assert!(start < end && end <= size, "{header}: {start}-{end} of {size}");
        }
    }
    if let Some((first, last)) = chunk(header) {
        assert!(first <= last);
    }
}

/// `Authorization`, scopes of tokens and policy files.
pub fn fuzz_identity(bytes: &[u8]) {
    if let Ok(header) = HeaderValue::from_bytes(bytes) {
        let _ = basic_credentials(&header);
    }
    let Some(text) = text(bytes) else { return };
    if let Some(scope) = Scope::parse(text) {
        assert_eq!(Scope::parse(&scope.to_string()).map(|again| again.to_string()), Some(scope.to_string()));
    }
    let _ = Policy::parse(text);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
    use super::*;

    type Target = (&'static str, fn(&[u8]), &'static [&'static str]);

    const TARGETS: [Target; 6] = [
        (
            "route",
            fuzz_route,
            &[
                "/v2/",
                "/v2/a/b/blobs/sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "/v2/a/manifests/v1.0",
                "/v2/k8s.gcr.io/x__y/blobs/uploads/0123456789abcdef0123456789abcdef",
                "/v2/%2e%2e/tags/list",
                "/v2/a/referrers/sha512:",
            ],
        ),
        (
            "query",
            fuzz_query,
            &["ns=k8s.gcr.io&digest=sha256%3Aab", "tag=a&tag=b&n=1&last=x", "scope=repository:a:pull"],
        ),
        (
            "head",
            fuzz_head,
            &[
                "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
                "HEAD /a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=0-1\r\n\r\nGET",
                "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            ],
        ),
        (
            "manifest",
            fuzz_manifest,
            &[
                r#"{"schemaVersion":2,"config":{"mediaType":"c","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3},"layers":[]}"#,
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"a":"b"}}"#,
            ],
        ),
        (
            "range",
            fuzz_range,
            &["bytes=0-9", "bytes=-5", "bytes=5-", "0-99", "bytes 5-9/*", "bytes=18446744073709551615-"],
        ),
        (
            "identity",
            fuzz_identity,
            &[
                "Basic YWRhOnBhc3M=",
                "repository:a/b:pull,push",
                "rules: [{repositories: ['a/**'], who: ['user:x'], allow: [pull]}]",
            ],
        ),
    ];

    struct Random(u64);

    impl Random {
        fn below(&mut self, number: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap() % number.max(1)
        }
    }

    fn mutate(random: &mut Random, samples: &[&str]) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "..",
            "/",
            "%2f",
            "%",
            ":",
            "\r\n",
            "\0",
            "sha256:",
            "-",
            "&",
            "=",
            "\"",
            "99999999999999999999",
            "_",
            "{",
            "\u{e4}",
        ];
        let mut bytes = samples[random.below(samples.len())].as_bytes().to_vec();
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len() + 1);
            match random.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                1 => bytes.truncate(at),
                2 => drop(bytes.splice(at..at, WORDS[random.below(WORDS.len())].bytes())),
                3 => {
                    let other = samples[random.below(samples.len())].as_bytes();
                    let from = random.below(other.len());
                    drop(bytes.splice(at.., other[from..].iter().copied()));
                }
                4 => {
                    let copy = bytes[at..].to_vec();
                    bytes.extend(copy);
                    bytes.truncate(4096);
                }
                _ => {
                    let end = (at + random.below(8)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
        bytes
    }

    fn run(rounds: u64) {
        for (name, target, samples) in TARGETS {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for _ in 0..rounds {
                target(&mutate(&mut random, samples));
            }
            println!("{name}: {rounds} inputs");
        }
    }

    #[test]
    fn mutated_samples_break_no_parser() {
        run(20_000);
    }

    #[test]
    #[ignore = "slow: some minutes"]
    fn slow_mutated_samples_break_no_parser() {
        run(500_000);
    }
}
