//! The store: content-addressed files on one filesystem, no database.
//!
//! ```text
//! version                                     what this is
//! blobs/ALGORITHM/AA/HEX                      every visible byte, once
//! repositories/NAME/_blobs/ALGORITHM/HEX      what a repository holds (empty files)
//! repositories/NAME/_manifests/ALGORITHM/HEX  its manifests (content: the media type)
//! repositories/NAME/_tags/TAG                 its tags (content: the digest)
//! repositories/NAME/_referrers/…              which manifests are about which other
//! uploads/ID/                                 pushes that are going on
//! uploads/fetch-ALGORITHM-HEX/                blobs that are being fetched from another registry
//! staging/                                    a bundle that is being loaded
//! bundles/NAME-VERSION.json[.minisig]         the signed indexes that were published
//! quarantine/ALGORITHM-HEX                    blobs that fsck found damaged
//! temporary/                                  small files before their rename
//! scrub.json                                  how far the background check is
//! lock, uploads.lock, staging/lock            advisory locks (flock)
//! gate.lock, links.lock, gc.lock              those between garbage collection and everybody else
//! ```
//!
//! Invariant: a file below `blobs/` was complete, synced and had the digest of its name when it was put there; links
//! are made after what they link to. Called by the server, by `bundle load` (as a `Sink`) and by the maintenance
//! commands.

mod activate;
mod content;
pub(crate) mod disk;
#[cfg(test)]
mod faults;
mod fetch;
mod fsck;
mod gc;
pub(crate) mod layout;
mod lease;
mod list;
mod publish;
mod repair;
mod repository;
mod retain;
mod scrub;
mod space;
mod stage;
#[cfg(test)]
mod trials;
mod upload;

use std::fs::{self, File};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};

use crate::error::{Error, Result};
use disk::Disk;

pub(crate) use content::{Content, HeldManifest, HeldRepository};
pub(crate) use fetch::{Begun, Fetch};
pub use fsck::{FsckReport, Problem, ProblemKind};
pub use gc::{GRACE, GcOptions, GcReport};
pub use list::{BundleRecord, HeldBlob, Inventory, ListedRepository, ListedTag};
pub use repair::{RepairReport, RepairSource};
pub use repository::{ManifestFile, PutManifest};
pub use scrub::{ScrubStep, Scrubber};
pub use upload::{Upload, UploadId};

/// The content of the file `version`.
const FORMAT: &str = "cofferdam-registry-store 1";

/// How long an opening waits for another process that holds the store alone for a moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// A registry store that is open. Several processes may have it open at once: a server and a load, for example.
#[derive(Debug)]
pub struct Store {
    disk: Arc<Disk>,
    /// Held shared as long as the store is open.
    lock: File,
    /// Held from the first staged blob until this value is dropped.
    import: Option<[File; 2]>,
    /// Serialises what reads links and then changes them.
    mutations: Mutex<()>,
}

impl Store {
    /// Opens the store at `path`; makes one when there is nothing or an empty directory.
    pub fn create(path: &Utf8Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(Error::io("create the folder", path))?;
        let foreign = |name: &String| !matches!(name.as_str(), "lost+found" | "temporary" | "version");
        if !path.join("version").exists() {
            if disk::names_in(path)?.iter().any(foreign) {
                return Err(Error::NotAStore { path: path.to_owned() });
            }
            let disk = Disk::new(path)?;
            disk.create_directory(&path.join("temporary"))?;
            disk.write(&path.join("version"), format!("{FORMAT}\n").as_bytes())?;
        }
        Self::open(path)
    }

    /// Opens the store at `path`. What a load that was killed while it published has begun is completed.
    pub fn open(path: &Utf8Path) -> Result<Self> {
        let Some(version) = disk::read_if_there(&path.join("version"))? else {
            return Err(Error::NotAStore { path: path.to_owned() });
        };
        let found = String::from_utf8_lossy(&version).trim().to_owned();
        if found != FORMAT {
            return Err(Error::StoreFormat { path: path.to_owned(), found, known: FORMAT });
        }
        let disk = Arc::new(Disk::new(path)?);
        for name in ["blobs", "repositories", "uploads", "staging", "bundles", "quarantine", "temporary"] {
            disk.create_directory(&path.join(name))?;
        }
        let lock = open_lock(&disk, &path.join("lock"))?;
        let store = Self { disk, lock, import: None, mutations: Mutex::new(()) };
        store.lock_shared()?;
        store.recover()?;
        Ok(store)
    }

    /// Where the store is.
    pub fn root(&self) -> &Utf8Path {
        self.disk.root()
    }

    /// Where a blob lies, whether it is there or not.
    pub fn blob_path(&self, digest: &Digest) -> Utf8PathBuf {
        layout::blob(self.root(), digest)
    }

    /// Opens a blob for reading; [`Error::MissingBlob`] when the store does not have it.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing(digest)),
            Err(error) => Err(Error::io("open", &path)(error)),
        }
    }

    /// The size of a blob in bytes; `None` when the store does not have it.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        size_of(&self.blob_path(digest))
    }

    /// Takes a damaged blob out of `blobs/`, so that it is no longer served and that loading the bundle again or
    /// pushing it again puts a good one in its place.
    pub fn quarantine(&self, digest: &Digest) -> Result<()> {
        if self.blob_size(digest)?.is_none() {
            return Ok(());
        }
        let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
        self.disk.publish(&self.blob_path(digest), &self.root().join("quarantine").join(name))
    }

    /// The right to serve from the store, until the returned file is closed: uploads have one server.
    pub(crate) fn lock_serving(&self) -> Result<File> {
        let path = self.root().join("uploads.lock");
        let lock = open_lock(&self.disk, &path)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::WouldBlock) => {
                Err(Error::Busy { path: self.root().to_owned(), by: "another registry serves from it" })
            }
            Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    fn missing(&self, digest: &Digest) -> Error {
        Error::MissingBlob { digest: *digest, path: self.root().to_owned() }
    }

    fn exclusive(&self) -> MutexGuard<'_, ()> {
        // A thread that panicked cannot have left half a change: each change on disk is atomic by itself.
        self.mutations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock of a reader or writer. A process that is alone clears away what a crash left first.
    fn lock_shared(&self) -> Result<()> {
        let path = self.root().join("lock");
        if self.lock.try_lock().is_ok() {
            for name in disk::names_in(&self.root().join("temporary"))? {
                self.disk.remove(&self.root().join("temporary").join(name))?;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lock.try_lock_shared() {
                Ok(()) => return Ok(()),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::Busy { path: self.root().to_owned(), by: "another process has it alone" });
                }
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }
}

/// For reading only: that is enough for a lock, and leaves a filesystem free to become read-only.
fn open_lock(disk: &Disk, path: &Utf8Path) -> Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match disk.create_file(path) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                other => drop(other?),
            }
            File::open(path).map_err(Error::io("open", path))
        }
        other => other.map_err(Error::io("open", path)),
    }
}

/// The size of a file; `None` when it is not there.
pub(crate) fn size_of(path: &Utf8Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
