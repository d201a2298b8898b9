//! What an upgrade asks of the store: whether a delta's base is intact, and going back to a bundle that was published before: its tags point to its own manifests again.
//!
//! Invariant: nothing is removed; a bundle that was published after it stays in the store. Killed at any point, it is
//! completed by the next process that opens the store, as any publication is. Called by `registry activate`, which an
//! upgrade's rollback runs.

use std::fs;
use std::io::Read as _;

use bundle::delta::HeldBlob;
use bundle::oci::Hasher;

use super::Store;
use crate::error::{Error, Result};

impl Store {
    /// Whether a blob is visible, has this size and still has its digest: it is read whole.
    pub fn has_intact(&self, blob: &HeldBlob) -> Result<bool> {
        if self.blob_size(&blob.digest)? != Some(blob.size) {
            return Ok(false);
        }
        let path = self.blob_path(&blob.digest);
        let mut file = self.open_blob(&blob.digest)?;
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(Error::io("read", &path))? {
                0 => return Ok(hasher.finish() == blob.digest),
                count => hasher.update(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Publishes a bundle of the store again, named as `NAME-VERSION`.
    pub fn activate(&self, name: &str) -> Result<()> {
        let records = self.bundles()?;
        let record = records.iter().find(|record| format!("{}-{}", record.index.name, record.index.version) == name);
        let record = record.ok_or_else(|| {
            Error::Unpublishable(format!("the store has no bundle {name:?}; `bundle inventory` lists them"))
        })?;
        let index_bytes = fs::read(&record.path).map_err(Error::io("read", &record.path))?;
        let signature = record.path.with_extension("json.minisig");
        let signature = fs::read(&signature).map_err(Error::io("read", &signature))?;
        self.publish_bundle(&record.index, &index_bytes, &signature)
    }
}
