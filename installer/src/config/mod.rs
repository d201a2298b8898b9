//! The answers: one struct that is the file `install.yaml`, the TUI's state, the summary and the exported answers.
//!
//! Invariant: a value of [`InstallConfig`] that came out of [`parse`] has passed [`rules::findings`] without a failure;
//! it never holds a secret, only where a secret is to be found. Called by the command line and by `plan/`.

pub mod answers;
pub mod example;
mod network;
mod rules;
mod secret_source;

use std::net::IpAddr;

use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use answers::{AnswerProblem, Answers, PackAnswers};
pub use network::{Bond, Network, is_mac_address};
pub use rules::{ConfigError, Problem, account_problem, problems};

/// The version of `install.yaml` that this program reads.
pub const SCHEMA_VERSION: u32 = 1;

/// Largest configuration file that is read, in bytes.
pub const SIZE_LIMIT: usize = 1 << 20;

/// Everything an installation needs to know. The file is YAML; unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct InstallConfig {
    /// Always 1.
    pub schema_version: u32,
    /// What is installed, and under which name it is reached.
    pub site: Site,
    /// This machine's part in it.
    pub node: Node,
    /// The network of an appliance; left out: every wired adapter asks by DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Where the site's state lies and how it is encrypted.
    pub storage: Storage,
    /// The bundle and the keys that are trusted to sign it.
    pub bundle: BundleSource,
    /// The server certificate for the FQDN.
    #[serde(default)]
    pub certificates: Certificates,
    /// The cluster's networks and packs.
    #[serde(default)]
    pub cluster: Cluster,
    /// Answers to the questions of packs: PACK, NAME, value. What has a default may be left out.
    #[serde(default, skip_serializing_if = "Answers::is_empty", deserialize_with = "answers::deserialize")]
    pub answers: Answers,
    /// The account of the machine's administrator; left out: the accounts of the host stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administrator: Option<Administrator>,
    /// Pages on which the terminal installer stops, with this file as defaults; empty: no question is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interactive: Vec<Page>,
    /// Ids of failing checks that are let pass. Each use is recorded in the report and in the site's state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
}

/// The site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Site {
    /// A short name: lower-case letters, digits and dashes, at most 40 characters.
    pub name: String,
    /// The name under which people reach the management cluster. It must resolve to this host (or to the VIP).
    pub fqdn: String,
    /// A virtual IP in front of the control plane, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
}

/// This machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Node {
    /// The node's name in the cluster; must be the machine's host name or become it. At most 53 characters.
    pub name: String,
    /// The address under which this node is reached; must be set on one of its adapters.
    pub address: IpAddr,
}

/// Where state lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Storage {
    /// The disk that becomes the data volume. Left out: a directory of the root filesystem (without encryption only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskChoice>,
    /// How the data volume is encrypted.
    pub encryption: Encryption,
}

/// Which disk is taken, and the word that allows it to be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DiskChoice {
    /// Tried in order; the first that fits exactly one unused disk decides. Empty: exactly one unused disk must exist.
    #[serde(default, rename = "match")]
    pub matches: Vec<DiskMatch>,
    /// The last four or more characters of the disk's serial number (its name for a disk without one). Without this
    /// token nothing is erased.
    pub erase: String,
}

/// All fields that are given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DiskMatch {
    /// Serial number, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World wide name, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Model, a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Bus: `nvme`, `sata`, `sas`, `usb`, `virtio`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// At least this many GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size_gib: Option<u64>,
    /// At most this many GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size_gib: Option<u64>,
}

/// How the data volume is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Encryption {
    /// LUKS2, aes-xts-plain64, 512-bit key. A recovery key is always made.
    #[serde(rename_all = "kebab-case")]
    Luks2 {
        /// Whether the TPM opens the volume at boot.
        #[serde(default)]
        tpm2: Tpm2,
        /// age recipients (`age1…`) to whom the recovery key and the site's secrets are escrowed. At least one, unless the
        /// recovery key is shown.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        escrow_recipients: Vec<String>,
        /// Where the escrow is copied besides `/var/lib/cofferdam/escrow/`, a directory such as a mounted medium.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        escrow_directory: Option<Utf8PathBuf>,
        /// The recovery key is shown once on the installation's terminal, and two of its groups are typed back. With
        /// recipients as well, an unattended installation leaves it to the escrow; without them it is refused.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        show_recovery_key: bool,
        /// Tell the disk which blocks are free. Reveals usage patterns; off unless asked for.
        #[serde(default)]
        discards: bool,
        /// Cost of the recovery key's slot, and of the passphrase's.
        #[serde(default)]
        key_derivation: KeyDerivation,
        /// A passphrase that opens the volume, too: one line of at least 15 ASCII characters in a file that only root can
        /// read. For an appliance the file may lie on the medium or on the volume with the answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passphrase: Option<SecretSource>,
    },
    /// No encryption. The token must be spelled out, and the choice is recorded in the site's state and status.
    None {
        /// Must be `store-secrets-unencrypted`.
        token: String,
    },
}

/// The token without which there is no unencrypted site.
pub const PLAINTEXT_TOKEN: &str = "store-secrets-unencrypted";

/// Whether the TPM opens the volume at boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tpm2 {
    /// If the machine has one.
    #[default]
    Auto,
    /// It must have one.
    Require,
    /// Never: the recovery key, or the passphrase, is typed at each boot.
    Off,
}

/// argon2id costs (cryptsetup-luksFormat(8), `--pbkdf-*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeyDerivation {
    /// Memory in KiB, 32 to 4194304.
    pub memory_kib: u32,
    /// Passes, at least 4.
    pub iterations: u32,
}

impl Default for KeyDerivation {
    fn default() -> Self {
        Self { memory_kib: 65_536, iterations: 4 }
    }
}

/// The bundle and whom to trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BundleSource {
    /// The bundle file.
    #[schemars(with = "String")]
    pub path: Utf8PathBuf,
    /// minisign public keys, files. One of them must have signed the bundle.
    #[schemars(with = "Vec<String>")]
    pub trust: Vec<Utf8PathBuf>,
}

/// Where a secret is to be found. The configuration never holds one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SecretSource {
    /// A file that only root can read.
    #[schemars(with = "String")]
    pub file: Utf8PathBuf,
}

/// The server certificate for the FQDN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Certificates {
    /// A site CA is generated and issues the certificate.
    #[serde(rename_all = "kebab-case")]
    Generate {
        /// Algorithm of the keys: `ecdsa-p256`, `ecdsa-p384`, `ed25519`, `rsa3072`, `rsa4096`.
        #[serde(default = "default_algorithm")]
        algorithm: String,
    },
    /// Certificate and key of your own CA for the FQDN.
    #[serde(rename_all = "kebab-case")]
    Import {
        /// PEM: the certificate and its intermediates, in any order.
        #[schemars(with = "String")]
        certificate: Utf8PathBuf,
        /// PEM: its private key.
        key: SecretSource,
        /// PEM: the root that clients trust.
        #[schemars(with = "String")]
        roots: Utf8PathBuf,
    },
    /// A request is written for your own CA to sign, and the installation waits for the answer. The key is made on this
    /// machine and never leaves it; until the data volume is there it lies in memory (`/run`).
    #[serde(rename_all = "kebab-case")]
    Request {
        /// Where the request (PKCS#10, PEM) is written.
        #[schemars(with = "String")]
        request: Utf8PathBuf,
        /// Where the answer will be, PEM: the certificate and its intermediates, in any order.
        #[schemars(with = "String")]
        certificate: Utf8PathBuf,
        /// PEM: the root that clients trust.
        #[schemars(with = "String")]
        roots: Utf8PathBuf,
    },
}

impl Certificates {
    /// Certificate, key and roots that are brought in; `None` when the site makes its own.
    pub fn files(&self) -> Option<(&Utf8Path, &Utf8Path, &Utf8Path)> {
        match self {
            Self::Generate { .. } => None,
            Self::Import { certificate, key, roots } => Some((certificate, &key.file, roots)),
            Self::Request { certificate, roots, .. } => {
                Some((certificate, Utf8Path::new(crate::layout::REQUEST_KEY), roots))
            }
        }
    }
}

fn default_algorithm() -> String {
    "ecdsa-p256".to_owned()
}

impl Default for Certificates {
    fn default() -> Self {
        Self::Generate { algorithm: default_algorithm() }
    }
}

/// The account of the machine's administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Administrator {
    /// Its name: lower-case letters, digits and dashes, a letter first, at most 32 characters.
    pub name: String,
    /// Its password as crypt(5) hash: `$y$…`, `$6$…` or `$2b$…`. Left out: it can log in by SSH key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Lines of its `authorized_keys` (sshd(8)).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
}

/// A page of the terminal installer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Page {
    /// What the medium carries, and what to do.
    Welcome,
    /// What the checks of the host found.
    Host,
    /// The disk and its encryption.
    Disks,
    /// Name and address of the machine.
    Network,
    /// Name of the site.
    Identity,
    /// The server certificate.
    Certificates,
    /// The bundle.
    Bundle,
    /// The cluster's networks and packs.
    Cluster,
    /// The administrator's account.
    Administrator,
    /// The plan.
    Review,
}

impl Page {
    /// All pages, in their order.
    pub const ALL: [Self; 10] = [
        Self::Welcome,
        Self::Host,
        Self::Disks,
        Self::Network,
        Self::Identity,
        Self::Certificates,
        Self::Bundle,
        Self::Cluster,
        Self::Administrator,
        Self::Review,
    ];
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Cluster {
    /// Addresses of pods.
    pub pod_cidr: String,
    /// Addresses of services.
    pub service_cidr: String,
    /// Packs of the layers `storage` and `addon` to install; left out: all of the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packs: Option<Vec<String>>,
    /// Pods may run on the control plane node. On by default: the first node is alone.
    pub schedule_on_control_plane: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/12".to_owned(),
            packs: None,
            schedule_on_control_plane: true,
        }
    }
}

impl InstallConfig {
    /// The JSON Schema of `install.yaml`.
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// The file with a passphrase that opens the data volume.
    pub fn passphrase_file(&self) -> Option<&Utf8Path> {
        match &self.storage.encryption {
            Encryption::Luks2 { passphrase: Some(source), .. } => Some(&source.file),
            Encryption::Luks2 { passphrase: None, .. } | Encryption::None { .. } => None,
        }
    }

    /// Whether somebody has to be at a terminal: the recovery key leaves by no other way than the screen.
    pub fn needs_a_person(&self) -> bool {
        matches!(&self.storage.encryption, Encryption::Luks2 { escrow_recipients, .. } if escrow_recipients.is_empty())
    }

    /// The configuration as YAML. It holds no secret.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(self)
    }
}

/// Reads a configuration and checks all that can be checked without the machine.
pub fn parse(text: &str) -> Result<InstallConfig, ConfigError> {
    if text.len() > SIZE_LIMIT {
        return Err(ConfigError::TooLarge { size: text.len() });
    }
    let config: InstallConfig = serde_yaml::from_str(text)?;
    match rules::problems(&config) {
        problems if problems.is_empty() => Ok(config),
        problems => Err(ConfigError::Rules { problems }),
    }
}

#[cfg(test)]
mod tests;
