//! The site registry: an OCI distribution server over a store of content-addressed files.
//!
//! - [`Store`] keeps blobs, manifests and tags, takes in bundles (it is a [`bundle::load::Sink`]) and checks itself.
//! - [`serve`] answers clients over TLS: containerd and skopeo, by client certificate or password.
//! - [`sync`] takes over all that another registry of the site holds.
//! - [`unit::render`] is the hardened systemd unit.
//!
//! Called by the `cofferdam` binary (`registry …`, `bundle load`) and by the steps of the installer.

mod config;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod identity;
mod manifest;
mod naming;
mod notify;
mod peer;
mod random;
mod server;
pub mod store;
pub mod unit;

pub use config::{Config, GarbageConfig, Limits, MINIMUM_PROGRESS, PeersConfig, ScrubConfig, TlsConfig, TokensConfig};
pub use error::{Error, Result};
pub use identity::{ADMINS, NODES};
pub use manifest::{Link, MAXIMUM_MANIFEST, Manifest, ManifestError};
pub use naming::{repository_of, upstream_repository};
pub use peer::{SyncOptions, SyncProgress, SyncReport, sync};
pub use server::{Server, run, serve};
pub use store::Store;
