//! What the store holds, for people and for the next bundle. Called by `registry ls`, `bundle inventory`, `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

pub use bundle::delta::{HeldBlob, Inventory};
use bundle::index::Index;
use bundle::oci::{Algorithm, Digest, RepositoryName, Tag};
use camino::Utf8PathBuf;
use serde::Serialize;

use super::{Store, disk, repository::digests_in, size_of};
use crate::error::{Error, Result};

/// A repository in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListedRepository {
    /// Its name.
    pub name: RepositoryName,
    /// Its tags, sorted.
    pub tags: Vec<ListedTag>,
    /// Manifests that no tag points to, sorted.
    pub untagged: Vec<Digest>,
}

/// A tag in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ListedTag {
    /// The tag.
    pub tag: Tag,
    /// What it points to.
    pub digest: Digest,
    /// Bytes of the manifest and of all that it leads to, each blob once; what other images share is counted too.
    pub size: u64,
}

/// A bundle that was published into the store.
#[derive(Debug, Clone)]
pub struct BundleRecord {
    /// What it held.
    pub index: Index,
    /// The signed index as a file; the signature lies beside it, with `.minisig` after its name.
    pub path: Utf8PathBuf,
}

impl Store {
    /// All repositories with their tags.
    pub fn list(&self) -> Result<Vec<ListedRepository>> {
        self.repositories()?.into_iter().map(|name| self.list_repository(name)).collect()
    }

    fn list_repository(&self, name: RepositoryName) -> Result<ListedRepository> {
        let mut tags = Vec::new();
        for tag in self.tags(&name)? {
            if let Some(digest) = self.resolve_tag(&name, &tag)? {
                let mut blobs = BTreeMap::new();
                self.weigh(&name, &digest, &mut blobs)?;
                tags.push(ListedTag { tag, digest, size: blobs.values().sum() });
            }
        }
        let tagged: BTreeSet<_> = tags.iter().map(|tag| tag.digest).collect();
        let manifests = self.manifests(&name)?;
        let untagged = manifests.iter().map(|file| file.digest).filter(|digest| !tagged.contains(digest)).collect();
        Ok(ListedRepository { name, tags, untagged })
    }

    fn weigh(&self, name: &RepositoryName, digest: &Digest, blobs: &mut BTreeMap<Digest, u64>) -> Result<()> {
        let Some(file) = self.manifest(name, digest)? else { return Ok(()) };
        if blobs.insert(*digest, file.size).is_some() {
            return Ok(());
        }
        let manifest = self.read_manifest(&file)?;
        blobs.extend(manifest.blobs.iter().map(|blob| (blob.digest, blob.size)));
        manifest.manifests.iter().try_for_each(|child| self.weigh(name, &child.digest, blobs))
    }

    /// Every blob with its size, sorted.
    pub fn blobs(&self) -> Result<Vec<HeldBlob>> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.root().join("blobs").join(algorithm.name());
            for prefix in disk::names_in(&folder)? {
                for hex in disk::names_in(&folder.join(&prefix))? {
                    let path = folder.join(&prefix).join(&hex);
                    // A name that is no digest is for fsck to report.
                    if let Ok(digest) = format!("{}:{hex}", algorithm.name()).parse()
                        && let Some(size) = size_of(&path)?
                    {
                        blobs.push(HeldBlob { digest, size });
                    }
                }
            }
        }
        Ok(blobs)
    }

    /// What the site holds.
    pub fn inventory(&self) -> Result<Inventory> {
        let bundles = self.bundles()?;
        Ok(Inventory {
            schema_version: 1,
            bundles: bundles.iter().map(|record| format!("{}-{}", record.index.name, record.index.version)).collect(),
            blobs: self.blobs()?,
        })
    }

    /// The bundles that were published, sorted by file name.
    pub fn bundles(&self) -> Result<Vec<BundleRecord>> {
        let folder = self.root().join("bundles");
        let names = disk::names_in(&folder)?;
        let paths = names.iter().map(|name| folder.join(name)).filter(|path| path.extension() == Some("json"));
        paths
            .map(|path| {
                let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
                let index = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::Damaged { path: path.clone(), why: error.to_string() })?;
                Ok(BundleRecord { index, path })
            })
            .collect()
    }

    /// The blobs that a repository is linked to, sorted.
    pub(super) fn linked_blobs(&self, name: &RepositoryName) -> Result<Vec<Digest>> {
        digests_in(&super::layout::repository(self.root(), name).join(super::layout::BLOBS))
    }
}
