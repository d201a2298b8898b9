//! Putting damaged and missing blobs back from a bundle.
//!
//! Invariant: a blob is put back only when its bytes have the digest of its name; the bundle must be signed by a trusted
//! key all the same, because reading it means parsing it. Called by `registry fsck --repair-from` and by the server.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;

use bundle::index::Index;
use bundle::keys::TrustedKeys;
use bundle::load::{BlobWriter, LoadOptions, Sink, SinkError, load};
use bundle::oci::Digest;
use camino::Utf8PathBuf;
use serde::Serialize;

use super::disk::Disk;
use super::{Store, layout};
use crate::error::{Error, Result};

/// A bundle to take blobs from.
pub struct RepairSource {
    /// The bundle.
    pub bundle: Utf8PathBuf,
    /// One of these must have signed it.
    pub trust: TrustedKeys,
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RepairReport {
    /// Blobs that were put back, sorted.
    pub repaired: Vec<Digest>,
    /// Blobs that no bundle had, sorted.
    pub lost: Vec<Digest>,
    /// Links that were made again.
    pub relinked: u64,
}

impl Store {
    /// Puts back blobs from bundles, one after the other, until all of them are there or no bundle is left. A bundle
    /// that cannot be read is an error, and what was put back before stays.
    pub fn repair(&self, wanted: &[Digest], sources: &[RepairSource]) -> Result<RepairReport> {
        let mut left: BTreeSet<_> = wanted.iter().copied().collect();
        for source in sources {
            if left.is_empty() {
                break;
            }
            let file = File::open(&source.bundle).map_err(Error::io("open", &source.bundle))?;
            let mut taker = Taker { store: self, wanted: left.clone() };
            load(file, &source.trust, &mut taker, &LoadOptions::default(), &mut |_| ())
                .map_err(|error| Error::Repair { bundle: source.bundle.clone(), why: error.to_string() })?;
            let mut still = BTreeSet::new();
            for digest in left {
                if self.blob_size(&digest)?.is_none() {
                    still.insert(digest);
                }
            }
            left = still;
        }
        let repaired = wanted.iter().copied().filter(|digest| !left.contains(digest)).collect::<BTreeSet<_>>();
        let relinked = self.relink()?;
        Ok(RepairReport { repaired: repaired.into_iter().collect(), lost: left.into_iter().collect(), relinked })
    }

    /// Makes the links again that manifests need and whose blobs are here.
    fn relink(&self) -> Result<u64> {
        let mut made = 0;
        for name in self.repositories()? {
            for file in self.manifests(&name)? {
                let Ok(manifest) = self.read_manifest(&file) else { continue };
                for blob in manifest.blobs {
                    if !layout::blob_link(self.root(), &name, &blob.digest).is_file()
                        && self.link_blob(&name, &blob.digest)?
                    {
                        made += 1;
                    }
                }
            }
        }
        Ok(made)
    }
}

/// Takes what is wanted out of a bundle, and lets the rest pass.
struct Taker<'a> {
    store: &'a Store,
    wanted: BTreeSet<Digest>,
}

impl Sink for Taker<'_> {
    fn holds(&mut self, digest: &Digest, _: u64) -> std::result::Result<bool, SinkError> {
        Ok(!self.wanted.contains(digest))
    }

    fn begin(&mut self, digest: &Digest, _: u64) -> std::result::Result<Box<dyn BlobWriter>, SinkError> {
        let disk = Arc::clone(&self.store.disk);
        let path = disk.temporary_path()?;
        let file = disk.create_file(&path)?;
        Ok(Box::new(PutBack { path, target: self.store.blob_path(digest), file, disk }))
    }

    fn publish(&mut self, _: &Index, _: &[u8], _: &[u8]) -> std::result::Result<(), SinkError> {
        Ok(())
    }
}

/// A blob on its way back.
struct PutBack {
    disk: Arc<Disk>,
    path: Utf8PathBuf,
    target: Utf8PathBuf,
    file: File,
}

impl BlobWriter for PutBack {
    fn write(&mut self, chunk: &[u8]) -> std::result::Result<(), SinkError> {
        Ok(self.disk.append(&mut self.file, &self.path, chunk)?)
    }

    fn commit(self: Box<Self>) -> std::result::Result<(), SinkError> {
        self.disk.sync(&self.file, &self.path)?;
        self.disk.publish(&self.path, &self.target)?;
        Ok(())
    }
}
