//! How an upstream image name becomes a repository of this registry: the upstream host stays in front
//! (`k8s.gcr.io/pause` is the repository `k8s.gcr.io/pause`), so that no image reference has to be rewritten.
//!
//! Invariant: two different upstream repositories never share one name here. Called when a bundle is published and for
//! the `ns` parameter of a request.

use bundle::oci::{ParseError, Reference, RepositoryName};

use crate::error::{Error, Result};

/// The repository that stands for `repository` of the registry `host` (`HOST` or `HOST:PORT`).
///
/// The colon before a port becomes two underscores, which no host name holds (`localhost:5000/a` is
/// `localhost__5000/a`), because a repository name has no colon (OCI distribution-spec, "Pulling manifests").
/// Addresses in brackets are refused for the same reason.
pub fn upstream_repository(host: &str, repository: &RepositoryName) -> std::result::Result<RepositoryName, ParseError> {
    let host = match host.to_ascii_lowercase().as_str() {
        // Docker's own names for one and the same registry.
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.replace(':', "__"),
    };
    if host.contains('/') {
        // Otherwise `ns=a/b` + `c` and `ns=a` + `b/c` would be the same repository.
        return format!("{host}//").parse();
    }
    format!("{host}/{repository}").parse()
}

/// The repository under which an image of a bundle is kept.
pub fn repository_of(reference: &Reference) -> Result<RepositoryName> {
    upstream_repository(reference.registry(), reference.repository())
        .map_err(|source| Error::Unnameable { reference: Box::new(reference.clone()), why: source.to_string() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn upstream_hosts_stay_in_the_name() {
        for (reference, repository) in [
            ("k8s.gcr.io/pause:3.2", "k8s.gcr.io/pause"),
            ("busybox", "docker.io/library/busybox"),
            ("calico/node:v3", "docker.io/calico/node"),
            ("localhost:5000/a/b", "localhost__5000/a/b"),
            ("Registry.Example/a", "registry.example/a"),
        ] {
            let reference: Reference = reference.parse().unwrap();
            assert_eq!(repository_of(&reference).unwrap().as_str(), repository);
        }
        assert!(repository_of(&"[::1]:5000/a:b".parse().unwrap()).is_err());
    }

    #[test]
    fn hostile_hosts_are_refused() {
        let name: RepositoryName = "a".parse().unwrap();
        for host in ["", "..", "a/b", "../..", "/", "a b", "a%2fb", ".a", "_blobs", "a\0"] {
            assert!(upstream_repository(host, &name).is_err(), "{host:?}");
        }
    }
}
