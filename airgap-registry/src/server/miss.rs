//! What is not here may be at a peer: it is taken over, and then answered as if it had been here.
//!
//! Invariant: only a request that no peer made is passed on, after its asker was found to be allowed; what arrives is
//! published as a push would be. Called by the handlers that read.

use std::sync::{Arc, PoisonError};

use bundle::oci::{Digest, RepositoryName};
use http::{HeaderMap, Response};

use super::answer;
use super::body::Body;
use super::problem::Problem;
use super::route::ManifestReference;
use super::{Service, blocking, metrics};
use crate::manifest::Manifest;
use crate::peer::{Peers, is_from_peer};

impl Service {
    /// The peers that may be asked for the sake of this request.
    fn peers_for(&self, headers: &HeaderMap) -> Option<Arc<Peers>> {
        let peers = self.peers.as_ref().filter(|_| !is_from_peer(headers))?;
        Some(Arc::clone(&peers.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Takes a blob over from a peer; `false` when none has it. Goes on to its end when the client leaves.
    pub(super) async fn take_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        headers: &HeaderMap,
    ) -> Result<bool, Problem> {
        let Some(peers) = self.peers_for(headers) else { return Ok(false) };
        let (store, wanted, asked) = (Arc::clone(&self.store), name.clone(), *digest);
        let taking = tokio::spawn(async move { peers.take_blob(&store, &wanted, &asked).await });
        let is_taken = taking.await.map_err(|_| Problem::internal())??;
        if is_taken {
            self.write_down("take-blob", name, digest);
        }
        Ok(is_taken)
    }

    /// Takes a manifest over from a peer; `false` when none has it. Its blobs follow when they are asked for.
    pub(super) async fn take_manifest(
        &self,
        name: &RepositoryName,
        reference: &ManifestReference,
        headers: &HeaderMap,
    ) -> Result<bool, Problem> {
        let Some(peers) = self.peers_for(headers) else { return Ok(false) };
        let (text, tags) = match reference {
            ManifestReference::Digest(digest) => (digest.to_string(), Vec::new()),
            ManifestReference::Tag(tag) => (tag.to_string(), vec![tag.clone()]),
        };
        let Some(received) = peers.manifest(name, &text).await else { return Ok(false) };
        let Ok(manifest) = Manifest::parse(&received.bytes, Some(&received.media_type)) else {
            tracing::warn!(%name, reference = text, "a peer gave a manifest that cannot be understood");
            return Ok(false);
        };
        let (store, owner, digest) = (Arc::clone(&self.store), name.clone(), received.digest);
        let watermark = self.watermark();
        let put = blocking(move || {
            store.require_free(watermark)?;
            store.put_manifest(&owner, &digest, &received.bytes, &manifest, &tags, true)
        });
        put.await?;
        self.write_down("take-manifest", name, &digest);
        Ok(true)
    }

    fn write_down(&self, action: &'static str, name: &RepositoryName, digest: &Digest) {
        metrics::add(&self.metrics.taken_over, 1);
        tracing::info!(target: "cofferdam::audit", who = "peer", action, path = name.as_str(), %digest, "audit");
    }

    /// `GET /v2/_cofferdam/content`.
    pub(super) async fn content(&self) -> Result<Response<Body>, Problem> {
        let store = Arc::clone(&self.store);
        let content = blocking(move || store.content()).await?;
        let value = serde_json::to_value(content).map_err(|_| Problem::internal())?;
        Ok(answer::json(&value))
    }
}
