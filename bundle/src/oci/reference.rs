//! Image references. Invariant: a [`Reference`] is full: it names the registry, the repository, and a tag or a digest
//! (both are allowed). Short names are completed as containerd and Docker do it (`nginx` is
//! `docker.io/library/nginx:latest`), so that two spellings of one image compare equal.

use std::fmt;
use std::str::FromStr;

use super::{Digest, ParseError, string_serde};

/// The longest name that the OCI distribution specification lets a registry limit clients to.
const MAXIMUM_NAME: usize = 255;

/// A repository name of the OCI distribution specification (spec.md, "Pulling manifests"): lower-case components with
/// single separators, joined by slashes; at most 255 characters. It never holds `..`, an empty component, or a
/// leading slash. A registry host may be its first component (`k8s.gcr.io/kube-apiserver`), without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = 0..0;
    let bytes = component.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if is_alphanumeric(*byte) {
            let run = bytes.get(separator.clone()).unwrap_or_default();
            let allowed = matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-');
            if !allowed || (separator.start == 0 && !separator.is_empty()) {
                return false;
            }
            separator = at + 1..at + 1;
        } else if matches!(byte, b'.' | b'_' | b'-') {
            separator.end = at + 1;
        } else {
            return false;
        }
    }
    !component.is_empty() && separator.is_empty()
}

impl FromStr for RepositoryName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why| ParseError::new("repository name", text, why);
        if text.len() > MAXIMUM_NAME {
            return Err(fail("it is longer than 255 characters"));
        }
        if !text.split('/').all(is_component) {
            return Err(fail("components are lower-case letters and digits, joined by single . _ __ or dashes"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_serde!(RepositoryName, "RepositoryName", "An OCI repository name", "^[a-z0-9._/-]{1,255}$");

/// A tag of the OCI distribution specification: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why| ParseError::new("tag", text, why);
        if text.is_empty() || text.len() > 128 {
            return Err(fail("it must have 1 to 128 characters"));
        }
        if text.starts_with(['.', '-'])
            || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        {
            return Err(fail("only letters, digits, _ . and - are allowed, and no . or - at the start"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_serde!(Tag, "Tag", "An OCI tag", "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$");

/// A full image reference: `REGISTRY[:PORT]/REPOSITORY[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: RepositoryName,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host name or address of the registry, with `:PORT` when one was given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository inside the registry.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The tag; always there when there is no digest.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if the reference is pinned. It decides over the tag.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether both name the same repository on the same registry, whatever tag or digest.
    pub fn is_same_repository(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }
}

/// Whether the first component of a reference names a registry: Docker's rule, which containerd follows.
fn names_registry(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host_is_good = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }),
    };
    host_is_good
        && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why| ParseError::new("image reference", text, why);
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse::<Digest>().map_err(|_| fail("what follows @ is not a digest"))?))
            }
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => {
                (before, Some(tag.parse::<Tag>().map_err(|_| fail("what follows the last colon is not a tag"))?))
            }
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if names_registry(first) => (first, rest.to_owned()),
            _ => ("docker.io", name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository = if registry == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if !is_registry(registry) {
            return Err(fail("the registry is not a host name or address with an optional port"));
        }
        let repository = repository.parse().map_err(|_| fail("the repository name is not valid"))?;
        let tag = match (tag, digest) {
            (None, None) => Some(Tag("latest".to_owned())),
            (tag, _) => tag,
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

string_serde!(Reference, "Reference", "A full image reference, REGISTRY/REPOSITORY[:TAG][@DIGEST]", "^[^/ ]+/[^ ]+$");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn short_names_are_completed() {
        let pinned = format!("nginx@sha256:{HEX}");
        for (short, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.25", "docker.io/library/nginx:1.25".to_owned()),
            ("calico/node:v3", "docker.io/calico/node:v3".to_owned()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("index.docker.io/nginx:1", "docker.io/library/nginx:1".to_owned()),
            ("k8s.gcr.io/pause:3.2", "k8s.gcr.io/pause:3.2".to_owned()),
            ("localhost/a/b", "localhost/a/b:latest".to_owned()),
            ("localhost:5000/a", "localhost:5000/a:latest".to_owned()),
            ("127.0.0.1:5000/a:b", "127.0.0.1:5000/a:b".to_owned()),
            ("[::1]:5000/a:b", "[::1]:5000/a:b".to_owned()),
            (&pinned, format!("docker.io/library/nginx@sha256:{HEX}")),
        ] {
            assert_eq!(short.parse::<Reference>().unwrap().to_string(), full, "{short}");
        }
    }

    #[test]
    fn bad_references_are_refused() {
        for bad in [
            "",
            ":",
            "/",
            "a//b",
            "a/",
            "/a",
            "A/b",
            "a:b:c",
            "a@sha256:00",
            "a b",
            "a:",
            "../a",
            "a/../b",
            "x.y/../b",
            "x.y:99999/b",
            "x..y/b",
            "-x.y/b",
            "${registry}/a:b",
            "a__-b",
            "a._b",
            "x.y/a:.b",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was taken as {:?}", bad.parse::<Reference>());
        }
    }

    #[test]
    fn repository_components_follow_the_grammar() {
        for good in ["a", "a0", "a.b", "a_b", "a__b", "a---b", "a/b/c", "k8s.gcr.io/kube-proxy"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "-a", "a-", "a___b", "a..b", "a.-b", "a//b", "a/../b", "a:5000/b", "ä"] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
        assert!("a".repeat(256).parse::<RepositoryName>().is_err());
    }

    proptest! {
        #[test]
        fn printing_is_stable(text in "[a-z0-9.:/@_-]{1,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let full = reference.to_string();
                prop_assert_eq!(full.parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn arbitrary_text_never_panics_nor_escapes(text in "\\PC{0,80}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert!(!name.as_str().starts_with('/'));
                prop_assert!(name.as_str().split('/').all(|part| part != "." && part != ".." && !part.is_empty()));
            }
            let _ = text.parse::<Reference>();
            let _ = text.parse::<Tag>();
        }
    }
}
