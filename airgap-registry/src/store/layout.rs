//! Where things lie in a store. Invariant: every path is made of fixed words and of values whose types exclude
//! separators and dots at the start, so that no name from outside can leave its place; the fixed words inside a
//! repository start with an underscore, which no component of a repository name does. Called by the store's modules.

use bundle::oci::{Digest, RepositoryName, Tag};
use camino::{Utf8Path, Utf8PathBuf};

/// Links to blobs that a repository holds: `_blobs/ALGORITHM/HEX`, empty files.
pub(crate) const BLOBS: &str = "_blobs";
/// Links to manifests: `_manifests/ALGORITHM/HEX`, whose content is the media type.
pub(crate) const MANIFESTS: &str = "_manifests";
/// Tags: `_tags/TAG`, whose content is the digest.
pub(crate) const TAGS: &str = "_tags";
/// Manifests that name another as their subject: `_referrers/ALGORITHM/HEX/ALGORITHM-HEX`, empty files.
pub(crate) const REFERRERS: &str = "_referrers";

/// `ALGORITHM/HEX`
pub(crate) fn digest_path(digest: &Digest) -> Utf8PathBuf {
    Utf8Path::new(digest.algorithm().name()).join(digest.hex())
}

/// `blobs/ALGORITHM/AA/HEX`: 256 folders per algorithm keep each of them small.
pub(crate) fn blob(root: &Utf8Path, digest: &Digest) -> Utf8PathBuf {
    let hex = digest.hex();
    root.join("blobs").join(digest.algorithm().name()).join(hex.get(..2).unwrap_or_default()).join(&hex)
}

/// `staging/blobs/ALGORITHM/HEX`: complete, verified, synced, and not visible.
pub(crate) fn staged(root: &Utf8Path, digest: &Digest) -> Utf8PathBuf {
    root.join("staging/blobs").join(digest_path(digest))
}

/// `repositories/NAME`
pub(crate) fn repository(root: &Utf8Path, name: &RepositoryName) -> Utf8PathBuf {
    root.join("repositories").join(name.as_str())
}

/// The link of a blob in a repository.
pub(crate) fn blob_link(root: &Utf8Path, name: &RepositoryName, digest: &Digest) -> Utf8PathBuf {
    repository(root, name).join(BLOBS).join(digest_path(digest))
}

/// The link of a manifest in a repository.
pub(crate) fn manifest_link(root: &Utf8Path, name: &RepositoryName, digest: &Digest) -> Utf8PathBuf {
    repository(root, name).join(MANIFESTS).join(digest_path(digest))
}

/// The file of a tag.
pub(crate) fn tag(root: &Utf8Path, name: &RepositoryName, tag: &Tag) -> Utf8PathBuf {
    repository(root, name).join(TAGS).join(tag.as_str())
}

/// The folder of those that refer to a manifest.
pub(crate) fn referrers(root: &Utf8Path, name: &RepositoryName, subject: &Digest) -> Utf8PathBuf {
    repository(root, name).join(REFERRERS).join(digest_path(subject))
}

/// The file that says that `referrer` refers to `subject`.
pub(crate) fn referrer(root: &Utf8Path, name: &RepositoryName, subject: &Digest, referrer: &Digest) -> Utf8PathBuf {
    referrers(root, name, subject).join(format!("{}-{}", referrer.algorithm().name(), referrer.hex()))
}
