//! The signed index: the one document of a bundle that is trusted, once its signature was verified. It decides the
//! names, digests, sizes and order of everything that follows in the stream. Written by `create`, read by everybody.
//!
//! Format: docs/bundle-format.md, "The index".

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::delta::HeldBlob;
use crate::oci::{Digest, ParseError, Reference};
use crate::question::Question;
use crate::system::System;

/// The version of the index that this crate writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The machine architecture of a bundle, in Go's and OCI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// `x86_64`
    Amd64,
    /// `aarch64`
    Arm64,
}

impl Architecture {
    /// The architecture this program was built for; `None` when bundles know no word for it.
    pub fn of_this_machine() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// `amd64` or `arm64`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Architecture {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            _ => Err(ParseError::new("architecture", text, "known are amd64 and arm64")),
        }
    }
}

/// The signed index of a bundle (`cofferdam/index.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Index {
    /// Always 1; another number is refused.
    pub schema_version: u32,
    /// Always `application/vnd.cofferdam.bundle.index.v1+json`.
    pub media_type: String,
    /// The bundle's name, part of its file name.
    pub name: String,
    /// The bundle's version, a semantic version.
    pub version: String,
    /// What all images in it run on.
    pub architecture: Architecture,
    /// When the release was made, RFC 3339, as the release engineer stated it. Never taken from a clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// From which installed versions it may be upgraded to, a range such as `>=0.9.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_from: Option<String>,
    /// The packs, in the order in which they are applied.
    pub packs: Vec<Pack>,
    /// Every image under its full reference.
    pub images: Vec<Image>,
    /// Every blob of the stream, in its order: manifests and configurations first, then layers and files.
    pub blobs: Vec<Blob>,
    /// Of a delta: the bundles that it was made on, as `NAME-VERSION`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub base: Vec<String>,
    /// Of a delta: layers and files that are not inside, because the site must hold them already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldBlob>,
    /// The file `oci-layout`.
    pub oci_layout: Content,
    /// The file `index.json`, the OCI image index of the layout.
    pub oci_index: Content,
    /// What the site is to trust from this bundle on.
    pub trust: Trust,
}

/// A named, versioned unit of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Pack {
    /// Digest of the pack's OCI artifact manifest, named `cofferdam/packs/NAME:VERSION`.
    pub digest: Digest,
    /// Size of that manifest in bytes.
    pub size: u64,
    /// What the pack is and holds: the same object is the config blob of the pack's manifest.
    #[serde(flatten)]
    pub descriptor: PackDescriptor,
}

impl std::ops::Deref for Pack {
    type Target = PackDescriptor;

    fn deref(&self) -> &PackDescriptor {
        &self.descriptor
    }
}

/// What a pack is and holds (media type `application/vnd.cofferdam.pack.config.v1+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PackDescriptor {
    /// Unique in the bundle.
    pub name: String,
    /// The pack's version; also the tag of its manifest.
    pub version: String,
    /// Where it belongs in the stack.
    pub layer: Layer,
    /// One line for people.
    pub description: String,
    /// The images the pack brings.
    pub images: Vec<PackImage>,
    /// Kubernetes manifests, applied in this order.
    pub manifests: Vec<PackManifest>,
    /// Files for the host or for steps of the installer.
    pub files: Vec<PackFile>,
    /// Secrets that the installer generates and stores in the cluster.
    pub secrets: Vec<SecretRequest>,
    /// What must become true after the manifests were applied.
    pub gates: Vec<Gate>,
    /// References that the manifests may name though they are not inside.
    pub optional_images: Vec<Reference>,
    /// What an upgrade to this version does before the manifests are applied, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrations: Vec<Migration>,
    /// What the pack wants to know of the site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
    /// The operating system of an appliance that the pack brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<System>,
}

/// A change of data that an upgrade of a pack needs. It travels in the pack and says how it is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Migration {
    /// Unique in the pack.
    pub name: String,
    /// The installed versions of the pack that need it, a range such as `<1.1.0`.
    pub from: String,
    /// Applied; the Jobs in it must complete. It may be applied again after a crash.
    pub apply: PackManifest,
    /// Applied by a rollback. Absent: only the snapshot of etcd undoes it, and a rollback restores that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<PackManifest>,
    /// How long its Jobs may take, in seconds on a normal machine.
    pub timeout_seconds: u32,
}

/// The layer of the stack that a pack belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The operating system.
    Os,
    /// Kubernetes itself.
    Kubernetes,
    /// The pod network.
    Network,
    /// Storage.
    Storage,
    /// All else.
    Addon,
}

/// An image of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PackImage {
    /// The full reference under which the cluster asks for it.
    pub reference: Reference,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// A Kubernetes manifest of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PackManifest {
    /// Unique among the pack's manifests and files.
    pub name: String,
    /// Digest of the YAML.
    pub digest: Digest,
    /// Its size in bytes, at most 4 MiB.
    pub size: u64,
    /// Whether `${…}` variables are replaced (see [`crate::template`]).
    pub template: bool,
}

/// A file of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PackFile {
    /// Unique among the pack's manifests and files.
    pub name: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether `${…}` variables are replaced.
    pub template: bool,
    /// Where it is put on the host.
    pub install: Vec<InstallTarget>,
}

/// Where a file is put on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallTarget {
    /// Absolute and normal: no `.`, `..` or empty component.
    pub path: String,
    /// Permission bits in octal, for example `0755`; no set-id bits.
    pub mode: String,
}

/// A secret that the installer generates and stores in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// Name of the Secret.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What is generated.
    pub kind: SecretKind,
    /// The key under `data`. Absent only for a site certificate, which is stored as `tls.crt` and `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What a generated secret is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// 256 random bits.
    #[serde(rename = "random-256")]
    Random256,
    /// A password out of letters and digits.
    Password,
    /// An Ed25519 private key, PKCS#8 PEM.
    Ed25519,
    /// An ECDSA P-256 private key, PKCS#8 PEM.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// The site's server certificate and key.
    SiteCertificate,
}

/// A health gate: what must become true after a pack's manifests were applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Gate {
    /// What is asked.
    pub kind: GateKind,
    /// Of which namespace.
    pub namespace: String,
    /// Of which object.
    pub name: String,
    /// How long to wait at most, in seconds on a normal machine.
    pub timeout_seconds: u32,
}

/// What a gate asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateKind {
    /// The Deployment's `Available` condition is true.
    DeploymentAvailable,
    /// All pods the `DaemonSet` wants are ready.
    DaemonsetReady,
}

/// An image of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Image {
    /// The full reference under which the cluster asks for it.
    pub reference: Reference,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Media type of its manifest.
    pub media_type: String,
    /// Size of its manifest in bytes.
    pub size: u64,
}

/// A blob of the bundle, in stream order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Blob {
    /// Its digest; the member's name follows from it.
    pub digest: Digest,
    /// Its size in bytes, uncompressed by the stream.
    pub size: u64,
    /// What it is.
    pub media_type: String,
    /// How its frame is compressed; absent when it is stored in raw blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<Packed>,
}

/// The zstd frame of a compressed member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packed {
    /// Length of the frame in bytes.
    pub size: u64,
    /// SHA-256 of the frame's bytes.
    pub digest: Digest,
}

/// Digest and size of a file of the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Content {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What the site is to trust from this bundle on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Trust {
    /// minisign public keys (the base64 line): the only ones that a site with this bundle takes a later bundle from.
    /// Empty: nothing changes.
    pub next_keys: Vec<String>,
}

impl PackDescriptor {
    /// All Kubernetes YAML of the pack: its manifests, then those of its migrations.
    pub fn all_manifests(&self) -> impl Iterator<Item = &PackManifest> {
        let migrations = self.migrations.iter();
        self.manifests
            .iter()
            .chain(migrations.flat_map(|migration| std::iter::once(&migration.apply).chain(&migration.undo)))
    }
}

impl Pack {
    /// `cofferdam/packs/NAME:VERSION`: the name of the pack in the layout and in a registry.
    pub fn layout_name(&self) -> String {
        format!("cofferdam/packs/{}:{}", self.name, self.version)
    }
}

impl Index {
    /// The JSON Schema of the index.
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// The pack of that name.
    pub fn pack(&self, name: &str) -> Option<&Pack> {
        self.packs.iter().find(|pack| pack.name == name)
    }

    /// Sum of the sizes of all blobs of the stream, in bytes: what an empty store needs.
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    /// Everything that a site holds once the bundle was loaded: what is in the stream and what a delta left out.
    pub fn contents(&self) -> impl Iterator<Item = HeldBlob> {
        let stream = self.blobs.iter().map(|blob| HeldBlob { digest: blob.digest, size: blob.size });
        stream.chain(self.held.iter().copied())
    }
}
