//! All that a store holds, for a server that follows it; and taking over what only such a server takes over.
//!
//! Invariant: what is taken over is linked only when what it leads to is here, so that a follower that stops half-way
//! serves nothing that leads nowhere. Called at `/v2/_cofferdam/content` and by [`crate::peer`].

use std::fs;

use bundle::index::Index;
use bundle::oci::{Digest, RepositoryName, Tag};
use serde::{Deserialize, Serialize};

use super::list::HeldBlob;
use super::publish::record_name;
use super::repository::ManifestFile;
use super::{Store, disk, layout};
use crate::error::{Error, Result};

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Content {
    pub(crate) schema_version: u32,
    pub(crate) repositories: Vec<HeldRepository>,
    pub(crate) bundles: Vec<HeldRecord>,
}

/// A repository of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HeldRepository {
    pub(crate) name: RepositoryName,
    /// The blobs that it is linked to, manifests not among them.
    pub(crate) blobs: Vec<HeldBlob>,
    pub(crate) manifests: Vec<HeldManifest>,
    pub(crate) tags: Vec<HeldTag>,
}

/// A manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HeldManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    /// It was taken although not all of its blobs were there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_sparse: bool,
}

impl From<ManifestFile> for HeldManifest {
    fn from(file: ManifestFile) -> Self {
        let ManifestFile { digest, media_type, size, is_sparse } = file;
        Self { digest, media_type, size, is_sparse }
    }
}

/// A tag of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HeldTag {
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
}

/// The record of a bundle that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HeldRecord {
    /// The bytes of the signed index.
    pub(crate) index: String,
    /// The bytes of its signature.
    pub(crate) signature: String,
}

impl Store {
    /// All that the store holds.
    pub(crate) fn content(&self) -> Result<Content> {
        let repositories = self.repositories()?.into_iter().map(|name| self.repository_content(name));
        let repositories = repositories.collect::<Result<Vec<_>>>()?;
        Ok(Content { schema_version: 1, repositories, bundles: self.records()? })
    }

    fn repository_content(&self, name: RepositoryName) -> Result<HeldRepository> {
        let mut blobs = Vec::new();
        for digest in self.linked_blobs(&name)? {
            if let Some(size) = self.blob_size(&digest)? {
                blobs.push(HeldBlob { digest, size });
            }
        }
        let mut tags = Vec::new();
        for tag in self.tags(&name)? {
            if let Some(digest) = self.resolve_tag(&name, &tag)? {
                tags.push(HeldTag { tag, digest });
            }
        }
        let manifests = self.manifests(&name)?.into_iter().map(HeldManifest::from).collect();
        Ok(HeldRepository { name, blobs, manifests, tags })
    }

    fn records(&self) -> Result<Vec<HeldRecord>> {
        let text = |path: &camino::Utf8Path| fs::read_to_string(path).map_err(Error::io("read", path));
        let records = self.bundles()?.into_iter().map(|record| {
            let signature = text(&record.path.with_extension("json.minisig"))?;
            Ok(HeldRecord { index: text(&record.path)?, signature })
        });
        records.collect()
    }

    /// Points a tag to a manifest of the repository; `false` when it pointed there already.
    pub(crate) fn point_tag(&self, name: &RepositoryName, held: &HeldTag) -> Result<bool> {
        let _guard = self.exclusive();
        if self.resolve_tag(name, &held.tag)? == Some(held.digest) {
            return Ok(false);
        }
        if self.manifest(name, &held.digest)?.is_none() {
            return Err(self.missing(&held.digest));
        }
        self.disk.write(&layout::tag(self.root(), name, &held.tag), held.digest.to_string().as_bytes())?;
        Ok(true)
    }

    /// Takes over the record of a bundle whose blobs are all here; `false` when it was here already.
    pub(crate) fn take_record(&self, held: &HeldRecord) -> Result<bool> {
        let index: Index = serde_json::from_str(&held.index)
            .map_err(|error| Error::Unpublishable(format!("its record cannot be understood: {error}")))?;
        let record = self.root().join("bundles").join(record_name(&index)?);
        if disk::read_if_there(&record)?.as_deref() == Some(held.index.as_bytes()) {
            return Ok(false);
        }
        if let Some(blob) = self.lacking(&index)? {
            return Err(self.missing(&blob));
        }
        self.disk.write(&record.with_extension("json.minisig"), held.signature.as_bytes())?;
        self.disk.write(&record, held.index.as_bytes())?;
        Ok(true)
    }

    /// The first blob of a bundle that is not visible here.
    fn lacking(&self, index: &Index) -> Result<Option<Digest>> {
        for blob in index.contents() {
            if self.blob_size(&blob.digest)? != Some(blob.size) {
                return Ok(Some(blob.digest));
            }
        }
        Ok(None)
    }

    /// Removes the record of a bundle; its blobs stay as long as something else refers to them.
    pub(crate) fn drop_record(&self, held: &HeldRecord) -> Result<()> {
        let index: Index = serde_json::from_str(&held.index)
            .map_err(|error| Error::Unpublishable(format!("its record cannot be understood: {error}")))?;
        let record = self.root().join("bundles").join(record_name(&index)?);
        self.disk.remove(&record)?;
        self.disk.remove(&record.with_extension("json.minisig"))
    }
}
