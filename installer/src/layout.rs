//! Where things lie on an installed host; docs/architecture.md has the same table. Used by every step.

/// The installed program.
pub const PROGRAM: &str = "/usr/local/bin/cofferdam";
/// On the root filesystem, without secrets: configuration, plan, journal, state, escrow.
pub const HOME: &str = "/var/lib/cofferdam";
/// The configuration of the running or finished installation.
pub const CONFIG: &str = "/var/lib/cofferdam/config.yaml";
/// The plan of the running or finished installation.
pub const PLAN: &str = "/var/lib/cofferdam/plan.json";
/// The journal of the plan's execution.
pub const JOURNAL: &str = "/var/lib/cofferdam/journal.jsonl";
/// What the engine said, one JSON object a line; for `cofferdam monitor` and the support bundle.
pub const EVENTS: &str = "/var/lib/cofferdam/events.jsonl";
/// Held by the process that runs a plan, so that no second one does.
pub const LOCK: &str = "/var/lib/cofferdam/lock";
/// The installed site.
pub const STATE: &str = "/var/lib/cofferdam/state.json";
/// Name of the boot partition of an appliance's disk.
pub const PARTITION_BOOT: &str = "cofferdam-boot";
/// Name of the partition with the data volume.
pub const PARTITION_DATA: &str = "cofferdam-data";
/// Label of a LUKS2 volume as long as its site is not finished.
pub const LABEL_DATA: &str = "cofferdam-data";
/// What the label of a finished site's LUKS2 volume begins with; the site's name follows. Anybody can read it, without a key.
pub const LABEL_SITE: &str = "cofferdam-site-";
/// Where the live system mounts the data volume of the disk that it installs.
pub const TARGET: &str = "/run/cofferdam/target";

/// The path of a disk's partition: the number comes after a `p` where the disk's name ends with a digit.
pub fn partition(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}

/// The signed index of the bundle, as it was signed.
pub const INDEX: &str = "/var/lib/cofferdam/bundle/index.json";
/// Its signature.
pub const INDEX_SIGNATURE: &str = "/var/lib/cofferdam/bundle/index.json.minisig";
/// Pinned signing keys.
pub const TRUST: &str = "/var/lib/cofferdam/trust";
/// Encrypted for the escrow recipients.
pub const ESCROW: &str = "/var/lib/cofferdam/escrow";
/// Key of a certificate request until the data volume is there; in memory.
pub const REQUEST_KEY: &str = "/run/cofferdam/request.key";
/// Secrets and certificates that were typed or pasted, until the data volume is there; in memory.
pub const PASTED: &str = "/run/cofferdam/pasted";

/// The private key among them.
pub const PASTED_KEY: &str = "/run/cofferdam/pasted/key.pem";
/// The passphrase of the disk that was typed, until the disk has it.
pub const PASTED_PASSPHRASE: &str = "/run/cofferdam/pasted/passphrase";

/// The operator's certificate, its key and its roots on an appliance: on the encrypted volume, from the medium's leaving
/// until the keystore has them.
pub const BROUGHT: [&str; 3] = [
    "/var/lib/cofferdam/brought-certificate.pem",
    "/var/lib/cofferdam/brought-key.pem",
    "/var/lib/cofferdam/brought-roots.pem",
];

/// The data volume.
pub const DATA: &str = "/var/lib/cofferdam/data";
/// Keys and certificates, on the data volume.
pub const KEYSTORE: &str = "/var/lib/cofferdam/data/keystore";
/// The registry's store, on the data volume.
pub const STORE: &str = "/var/lib/cofferdam/data/registry";
/// Name of the opened volume under `/dev/mapper`.
pub const VOLUME: &str = "cofferdam";

/// Folders of the data volume and where the software expects them.
pub const BOUND: &[(&str, &str)] = &[
    ("etcd", "/var/lib/etcd"),
    ("kubelet", "/var/lib/kubelet"),
    ("containerd", "/var/lib/containerd"),
    ("cni", "/var/lib/cni"),
    ("kubernetes", "/etc/kubernetes"),
    ("log/journal", "/var/log/journal"),
    ("log/pods", "/var/log/pods"),
    ("log/containers", "/var/log/containers"),
    ("log/kubernetes", "/var/log/kubernetes"),
];

/// The registry's configuration.
pub const REGISTRY_CONFIG: &str = "/etc/cofferdam/registry.yaml";
/// Certificates that are no secret.
pub const TLS: &str = "/etc/cofferdam/tls";
/// The registry's port.
pub const REGISTRY_PORT: u16 = 5000;
/// The API server's port.
pub const API_PORT: u16 = 6443;
/// The registry's user and group.
pub const REGISTRY_USER: &str = "cofferdam-registry";
/// The cluster administrator's kubeconfig.
pub const ADMIN_KUBECONFIG: &str = "/etc/kubernetes/admin.conf";
