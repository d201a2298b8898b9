//! Deltas: a bundle that leaves out what its sites hold already.
//!
//! Invariant: a delta leaves out layers and files only. Manifests, configurations and Kubernetes YAML are always inside,
//! so that the closed-world proof is done over the signed stream alone and never over what a store says. What was left
//! out is named in the signed index (`held`), and a load asks the store for all of it before it writes anything.
//! Called by `create` with a [`Base`], by `load` with a [`crate::load::Sink`], and by `upgrade plan`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::index::Index;
use crate::oci::Digest;
use crate::source::SourceBlob;

/// The version of an inventory that this crate reads and writes.
pub const SCHEMA_VERSION: u32 = 1;
/// Largest inventory, in bytes: some 600 000 blobs.
pub const INVENTORY_LIMIT: u64 = 64 << 20;

/// A blob that a site holds, or has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HeldBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What a site holds already (`cofferdam bundle inventory`): the base of a delta that is made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Inventory {
    /// Always 1.
    pub schema_version: u32,
    /// The bundles that were published, as `NAME-VERSION`.
    pub bundles: Vec<String>,
    /// Every blob, sorted by digest.
    pub blobs: Vec<HeldBlob>,
}

/// What may be left out of a delta: all that the sites it is made for hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base {
    names: BTreeSet<String>,
    blobs: BTreeMap<Digest, u64>,
}

impl Base {
    /// Adds what a site holds that has loaded this bundle. Of a delta that is also what it was made on.
    pub fn add_bundle(&mut self, index: &Index) {
        self.names.insert(format!("{}-{}", index.name, index.version));
        self.blobs.extend(index.contents().map(|blob| (blob.digest, blob.size)));
    }

    /// Adds what an inventory lists. The error is one line.
    pub fn add_inventory(&mut self, json: &[u8]) -> Result<(), String> {
        if json.len() as u64 > INVENTORY_LIMIT {
            return Err("it is larger than 64 MiB".to_owned());
        }
        let inventory: Inventory = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if inventory.schema_version != SCHEMA_VERSION {
            let found = inventory.schema_version;
            return Err(format!("its schema version is {found}, this program knows {SCHEMA_VERSION} only"));
        }
        self.names.extend(inventory.bundles);
        self.blobs.extend(inventory.blobs.iter().map(|blob| (blob.digest, blob.size)));
        Ok(())
    }

    /// Whether nothing may be left out.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// The bundles that the base stands for, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.iter().cloned().collect()
    }

    /// Splits blobs into those that go into the stream and those that are left out; both keep their order.
    pub(crate) fn split(&self, blobs: Vec<SourceBlob>, needed: &HashSet<Digest>) -> (Vec<SourceBlob>, Vec<HeldBlob>) {
        let (mut stream, mut held) = (Vec::new(), Vec::new());
        for blob in blobs {
            if !needed.contains(&blob.digest) && self.blobs.get(&blob.digest) == Some(&blob.size) {
                held.push(HeldBlob { digest: blob.digest, size: blob.size });
            } else {
                stream.push(blob);
            }
        }
        (stream, held)
    }
}

/// Everything that the closed-world proof reads: it is never left out.
pub(crate) fn proof_needs(index: &Index) -> HashSet<Digest> {
    let images = index.images.iter().map(|image| image.digest);
    let packs = index.packs.iter().map(|pack| pack.digest);
    let manifests = index.packs.iter().flat_map(|pack| pack.all_manifests()).map(|manifest| manifest.digest);
    images.chain(packs).chain(manifests).collect()
}

/// Refuses a delta whose base is not all there: lists all that is missing. `holds` says whether a blob is held.
pub fn check_held<E>(index: &Index, mut holds: impl FnMut(&HeldBlob) -> Result<bool, E>) -> Result<(), Error>
where
    Error: From<E>,
{
    let mut missing = Vec::new();
    for blob in &index.held {
        if !holds(blob)? {
            missing.push(*blob);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::NotHeld { base: index.base.clone(), missing })
}
