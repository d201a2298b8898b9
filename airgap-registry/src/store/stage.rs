//! Loading a bundle into the store, as the `Sink` of `bundle::load`.
//!
//! Invariant: until `publish`, everything is below `staging/`: blobs that are complete and synced under their digest in
//! `staging/blobs/`, the one that is being written in `staging/partial/`. So a load that was killed goes on where it
//! stopped, and nothing of an unfinished load is visible. One load at a time, by the lock `staging/lock`.

use std::fs::{self, File};
use std::sync::Arc;

use bundle::index::Index;
use bundle::load::{BlobWriter, Sink, SinkError};
use bundle::oci::Digest;
use camino::Utf8PathBuf;

use super::disk::{self, Disk};
use super::{Store, layout, open_lock, size_of};
use crate::error::{Error, Result};

impl Store {
    /// Takes the right to write below `staging/`; the first one clears away what a killed load left half-written.
    fn begin_import(&mut self) -> Result<()> {
        if self.import.is_some() {
            return Ok(());
        }
        let Some(lock) = self.try_lock_import()? else {
            return Err(Error::Busy { path: self.root().to_owned(), by: "a bundle is being loaded" });
        };
        let partial = self.root().join("staging/partial");
        for name in disk::names_in(&partial)? {
            let path = partial.join(name);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        self.disk.create_directory(&partial)?;
        let collector = self.root().join("gc.lock");
        let no_collection = open_lock(&self.disk, &collector)?;
        // What is found here from now on stays until it is published.
        no_collection.lock_shared().map_err(Error::io("lock", &collector))?;
        self.import = Some([lock, no_collection]);
        Ok(())
    }

    pub(super) fn try_lock_import(&self) -> Result<Option<File>> {
        let path = self.root().join("staging/lock");
        let lock = open_lock(&self.disk, &path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    /// Where a blob lies that is published or staged, and its size.
    pub(super) fn find(&self, digest: &Digest) -> Result<Option<(Utf8PathBuf, u64)>> {
        for path in [self.blob_path(digest), layout::staged(self.root(), digest)] {
            if let Some(size) = size_of(&path)? {
                return Ok(Some((path, size)));
            }
        }
        Ok(None)
    }
}

impl Sink for Store {
    fn holds(&mut self, digest: &Digest, size: u64) -> std::result::Result<bool, SinkError> {
        self.begin_import()?;
        Ok(self.find(digest)?.is_some_and(|(_, found)| found == size))
    }

    fn begin(&mut self, digest: &Digest, size: u64) -> std::result::Result<Box<dyn BlobWriter>, SinkError> {
        self.begin_import()?;
        let path = self.root().join("staging/partial").join(crate::random::hex()?);
        let target = layout::staged(self.root(), digest);
        if let Some(folder) = target.parent() {
            self.disk.create_directory(folder)?;
        }
        let file = self.disk.create_file(&path)?;
        let disk = Arc::clone(&self.disk);
        Ok(Box::new(StagedBlob { disk, path, is_done: false, target, file, written: 0, size }))
    }

    fn publish(&mut self, index: &Index, index_bytes: &[u8], signature: &[u8]) -> std::result::Result<(), SinkError> {
        self.begin_import()?;
        self.publish_bundle(index, index_bytes, signature)?;
        Ok(())
    }
}

/// A blob on its way into `staging/blobs/`.
struct StagedBlob {
    disk: Arc<Disk>,
    path: Utf8PathBuf,
    /// The file was renamed; what is left is removed on drop.
    is_done: bool,
    target: Utf8PathBuf,
    file: File,
    written: u64,
    size: u64,
}

impl BlobWriter for StagedBlob {
    fn write(&mut self, chunk: &[u8]) -> std::result::Result<(), SinkError> {
        self.disk.append(&mut self.file, &self.path, chunk)?;
        self.written += chunk.len() as u64;
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> std::result::Result<(), SinkError> {
        if self.written != self.size {
            return Err(Error::Unexpected("a blob was committed before all of its bytes were written").into());
        }
        self.disk.sync(&self.file, &self.path)?;
        self.disk.publish(&self.path, &self.target)?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        if !self.is_done {
            // Best effort: the next load clears the folder anyway.
            let _ = fs::remove_file(&self.path);
        }
    }
}
