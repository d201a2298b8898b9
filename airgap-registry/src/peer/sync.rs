//! Taking over all that another registry holds, by digest, until nothing is missing.
//!
//! Invariant: what is here already is not fetched again, a run that was killed goes on where it stopped, and a tag moves
//! only once all that it leads to is here: the order is blobs, manifests, tags, records of bundles. Nothing is taken
//! away unless `prune` is asked for. Called by `registry sync` and by the server's upkeep.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bundle::oci::{Digest, RepositoryName};
use camino::Utf8PathBuf;
use http::StatusCode;
use serde::Serialize;

use super::connection::Peer;
use super::fetch::{self, Bounds, blocking};
use crate::config::{Limits, PeersConfig};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::store::{Content, HeldManifest, HeldRepository, PutManifest, Store};

/// What a leader's list of its content may have: about a million blobs.
const MAXIMUM_CONTENT: usize = 256 << 20;
/// How often the leader's content is looked at again because it changed meanwhile.
const PASSES: u64 = 5;
/// How often a blob is asked for whose transfer breaks off, and how long is waited before (times the attempt).
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What is taken over from where.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// The store that takes over.
    pub store: Utf8PathBuf,
    /// The registry that it follows, `https://HOST:PORT`.
    pub leader: String,
    /// How peers are reached; `servers` and `follow` are not looked at.
    pub peers: PeersConfig,
    /// What a blob may cost.
    pub limits: Limits,
    /// Remove tags, manifests and records of bundles that the leader does not have.
    pub prune: bool,
}

/// How a run gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncProgress {
    /// Bytes of blobs that are here, of those that were missing.
    pub bytes_done: u64,
    /// Bytes of blobs that were missing.
    pub bytes_total: u64,
    /// The blob in work.
    pub blob: Digest,
    /// Blobs that are here, of those that were missing.
    pub blobs_done: usize,
    /// Blobs that were missing.
    pub blobs_total: usize,
}

/// What a run did. All zero but `passes`: the follower was equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SyncReport {
    /// How often the leader's content was looked at; the last time nothing was missing.
    pub passes: u64,
    /// Blobs that were fetched.
    pub blobs: u64,
    /// Bytes that came over the network for them.
    pub bytes: u64,
    /// Manifests that were taken over.
    pub manifests: u64,
    /// Tags that were set or moved.
    pub tags: u64,
    /// Records of bundles that were taken over.
    pub bundles: u64,
    /// Tags, manifests and records that were removed.
    pub removed: u64,
    /// Tags and manifests that the leader does not have and that were left.
    pub beyond: u64,
}

/// Takes over all that a leader holds.
///
/// # Errors
/// [`Error::Peer`] when the leader cannot be reached, refuses, or changes faster than it can be followed; what was
/// taken over until then stays, and the next run goes on there.
pub fn sync(options: &SyncOptions, report: &(dyn Fn(SyncProgress) + Sync)) -> Result<SyncReport> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|_| Error::Unexpected("cannot start the threads of the transfer"))?;
    // Before anything is written: who cannot be a peer needs no store.
    let peer = Peer::new(&options.leader, &options.peers)?;
    let store = Arc::new(Store::create(&options.store)?);
    runtime.block_on(follow(&store, &peer, options, report))
}

/// See [`sync`].
pub(crate) async fn follow(
    store: &Arc<Store>,
    peer: &Peer,
    options: &SyncOptions,
    report: &(dyn Fn(SyncProgress) + Sync),
) -> Result<SyncReport> {
    let bounds = Bounds::from(&options.limits);
    let run = Run { store, peer, bounds, report, done: AtomicU64::new(0), bytes: AtomicU64::new(0) };
    let mut total = SyncReport::default();
    while total.passes < PASSES {
        total.passes += 1;
        let content = run.content().await?;
        if !run.pass(&content, &mut total).await? {
            total.bytes = run.bytes.load(Ordering::Relaxed);
            (total.removed, total.beyond) = run.compare(content, options.prune).await?;
            return Ok(total);
        }
    }
    Err(peer.error(format!("it changed during each of {PASSES} passes")))
}

struct Run<'a> {
    store: &'a Arc<Store>,
    peer: &'a Peer,
    bounds: Bounds,
    report: &'a (dyn Fn(SyncProgress) + Sync),
    /// Bytes of this pass's blobs that are here.
    done: AtomicU64,
    /// Bytes that came over the network in all passes.
    bytes: AtomicU64,
}

impl Run<'_> {
    async fn content(&self) -> Result<Content> {
        let answer = self.peer.get("/v2/_cofferdam/content", 0).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self
                    .peer
                    .error("it does not know this node: peers.certificate must be a node's of the site"));
            }
            StatusCode::NOT_FOUND => return Err(self.peer.error("it is no Cofferdam registry that can be followed")),
            status => return Err(self.peer.error(format!("it answered {status}"))),
        }
        let bytes = fetch::small(self.peer, answer, MAXIMUM_CONTENT).await?;
        let content: Content = serde_json::from_slice(&bytes)
            .map_err(|error| self.peer.error(format!("its content cannot be understood: {error}")))?;
        match content.schema_version {
            1 => Ok(content),
            other => Err(self.peer.error(format!("its content has the format {other}, and this program knows 1"))),
        }
    }

    /// Takes over what is missing; whether anything was.
    async fn pass(&self, content: &Content, total: &mut SyncReport) -> Result<bool> {
        let missing = self.missing_blobs(content).await?;
        let (bytes_total, blobs_total) = (missing.iter().map(|(.., size)| size).sum(), missing.len());
        let (mut has_changed, mut bytes_done) = (false, 0);
        for (blobs_done, (name, blob, size)) in missing.into_iter().enumerate() {
            self.done.store(bytes_done, Ordering::Relaxed);
            let progress = SyncProgress { bytes_done, bytes_total, blob, blobs_done, blobs_total };
            let found = self.take_blob(&name, progress).await?;
            has_changed = true;
            total.blobs += u64::from(found && size > 0);
            bytes_done += size;
            (self.report)(SyncProgress { bytes_done, blobs_done: blobs_done + 1, ..progress });
        }
        for repository in &content.repositories {
            let manifests = self.take_manifests(repository).await?;
            let tags = self.take_tags(repository).await?;
            has_changed |= manifests + tags > 0;
            total.manifests += manifests;
            total.tags += tags;
        }
        for record in &content.bundles {
            let (store, held) = (Arc::clone(self.store), record.clone());
            match blocking(move || store.take_record(&held)).await {
                Ok(is_new) => {
                    has_changed |= is_new;
                    total.bundles += u64::from(is_new);
                }
                // An image of it was deleted there: the leader itself could not go back to it any more.
                Err(Error::MissingBlob { digest, .. }) => {
                    tracing::warn!(%digest, "the record of a bundle was not taken over: not all of it is there");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(has_changed)
    }

    /// The blobs that are not here; those that are here and only not linked are linked.
    async fn missing_blobs(&self, content: &Content) -> Result<Vec<(RepositoryName, Digest, u64)>> {
        let (store, repositories) = (Arc::clone(self.store), content.repositories.clone());
        blocking(move || {
            let (mut missing, mut seen) = (Vec::new(), BTreeSet::new());
            for repository in repositories {
                for blob in repository.blobs {
                    if store.linked_blob(&repository.name, &blob.digest)?.is_some()
                        || store.link_blob(&repository.name, &blob.digest)?
                    {
                        continue;
                    }
                    // Fetched once, for the first repository; the others are linked when their turn comes.
                    let size = if seen.insert(blob.digest) { blob.size } else { 0 };
                    missing.push((repository.name.clone(), blob.digest, size));
                }
            }
            Ok(missing)
        })
        .await
    }

    /// `false` when the leader does not have it any more.
    async fn take_blob(&self, name: &RepositoryName, progress: SyncProgress) -> Result<bool> {
        let arrived = |bytes: u64| {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            let bytes_done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            (self.report)(SyncProgress { bytes_done, ..progress });
        };
        let mut attempt = 1;
        loop {
            match fetch::blob(self.store, self.peer, name, &progress.blob, &self.bounds, &arrived).await {
                Err(Error::Peer { why, .. }) if attempt < ATTEMPTS => {
                    tracing::warn!(digest = %progress.blob, why, attempt, "a transfer broke off, and goes on");
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(Error::WrongDigest { expected, actual, size, .. }) => {
                    let why = format!("what it sent for the blob {expected} has the digest {actual} and {size} bytes");
                    return Err(self.peer.error(why));
                }
                other => return other,
            }
        }
    }

    /// Children before the indexes that list them.
    async fn take_manifests(&self, repository: &HeldRepository) -> Result<u64> {
        let (store, name) = (Arc::clone(self.store), repository.name.clone());
        let held = blocking(move || store.manifests(&name)).await?;
        let held: Vec<_> = held.into_iter().map(HeldManifest::from).collect();
        let mut waiting = Vec::new();
        for manifest in repository.manifests.iter().filter(|manifest| !held.contains(manifest)) {
            let reference = manifest.digest.to_string();
            // One that was deleted there meanwhile is not listed in the next pass.
            if let Some(received) = fetch::manifest(self.peer, &repository.name, &reference).await? {
                waiting.push((manifest, received.bytes));
            }
        }
        let (mut taken, mut is_sparse_taken) = (0, false);
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut left = Vec::new();
            for (manifest, bytes) in waiting {
                let is_sparse = manifest.is_sparse || is_sparse_taken;
                if self.put(&repository.name, manifest, bytes.clone(), is_sparse).await? {
                    taken += 1;
                } else {
                    left.push((manifest, bytes));
                }
            }
            // What is left leads to things that the leader itself does not have: it is taken over as it is there.
            is_sparse_taken = left.len() == before;
            waiting = left;
        }
        Ok(taken)
    }

    async fn put(&self, name: &RepositoryName, held: &HeldManifest, bytes: Vec<u8>, is_sparse: bool) -> Result<bool> {
        let manifest = Manifest::parse(&bytes, Some(&held.media_type))
            .map_err(|error| self.peer.error(format!("the manifest {}: {error}", held.digest)))?;
        let (store, name, digest) = (Arc::clone(self.store), name.clone(), held.digest);
        let watermark = self.bounds.watermark;
        let put = blocking(move || {
            store.require_free(watermark)?;
            store.put_manifest(&name, &digest, &bytes, &manifest, &[], is_sparse)
        });
        let put = put.await?;
        Ok(matches!(put, PutManifest::Stored { .. }))
    }

    async fn take_tags(&self, repository: &HeldRepository) -> Result<u64> {
        let (store, repository) = (Arc::clone(self.store), repository.clone());
        blocking(move || {
            let mut moved = 0;
            for held in &repository.tags {
                match store.point_tag(&repository.name, held) {
                    Ok(is_new) => moved += u64::from(is_new),
                    // Its manifest was deleted there between two looks; the next pass tells.
                    Err(Error::MissingBlob { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(moved)
        })
        .await
    }

    /// What is here and not there: removed and counted, or only counted.
    async fn compare(&self, content: Content, prune: bool) -> Result<(u64, u64)> {
        let store = Arc::clone(self.store);
        let found = blocking(move || {
            let mut number = 0;
            let ours = store.content()?;
            for repository in ours.repositories {
                let theirs = content.repositories.iter().find(|theirs| theirs.name == repository.name);
                let has_tag = |tag| theirs.is_some_and(|theirs| theirs.tags.iter().any(|held| held.tag == tag));
                let has =
                    |digest| theirs.is_some_and(|theirs| theirs.manifests.iter().any(|held| held.digest == digest));
                for held in repository.tags.into_iter().filter(|held| !has_tag(held.tag.clone())) {
                    number += 1;
                    if prune {
                        store.delete_tag(&repository.name, &held.tag)?;
                    }
                }
                for held in repository.manifests.into_iter().filter(|held| !has(held.digest)) {
                    number += 1;
                    if prune {
                        store.delete_manifest(&repository.name, &held.digest)?;
                    }
                }
            }
            for record in ours.bundles.iter().filter(|record| !content.bundles.contains(record)) {
                number += 1;
                if prune {
                    store.drop_record(record)?;
                }
            }
            Ok(number)
        });
        let number = found.await?;
        Ok(if prune { (number, 0) } else { (0, number) })
    }
}
