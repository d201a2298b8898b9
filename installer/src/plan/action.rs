//! What a step does. Invariant: an action holds all that the step needs, and no secret: it is shown, stored and compared.
//!
//! Made by [`super::plan`]; `crate::step` does it.

use std::net::IpAddr;

use camino::Utf8PathBuf;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BootFile, Disk, Partition};
use crate::config::KeyDerivation;

/// What a step does. All that it needs and that is no secret stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Action {
    /// The program, the registry's user, kernel modules and settings.
    PrepareHost {
        /// Loaded now and at each boot.
        modules: Vec<String>,
        /// Set now and at each boot.
        sysctls: Vec<(String, String)>,
    },
    /// Reads the whole bundle and keeps nothing: a damaged medium is found before a disk is erased.
    VerifyBundle {
        /// The file.
        #[schemars(with = "String")]
        path: Utf8PathBuf,
        /// Its size in bytes.
        bytes: u64,
    },
    /// Makes the LUKS2 volume, escrows its recovery key and proves that it opens.
    EncryptDisk {
        /// Erased.
        disk: Disk,
        /// Enrol the TPM.
        tpm2: bool,
        /// PCRs the TPM's key is bound to, as they are now.
        pcrs: Vec<u8>,
        /// PCRs that must have a value which is signed with the key of the system's image. Not empty: the volume is that
        /// of an appliance, and one that an interrupted run has made is kept when the TPM opens it.
        #[serde(default)]
        signed_pcrs: Vec<u8>,
        /// argon2id cost of the recovery key's slot, and of the passphrase's.
        key_derivation: KeyDerivation,
        /// age recipients.
        escrow_recipients: Vec<String>,
        /// A second place for the escrow.
        #[schemars(with = "Option<String>")]
        escrow_directory: Option<Utf8PathBuf>,
        /// The recovery key is shown on the console, and two groups of it are typed back.
        #[serde(default)]
        show_recovery_key: bool,
        /// The file with a passphrase that gets a slot of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        passphrase: Option<Utf8PathBuf>,
    },
    /// Makes the partitions of an appliance's disk.
    PartitionDisk {
        /// Erased.
        disk: Disk,
        /// In this order, numbered from 1.
        partitions: Vec<Partition>,
    },
    /// Copies the root and its verity tree from the medium to a slot, and verifies the copy.
    WriteSystem {
        /// Partition of the root.
        root: String,
        /// Partition of the verity tree.
        verity: String,
        /// Bytes of the root.
        root_bytes: u64,
        /// Bytes of the verity tree.
        verity_bytes: u64,
        /// What the copy must hash to.
        root_hash: String,
    },
    /// Mounts the data volume of the disk in the live system; what is kept of this installation moves there.
    MountTarget {
        /// Partition of the data volume.
        device: String,
    },
    /// Fills the boot partition, the loader last: before this step the disk does not boot.
    InstallBoot {
        /// The boot partition.
        device: String,
        /// In this order.
        files: Vec<BootFile>,
    },
    /// Restarts from the disk, where the plan goes on.
    Restart,
    /// Gives the machine its name, and the site's names an address that needs no name server.
    NameMachine {
        /// Host name.
        name: String,
        /// The node's address.
        address: IpAddr,
        /// Names that resolve to it.
        names: Vec<String>,
    },
    /// Sets up an appliance's network, now and at each boot.
    ConfigureNetwork {
        /// Files of systemd-networkd; none where every wired adapter asks by DHCP.
        units: Vec<crate::network::units::Unit>,
        /// Addresses that must be there then: the fixed ones, and the node's.
        addresses: Vec<IpAddr>,
    },
    /// Mounts the data volume now and at each boot.
    MountData {
        /// Where the volume comes from.
        volume: Volume,
    },
    /// Binds the folders of the data volume to where the software expects them.
    BindState,
    /// Copies the operator's certificate, key and roots onto the encrypted volume, before the medium leaves.
    BringCertificates {
        /// Files of the live system, in the order of [`crate::layout::BROUGHT`].
        #[schemars(with = "[String; 3]")]
        from: [Utf8PathBuf; 3],
    },
    /// Site CA, registry and node certificates, and the server certificate for the FQDN.
    IssueCertificates {
        /// Of all keys.
        algorithm: String,
        /// The server certificate is issued by the site CA; otherwise it is imported.
        server: ServerCertificate,
        /// Names and addresses of the server certificate besides the FQDN.
        names: Vec<String>,
    },
    /// Streams the bundle into the registry's store.
    LoadBundle {
        /// The file.
        #[schemars(with = "String")]
        path: Utf8PathBuf,
        /// Its size in bytes.
        bytes: u64,
    },
    /// Starts the registry as a service of its own user.
    StartRegistry {
        /// Where it listens besides loopback.
        address: IpAddr,
    },
    /// Puts a pack's files onto the host.
    InstallFiles {
        /// The pack.
        pack: String,
    },
    /// Configures containerd with one mirror for all names, and starts it.
    ConfigureRuntime {
        /// The image of pod sandboxes.
        sandbox_image: String,
        /// The registry.
        mirror: String,
    },
    /// Pulls images through containerd and pins them.
    PullImages {
        /// Full references.
        images: Vec<String>,
    },
    /// Writes the configuration of the control plane and the kubelet's unit.
    ConfigureKubernetes {
        /// For example `1.20.2`.
        version: String,
        /// `kubeadm.k8s.io/…`
        api: String,
        /// The repository that kubeadm prefixes to its images.
        image_repository: String,
        /// Tag of the etcd image.
        etcd_tag: String,
        /// This machine is slow: probes and elections are given more time.
        patient: bool,
    },
    /// Runs one phase of `kubeadm init`.
    KubeadmPhase {
        /// For example `certs all`.
        phase: String,
        /// The file or object that shows that it is done.
        proof: Proof,
    },
    /// Waits until the API server answers `/readyz`.
    WaitForApi,
    /// Generates a pack's secrets, applies its manifests and waits at its gates.
    ApplyPack {
        /// The pack.
        pack: String,
    },
    /// Waits until the node is Ready.
    WaitForNode,
    /// A TLS handshake by FQDN and a pull through containerd.
    Rehearse {
        /// An image of the bundle.
        image: String,
        /// A pack serves the site's certificate at port 443.
        workload: bool,
    },
    /// Escrows the site's keys.
    SealEscrow {
        /// age recipients; empty when nothing is encrypted.
        recipients: Vec<String>,
        /// A second place for the escrow.
        #[schemars(with = "Option<String>")]
        directory: Option<Utf8PathBuf>,
    },
    /// Makes the account of the machine's administrator. Its password hash stands in the configuration alone.
    MakeAdministrator {
        /// Name of the account.
        name: String,
        /// May it log in by a password.
        password: bool,
        /// Lines of its `authorized_keys`.
        ssh_keys: Vec<String>,
    },
    /// Records the finished site.
    RecordSite,
    /// What only an upgrade does.
    Upgrade {
        /// Which of it.
        what: crate::upgrade::Action,
    },
}

/// Where the data volume comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "kind")]
pub enum Volume {
    /// The LUKS2 volume.
    Encrypted {
        /// Opened by the TPM at boot.
        tpm2: bool,
        /// Discards are passed down.
        discards: bool,
    },
    /// A directory of the root filesystem.
    Directory,
}

/// The server certificate for the FQDN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ServerCertificate {
    /// Issued by the site CA.
    Issued,
    /// From files.
    Imported {
        /// PEM.
        #[schemars(with = "String")]
        certificate: Utf8PathBuf,
        /// PEM.
        #[schemars(with = "String")]
        key: Utf8PathBuf,
        /// PEM.
        #[schemars(with = "String")]
        roots: Utf8PathBuf,
    },
}

/// What shows that a phase is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// This file is there, and so is the mark that it is on the disk.
    File(#[schemars(with = "String")] Utf8PathBuf),
    /// This file is there and holds this text.
    Text {
        /// The file.
        #[schemars(with = "String")]
        path: Utf8PathBuf,
        /// The text.
        text: String,
    },
    /// `kubectl` finds all of this, for example `configmap/kubeadm-config -n kube-system`.
    Object(String),
}
