//! Manifests in memory, so that asking for one costs a look at three files and no thread.
//!
//! Invariant: what is answered from here is what the disk would give: each answer is preceded by a `stat` of the tag, of
//! the manifest's link and of its blob, which must be the files that the entry was made from. (A tag is always replaced
//! by a rename, so that it is another file each time.) So nobody has to tell the cache about a change, neither the
//! server's own writes nor another process that loads a bundle. Called by the handlers that read.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{PoisonError, RwLock};

use bundle::oci::RepositoryName;
use camino::Utf8PathBuf;
use hyper::body::Bytes;

use super::route::ManifestReference;
use crate::store::{ManifestFile, Store};

/// The most bytes that are kept.
const MAXIMUM_BYTES: usize = 8 << 20;
/// The most manifests that are kept.
const MAXIMUM_ENTRIES: usize = 4096;

/// What is kept.
#[derive(Default)]
pub(crate) struct Manifests {
    entries: RwLock<Entries>,
}

#[derive(Default)]
struct Entries {
    by_name: HashMap<(RepositoryName, ManifestReference), Entry>,
    bytes: usize,
}

struct Entry {
    proof: Vec<(Utf8PathBuf, Stamp)>,
    manifest: Kept,
}

/// A manifest with its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) file: ManifestFile,
    pub(crate) bytes: Bytes,
}

/// What changes when a file is replaced or written to: inode, status change, modification, size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, (i64, i64), (i64, i64), u64);

impl Manifests {
    /// A manifest, when it is here and still what the disk would give.
    pub(crate) fn get(&self, name: &RepositoryName, reference: &ManifestReference) -> Option<Kept> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.by_name.get(&(name.clone(), reference.clone()))?;
        let is_current = entry.proof.iter().all(|(path, kept)| stamp(path) == Some(*kept));
        is_current.then(|| entry.manifest.clone())
    }

    /// Reads a manifest from the store and keeps it; `None` when the repository does not hold it. To be called on a
    /// thread that may wait.
    pub(crate) fn load(
        &self,
        store: &Store,
        name: &RepositoryName,
        reference: &ManifestReference,
    ) -> crate::error::Result<Option<Kept>> {
        // The stamps before the contents: a change in between is then seen by the next look.
        let mut proof = Vec::with_capacity(3);
        let digest = match reference {
            ManifestReference::Digest(digest) => *digest,
            ManifestReference::Tag(tag) => {
                proof.push(stamped(store.tag_path(name, tag)));
                let Some(digest) = store.resolve_tag(name, tag)? else { return Ok(None) };
                digest
            }
        };
        proof.push(stamped(store.manifest_path(name, &digest)));
        proof.push(stamped(store.blob_path(&digest)));
        let Some(file) = store.manifest(name, &digest)? else { return Ok(None) };
        let bytes = Bytes::from(store.read_manifest_bytes(&file)?);
        let manifest = Kept { file, bytes };
        if let Some(proof) = proof.into_iter().collect::<Option<Vec<_>>>() {
            self.keep(name, reference, Entry { proof, manifest: manifest.clone() });
        }
        Ok(Some(manifest))
    }

    fn keep(&self, name: &RepositoryName, reference: &ManifestReference, entry: Entry) {
        let size = entry.manifest.bytes.len();
        if size > MAXIMUM_BYTES / 8 {
            return;
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.bytes + size > MAXIMUM_BYTES || entries.by_name.len() >= MAXIMUM_ENTRIES {
            *entries = Entries::default();
        }
        entries.bytes += size;
        if let Some(old) = entries.by_name.insert((name.clone(), reference.clone()), entry) {
            entries.bytes = entries.bytes.saturating_sub(old.manifest.bytes.len());
        }
    }
}

fn stamped(path: Utf8PathBuf) -> Option<(Utf8PathBuf, Stamp)> {
    stamp(&path).map(|stamp| (path, stamp))
}

fn stamp(path: &Utf8PathBuf) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp(
        metadata.ino(),
        (metadata.ctime(), metadata.ctime_nsec()),
        (metadata.mtime(), metadata.mtime_nsec()),
        metadata.size(),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::manifest::Manifest;
    use bundle::oci::Digest;

    #[test]
    fn what_is_kept_is_what_the_disk_would_give() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&Utf8PathBuf::try_from(folder.path().join("store")).unwrap()).unwrap();
        let (name, tag) = ("a/b".parse::<RepositoryName>().unwrap(), "t".parse().unwrap());
        let cache = Manifests::default();
        let reference = ManifestReference::Tag("t".parse().unwrap());
        let get = || cache.get(&name, &reference).map(|kept| kept.file.digest);
        let load = || cache.load(&store, &name, &reference).unwrap().map(|kept| kept.file.digest);
        assert_eq!((get(), load(), get()), (None, None, None));
        let mut digests = Vec::new();
        for number in 0..20 {
            let bytes = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"n":"{number:02}"}}}}"#);
            let digest = Digest::sha256_of(bytes.as_bytes());
            let manifest = Manifest::parse(bytes.as_bytes(), None).unwrap();
            store.put_manifest(&name, &digest, bytes.as_bytes(), &manifest, &[tag_of(&tag)], false).unwrap();
            assert_eq!(get(), None, "the tag was moved");
            assert_eq!((load(), get()), (Some(digest), Some(digest)));
            digests.push(digest);
        }
        // Moved back, deleted, damaged and taken away.
        let last = digests[19];
        fs::write(store.blob_path(&last), "other").unwrap();
        assert_eq!(get(), None, "its blob is another one");
        store.quarantine(&last).unwrap();
        assert_eq!((get(), load()), (None, None));
        store.delete_tag(&name, &tag).unwrap();
        assert_eq!((get(), load()), (None, None));
        let by_digest = ManifestReference::Digest(digests[0]);
        assert!(cache.load(&store, &name, &by_digest).unwrap().is_some());
        assert!(cache.get(&name, &by_digest).is_some());
        store.delete_manifest(&name, &digests[0]).unwrap();
        assert!(cache.get(&name, &by_digest).is_none());
    }

    fn tag_of(tag: &bundle::oci::Tag) -> bundle::oci::Tag {
        tag.clone()
    }
}
