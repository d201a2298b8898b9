//! Looking into bundles without loading them. Invariant: what is shown here was not verified as a whole; it says who
//! signed and whether that is trusted, and never acts on content. Called by `cofferdam bundle inspect` and `diff`.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Serialize;

use crate::error::Error;
use crate::index::Index;
use crate::keys::{KeyId, TrustedKeys};
use crate::oci::Digest;
use crate::read::Head;

/// What the first bytes of a bundle say.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The index.
    pub index: Index,
    /// Which key says to have signed it.
    pub signed_by: KeyId,
    /// Whether it was one of the trusted keys and the signature over the index is right; `None` when no keys were given.
    pub is_trusted: Option<bool>,
}

/// Reads index and signature only; the rest of the stream is not touched.
pub fn inspect(stream: impl Read, trust: Option<&TrustedKeys>) -> Result<Inspection, Error> {
    let head = Head::read(stream)?;
    let is_trusted = trust.map(|trust| head.check(trust).is_ok());
    Ok(Inspection { index: head.untrusted_index()?, signed_by: head.key_id(), is_trusted })
}

/// What changed between two bundles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    /// Packs by name: version before and after.
    pub packs: BTreeMap<String, Change<String>>,
    /// Images by reference: digest before and after.
    pub images: BTreeMap<String, Change<Digest>>,
    /// Blobs that only the second holds.
    pub blobs_added: u64,
    /// Their bytes.
    pub bytes_added: u64,
    /// Blobs that only the first holds.
    pub blobs_removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
}

/// Before and after; absent means that it was not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// In the first bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<T>,
    /// In the second bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<T>,
}

/// Compares two bundles by their indexes. A pack whose version stayed but whose content changed is listed too.
pub fn diff(before: &Index, after: &Index) -> Difference {
    let packs = |index: &Index| -> BTreeMap<String, (String, Digest)> {
        index.packs.iter().map(|pack| (pack.name.clone(), (pack.version.clone(), pack.digest))).collect()
    };
    let images = |index: &Index| -> BTreeMap<String, Digest> {
        index.images.iter().map(|image| (image.reference.to_string(), image.digest)).collect()
    };
    let only_in = |one: &Index, other: &Index| {
        let known: std::collections::HashSet<Digest> = other.blobs.iter().map(|blob| blob.digest).collect();
        let new = one.blobs.iter().filter(|blob| !known.contains(&blob.digest));
        new.fold((0, 0), |(count, bytes), blob| (count + 1, bytes + blob.size))
    };
    let (blobs_added, bytes_added) = only_in(after, before);
    let (blobs_removed, bytes_removed) = only_in(before, after);
    let packs = changes(packs(before), packs(after)).into_iter().map(|(name, change)| {
        let version = |side: Option<(String, Digest)>| side.map(|(version, _)| version);
        (name, Change { before: version(change.before), after: version(change.after) })
    });
    Difference {
        packs: packs.collect(),
        images: changes(images(before), images(after)),
        blobs_added,
        bytes_added,
        blobs_removed,
        bytes_removed,
    }
}

fn changes<T: PartialEq>(before: BTreeMap<String, T>, mut after: BTreeMap<String, T>) -> BTreeMap<String, Change<T>> {
    let mut changes = BTreeMap::new();
    for (name, before) in before {
        let after = after.remove(&name);
        if after.as_ref() != Some(&before) {
            changes.insert(name, Change { before: Some(before), after });
        }
    }
    changes.extend(after.into_iter().map(|(name, after)| (name, Change { before: None, after: Some(after) })));
    changes
}
