//! Making a loaded bundle visible.
//!
//! Invariant: before the first change below `blobs/` and `repositories/` the signed index lies, durably, in
//! `staging/publish/`: a publication that was killed is completed by the next process that opens the store. What is
//! done is done in the order blobs, their links, manifests, tags, record, so that whoever looks in between finds
//! nothing that leads nowhere. Called by `Sink::publish` and when a store is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use bundle::index::Index;
use bundle::oci::{Digest, RepositoryName, Tag, media_type};
use camino::Utf8Path;

use super::disk::{self, Disk};
use super::{Store, layout};
use crate::error::{Error, Result};
use crate::manifest::{MAXIMUM_MANIFEST, Manifest};
use crate::naming;

/// All that a bundle makes visible.
#[derive(Default)]
pub(super) struct Publication {
    blobs: BTreeSet<(RepositoryName, Digest)>,
    /// Children before the index that lists them, so that no index is visible without them.
    pub(super) manifests: Vec<(RepositoryName, Digest, String)>,
    referrers: BTreeSet<(RepositoryName, Digest, Digest)>,
    pub(super) tags: BTreeMap<(RepositoryName, Tag), Digest>,
}

impl Store {
    /// Makes a bundle visible whose blobs are all held. `index` is what `index_bytes` say.
    pub(super) fn publish_bundle(&self, index: &Index, index_bytes: &[u8], signature: &[u8]) -> Result<()> {
        // All that can be refused is refused before anything becomes visible.
        record_name(index)?;
        self.plan(index)?;
        let intent = self.root().join("staging/publish").join(Digest::sha256_of(index_bytes).hex());
        self.disk.write(&intent.join("index.json.minisig"), signature)?;
        self.disk.write(&intent.join("index.json"), index_bytes)?;
        self.complete(&intent)
    }

    /// Completes what a process that was killed has begun to publish. Nothing is done while a load is going on.
    pub(super) fn recover(&self) -> Result<()> {
        let intents = self.root().join("staging/publish");
        let names = disk::names_in(&intents)?;
        if names.is_empty() {
            return Ok(());
        }
        let Some(_lock) = self.try_lock_import()? else { return Ok(()) };
        for name in names {
            let intent = intents.join(name);
            if intent.join("index.json").exists() {
                tracing::info!(%intent, "completing the publication of a bundle that was interrupted");
                self.complete(&intent)?;
            } else {
                self.remove_intent(&intent)?;
            }
        }
        Ok(())
    }

    fn complete(&self, intent: &Utf8Path) -> Result<()> {
        let path = intent.join("index.json");
        let index_bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let signature = fs::read(intent.join("index.json.minisig")).map_err(Error::io("read", intent))?;
        let index: Index = serde_json::from_slice(&index_bytes)
            .map_err(|error| Error::Damaged { path: path.clone(), why: error.to_string() })?;
        let publication = self.plan(&index)?;
        let linking = self.linking()?;
        let _guard = self.exclusive();

        let mut blobs = self.disk.batch();
        for blob in index.contents() {
            let staged = layout::staged(self.root(), &blob.digest);
            if staged.exists() {
                blobs.publish(&staged, &self.blob_path(&blob.digest))?;
            }
        }
        blobs.finish()?;

        let mut links = self.disk.batch();
        for (repository, digest) in &publication.blobs {
            links.write(&layout::blob_link(self.root(), repository, digest), b"")?;
        }
        links.finish()?;
        for (repository, digest) in &publication.blobs {
            self.rely_on(&linking, repository, digest)?;
        }
        for blob in index.contents() {
            Disk::touch(&self.blob_path(&blob.digest))?;
        }

        let mut manifests = self.disk.batch();
        for (repository, subject, digest) in &publication.referrers {
            manifests.write(&layout::referrer(self.root(), repository, subject, digest), b"")?;
        }
        for (repository, digest, media_type) in &publication.manifests {
            manifests.write(&layout::manifest_link(self.root(), repository, digest), media_type.as_bytes())?;
        }
        manifests.finish()?;

        let mut tags = self.disk.batch();
        for ((repository, tag), digest) in &publication.tags {
            tags.write(&layout::tag(self.root(), repository, tag), digest.to_string().as_bytes())?;
        }
        tags.finish()?;

        let record = self.root().join("bundles").join(record_name(&index)?);
        self.disk.write(&record.with_extension("json.minisig"), &signature)?;
        self.disk.write(&record, &index_bytes)?;
        self.remove_intent(intent)
    }

    /// `index.json` goes first: without it the rest means nothing.
    fn remove_intent(&self, intent: &Utf8Path) -> Result<()> {
        self.disk.remove(&intent.join("index.json"))?;
        self.disk.remove_directory(intent)
    }

    /// What a bundle whose blobs are all held makes visible.
    pub(super) fn plan(&self, index: &Index) -> Result<Publication> {
        for blob in index.contents() {
            if self.find(&blob.digest)?.is_none_or(|(_, size)| size != blob.size) {
                return Err(self.missing(&blob.digest));
            }
        }
        let mut publication = Publication::default();
        for image in &index.images {
            let repository = naming::repository_of(&image.reference)?;
            self.add(&mut publication, &repository, &image.digest, &image.media_type, 0)?;
            if let Some(tag) = image.reference.tag() {
                publication.tags.insert((repository, tag.clone()), image.digest);
            }
        }
        for pack in &index.packs {
            let name = pack.layout_name();
            let unusable = || Error::Unpublishable(format!("the pack {name:?} is no name and tag of a registry"));
            let (repository, tag) = name.rsplit_once(':').ok_or_else(unusable)?;
            let repository: RepositoryName = repository.parse().map_err(|_| unusable())?;
            let tag = tag.parse().map_err(|_| unusable())?;
            self.add(&mut publication, &repository, &pack.digest, media_type::OCI_MANIFEST, 0)?;
            publication.tags.insert((repository, tag), pack.digest);
        }
        Ok(publication)
    }

    /// Adds a manifest and what it leads to.
    fn add(
        &self,
        publication: &mut Publication,
        repository: &RepositoryName,
        digest: &Digest,
        media_type: &str,
        depth: usize,
    ) -> Result<()> {
        let unusable = |why: String| Error::Unpublishable(format!("{repository}@{digest}: {why}"));
        if depth > 4 {
            return Err(unusable("indexes are nested more than four levels deep".to_owned()));
        }
        let Some((path, size)) = self.find(digest)? else { return Err(self.missing(digest)) };
        if size > MAXIMUM_MANIFEST as u64 {
            return Err(unusable(format!("the manifest has {size} bytes, more than {MAXIMUM_MANIFEST}")));
        }
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let manifest = Manifest::parse(&bytes, Some(media_type)).map_err(|error| unusable(error.to_string()))?;
        for child in &manifest.manifests {
            // A bundle carries one platform of an image that exists for many.
            if self.find(&child.digest)?.is_some() {
                self.add(publication, repository, &child.digest, &child.media_type, depth + 1)?;
            }
        }
        for blob in manifest.blobs.iter().filter(|blob| !blob.is_foreign()) {
            if self.find(&blob.digest)?.is_none() {
                return Err(unusable(format!("its blob {} is not in the bundle", blob.digest)));
            }
            publication.blobs.insert((repository.clone(), blob.digest));
        }
        if let Some(subject) = manifest.subject {
            publication.referrers.insert((repository.clone(), subject.digest, *digest));
        }
        publication.manifests.push((repository.clone(), *digest, media_type.to_owned()));
        Ok(())
    }
}

/// `NAME-VERSION.json`, from a signed index; checked all the same, because it becomes a file name.
pub(super) fn record_name(index: &Index) -> Result<String> {
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 100
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
    };
    if is_plain(&index.name) && is_plain(&index.version) {
        Ok(format!("{}-{}.json", index.name, index.version))
    } else {
        Err(Error::Unpublishable(format!("{:?} {:?} is no plain name and version", index.name, index.version)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
    use super::*;
    use crate::store::faults::Fault;
    use bundle::load::Sink;
    use camino::Utf8PathBuf;
    use serde_json::{Value, json};

    const KEPT: &str = "kept";

    type Breaking = fn(&mut Index);

    struct Release {
        blobs: Vec<Vec<u8>>,
        index: Index,
        bytes: Vec<u8>,
    }

    /// Two images, one of them an index of which one platform is there, and a pack.
    fn release() -> Release {
        let mut blobs = Vec::new();
        let mut add = |kind: &str, bytes: Vec<u8>| {
            let link = json!({"mediaType": kind, "digest": Digest::sha256_of(&bytes), "size": bytes.len()});
            blobs.push(bytes);
            link
        };
        let mut image = |name: &str| {
            let config = add("application/vnd.oci.image.config.v1+json", format!("{{\"x\":\"{name}\"}}").into_bytes());
            let layer = add("application/vnd.oci.image.layer.v1.tar", name.as_bytes().to_vec());
            let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
            add(media_type::OCI_MANIFEST, manifest.to_string().into_bytes())
        };
        let (one, child, pack) = (image("one"), image("child"), image("pack"));
        let absent = json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256_of(b"arm"), "size": 3});
        let many = json!({"schemaVersion": 2, "manifests": [child, absent]});
        let many = add(media_type::OCI_INDEX, many.to_string().into_bytes());
        let listed = |reference: &str, link: &Value| json!({"reference": reference, "digest": link["digest"], "media-type": link["mediaType"], "size": link["size"]});
        let content = json!({"digest": Digest::sha256_of(b""), "size": 0});
        let index = json!({
            "schema-version": 1, "media-type": media_type::BUNDLE_INDEX, "name": "sample", "version": "1.0.0",
            "architecture": "amd64", "oci-layout": content, "oci-index": content, "trust": {"next-keys": []},
            "packs": [{"digest": pack["digest"], "size": pack["size"], "name": "base", "version": "1", "layer": "addon",
                "description": "", "images": [], "manifests": [], "files": [], "secrets": [], "gates": [],
                "optional-images": []}],
            "images": [listed("k8s.gcr.io/one:1", &one), listed("registry.example:5000/many:2", &many)],
            "blobs": blobs.iter().map(|bytes| json!({"digest": Digest::sha256_of(bytes), "size": bytes.len(),
                "media-type": ""})).collect::<Vec<_>>(),
        });
        let bytes = index.to_string().into_bytes();
        Release { index: serde_json::from_slice(&bytes).unwrap(), blobs, bytes }
    }

    fn stage(store: &mut Store, release: &Release) {
        for bytes in &release.blobs {
            let mut writer = store.begin(&Digest::sha256_of(bytes), bytes.len() as u64).unwrap();
            writer.write(bytes).unwrap();
            writer.commit().unwrap();
        }
    }

    fn visible(store: &Store) -> (usize, usize, usize) {
        (store.repositories().unwrap().len(), store.blobs().unwrap().len(), store.bundles().unwrap().len())
    }

    /// What is visible after a crash behind so many changes; `None` when the publication had no more of them.
    fn crash_at(point: usize, release: &Release) -> Option<(usize, usize, usize)> {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::try_from(folder.path().join(KEPT)).unwrap();
        let mut store = Store::create(&root).unwrap();
        stage(&mut store, release);
        store.disk.faults.plan(point, Fault::Killed);
        let result = store.publish(&release.index, &release.bytes, b"signature");
        drop(store);
        if result.is_ok() {
            let store = Store::open(&root).unwrap();
            let list = store.list().unwrap();
            assert_eq!(list[2].name.as_str(), "registry.example__5000/many");
            assert_eq!((list[2].tags.len(), list[2].untagged.len()), (1, 1));
            return None;
        }
        // A server that runs at that moment, before anybody completes it, sees nothing that leads nowhere.
        {
            let blocker = fs::File::open(root.join("staging/lock")).unwrap();
            blocker.lock().unwrap();
            let report = Store::open(&root).unwrap().fsck().unwrap();
            assert!(report.is_clean(), "point {point}: {:#?}", report.problems);
        }
        let mut store = Store::open(&root).unwrap();
        let seen = visible(&store);
        assert!(store.fsck().unwrap().is_clean());
        // The load is started again: all blobs are held, and it ends well.
        for bytes in &release.blobs {
            assert!(store.holds(&Digest::sha256_of(bytes), bytes.len() as u64).unwrap(), "point {point}");
        }
        store.publish(&release.index, &release.bytes, b"signature").unwrap();
        assert_eq!(visible(&store), (3, release.blobs.len(), 1));
        assert_eq!(store.fsck().unwrap().unfinished, 0);
        Some(seen)
    }

    #[test]
    fn a_crash_at_any_point_of_a_publication_leaves_all_of_it_or_nothing() {
        // Most of the time is spent waiting for syncs: several at once.
        const LANES: usize = 8;
        let release = release();
        let seen: Vec<_> = std::thread::scope(|scope| {
            let lane =
                |first| (first..).step_by(LANES).map_while(|point| crash_at(point, &release)).collect::<Vec<_>>();
            let lanes: Vec<_> = (0..LANES).map(|first| scope.spawn(move || lane(first))).collect();
            lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
        });
        let nothing = seen.iter().filter(|visible| **visible == (0, 0, 0)).count();
        let all = seen.iter().filter(|visible| **visible == (3, release.blobs.len(), 1)).count();
        println!("{} crash points: {nothing} leave nothing, {all} leave all of it", seen.len());
        assert_eq!(nothing + all, seen.len(), "{seen:?}");
        assert!(nothing >= 3 && all >= 20);
    }

    #[test]
    fn what_cannot_be_published_is_refused_before_anything_is_visible() {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::try_from(folder.path().join(KEPT)).unwrap();
        let mut store = Store::create(&root).unwrap();
        let good = release();
        stage(&mut store, &good);
        let broken: [(&str, Breaking); 5] = [
            ("plain name", |index| index.name = "../../x".to_owned()),
            ("plain name", |index| index.version = ".hidden".to_owned()),
            ("cannot be kept", |index| index.images[0].reference = "[::1]:5000/a:b".parse().unwrap()),
            ("is not in the registry store", |index| index.images[0].digest = Digest::sha256_of(b"absent")),
            ("cannot be understood", |index| index.images[0].digest = Digest::sha256_of(b"one")),
        ];
        for (part, breaking) in broken {
            let mut index = good.index.clone();
            breaking(&mut index);
            let bytes = serde_json::to_vec(&index).unwrap();
            let error = store.publish(&index, &bytes, b"").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(visible(&store), (0, 0, 0), "{part}");
        }
        store.publish(&good.index, &good.bytes, b"").unwrap();
    }
}
