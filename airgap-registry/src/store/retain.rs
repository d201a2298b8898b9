//! How many versions of a bundle a site keeps.
//!
//! Invariant: what a kept bundle made visible stays, and so does a manifest that somebody gave a tag of his own; of the
//! others first the tags go, then the manifests, then the record, so that after a crash the next run goes on. The blobs
//! are left to garbage collection. Called by gc.

use std::collections::{BTreeMap, BTreeSet};

use bundle::oci::{Digest, RepositoryName};

use super::{BundleRecord, Store};
use crate::error::Result;

/// Bundles that are no longer kept.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// As `NAME-VERSION`.
    pub(super) bundles: Vec<String>,
    /// Manifests that only they needed.
    pub(super) manifests: BTreeSet<(RepositoryName, Digest)>,
}

impl BundleRecord {
    /// `NAME-VERSION`.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.index.name, self.index.version)
    }

    /// Versions in the order of Semantic Versioning; what is none comes before all that are.
    fn order(&self) -> (Option<semver::Version>, String) {
        (self.index.version.parse().ok(), self.index.version.clone())
    }
}

impl Store {
    /// Drops all but the newest versions of each bundle.
    pub(super) fn drop_bundles(&self, keep: usize, dry_run: bool) -> Result<Dropped> {
        let mut by_name: BTreeMap<String, Vec<BundleRecord>> = BTreeMap::new();
        for record in self.bundles()? {
            by_name.entry(record.index.name.clone()).or_default().push(record);
        }
        let (mut kept, mut old) = (Vec::new(), Vec::new());
        for mut records in by_name.into_values() {
            records.sort_by_key(|record| std::cmp::Reverse(record.order()));
            old.extend(records.split_off(keep.max(1).min(records.len())));
            kept.append(&mut records);
        }
        let (mut kept_manifests, mut kept_tags) = (BTreeSet::new(), BTreeSet::new());
        for record in &kept {
            let publication = self.plan(&record.index)?;
            kept_manifests.extend(publication.manifests.into_iter().map(|(name, digest, _)| (name, digest)));
            kept_tags.extend(publication.tags.into_keys());
        }
        let mut dropped = Dropped::default();
        for record in old {
            let publication = self.plan(&record.index)?;
            let own_tags: BTreeSet<_> = publication.tags.keys().cloned().collect();
            for ((name, tag), digest) in &publication.tags {
                let is_ours = self.resolve_tag(name, tag)? == Some(*digest);
                if is_ours && !kept_tags.contains(&(name.clone(), tag.clone())) && !dry_run {
                    self.delete_tag(name, tag)?;
                }
            }
            // Indexes before their children: a manifest is added to a publication after what it lists.
            for (name, digest, _) in publication.manifests.iter().rev() {
                let key = (name.clone(), *digest);
                let has_another_tag = self.tags(name)?.into_iter().try_fold(false, |found, tag| {
                    let leads_here = self.resolve_tag(name, &tag)? == Some(*digest);
                    let is_own =
                        own_tags.contains(&(name.clone(), tag.clone())) && !kept_tags.contains(&(name.clone(), tag));
                    Ok::<_, crate::error::Error>(found || (leads_here && !is_own))
                })?;
                if kept_manifests.contains(&key) || has_another_tag {
                    continue;
                }
                if !dry_run {
                    self.delete_manifest(name, digest)?;
                }
                dropped.manifests.insert(key);
            }
            dropped.bundles.push(record.name());
            if !dry_run {
                self.disk.remove(&record.path)?;
                self.disk.remove(&record.path.with_extension("json.minisig"))?;
            }
        }
        Ok(dropped)
    }
}
