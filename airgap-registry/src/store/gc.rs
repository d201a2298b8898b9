//! Taking away what nothing refers to. Mark and sweep with the store held alone, so that no server and no load runs.
//!
//! Invariant: a blob is removed only when no link of any repository and no published bundle names it and it is older
//! than the grace period; when a single manifest or record cannot be read, nothing is removed. Called by `registry gc`.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use bundle::oci::{Digest, RepositoryName};
use camino::Utf8Path;
use serde::Serialize;

use super::repository::{age_and_size, digests_in};
use super::{Store, disk, layout};
use crate::error::{Error, Result};

/// What is younger than this is kept even when nothing refers to it: a push may be about to.
pub const GRACE: Duration = Duration::from_hours(24);

/// What garbage collection removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcReport {
    /// Nothing was removed; the rest says what would have been.
    pub dry_run: bool,
    /// Blobs that are referred to.
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

impl Store {
    /// Removes what nothing refers to and what is older than [`GRACE`]. Fails with [`Error::Busy`] while another
    /// process has the store open.
    pub fn gc(&self, dry_run: bool) -> Result<GcReport> {
        self.gc_with_grace(dry_run, GRACE)
    }

    /// As [`Store::gc`], with another grace period.
    pub fn gc_with_grace(&self, dry_run: bool, grace: Duration) -> Result<GcReport> {
        if dry_run {
            return self.sweep(true, grace);
        }
        if self.lock.try_lock().is_err() {
            self.lock_shared()?;
            return Err(Error::Busy {
                path: self.root().to_owned(),
                by: "the registry serves from it, or a bundle is being loaded",
            });
        }
        let report = self.sweep(false, grace);
        self.lock_shared()?;
        report
    }

    fn sweep(&self, dry_run: bool, grace: Duration) -> Result<GcReport> {
        let mut report = GcReport { dry_run, ..GcReport::default() };
        let Marked { live, dead_links } = self.mark(grace)?;

        let mut links = self.disk.batch();
        for (name, digest) in &dead_links {
            report.removed_links += 1;
            if !dry_run {
                links.remove(&layout::blob_link(self.root(), name, digest))?;
            }
        }
        links.finish()?;

        let mut blobs = self.disk.batch();
        for blob in self.blobs()? {
            let path = self.blob_path(&blob.digest);
            if live.contains(&blob.digest) || age_and_size(&path)?.is_none_or(|(age, _)| age < grace) {
                report.kept_blobs += 1;
                continue;
            }
            report.removed_blobs.push(blob.digest);
            report.freed_bytes += blob.size;
            if !dry_run {
                blobs.remove(&path)?;
            }
        }
        blobs.finish()?;
        self.sweep_unfinished(&mut report, grace)?;
        Ok(report)
    }

    /// Walks all repositories and published bundles.
    fn mark(&self, grace: Duration) -> Result<Marked> {
        let mut live = BTreeSet::new();
        let mut dead_links = Vec::new();
        for name in self.repositories()? {
            let mut needed = BTreeSet::new();
            // Not `manifests()`: that leaves out those whose bytes are gone, and a damaged store is left alone.
            for digest in digests_in(&layout::repository(self.root(), &name).join(layout::MANIFESTS))? {
                let file = self.manifest(&name, &digest)?.ok_or_else(|| self.missing(&digest))?;
                needed.insert(digest);
                needed.extend(self.read_manifest(&file)?.blobs.iter().map(|blob| blob.digest));
            }
            for digest in self.linked_blobs(&name)? {
                let link = layout::blob_link(self.root(), &name, &digest);
                if needed.contains(&digest) || age_and_size(&link)?.is_none_or(|(age, _)| age < grace) {
                    live.insert(digest);
                } else {
                    dead_links.push((name.clone(), digest));
                }
            }
            live.extend(needed);
        }
        for record in self.bundles()? {
            live.extend(record.index.contents().map(|blob| blob.digest));
        }
        Ok(Marked { live, dead_links })
    }

    fn sweep_unfinished(&self, report: &mut GcReport, grace: Duration) -> Result<()> {
        let uploads = self.root().join("uploads");
        for name in disk::names_in(&uploads)? {
            let folder = uploads.join(name);
            let age = age_and_size(&folder.join("data"))?.or(age_and_size(&folder)?);
            if let Some((age, size)) = age
                && age >= grace
            {
                report.removed_unfinished += 1;
                report.freed_bytes += size;
                if !report.dry_run {
                    fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
                }
            }
        }
        let staged = self.root().join("staging/blobs");
        for digest in digests_in(&staged)? {
            self.sweep_file(&layout::staged(self.root(), &digest), report, grace)?;
        }
        Ok(())
    }

    fn sweep_file(&self, path: &Utf8Path, report: &mut GcReport, grace: Duration) -> Result<()> {
        if let Some((age, size)) = age_and_size(path)?
            && age >= grace
        {
            report.removed_unfinished += 1;
            report.freed_bytes += size;
            if !report.dry_run {
                self.disk.remove(path)?;
            }
        }
        Ok(())
    }
}
