//! Hashing all blobs again, one after the other and no faster than asked, to find damage before a node does.
//!
//! Invariant: a blob is taken away only when its bytes were read twice and both times had another digest than its name,
//! and only the very file that was read: a good one that was put in its place meanwhile stays. How far a pass is lies in
//! `scrub.json`, so that a restart goes on. Called by a thread of the server.

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use bundle::oci::{Algorithm, Digest, Hasher};
use rustix::io::ReadWriteFlags;
use serde::{Deserialize, Serialize};

use super::{Store, disk};
use crate::error::{Error, Result};

/// How much is read at once.
const PIECE: usize = 256 << 10;

/// How far a pass is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Position {
    /// The folder of 256 that was finished last, as `ALGORITHM/AA`.
    #[serde(default)]
    finished: Option<String>,
}

/// What the next step of a pass came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrubStep {
    /// A blob is as it should be.
    Good {
        /// Its size.
        bytes: u64,
    },
    /// A blob was damaged and was taken to the quarantine.
    Damaged {
        /// The digest of its name.
        digest: Digest,
        /// Its size.
        bytes: u64,
    },
    /// All blobs were looked at.
    PassDone,
}

/// A pass over all blobs.
pub struct Scrubber<'a> {
    store: &'a Store,
    bytes_per_second: u64,
    /// Folders that are left, the next one last.
    folders: Vec<String>,
    /// Blobs of the folder in work that are left, the next one last.
    blobs: Vec<Digest>,
    folder: Option<String>,
    /// When the reading began that is being paced, and how much was read since.
    paced: (Instant, u64),
}

impl Store {
    /// Goes on with the pass that a former process has begun, or begins one.
    pub fn scrub(&self, bytes_per_second: u64) -> Result<Scrubber<'_>> {
        let path = self.root().join("scrub.json");
        // A file that cannot be understood costs a pass from the beginning, nothing more.
        let position: Position =
            disk::read_if_there(&path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let mut folders = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for prefix in disk::names_in(&self.root().join("blobs").join(algorithm.name()))? {
                folders.push(format!("{}/{prefix}", algorithm.name()));
            }
        }
        folders.retain(|folder| position.finished.as_ref().is_none_or(|finished| folder > finished));
        folders.reverse();
        Ok(Scrubber {
            store: self,
            bytes_per_second: bytes_per_second.max(1),
            folders,
            blobs: Vec::new(),
            folder: None,
            paced: (Instant::now(), 0),
        })
    }

    fn remember_scrub(&self, finished: Option<String>) -> Result<()> {
        let bytes = serde_json::to_vec(&Position { finished }).map_err(|_| Error::Unexpected("cannot write JSON"))?;
        self.disk.write(&self.root().join("scrub.json"), &bytes)
    }
}

impl Scrubber<'_> {
    /// Looks at the next blob; `keep_going` is asked between two pieces, so that the server can end.
    pub fn step(&mut self, keep_going: &dyn Fn() -> bool) -> Result<ScrubStep> {
        loop {
            if !keep_going() {
                return Ok(ScrubStep::Good { bytes: 0 });
            }
            if let Some(digest) = self.blobs.pop() {
                if let Some(step) = self.check(&digest, keep_going)? {
                    return Ok(step);
                }
                continue;
            }
            if let Some(folder) = self.folder.take() {
                self.store.remember_scrub(Some(folder))?;
            }
            let Some(folder) = self.folders.pop() else {
                self.store.remember_scrub(None)?;
                return Ok(ScrubStep::PassDone);
            };
            let (algorithm, _) = folder.split_once('/').unwrap_or_default();
            let names = disk::names_in(&self.store.root().join("blobs").join(&folder))?;
            self.blobs = names.iter().rev().filter_map(|hex| format!("{algorithm}:{hex}").parse().ok()).collect();
            self.folder = Some(folder);
        }
    }

    /// `None` when the blob is gone, or when the server ends.
    fn check(&mut self, digest: &Digest, keep_going: &dyn Fn() -> bool) -> Result<Option<ScrubStep>> {
        let path = self.store.blob_path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let mut bytes = 0;
        for _ in 0..2 {
            match self.hash(&mut file, digest.algorithm(), keep_going) {
                Ok(None) => return Ok(None),
                Ok(Some((found, size))) if found == *digest => return Ok(Some(ScrubStep::Good { bytes: size })),
                Ok(Some((_, size))) => bytes = size,
                // What cannot be read is as damaged as what is wrong.
                Err(error) => tracing::warn!(%digest, %error, "a blob cannot be read"),
            }
        }
        let is_taken = self.store.quarantine_file(digest, &file)?;
        Ok(is_taken.then_some(ScrubStep::Damaged { digest: *digest, bytes }))
    }

    fn hash(
        &mut self,
        file: &mut File,
        algorithm: Algorithm,
        keep_going: &dyn Fn() -> bool,
    ) -> io::Result<Option<(Digest, u64)>> {
        // What others use stays in the page cache; what only this reads goes out again.
        let was_cached =
            rustix::io::preadv2(&*file, &mut [IoSliceMut::new(&mut [0; 1])], 0, ReadWriteFlags::NOWAIT).is_ok();
        io::Seek::rewind(file)?;
        let mut hasher = Hasher::new(algorithm);
        let (mut buffer, mut size) = (vec![0; PIECE], 0);
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(buffer.get(..count).unwrap_or_default());
            size += count as u64;
            if !self.pace(count as u64, keep_going) {
                return Ok(None);
            }
        }
        if !was_cached {
            let _ = rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::DontNeed);
        }
        Ok(Some((hasher.finish(), size)))
    }

    /// Waits until the bytes that were read are no more than the rate allows; `false` when the server ends.
    fn pace(&mut self, bytes: u64, keep_going: &dyn Fn() -> bool) -> bool {
        const NAP: Duration = Duration::from_millis(100);
        self.paced.1 += bytes;
        let due = Duration::from_secs_f64(to_float(self.paced.1) / to_float(self.bytes_per_second));
        while let Some(early) = due.checked_sub(self.paced.0.elapsed()).filter(|early| !early.is_zero()) {
            if !keep_going() {
                return false;
            }
            std::thread::sleep(early.min(NAP));
        }
        if due > Duration::from_secs(10) {
            // Time that was lost (the machine was busy) is not caught up with.
            self.paced = (Instant::now(), 0);
        }
        keep_going()
    }
}

#[allow(clippy::cast_precision_loss)]
fn to_float(number: u64) -> f64 {
    number as f64
}

impl Store {
    /// Takes the file of a blob away when it is still the one that was read.
    fn quarantine_file(&self, digest: &Digest, read: &File) -> Result<bool> {
        let path = self.blob_path(digest);
        let _sweeping = self.sweeping()?;
        let inode = read.metadata().map_err(Error::io("read", &path))?.ino();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.ino() == inode => {}
            _ => return Ok(false),
        }
        self.quarantine(digest)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use camino::Utf8PathBuf;

    fn store(blobs: &[Vec<u8>]) -> (tempfile::TempDir, Store, Vec<Digest>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&Utf8PathBuf::try_from(folder.path().join("store")).unwrap()).unwrap();
        let name = "a".parse().unwrap();
        let digests = blobs.iter().map(|bytes| {
            let digest = Digest::sha256_of(bytes);
            let mut upload = store.begin_upload(&name, Algorithm::Sha256).unwrap();
            store.append_to_upload(&mut upload, bytes).unwrap();
            store.finish_upload(upload, &digest).unwrap();
            digest
        });
        let digests = digests.collect();
        (folder, store, digests)
    }

    #[test]
    fn damage_is_found_and_taken_away_and_a_restart_goes_on() {
        let blobs: Vec<_> = (0..40).map(|number| format!("blob {number}").into_bytes()).collect();
        let (_folder, store, digests) = store(&blobs);
        let flipped = digests[17];
        let mut bytes = fs::read(store.blob_path(&flipped)).unwrap();
        bytes[3] ^= 1;
        fs::write(store.blob_path(&flipped), bytes).unwrap();
        // A process that ends after each step, and one more that finds nothing left.
        let (mut good, mut damaged, mut passes) = (0, Vec::new(), 0);
        let mut steps = 0;
        while passes == 0 {
            let mut scrubber = store.scrub(u64::MAX).unwrap();
            for _ in 0..7 {
                steps += 1;
                match scrubber.step(&|| true).unwrap() {
                    ScrubStep::Good { .. } => good += 1,
                    ScrubStep::Damaged { digest, .. } => damaged.push(digest),
                    ScrubStep::PassDone => {
                        passes += 1;
                        break;
                    }
                }
            }
        }
        assert_eq!(damaged, [flipped]);
        assert!(good >= 39 && steps < 200, "{good} {steps}");
        assert_eq!(store.blob_size(&flipped).unwrap(), None);
        assert_eq!(disk::names_in(&store.root().join("quarantine")).unwrap().len(), 1);
        assert_eq!(store.fsck().unwrap().damaged_blobs(), [flipped]);
    }

    #[test]
    fn a_good_file_that_was_put_in_the_place_of_the_damaged_one_stays() {
        let (_folder, store, digests) = store(&[b"good".to_vec()]);
        let path = store.blob_path(&digests[0]);
        let read = File::open(&path).unwrap();
        store.disk.write(&path, b"good").unwrap();
        assert!(!store.quarantine_file(&digests[0], &read).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"good");
    }

    #[test]
    fn no_faster_than_asked() {
        let (_folder, store, _) = store(&[vec![1; 3 << 20]]);
        let mut scrubber = store.scrub(4 << 20).unwrap();
        let before = Instant::now();
        scrubber.step(&|| true).unwrap();
        assert!(before.elapsed() >= Duration::from_millis(700), "3 MiB at 4 MiB a second");
        // The server ends in the middle.
        let mut scrubber = store.scrub(1).unwrap();
        assert_eq!(scrubber.step(&|| false).unwrap(), ScrubStep::Good { bytes: 0 });
    }
}
