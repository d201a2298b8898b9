//! `cofferdam/system.json`, signed: what the operating system of a medium is, to the last byte.
//!
//! Invariant: its digests cover the root, its verity tree and each file of the boot partition. The live system checks the
//! signature with the keys that its own verified root holds before it copies anything to a disk.

use std::collections::BTreeMap;

use bundle::keys::{KeyId, Signature, TrustedKeys};
use bundle::oci::Digest;
use serde::{Deserialize, Serialize};

use crate::manifest::ManifestFile;

/// Its name in the folder `cofferdam/`.
pub const SYSTEM: &str = "system.json";
/// Its minisign signature.
pub const SYSTEM_SIGNATURE: &str = "system.json.minisig";
/// `CycloneDX` bill of materials of the system.
pub const MATERIALS: &str = "sbom.cdx.json";
/// Longest manifest that is read, in bytes.
pub const LONGEST: u64 = 1 << 20;

const SCHEMA_VERSION: u32 = 1;

/// The operating system of a medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SystemManifest {
    /// Version of this format, 1.
    pub schema_version: u32,
    /// Version of the image.
    pub version: String,
    /// Version of its kernel.
    pub kernel: String,
    /// dm-verity root hash, 64 hexadecimal digits; stands in the unified kernel image too.
    pub root_hash: String,
    /// SHA-256 of the public key (PEM) whose signatures on PCR 11 open encrypted volumes.
    pub pcr_key: Digest,
    /// The root, a squashfs.
    pub root: ManifestFile,
    /// Its verity tree.
    pub verity: ManifestFile,
    /// The files of the boot partition by path. The area for further kernel arguments is taken as it was made: empty.
    pub boot: BTreeMap<String, ManifestFile>,
    /// The bill of materials.
    pub materials: ManifestFile,
}

impl SystemManifest {
    /// The version of the format that this program writes.
    pub(crate) const SCHEMA_VERSION: u32 = SCHEMA_VERSION;

    /// Reads a manifest whose signature was checked. The error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(format!("schema-version is {}, this program knows {SCHEMA_VERSION}", manifest.schema_version));
        }
        let is_hash = manifest.root_hash.len() == 64 && manifest.root_hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Err(format!("{:?} is no root hash", manifest.root_hash));
        }
        Ok(manifest)
    }

    /// The same, after the signature was checked with one of these keys; gives the key too.
    pub fn verify(bytes: &[u8], signature: &[u8], trust: &TrustedKeys) -> Result<(Self, KeyId), String> {
        let signature = Signature::parse(signature).map_err(|error| error.to_string())?;
        let key = trust.verify(bytes, &signature).map_err(|error| error.to_string())?;
        Ok((Self::parse(bytes)?, key))
    }

    /// As it is written and signed.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Maps with text keys, numbers and text: there is nothing that serialisation could refuse.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Where the unified kernel image is in the boot partition.
    pub fn image(&self) -> String {
        super::esp::image_name(&self.version)
    }
}
