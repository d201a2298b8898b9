//! Other registries of the site: what is missing here is asked of them, and a follower takes over all that its leader
//! holds.
//!
//! Invariant: nothing that a peer sends becomes visible before its digest was checked, and a request that a peer makes
//! is never passed on to another one (RFC 9110, 7.6.3, `Via`), so that no two servers ask each other in circles. Called
//! by the server when something is missing, by its upkeep and by `registry sync`.

mod connection;
mod fetch;
mod sync;

use std::sync::Arc;

use bundle::oci::{Digest, RepositoryName};

pub(crate) use connection::{Peer, is_from_peer};
pub(crate) use fetch::Bounds as FetchBounds;
pub(crate) use sync::follow;
pub use sync::{SyncOptions, SyncProgress, SyncReport, sync};

use crate::config::PeersConfig;
use crate::error::Result;
use crate::store::Store;

/// The registries that are asked for what is missing here.
pub(crate) struct Peers {
    servers: Vec<Peer>,
    bounds: FetchBounds,
}

/// A manifest as a peer gave it; its digest was checked.
pub(crate) struct Received {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl Peers {
    pub(crate) fn new(config: &PeersConfig, bounds: FetchBounds) -> Result<Self> {
        let servers = config.servers.iter().map(|url| Peer::new(url, config)).collect::<Result<_>>()?;
        Ok(Self { servers, bounds })
    }

    /// Takes a blob over from the first peer whose repository has it; `false` when none has. Also one that is here in
    /// another repository becomes one of this repository only when a peer says so: who may read the one may not read
    /// the other.
    pub(crate) async fn take_blob(&self, store: &Arc<Store>, name: &RepositoryName, digest: &Digest) -> Result<bool> {
        for peer in self.reachable() {
            let taken = match fetch::has_blob(peer, name, digest).await {
                Ok(true) => fetch::blob(store, peer, name, digest, &self.bounds, &|_| ()).await,
                other => other,
            };
            match taken {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => peer.complain(&error),
            }
        }
        Ok(false)
    }

    /// The manifest of the first peer that has it; `reference` is a tag or a digest.
    pub(crate) async fn manifest(&self, name: &RepositoryName, reference: &str) -> Option<Received> {
        for peer in self.reachable() {
            match fetch::manifest(peer, name, reference).await {
                Ok(Some(received)) => return Some(received),
                Ok(None) => {}
                Err(error) => peer.complain(&error),
            }
        }
        None
    }

    fn reachable(&self) -> impl Iterator<Item = &Peer> {
        self.servers.iter().filter(|peer| peer.is_worth_asking())
    }
}
