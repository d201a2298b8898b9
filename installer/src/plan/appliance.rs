//! The steps that turn a bare disk into an appliance: run by the live system of a boot medium, before the first start from
//! the disk. The rest of the plan goes on there, from the same journal.

use bundle::oci::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Disk, Machine, PlanError, Prepared, Steps};
use crate::config::{Encryption, InstallConfig, Tpm2};
use crate::layout;

const MEBIBYTE: u64 = 1 << 20;
/// Room for three unified kernel images, MiB.
const BOOT_MIB: u64 = 512;
/// A slot is at least this large, so that the next versions fit, MiB.
const ROOT_MIB: u64 = 1024;
/// A verity tree has about one 120th of its root, MiB.
const VERITY_MIB: u64 = 16;
/// What must be left for the data volume, MiB.
const LEAST_DATA_MIB: u64 = 2048;

/// The operating system that the medium brings, verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemImage {
    /// Its version.
    pub version: String,
    /// dm-verity root hash.
    pub root_hash: String,
    /// Bytes of the root.
    pub root_bytes: u64,
    /// Bytes of its verity tree.
    pub verity_bytes: u64,
    /// What goes to the boot partition, in this order.
    pub boot: Vec<BootFile>,
}

/// A file of the boot partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BootFile {
    /// Place on the medium's boot partition.
    pub from: String,
    /// Place on the disk's boot partition.
    pub to: String,
    /// From the signed manifest.
    #[schemars(with = "String")]
    pub digest: Digest,
}

/// A partition to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// Its name in the table.
    pub name: String,
    /// GPT type as sfdisk(8) takes it: an alias or a GUID.
    pub kind: String,
    /// MiB; 0 for all that is left.
    pub mebibytes: u64,
    /// Its unique GUID, where it says something: the halves of the root hash.
    pub id: Option<String>,
}

/// The unique GUIDs of a root and its verity tree, by which the initrd finds them: the halves of the root hash
/// (systemd-veritysetup-generator(8)). `None` when it has not 64 digits.
pub(crate) fn root_ids(root_hash: &str) -> Option<(String, String)> {
    let half = |from: usize| {
        let part = |start: usize, end: usize| root_hash.get(from + start..from + end);
        let parts = [part(0, 8)?, part(8, 12)?, part(12, 16)?, part(16, 20)?, part(20, 32)?];
        Some(parts.join("-"))
    };
    (root_hash.len() == 64).then_some(())?;
    Some((half(0)?, half(32)?))
}

/// The table of a disk: boot, two slots for the system, data.
fn partitions(system: &SystemImage) -> Vec<Partition> {
    let size = |bytes: u64, least: u64| (2 * bytes).div_ceil(MEBIBYTE).max(least);
    let (root, verity) = (size(system.root_bytes, ROOT_MIB), size(system.verity_bytes, VERITY_MIB));
    let (root_id, verity_id) = root_ids(&system.root_hash).unzip();
    let made = |name: &str, kind: &str, mebibytes, id| Partition {
        name: name.to_owned(),
        kind: kind.to_owned(),
        mebibytes,
        id,
    };
    vec![
        made(layout::PARTITION_BOOT, "U", BOOT_MIB, None),
        made("cofferdam-root-a", "L", root, root_id),
        made("cofferdam-verity-a", "L", verity, verity_id),
        made("cofferdam-root-b", "L", root, None),
        made("cofferdam-verity-b", "L", verity, None),
        made(layout::PARTITION_DATA, "L", 0, None),
    ]
}

/// Adds the steps up to the mounted data volume, when the machine has booted a medium; gives what is erased and where the
/// escrow goes.
pub(super) fn prepare(
    config: &InstallConfig,
    machine: &Machine,
    steps: &mut Steps,
) -> Result<Option<Prepared>, PlanError> {
    let Some(system) = &machine.system else { return Ok(None) };
    let Encryption::Luks2 { tpm2, escrow_recipients, escrow_directory, show_recovery_key, key_derivation, .. } =
        &config.storage.encryption
    else {
        return Err(PlanError::Plaintext);
    };
    let disk = machine.disk.as_ref().ok_or_else(|| PlanError::Disk {
        why: "storage.disk is missing: an appliance needs a disk of its own".to_owned(),
        hint: "`cofferdam check` lists the disks of this machine",
    })?;
    let partitions = partitions(system);
    let taken: u64 = partitions.iter().map(|partition| partition.mebibytes).sum();
    if disk.size / MEBIBYTE < taken + LEAST_DATA_MIB {
        return Err(PlanError::Disk {
            why: format!(
                "{} has {} MiB, an appliance needs {}",
                disk.path,
                disk.size / MEBIBYTE,
                taken + LEAST_DATA_MIB
            ),
            hint: "choose a larger disk",
        });
    }
    let tpm2 = match tpm2 {
        Tpm2::Require if !machine.tpm2 => return Err(PlanError::NoTpm),
        Tpm2::Off => false,
        Tpm2::Auto | Tpm2::Require => machine.tpm2,
    };
    let title = format!("Partition {}", disk.path);
    steps.add("disk.partition", &title, 3, 120, Action::PartitionDisk { disk: disk.clone(), partitions });
    steps.add(
        "system.write",
        "Write the system and verify it",
        10 + u32::try_from(system.root_bytes / 50_000_000).unwrap_or(0),
        600,
        Action::WriteSystem {
            root: layout::partition(&disk.path, 2),
            verity: layout::partition(&disk.path, 3),
            root_bytes: system.root_bytes,
            verity_bytes: system.verity_bytes,
            root_hash: system.root_hash.clone(),
        },
    );
    let data = Disk { path: layout::partition(&disk.path, 6), ..disk.clone() };
    let title = super::encryption_title(config, &data);
    steps.add(
        "disk.encrypt",
        &title,
        20,
        300,
        Action::EncryptDisk {
            disk: data.clone(),
            tpm2,
            // The literal PCR 7 says which keys Secure Boot trusts; without Secure Boot it says nothing.
            pcrs: if tpm2 && machine.secure_boot { vec![7] } else { Vec::new() },
            signed_pcrs: if tpm2 { vec![11] } else { Vec::new() },
            key_derivation: *key_derivation,
            escrow_recipients: escrow_recipients.clone(),
            escrow_directory: escrow_directory.clone(),
            show_recovery_key: *show_recovery_key,
            passphrase: config.passphrase_file().map(Into::into),
        },
    );
    steps.add("target.mount", "Mount the data volume of the disk", 2, 120, Action::MountTarget { device: data.path });
    // Where the installed system runs the second place of the escrow has left with the medium.
    Ok(Some((vec![disk.clone()], (escrow_recipients.clone(), None))))
}

/// Adds the step that keeps the operator's certificate when the medium leaves.
pub(super) fn bring_certificates(config: &InstallConfig, steps: &mut Steps) {
    if let Some((certificate, key, roots)) = config.certificates.files() {
        let action = Action::BringCertificates { from: [certificate, key, roots].map(camino::Utf8Path::to_owned) };
        steps.add("certificates.bring", "Bring your certificate onto the encrypted volume", 1, 60, action);
    }
}

/// Adds the last step of the live system and the first of the installed one.
pub(super) fn finish(config: &InstallConfig, machine: &Machine, steps: &mut Steps) {
    let (Some(system), Some(disk)) = (&machine.system, &machine.disk) else { return };
    steps.add(
        "boot.install",
        "Make the disk bootable",
        5,
        300,
        Action::InstallBoot { device: layout::partition(&disk.path, 1), files: system.boot.clone() },
    );
    steps.add("system.restart", "Restart from the disk", 30, 600, Action::Restart);
    let (title, units, mut addresses) = match &config.network {
        Some(network) => {
            let addresses: Vec<_> = network.addresses.iter().map(|address| address.address).collect();
            ("Set up the network", crate::network::units::of(network), addresses)
        }
        None => ("Wait for the network", Vec::new(), Vec::new()),
    };
    if !addresses.contains(&config.node.address) {
        addresses.push(config.node.address);
    }
    steps.add("system.network", title, 5, 300, Action::ConfigureNetwork { units, addresses });
    let names = vec![config.site.fqdn.clone(), config.node.name.clone()];
    steps.add(
        "system.name",
        "Name the machine",
        1,
        60,
        Action::NameMachine { name: config.node.name.clone(), address: config.node.address, names },
    );
}
