//! What an upgrade needs on each filesystem at its peak. Pure.

use bundle::index::Index;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::site::Site;
use crate::layout;

/// Compressed layers become about this many times larger when containerd unpacks them.
const UNPACKED: u64 = 3;
/// Left free on each filesystem whatever is written, in bytes.
const RESERVE: u64 = 128 << 20;

/// The need of one filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Need {
    /// Its mount point.
    pub filesystem: String,
    /// Bytes that the upgrade writes there before anything is freed, and a reserve.
    pub needed: u64,
    /// Bytes that are free.
    pub available: u64,
}

/// The peak: blobs that are new in the store, images unpacked beside the old ones, two copies of etcd's database,
/// binaries beside those that they replace. Nothing is freed before the commit.
pub(super) fn peak(site: &Site, next: &Index) -> Result<Vec<Need>, String> {
    let filesystems = site.filesystems.as_result()?;
    let new_blobs: u64 = site.lacking.iter().map(|blob| blob.size).sum();
    let new_layers: u64 = {
        let files = next.packs.iter().flat_map(|pack| &pack.files).map(|file| file.digest);
        let files: std::collections::HashSet<_> = files.collect();
        site.lacking.iter().filter(|blob| !files.contains(&blob.digest)).map(|blob| blob.size).sum()
    };
    let binaries: u64 =
        next.packs.iter().flat_map(|pack| &pack.files).map(|file| file.size * file.install.len() as u64).sum();
    let need = |place: &str| match place {
        layout::STORE => new_blobs + site.etcd_bytes,
        "/var/lib/containerd" => new_layers * (1 + UNPACKED),
        "/var/lib/etcd" => site.etcd_bytes,
        _ => binaries,
    };
    let need = |places: &[String]| places.iter().map(|place| need(place)).sum::<u64>() + RESERVE;
    Ok(filesystems
        .iter()
        .map(|filesystem| Need {
            filesystem: filesystem.mount.clone(),
            needed: need(&filesystem.places),
            available: filesystem.available,
        })
        .collect())
}
