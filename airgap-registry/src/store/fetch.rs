//! Blobs on their way from another registry: `uploads/fetch-ALGORITHM-HEX/{data,session.json,lock}`.
//!
//! Invariant: a blob is fetched by one at a time, among threads and processes, by the lock of its folder; what arrived
//! stays there when the fetch is cut off, and the next one hashes it and goes on behind it. No client can name such an
//! upload: the name is no [`UploadId`]. Stale ones go as uploads do (see [`super::gc`]). Called by [`crate::peer`].

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use bundle::oci::{Digest, RepositoryName};
use camino::Utf8Path;

use super::upload::{Session, Upload, UploadId};
use super::{Store, open_lock};
use crate::error::{Error, Result};

/// What was found when a fetch was to begin.
pub(crate) enum Begun {
    /// The store has the blob; it is one of the repository's now.
    Held,
    /// Somebody else fetches it at the moment.
    Busy,
    /// Ours, with what an earlier one left.
    Ours(Box<Fetch>),
}

/// The right to fetch a blob, and what there is of it.
pub(crate) struct Fetch {
    upload: Upload,
    digest: Digest,
    /// Held until the fetch ends.
    _lock: File,
}

impl Fetch {
    /// How many bytes are there.
    pub(crate) fn offset(&self) -> u64 {
        self.upload.offset()
    }
}

impl Store {
    /// Begins to fetch a blob for a repository, or goes on with it.
    pub(crate) fn begin_fetch(&self, name: &RepositoryName, digest: &Digest) -> Result<Begun> {
        if self.link_blob(name, digest)? {
            return Ok(Begun::Held);
        }
        let id = UploadId::of_fetch(digest);
        let folder = self.upload_folder(&id);
        self.disk.create_directory(&folder)?;
        let Some(lock) = self.lock_fetch(&folder)? else { return Ok(Begun::Busy) };
        if self.link_blob(name, digest)? {
            // It arrived between the two looks.
            self.disk.remove_directory(&folder)?;
            return Ok(Begun::Held);
        }
        let upload = if let Some(upload) = self.resume_upload(&id)? {
            upload.into_repository(name)
        } else {
            self.write_session(&folder, &Session::new(name, digest.algorithm()))?;
            self.new_upload(id, name, digest.algorithm())?
        };
        Ok(Begun::Ours(Box::new(Fetch { upload, digest: *digest, _lock: lock })))
    }

    /// `None` when somebody else has it, or had it and took the folder away.
    fn lock_fetch(&self, folder: &Utf8Path) -> Result<Option<File>> {
        let path = folder.join("lock");
        let lock = match open_lock(&self.disk, &path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        let inode = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|metadata| metadata.ino());
        let is_current = inode(lock.metadata()).is_some_and(|ours| inode(fs::metadata(&path)) == Some(ours));
        Ok(is_current.then_some(lock))
    }

    /// Appends what arrived.
    pub(crate) fn append_to_fetch(&self, fetch: &mut Fetch, bytes: &[u8]) -> Result<()> {
        self.append_to_upload(&mut fetch.upload, bytes)
    }

    /// Makes the blob visible when it has its digest; otherwise all of it is thrown away.
    pub(crate) fn finish_fetch(&self, fetch: Fetch) -> Result<()> {
        let Fetch { upload, digest, _lock } = fetch;
        self.finish_upload(upload, &digest)
    }

    /// Throws away what arrived.
    pub(crate) fn cancel_fetch(&self, fetch: Fetch) -> Result<()> {
        let Fetch { upload, _lock, .. } = fetch;
        self.cancel_upload(upload)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use camino::Utf8PathBuf;

    use super::*;

    fn ours(begun: Begun) -> Fetch {
        match begun {
            Begun::Ours(fetch) => *fetch,
            Begun::Held => panic!("held"),
            Begun::Busy => panic!("busy"),
        }
    }

    #[test]
    fn a_blob_is_fetched_by_one_at_a_time_and_goes_on_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(folder.path().join("store")).unwrap();
        let store = Store::create(&path).unwrap();
        let (one, other) = ("a/b".parse().unwrap(), "c".parse().unwrap());
        let digest = Digest::sha256_of(b"hello world");
        let mut fetch = ours(store.begin_fetch(&one, &digest).unwrap());
        assert!(matches!(store.begin_fetch(&one, &digest).unwrap(), Begun::Busy));
        assert!(matches!(Store::open(&path).unwrap().begin_fetch(&other, &digest).unwrap(), Begun::Busy));
        store.append_to_fetch(&mut fetch, b"hello ").unwrap();
        drop(fetch);
        // Another one wants it for another repository.
        let mut fetch = ours(store.begin_fetch(&other, &digest).unwrap());
        assert_eq!(fetch.offset(), 6);
        store.append_to_fetch(&mut fetch, b"world").unwrap();
        store.finish_fetch(fetch).unwrap();
        assert_eq!(store.linked_blob(&other, &digest).unwrap(), Some(11));
        assert_eq!(store.linked_blob(&one, &digest).unwrap(), None);
        assert!(matches!(store.begin_fetch(&one, &digest).unwrap(), Begun::Held));
        assert_eq!(store.linked_blob(&one, &digest).unwrap(), Some(11));
        assert_eq!(store.uploads().unwrap(), 0);
        assert!(store.fsck().unwrap().is_clean());
    }

    #[test]
    fn bytes_with_another_digest_are_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&Utf8PathBuf::try_from(folder.path().join("store")).unwrap()).unwrap();
        let (name, digest) = ("a".parse().unwrap(), Digest::sha256_of(b"right"));
        let mut fetch = ours(store.begin_fetch(&name, &digest).unwrap());
        store.append_to_fetch(&mut fetch, b"wrong").unwrap();
        let error = store.finish_fetch(fetch).unwrap_err();
        assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
        assert_eq!(ours(store.begin_fetch(&name, &digest).unwrap()).offset(), 0);
        assert_eq!(store.blob_size(&digest).unwrap(), None);
    }
}
