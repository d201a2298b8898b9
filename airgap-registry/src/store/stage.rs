//! Loading a bundle into the store, as the `Sink` of `bundle::load`.
//!
//! Invariant: until `publish`, everything is below `staging/`: blobs that are complete and synced under their digest in
//! `staging/blobs/`, the one that is being written in `staging/partial/`. So a load that was killed goes on where it
//! stopped, and nothing of an unfinished load is visible. One load at a time, by the lock `staging/lock`.

use std::fs::{self, File};
use std::io::Write;

use bundle::index::Index;
use bundle::load::{BlobWriter, Sink, SinkError};
use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};

use super::{Store, disk, layout, open_lock, size_of};
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
        self.import = Some(lock);
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
        let path = self.root().join("staging/partial").join(super::upload::random_hex()?);
        let target = layout::staged(self.root(), digest);
        if let Some(folder) = target.parent() {
            self.disk.create_directory(folder)?;
        }
        let file = self.disk.create_file(&path)?;
        Ok(Box::new(StagedBlob { path: Some(path), target, file, written: 0, size }))
    }

    fn publish(&mut self, index: &Index, index_bytes: &[u8], signature: &[u8]) -> std::result::Result<(), SinkError> {
        self.begin_import()?;
        self.publish_bundle(index, index_bytes, signature)?;
        Ok(())
    }
}

/// A blob on its way into `staging/blobs/`.
struct StagedBlob {
    /// Taken when the file was renamed; what is left is removed on drop.
    path: Option<Utf8PathBuf>,
    target: Utf8PathBuf,
    file: File,
    written: u64,
    size: u64,
}

impl BlobWriter for StagedBlob {
    fn write(&mut self, chunk: &[u8]) -> std::result::Result<(), SinkError> {
        self.file.write_all(chunk).map_err(Error::io("write", &self.target))?;
        self.written += chunk.len() as u64;
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> std::result::Result<(), SinkError> {
        if self.written != self.size {
            return Err(Error::Unexpected("a blob was committed before all of its bytes were written").into());
        }
        self.file.sync_data().map_err(Error::io("sync", &self.target))?;
        if let Some(path) = self.path.take() {
            fs::rename(&path, &self.target).map_err(Error::io("rename to", &self.target))?;
        }
        disk::sync_directory(self.target.parent().unwrap_or(Utf8Path::new("/")))?;
        Ok(())
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // Best effort: the next load clears the folder anyway.
            let _ = fs::remove_file(path);
        }
    }
}
