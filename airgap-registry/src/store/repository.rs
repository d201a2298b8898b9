//! What a repository holds: links to blobs and manifests, tags, referrers.
//!
//! Invariant: a link is made after what it links to is durable, and a tag after its manifest; removal goes the other
//! way round, so that at any moment, and after any crash, what can be found can be followed. Called by the server.

use std::fs;

use bundle::oci::{Algorithm, Digest, RepositoryName, Tag};
use camino::Utf8Path;

use super::disk::{self, Disk};
use super::{Store, layout};
use crate::error::{Error, Result, damaged};
use crate::manifest::{MAXIMUM_MANIFEST, Manifest, ManifestError};

/// A manifest as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its digest.
    pub digest: Digest,
    /// The media type it was pushed with.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was taken although not all of its blobs were here.
    pub is_sparse: bool,
}

/// The second line of a manifest's link when not all of its blobs were here.
const SPARSE: &str = "sparse";

/// What became of a manifest that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutManifest {
    /// It is there, durably.
    Stored {
        /// How many of its blobs are not; 0 unless sparse manifests are taken.
        missing: usize,
    },
    /// Refused: the repository does not hold these.
    Missing(Vec<Digest>),
}

impl Store {
    /// All repositories, sorted.
    pub fn repositories(&self) -> Result<Vec<RepositoryName>> {
        let mut found = Vec::new();
        find_repositories(&self.root().join("repositories"), "", &mut found)?;
        found.sort_unstable();
        Ok(found)
    }

    /// Whether there is such a repository: something was put into it once.
    pub fn has_repository(&self, name: &RepositoryName) -> bool {
        let folder = layout::repository(self.root(), name);
        folder.join(layout::BLOBS).is_dir() || folder.join(layout::MANIFESTS).is_dir()
    }

    /// The size of a blob that the repository holds; `None` when it does not hold it.
    pub fn linked_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<u64>> {
        if layout::blob_link(self.root(), name, digest).is_file() { self.blob_size(digest) } else { Ok(None) }
    }

    /// Makes a blob of the store one of the repository; `false` when the store does not have it.
    pub fn link_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool> {
        let linking = self.linking()?;
        self.rely_on(&linking, name, digest)
    }

    /// Whether some repository that `readable` says yes to holds a blob.
    pub(crate) fn is_linked_in(&self, digest: &Digest, readable: &dyn Fn(&RepositoryName) -> bool) -> Result<bool> {
        if self.blob_size(digest)?.is_none() {
            return Ok(false);
        }
        let names = self.repositories()?;
        let holds = |name: &RepositoryName| {
            layout::blob_link(self.root(), name, digest).is_file()
                || layout::manifest_link(self.root(), name, digest).is_file()
        };
        Ok(names.iter().any(|name| holds(name) && readable(name)))
    }

    /// Links the blobs of a manifest that the repository lacks and that one which `readable` says yes to holds.
    pub(crate) fn adopt_blobs(
        &self,
        name: &RepositoryName,
        manifest: &Manifest,
        readable: &dyn Fn(&RepositoryName) -> bool,
    ) -> Result<()> {
        for blob in manifest.blobs.iter().filter(|blob| !blob.is_foreign()) {
            if self.linked_blob(name, &blob.digest)?.is_none() && self.is_linked_in(&blob.digest, readable)? {
                self.link_blob(name, &blob.digest)?;
            }
        }
        Ok(())
    }

    /// The file of a tag, whether it is there or not.
    pub(crate) fn tag_path(&self, name: &RepositoryName, tag: &Tag) -> camino::Utf8PathBuf {
        layout::tag(self.root(), name, tag)
    }

    /// The file that says that a repository holds a manifest, whether it is there or not.
    pub(crate) fn manifest_path(&self, name: &RepositoryName, digest: &Digest) -> camino::Utf8PathBuf {
        layout::manifest_link(self.root(), name, digest)
    }

    /// Takes a blob out of the repository; `false` when it was not in. Its bytes stay until garbage is collected.
    pub fn unlink_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool> {
        let _guard = self.exclusive();
        let link = layout::blob_link(self.root(), name, digest);
        let was_there = link.is_file();
        self.disk.remove(&link)?;
        Ok(was_there)
    }

    /// What a tag points to; `None` when there is no such tag.
    pub fn resolve_tag(&self, name: &RepositoryName, tag: &Tag) -> Result<Option<Digest>> {
        let path = layout::tag(self.root(), name, tag);
        let Some(bytes) = disk::read_if_there(&path)? else { return Ok(None) };
        String::from_utf8_lossy(&bytes).trim().parse().map(Some).map_err(damaged(&path))
    }

    /// A manifest of the repository; `None` when it does not hold it.
    pub fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<Option<ManifestFile>> {
        let Some(media_type) = disk::read_if_there(&layout::manifest_link(self.root(), name, digest))? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&media_type);
        let mut lines = text.lines().map(str::trim);
        let media_type = lines.next().unwrap_or_default().to_owned();
        let is_sparse = lines.any(|line| line == SPARSE);
        Ok(self.blob_size(digest)?.map(|size| ManifestFile { digest: *digest, media_type, size, is_sparse }))
    }

    /// The manifests of a repository, sorted by digest.
    pub fn manifests(&self, name: &RepositoryName) -> Result<Vec<ManifestFile>> {
        let folder = layout::repository(self.root(), name).join(layout::MANIFESTS);
        let digests = digests_in(&folder)?;
        Ok(digests
            .iter()
            .map(|digest| self.manifest(name, digest))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Reads and takes apart a manifest.
    pub fn read_manifest(&self, file: &ManifestFile) -> Result<Manifest> {
        let path = self.blob_path(&file.digest);
        let bytes = self.read_manifest_bytes(file)?;
        Manifest::parse(&bytes, Some(&file.media_type))
            .map_err(|error: ManifestError| Error::Damaged { path, why: error.to_string() })
    }

    /// The bytes of a manifest.
    pub(crate) fn read_manifest_bytes(&self, file: &ManifestFile) -> Result<Vec<u8>> {
        let path = self.blob_path(&file.digest);
        if file.size > MAXIMUM_MANIFEST as u64 {
            // More than a manifest may have was never taken in: the file is not what was written.
            return Err(Error::Damaged { path, why: format!("it has {} bytes, too many for a manifest", file.size) });
        }
        fs::read(&path).map_err(Error::io("read", &path))
    }

    /// The tags of a repository, sorted; none when there is no such repository.
    pub fn tags(&self, name: &RepositoryName) -> Result<Vec<Tag>> {
        let folder = layout::repository(self.root(), name).join(layout::TAGS);
        disk::names_in(&folder)?.iter().map(|tag| tag.parse().map_err(damaged(&folder.join(tag)))).collect()
    }

    /// Stores a manifest, durably, and points tags to it. Refused when the repository does not hold its blobs, or when of
    /// an index's manifests not a single one is here (an index may be sparse: a site keeps the platforms that it has),
    /// unless `is_sparse_taken`.
    pub fn put_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        bytes: &[u8],
        manifest: &Manifest,
        tags: &[Tag],
        is_sparse_taken: bool,
    ) -> Result<PutManifest> {
        let linking = self.linking()?;
        let _guard = self.exclusive();
        let mut missing = Vec::new();
        for blob in manifest.blobs.iter().filter(|blob| !blob.is_foreign()) {
            if self.linked_blob(name, &blob.digest)?.is_none() || !self.rely_on(&linking, name, &blob.digest)? {
                missing.push(blob.digest);
            }
        }
        let is_sparse = !missing.is_empty();
        let mut children = Vec::new();
        for child in &manifest.manifests {
            if self.manifest(name, &child.digest)?.is_none() {
                children.push(child.digest);
            }
        }
        if !children.is_empty() && children.len() == manifest.manifests.len() {
            missing.append(&mut children);
        }
        if !missing.is_empty() && !is_sparse_taken {
            return Ok(PutManifest::Missing(missing));
        }
        self.disk.write(&self.blob_path(digest), bytes)?;
        Disk::touch(&self.blob_path(digest))?;
        if let Some(subject) = &manifest.subject {
            self.disk.write(&layout::referrer(self.root(), name, &subject.digest, digest), b"")?;
        }
        let mut link = manifest.media_type.clone();
        if is_sparse {
            link.push('\n');
            link.push_str(SPARSE);
        }
        self.disk.write(&layout::manifest_link(self.root(), name, digest), link.as_bytes())?;
        let mut batch = self.disk.batch();
        for tag in tags {
            batch.write(&layout::tag(self.root(), name, tag), digest.to_string().as_bytes())?;
        }
        batch.finish()?;
        Ok(PutManifest::Stored { missing: missing.len() })
    }

    /// Removes a tag; `false` when it was not there. The manifest stays.
    pub fn delete_tag(&self, name: &RepositoryName, tag: &Tag) -> Result<bool> {
        let _guard = self.exclusive();
        let path = layout::tag(self.root(), name, tag);
        let was_there = path.is_file();
        self.disk.remove(&path)?;
        Ok(was_there)
    }

    /// Removes a manifest and all tags that point to it; `false` when it was not there.
    pub fn delete_manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<bool> {
        let _guard = self.exclusive();
        let link = layout::manifest_link(self.root(), name, digest);
        let Some(file) = self.manifest(name, digest)? else {
            self.disk.remove(&link)?;
            return Ok(false);
        };
        let mut tags = self.disk.batch();
        for tag in self.tags(name)? {
            if self.resolve_tag(name, &tag)? == Some(*digest) {
                tags.remove(&layout::tag(self.root(), name, &tag))?;
            }
        }
        tags.finish()?;
        self.disk.remove(&link)?;
        if let Ok(manifest) = self.read_manifest(&file)
            && let Some(subject) = manifest.subject
        {
            self.disk.remove(&layout::referrer(self.root(), name, &subject.digest, digest))?;
        }
        Ok(true)
    }

    /// The manifests of the repository whose subject is `subject`, sorted by digest.
    pub fn referrers(&self, name: &RepositoryName, subject: &Digest) -> Result<Vec<(ManifestFile, Manifest)>> {
        let folder = layout::referrers(self.root(), name, subject);
        let mut found = Vec::new();
        for entry in disk::names_in(&folder)? {
            let digest = entry.replacen('-', ":", 1).parse().map_err(damaged(&folder.join(&entry)))?;
            // The entry is made before the manifest's link and removed after it: without the link it does not count.
            if let Some(file) = self.manifest(name, &digest)? {
                let manifest = self.read_manifest(&file)?;
                found.push((file, manifest));
            }
        }
        Ok(found)
    }
}

fn find_repositories(folder: &Utf8Path, name: &str, found: &mut Vec<RepositoryName>) -> Result<()> {
    let mut is_repository = false;
    for component in disk::names_in(folder)? {
        if component == layout::BLOBS || component == layout::MANIFESTS {
            is_repository = true;
        } else if !component.starts_with('_') {
            let name = if name.is_empty() { component.clone() } else { format!("{name}/{component}") };
            find_repositories(&folder.join(&component), &name, found)?;
        }
    }
    if is_repository {
        found.push(name.parse().map_err(damaged(folder))?);
    }
    Ok(())
}

/// The digests in a folder of the shape `ALGORITHM/HEX`.
pub(crate) fn digests_in(folder: &Utf8Path) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let folder = folder.join(algorithm.name());
        for hex in disk::names_in(&folder)? {
            digests.push(format!("{}:{hex}", algorithm.name()).parse().map_err(damaged(&folder.join(&hex)))?);
        }
    }
    Ok(digests)
}
