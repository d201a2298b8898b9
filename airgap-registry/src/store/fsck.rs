//! Checking a store from end to end. Reads only. Called by `registry fsck`.

use std::fmt::{self, Display};
use std::fs::File;

use bundle::oci::{Algorithm, Digest, Hasher, RepositoryName};
use camino::Utf8Path;
use serde::Serialize;

use super::{Store, disk, upload::hash_file};
use crate::error::{Error, Result};

/// What a check of the whole store found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FsckReport {
    /// How many blobs were hashed.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many repositories were walked.
    pub repositories: u64,
    /// How many manifests they hold.
    pub manifests: u64,
    /// How many tags they have.
    pub tags: u64,
    /// How many bundles were published.
    pub bundles: u64,
    /// Uploads and staged blobs that wait to be continued; no fault.
    pub unfinished: u64,
    /// What is wrong; empty when the store is clean.
    pub problems: Vec<Problem>,
}

/// Something that is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    /// Of which kind.
    pub kind: ProblemKind,
    /// The file, repository or tag.
    pub subject: String,
    /// What is wrong with it.
    pub message: String,
    /// The blob that is damaged or missing, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// A blob's content has another digest than its name.
    CorruptBlob,
    /// A blob cannot be read.
    UnreadableBlob,
    /// Something links to a blob that is not there.
    MissingBlob,
    /// A manifest cannot be understood.
    BadManifest,
    /// A tag points to a manifest that the repository does not hold.
    DanglingTag,
    /// A file that does not belong where it is, or whose content cannot be understood.
    Stray,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CorruptBlob => "corrupt-blob",
            Self::UnreadableBlob => "unreadable-blob",
            Self::MissingBlob => "missing-blob",
            Self::BadManifest => "bad-manifest",
            Self::DanglingTag => "dangling-tag",
            Self::Stray => "stray",
        })
    }
}

impl FsckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The blobs that are damaged or missing, sorted: what a repair has to bring.
    pub fn damaged_blobs(&self) -> Vec<Digest> {
        let mut digests: Vec<_> = self.problems.iter().filter_map(|problem| problem.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        digests
    }

    /// The blobs whose content is wrong or cannot be read, sorted: what a repair has to take away first.
    pub fn corrupt_blobs(&self) -> Vec<Digest> {
        let is_corrupt = |problem: &&Problem| {
            matches!(problem.kind, ProblemKind::CorruptBlob | ProblemKind::UnreadableBlob | ProblemKind::BadManifest)
        };
        let mut digests: Vec<_> =
            self.problems.iter().filter(is_corrupt).filter_map(|problem| problem.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        digests
    }

    fn add(&mut self, kind: ProblemKind, subject: impl Display, digest: Option<Digest>, message: impl Display) {
        self.problems.push(Problem { kind, subject: subject.to_string(), message: message.to_string(), digest });
    }
}

impl Store {
    /// Hashes every blob and follows every link. Takes as long as it takes to read the store.
    pub fn fsck(&self) -> Result<FsckReport> {
        let mut report = FsckReport::default();
        self.check_blobs(&mut report)?;
        for name in self.repositories()? {
            report.repositories += 1;
            self.check_repository(&name, &mut report)?;
        }
        match self.bundles() {
            Ok(records) => {
                report.bundles = records.len() as u64;
                for record in records {
                    for blob in &record.index.blobs {
                        self.check_size(&record.path, &blob.digest, blob.size, &mut report)?;
                    }
                }
            }
            Err(error) => report.add(ProblemKind::Stray, self.root().join("bundles"), None, error),
        }
        report.unfinished = disk::names_in(&self.root().join("uploads"))?.len() as u64;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.root().join("staging/blobs").join(algorithm.name());
            report.unfinished += disk::names_in(&folder)?.len() as u64;
        }
        Ok(report)
    }

    fn check_blobs(&self, report: &mut FsckReport) -> Result<()> {
        let root = self.root().join("blobs");
        for algorithm in disk::names_in(&root)? {
            for prefix in disk::names_in(&root.join(&algorithm))? {
                let folder = root.join(&algorithm).join(&prefix);
                for hex in disk::names_in(&folder)? {
                    let path = folder.join(&hex);
                    match format!("{algorithm}:{hex}").parse::<Digest>() {
                        Ok(digest) if self.blob_path(&digest) == path => check_blob(&path, &digest, report),
                        _ => report.add(ProblemKind::Stray, &path, None, "its name is not a digest in its place"),
                    }
                }
            }
        }
        Ok(())
    }

    fn check_repository(&self, name: &RepositoryName, report: &mut FsckReport) -> Result<()> {
        match self.linked_blobs(name) {
            Ok(links) => {
                for digest in links {
                    if self.blob_size(&digest)?.is_none() {
                        report.add(ProblemKind::MissingBlob, name, Some(digest), "linked, but not in the store");
                    }
                }
            }
            Err(error) => report.add(ProblemKind::Stray, name, None, error),
        }
        let folder = super::layout::repository(self.root(), name);
        match super::repository::digests_in(&folder.join(super::layout::MANIFESTS)) {
            Ok(digests) => {
                for digest in digests {
                    report.manifests += 1;
                    self.check_manifest(name, &digest, report)?;
                }
            }
            Err(error) => report.add(ProblemKind::Stray, name, None, error),
        }
        match self.tags(name) {
            Ok(tags) => {
                for tag in tags {
                    report.tags += 1;
                    let subject = format!("{name}:{tag}");
                    match self.resolve_tag(name, &tag) {
                        Ok(Some(digest)) if self.manifest(name, &digest)?.is_none() => {
                            let message = format!("points to {digest}, which the repository does not hold");
                            report.add(ProblemKind::DanglingTag, subject, None, message);
                        }
                        Ok(_) => {}
                        Err(error) => report.add(ProblemKind::Stray, subject, None, error),
                    }
                }
            }
            Err(error) => report.add(ProblemKind::Stray, name, None, error),
        }
        Ok(())
    }

    fn check_manifest(&self, name: &RepositoryName, digest: &Digest, report: &mut FsckReport) -> Result<()> {
        let subject = format!("{name}@{digest}");
        let Some(file) = self.manifest(name, digest)? else {
            report.add(ProblemKind::MissingBlob, subject, Some(*digest), "the manifest is not in the store");
            return Ok(());
        };
        let manifest = match self.read_manifest(&file) {
            Ok(manifest) => manifest,
            Err(Error::Damaged { why, .. }) => {
                report.add(ProblemKind::BadManifest, subject, Some(*digest), why);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for blob in manifest.blobs.iter().filter(|blob| !blob.is_foreign()) {
            if self.linked_blob(name, &blob.digest)?.is_none() {
                if file.is_sparse {
                    continue;
                }
                let message = format!("its blob {} is not held by the repository", blob.digest);
                report.add(ProblemKind::MissingBlob, &subject, Some(blob.digest), message);
            } else {
                self.check_size(&subject, &blob.digest, blob.size, report)?;
            }
        }
        Ok(())
    }

    fn check_size(&self, subject: impl Display, digest: &Digest, expected: u64, report: &mut FsckReport) -> Result<()> {
        match self.blob_size(digest)? {
            None => {
                report.add(ProblemKind::MissingBlob, subject, Some(*digest), format!("{digest} is not in the store"));
            }
            Some(size) if size != expected => {
                let message = format!("{digest} has {size} bytes, {expected} were promised");
                report.add(ProblemKind::CorruptBlob, subject, Some(*digest), message);
            }
            Some(_) => {}
        }
        Ok(())
    }
}

fn check_blob(path: &Utf8Path, expected: &Digest, report: &mut FsckReport) {
    let mut hasher = Hasher::new(expected.algorithm());
    match File::open(path).and_then(|mut file| hash_file(&mut file, &mut hasher)) {
        Ok(size) => {
            report.blobs += 1;
            report.bytes += size;
            let actual = hasher.finish();
            if actual != *expected {
                let message = format!("its {size} bytes have the digest {actual}");
                report.add(ProblemKind::CorruptBlob, path, Some(*expected), message);
            }
        }
        Err(error) => report.add(ProblemKind::UnreadableBlob, path, Some(*expected), error),
    }
}
