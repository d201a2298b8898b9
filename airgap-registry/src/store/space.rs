//! How full the disk is. Called by everything that takes bytes in.

use super::Store;
use crate::error::{Error, Result};

impl Store {
    /// Bytes of the store's filesystem that its user may still fill.
    pub(crate) fn free_bytes(&self) -> Result<u64> {
        let numbers = rustix::fs::statvfs(self.root().as_std_path())
            .map_err(|error| Error::io("look for free space on", self.root())(error.into()))?;
        Ok(numbers.f_bavail.saturating_mul(numbers.f_frsize))
    }

    /// Refuses with [`Error::DiskNearlyFull`] when fewer than `watermark` bytes are free.
    pub(crate) fn require_free(&self, watermark: u64) -> Result<()> {
        let free = self.free_bytes()?;
        if free >= watermark {
            return Ok(());
        }
        Err(Error::DiskNearlyFull { path: self.root().to_owned(), free, watermark })
    }

    /// How many uploads are going on or wait to be continued.
    pub(crate) fn uploads(&self) -> Result<usize> {
        let path = self.root().join("uploads");
        match path.read_dir_utf8() {
            Ok(entries) => Ok(entries.count()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::io("list", &path)(error)),
        }
    }
}
