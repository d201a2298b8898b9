//! What the steps of an upgrade do beyond those of an installation. Each action holds all that it needs, digests included,
//! so that the way back does not depend on what the index of the moment says.

use bundle::index::{PackImage, PackManifest};
use bundle::oci::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::slots::Partition;
use crate::config::PackAnswers;

/// An action of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Action {
    /// Pins the keys that the installed bundle says may sign the next one.
    PinKeys {
        /// minisign's base64 lines.
        keys: Vec<String>,
    },
    /// Copies keys, configuration and record to the data volume, and takes a snapshot of etcd.
    Snapshot {
        /// Its number.
        number: u64,
    },
    /// Puts this program in its place and lets the registry run it.
    InstallProgram,
    /// Puts the program of the snapshot back.
    RestoreProgram {
        /// The snapshot.
        number: u64,
    },
    /// Lets the registry's tags point to this bundle again.
    ActivateBundle {
        /// `NAME-VERSION`
        bundle: String,
    },
    /// Pulls images through containerd and pins them, by digest.
    PullImages {
        /// All of the release.
        images: Vec<PackImage>,
    },
    /// Puts files of a pack onto the host.
    InstallFiles {
        /// The pack.
        pack: String,
        /// Which of its targets.
        paths: Vec<String>,
    },
    /// Removes files that the release does not have.
    RemoveFiles {
        /// Absolute paths.
        paths: Vec<String>,
    },
    /// Restarts a service unless it runs this very program already.
    Restart {
        /// The unit.
        unit: String,
        /// The program's file.
        program: String,
    },
    /// Stores kubeadm's configuration of this version in the cluster.
    UploadConfig {
        /// Kubernetes, for example `1.20.3`.
        version: String,
    },
    /// Puts static pods' files back that a power cut took while kubeadm replaced them: without them no API server answers.
    MendStaticPods {
        /// The snapshot that has them; none before it was taken.
        number: u64,
    },
    /// Upgrades etcd and the control plane of this node by `kubeadm upgrade node phase control-plane`.
    UpgradeControlPlane {
        /// Kubernetes.
        version: String,
        /// Tag of etcd's image.
        etcd_tag: String,
        /// etcd changes, too.
        etcd: bool,
        /// Patches give the probes more time.
        patient: bool,
        /// The snapshot, beside which it is noted that this version began.
        number: u64,
    },
    /// Writes the kubelet's configuration from the cluster by `kubeadm upgrade node phase kubelet-config`.
    UpgradeKubeletConfig,
    /// Applies an add-on of kubeadm.
    UpgradeAddon {
        /// `kube-proxy` or `coredns`.
        addon: String,
        /// The object it makes, such as `daemonset/kube-proxy`.
        object: String,
        /// Tag of its image.
        tag: String,
    },
    /// Waits until the control plane of this node runs these versions.
    AwaitControlPlane {
        /// Kubernetes.
        version: String,
        /// Tag of etcd's image.
        etcd_tag: String,
    },
    /// Moves pods to other nodes, as far as budgets allow.
    Drain {
        /// The node.
        node: String,
    },
    /// Lets pods onto the node again.
    Uncordon {
        /// The node.
        node: String,
    },
    /// Runs a migration of a pack.
    Migrate {
        /// The pack.
        pack: String,
        /// The migration.
        name: String,
        /// What is applied; its Jobs must complete.
        manifest: PackManifest,
        /// The snapshot, beside which it is noted that the migration ran.
        number: u64,
    },
    /// Undoes a migration of a pack if it ran.
    UndoMigration {
        /// The pack.
        pack: String,
        /// The migration.
        name: String,
        /// What is applied; its Jobs must complete.
        manifest: PackManifest,
        /// The answers that it was applied with.
        #[serde(default, skip_serializing_if = "PackAnswers::is_empty")]
        answers: PackAnswers,
        /// The snapshot.
        number: u64,
    },
    /// Removes objects that the other release's manifests had and this one's do not.
    Prune {
        /// The pack.
        pack: String,
        /// The other release's manifests.
        gone: Vec<PackManifest>,
        /// The answers that they were applied with.
        #[serde(default, skip_serializing_if = "PackAnswers::is_empty")]
        answers: PackAnswers,
        /// This release's manifests.
        kept: Vec<PackManifest>,
    },
    /// Waits until everything is healthy.
    Gates {
        /// What is asked, in this order.
        gates: Vec<GateKind>,
        /// Namespaces whose pods must be ready.
        namespaces: Vec<String>,
    },
    /// Escrows the site's keys, those of new packs included.
    Escrow {
        /// age recipients.
        recipients: Vec<String>,
        /// A second place.
        #[schemars(with = "Option<String>")]
        directory: Option<camino::Utf8PathBuf>,
    },
    /// Puts files of the snapshot back.
    RestoreFiles {
        /// The snapshot.
        number: u64,
        /// Prefixes of the paths.
        under: Vec<String>,
    },
    /// Puts etcd's snapshot back, because the schema moved or a migration ran that nothing else undoes.
    RestoreEtcd {
        /// The snapshot.
        number: u64,
        /// etcd's image, which has the program for it.
        image: String,
        /// Only when one of these is noted beside the snapshot: migrations and versions of Kubernetes that began.
        only_after: Vec<String>,
    },
    /// Writes a system of the registry's store into the slot that does not run, and verifies it there.
    WriteSlot {
        /// The disk.
        disk: String,
        /// The boot partition.
        boot: String,
        /// The version that runs: the only one that stays in the boot menu.
        running: String,
        /// Where the root goes.
        root: Partition,
        /// The blob with the root.
        #[schemars(with = "String")]
        root_blob: Digest,
        /// Its size.
        root_bytes: u64,
        /// Where the verity tree goes.
        verity: Partition,
        /// The blob with the verity tree.
        #[schemars(with = "String")]
        verity_blob: Digest,
        /// Its size.
        verity_bytes: u64,
        /// dm-verity root hash of both.
        root_hash: String,
    },
    /// Puts a system into the boot menu, with three attempts.
    AddSystem {
        /// The boot partition.
        boot: String,
        /// Its version.
        version: String,
        /// The blob with the unified kernel image.
        #[schemars(with = "String")]
        image: Digest,
        /// Its root hash; nothing is left to do when it runs.
        root_hash: String,
    },
    /// Takes a system out of the boot menu.
    RetireSystem {
        /// The boot partition.
        boot: String,
        /// Its version.
        version: String,
    },
    /// Restarts until this system runs, or until its attempts are used up.
    SwitchSystem {
        /// The boot partition.
        boot: String,
        /// Its version.
        version: String,
        /// Its root hash.
        root_hash: String,
    },
    /// Replaces the boot loader. Last, since it is there once: the one of before has started the new system by then.
    UpdateLoader {
        /// The boot partition.
        boot: String,
        /// The blob with the boot loader.
        #[schemars(with = "String")]
        loader: Digest,
    },
    /// Lets the site run the program that the running system brought.
    AdoptProgram,
    /// Writes the answers of the plan into the stored configuration.
    StoreAnswers,
    /// Records the new release: from here on the site is the new one.
    Commit {
        /// The snapshot that is kept.
        number: u64,
    },
}

/// What a gate asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GateKind {
    /// The API server answers `/readyz`.
    Api,
    /// All members of etcd are healthy and in sync.
    Etcd,
    /// All nodes are Ready.
    Nodes,
    /// All pods of the product's namespaces are ready.
    Pods,
    /// The registry answers over TLS.
    Registry,
}

impl GateKind {
    /// Its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Etcd => "etcd",
            Self::Nodes => "nodes",
            Self::Pods => "pods",
            Self::Registry => "registry",
        }
    }
}
