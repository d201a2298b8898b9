//! Taking away what nothing refers to, while others push, pull and (after it) load.
//!
//! Invariant: a blob is removed only when no link of any repository and no published bundle names it, it is older than
//! the grace period, and nobody relied on it since the marking began (see [`super::lease`]); when a single manifest or
//! record cannot be read, nothing is removed. A bundle that is being loaded and a collection exclude each other. Called
//! by `registry gc` and by the server itself.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime};

use bundle::oci::{Digest, RepositoryName};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::lease::modified;
use super::repository::digests_in;
use super::retain::Dropped;
use super::{Store, disk, layout, open_lock};
use crate::error::{Error, Result};

/// What is younger than this is kept even when nothing refers to it: a push may be about to.
pub const GRACE: Duration = Duration::from_hours(24);

/// How many files are removed while nobody may link: some milliseconds of work.
const HANDFUL: usize = 32;

/// How garbage is collected.
#[derive(Debug, Clone, Copy)]
pub struct GcOptions {
    /// Only say what would be removed.
    pub dry_run: bool,
    /// How long something stays that nothing refers to.
    pub grace: Duration,
    /// How many versions of each bundle are kept, the newest ones; `None`: all.
    pub keep_bundles: Option<usize>,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { dry_run: false, grace: GRACE, keep_bundles: None }
    }
}

/// What garbage collection removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcReport {
    /// Nothing was removed; the rest says what would have been.
    pub dry_run: bool,
    /// Bundles that were dropped, as `NAME-VERSION`.
    pub dropped_bundles: Vec<String>,
    /// Blobs that are referred to, or too young.
    pub kept_blobs: u64,
    /// Blobs that nothing refers to, sorted.
    pub removed_blobs: Vec<Digest>,
    /// Links of repositories to blobs that none of their manifests names.
    pub removed_links: u64,
    /// Uploads and staged blobs that nobody continued.
    pub removed_unfinished: u64,
    /// Bytes that become free.
    pub freed_bytes: u64,
}

struct Marked {
    /// What is referred to.
    live: BTreeSet<Digest>,
    /// Links that no manifest of their repository needs.
    dead_links: Vec<(RepositoryName, Digest)>,
}

/// What is older than both is stale.
#[derive(Clone, Copy)]
struct Horizon {
    start: SystemTime,
    grace: Duration,
}

impl Horizon {
    /// The size of a file that nobody relied on for long enough; `None` when somebody did, or when it is gone.
    fn stale(self, path: &Utf8Path) -> Result<Option<u64>> {
        let Some((when, size)) = modified(path)? else { return Ok(None) };
        // A time in the future (the clock was set back) counts as young.
        let age = when.elapsed().unwrap_or_default();
        Ok((when < self.start && age >= self.grace).then_some(size))
    }
}

impl Store {
    /// Removes what nothing refers to. Fails with [`Error::Busy`] while a bundle is loaded or another collection runs.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport> {
        let _alone = if options.dry_run { None } else { Some(self.lock_collection()?) };
        let mut report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        let dropped = match options.keep_bundles {
            Some(number) => self.drop_bundles(number, options.dry_run)?,
            None => Dropped::default(),
        };
        report.dropped_bundles.clone_from(&dropped.bundles);
        // Links that are made from now on touch what they lead to; all earlier ones can be seen.
        let start = {
            let _quiet = self.sweeping()?;
            SystemTime::now()
        };
        let horizon = Horizon { start, grace: options.grace };
        let marked = self.mark(horizon, &dropped)?;
        self.sweep_links(&marked, horizon, &mut report)?;
        self.sweep_blobs(&marked, horizon, &mut report)?;
        self.sweep_unfinished(horizon, &mut report)?;
        Ok(report)
    }

    fn lock_collection(&self) -> Result<fs::File> {
        let path = self.root().join("gc.lock");
        let lock = open_lock(&self.disk, &path)?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Busy {
                path: self.root().to_owned(),
                by: "a bundle is being loaded, or garbage is collected already",
            }),
            Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    /// Walks all repositories and published bundles.
    fn mark(&self, horizon: Horizon, dropped: &Dropped) -> Result<Marked> {
        let mut live = BTreeSet::new();
        let mut dead_links = Vec::new();
        for name in self.repositories()? {
            let mut needed = BTreeSet::new();
            // Not `manifests()`: that leaves out those whose bytes are gone, and a damaged store is left alone.
            for digest in digests_in(&layout::repository(self.root(), &name).join(layout::MANIFESTS))? {
                if dropped.manifests.contains(&(name.clone(), digest)) {
                    continue;
                }
                let Some(file) = self.manifest(&name, &digest)? else {
                    if layout::manifest_link(self.root(), &name, &digest).exists() {
                        return Err(self.missing(&digest));
                    }
                    // It was deleted a moment ago.
                    continue;
                };
                needed.insert(digest);
                needed.extend(self.read_manifest(&file)?.blobs.iter().map(|blob| blob.digest));
            }
            for digest in self.linked_blobs(&name)? {
                let link = layout::blob_link(self.root(), &name, &digest);
                if needed.contains(&digest) || horizon.stale(&link)?.is_none() {
                    live.insert(digest);
                } else {
                    dead_links.push((name.clone(), digest));
                }
            }
            live.extend(needed);
        }
        for record in self.bundles()? {
            if !dropped.bundles.contains(&record.name()) {
                live.extend(record.index.blobs.iter().map(|blob| blob.digest));
            }
        }
        Ok(Marked { live, dead_links })
    }

    /// Removes files, a handful at a time, after another look at each while nobody may link; gives those that went.
    fn remove_stale(&self, paths: &[Utf8PathBuf], horizon: Horizon) -> Result<Vec<usize>> {
        let mut removed = Vec::new();
        for (number, handful) in paths.chunks(HANDFUL).enumerate() {
            let mut batch = self.disk.batch();
            let sweeping = self.sweeping()?;
            for (at, path) in handful.iter().enumerate() {
                if horizon.stale(path)?.is_some() {
                    batch.remove(path)?;
                    removed.push(number * HANDFUL + at);
                }
            }
            drop(sweeping);
            batch.finish()?;
        }
        Ok(removed)
    }

    fn sweep_links(&self, marked: &Marked, horizon: Horizon, report: &mut GcReport) -> Result<()> {
        let paths: Vec<_> =
            marked.dead_links.iter().map(|(name, digest)| layout::blob_link(self.root(), name, digest)).collect();
        let number = if report.dry_run { paths.len() } else { self.remove_stale(&paths, horizon)?.len() };
        report.removed_links = number as u64;
        Ok(())
    }

    fn sweep_blobs(&self, marked: &Marked, horizon: Horizon, report: &mut GcReport) -> Result<()> {
        let all = self.blobs()?;
        let mut dead = Vec::new();
        for blob in &all {
            if !marked.live.contains(&blob.digest) && horizon.stale(&self.blob_path(&blob.digest))?.is_some() {
                dead.push(blob);
            }
        }
        if !report.dry_run {
            let paths: Vec<_> = dead.iter().map(|blob| self.blob_path(&blob.digest)).collect();
            let removed: BTreeSet<_> = self.remove_stale(&paths, horizon)?.into_iter().collect();
            dead = dead.into_iter().enumerate().filter(|(at, _)| removed.contains(at)).map(|(_, blob)| blob).collect();
        }
        report.kept_blobs = (all.len() - dead.len()) as u64;
        report.freed_bytes += dead.iter().map(|blob| blob.size).sum::<u64>();
        report.removed_blobs = dead.iter().map(|blob| blob.digest).collect();
        Ok(())
    }

    fn sweep_unfinished(&self, horizon: Horizon, report: &mut GcReport) -> Result<()> {
        let uploads = self.root().join("uploads");
        for name in disk::names_in(&uploads)? {
            let folder = uploads.join(name);
            let _sweeping = self.sweeping()?;
            let data = folder.join("data");
            let stale = if data.exists() { horizon.stale(&data)? } else { horizon.stale(&folder)?.map(|_| 0) };
            if let Some(size) = stale {
                report.removed_unfinished += 1;
                report.freed_bytes += size;
                if !report.dry_run {
                    self.disk.remove_directory(&folder)?;
                }
            }
        }
        for digest in digests_in(&self.root().join("staging/blobs"))? {
            let path = layout::staged(self.root(), &digest);
            if let Some(size) = horizon.stale(&path)? {
                report.removed_unfinished += 1;
                report.freed_bytes += size;
                if !report.dry_run {
                    self.disk.remove(&path)?;
                }
            }
        }
        Ok(())
    }
}
