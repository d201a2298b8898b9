//! Who relies on a blob, and who may take it away: what lets garbage be collected while others push and load.
//!
//! Invariant: whoever makes or renews a link does it while [`Linking`] is held, and touches the link and the blob (sets
//! their modification time). The collector takes [`Sweeping`], which excludes all of those, twice: for the moment from
//! which on it marks, so that each link was made either before (and is seen) or after (and has touched what it leads
//! to), and for each handful of removals, where it looks again and leaves what was touched since. Both are locks of
//! files (flock(2)), so that they hold between processes as well. Called by everything that links, and by gc.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use bundle::oci::{Digest, RepositoryName};
use camino::Utf8Path;

use super::disk::Disk;
use super::{Store, layout, open_lock};
use crate::error::{Error, Result};

/// A blob that was touched so long ago is touched again when somebody asks whether it is there.
const RENEWAL: Duration = Duration::from_mins(30);

/// The right to make links.
#[must_use]
pub(super) struct Linking(#[allow(dead_code)] File);

/// The right to remove what nothing leads to; nobody links meanwhile.
#[must_use]
pub(super) struct Sweeping(#[allow(dead_code)] [File; 2]);

impl Store {
    /// Waits for the collector, if it is at work, for the few milliseconds that a handful of removals takes.
    pub(super) fn linking(&self) -> Result<Linking> {
        // First through the gate, at which a collector that wants its turn lets nobody pass any more.
        let gate = self.take_lock("gate.lock", false)?;
        let lock = self.take_lock("links.lock", false)?;
        drop(gate);
        Ok(Linking(lock))
    }

    pub(super) fn sweeping(&self) -> Result<Sweeping> {
        let gate = self.take_lock("gate.lock", true)?;
        let lock = self.take_lock("links.lock", true)?;
        Ok(Sweeping([gate, lock]))
    }

    fn take_lock(&self, name: &str, alone: bool) -> Result<File> {
        let path = self.root().join(name);
        // Opened anew each time: the lock belongs to what was opened, and threads must exclude each other as well.
        let lock = open_lock(&self.disk, &path)?;
        let result = if alone { lock.lock() } else { lock.lock_shared() };
        result.map_err(Error::io("lock", &path))?;
        Ok(lock)
    }

    /// Makes or renews the link of a repository to a blob; `false` when the store does not have the blob.
    pub(super) fn rely_on(&self, _: &Linking, name: &RepositoryName, digest: &Digest) -> Result<bool> {
        if !Disk::touch(&self.blob_path(digest))? {
            return Ok(false);
        }
        let link = layout::blob_link(self.root(), name, digest);
        if !Disk::touch(&link)? {
            self.disk.write(&link, b"")?;
            Disk::touch(&link)?;
        }
        Ok(true)
    }

    /// Whether it is time to touch a blob that somebody asked for.
    pub(crate) fn lease_is_due(&self, name: &RepositoryName, digest: &Digest) -> Result<bool> {
        Ok(age(&layout::blob_link(self.root(), name, digest))?.is_some_and(|age| age > RENEWAL))
    }

    /// Touches a blob that a repository holds, so that it is not collected in the next hours.
    pub(crate) fn lease(&self, name: &RepositoryName, digest: &Digest) -> Result<()> {
        let linking = self.linking()?;
        if layout::blob_link(self.root(), name, digest).is_file() {
            self.rely_on(&linking, name, digest)?;
        }
        Ok(())
    }
}

/// When a file was modified, and its size; `None` when it is not there.
pub(super) fn modified(path: &Utf8Path) -> Result<Option<(SystemTime, u64)>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.modified().map_err(Error::io("read", path))?, metadata.len()))),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// How long ago a file was modified. A time in the future (the clock was set back) counts as now.
fn age(path: &Utf8Path) -> Result<Option<Duration>> {
    Ok(modified(path)?.map(|(when, _)| when.elapsed().unwrap_or_default()))
}
