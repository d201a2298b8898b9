//! The two slots of an appliance: what it runs from, and where its next system goes. A host that has its own operating
//! system has none.
//!
//! Invariant: only the slot that does not run is written, and only after its entry was taken out of the boot menu; the
//! running system's entry stays until the next upgrade, so that boot counting and the way back have somewhere to go.
//!
//! [`survey`] looks; [`forward`] and [`back`] are pure.

use std::collections::BTreeSet;

use bundle::index::Pack;
use bundle::oci::Digest;
use bundle::system::System;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::action::{Action, GateKind};
use super::stages::Stages;
use super::{Site, live_root};
use crate::check::{Finding, Outcome};
use crate::config::{Encryption, Tpm2};
use crate::host::{Command, Host, HostExt};
use crate::layout;
use crate::plan;

/// Public key of the signatures on PCR 11 that the running system was started with (systemd-stub(7)).
const PCR_KEY: &str = "/run/systemd/tpm2-pcr-public-key.pem";
const OS_RELEASE: &str = "/usr/lib/os-release";
/// Left free on the boot partition, in bytes.
const BOOT_RESERVE: u64 = 16 << 20;
const SECTOR: u64 = 512;

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// For example `/dev/sda4`.
    pub device: String,
    /// Its number in the table.
    pub number: u32,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What an appliance runs from, and where its next system goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// Version of the running system.
    pub version: String,
    /// Its dm-verity root hash.
    pub root_hash: String,
    /// The disk, for example `/dev/sda`.
    pub disk: String,
    /// The boot partition.
    pub boot: Partition,
    /// The root of the slot that does not run.
    pub root: Partition,
    /// Its verity tree.
    pub verity: Partition,
    /// SHA-256 of the key whose signatures open the encrypted volume.
    pub pcr_key: Option<Digest>,
}

/// Looks at the slots; `None` on a host that is no appliance.
pub(super) fn survey(host: &dyn Host) -> Option<Result<Slots, String>> {
    let text = host.read_text(OS_RELEASE.into()).ok().flatten()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
    if value("IMAGE_ID=") != Some("cofferdam") {
        return None;
    }
    let version = value("IMAGE_VERSION=").unwrap_or_default().to_owned();
    Some(slots(host, version))
}

fn slots(host: &dyn Host, version: String) -> Result<Slots, String> {
    let say = |error: crate::host::HostError| error.to_string();
    let root_hash = live_root(host).map_err(say)?.ok_or("the kernel's command line names no root hash")?;
    let (root_id, _) = plan::root_ids(&root_hash).ok_or_else(|| format!("{root_hash:?} is no root hash"))?;
    let link = Command::new("readlink").args(["-f".to_owned(), format!("/dev/disk/by-partuuid/{root_id}")]);
    let running = host.must(&link).map_err(say)?.text();
    let parent = Command::new("lsblk").args(["--nodeps", "--noheadings", "--output", "PKNAME", &running]);
    let disk = format!("/dev/{}", host.must(&parent).map_err(say)?.text());
    let table = host.must(&Command::new("sfdisk").args(["--json", &disk])).map_err(say)?;
    let table: Value = serde_json::from_str(&table.text()).map_err(|error| format!("sfdisk printed: {error}"))?;
    let all = table["partitiontable"]["partitions"].as_array().cloned().unwrap_or_default();
    let find = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        let (position, found) =
            all.iter().enumerate().find(|(_, entry)| is_it(entry)).ok_or_else(|| format!("{disk} has no {what}"))?;
        let number = u32::try_from(position + 1).map_err(|_| "too many partitions".to_owned())?;
        let bytes = found["size"].as_u64().unwrap_or(0) * SECTOR;
        let name = found["name"].as_str().unwrap_or_default().to_owned();
        Ok::<_, String>((name, Partition { device: layout::partition(&disk, number), number, bytes }))
    };
    let named = |name: &str| find(name, &|entry| entry["name"] == name).map(|(_, partition)| partition);
    let is_root = |entry: &Value| entry["uuid"].as_str().is_some_and(|uuid| uuid.eq_ignore_ascii_case(&root_id));
    let (name, _) = find("partition of the running root", &is_root)?;
    let spare = match name.as_str() {
        "cofferdam-root-a" => 'b',
        "cofferdam-root-b" => 'a',
        other => return Err(format!("the running root lies in {other:?}, which is no slot")),
    };
    Ok(Slots {
        version,
        root_hash,
        boot: named(layout::PARTITION_BOOT)?,
        root: named(&format!("cofferdam-root-{spare}"))?,
        verity: named(&format!("cofferdam-verity-{spare}"))?,
        disk: disk.clone(),
        pcr_key: host.digest(PCR_KEY.into()).map_err(say)?,
    })
}

/// The system that an upgrade brings to an appliance that runs another one.
struct Next<'a> {
    system: &'a System,
    pack: &'a Pack,
    slots: &'a Slots,
}

impl Next<'_> {
    fn part(&self, name: &str) -> (Digest, u64) {
        let file = self.pack.files.iter().find(|file| file.name == name);
        // The index was read with all parts in it.
        file.map_or((Digest::Sha256([0; 32]), 0), |file| (file.digest, file.size))
    }
}

fn next<'a>(site: &'a Site, packs: &[&'a Pack]) -> Option<Next<'a>> {
    let slots = site.slots.as_ref()?.known()?;
    let (pack, system) = packs.iter().find_map(|pack| Some((*pack, pack.system.as_ref()?)))?;
    (system.root_hash != slots.root_hash).then_some(Next { system, pack, slots })
}

/// Writes the other slot and restarts into it; then all must be as healthy as before.
pub(super) fn forward(s: &mut Stages, site: &Site, packs: &[&Pack], old: &[&Pack]) {
    let Some(next) = next(site, packs) else { return };
    let (version, root_hash) = (&next.system.version, &next.system.root_hash);
    let ((root, root_bytes), (verity, verity_bytes)) = (next.part(System::ROOT), next.part(System::VERITY));
    let slots = next.slots;
    let what = Action::WriteSlot {
        disk: slots.disk.clone(),
        boot: slots.boot.device.clone(),
        running: slots.version.clone(),
        root: slots.root.clone(),
        root_blob: root,
        root_bytes,
        verity: slots.verity.clone(),
        verity_blob: verity,
        verity_bytes,
        root_hash: root_hash.clone(),
    };
    let weight = 10 + u32::try_from(root_bytes / 50_000_000).unwrap_or(0);
    s.upgrade("system.write", &format!("Write system {version} into the other slot and verify it"), weight, 600, what);
    let what = Action::AddSystem {
        boot: slots.boot.device.clone(),
        version: version.clone(),
        image: next.part(System::IMAGE).0,
        root_hash: root_hash.clone(),
    };
    s.upgrade("system.boot", &format!("Put system {version} into the boot menu"), 3, 300, what);
    switch(s, "system.switch", slots, version, root_hash);
    s.costs(60, 60, "the machine restarts");
    s.steps.add("system.api", "Wait for the API server", 20, 600, plan::Action::WaitForApi);
    s.steps.add("system.node", "Wait until the node is Ready", 10, 300, plan::Action::WaitForNode);
    let gates = [GateKind::Api, GateKind::Etcd, GateKind::Nodes, GateKind::Pods, GateKind::Registry];
    s.gates("system", &gates, old);
}

/// What the system brings besides its root takes over when all else is done: its version of this program, its boot loader.
pub(super) fn finish(s: &mut Stages, site: &Site, packs: &[&Pack]) {
    let Some(next) = next(site, packs) else { return };
    s.upgrade("system.program", "Let the site run the program of the new system", 2, 120, Action::AdoptProgram);
    let what = Action::UpdateLoader { boot: next.slots.boot.device.clone(), loader: next.part(System::LOADER).0 };
    s.upgrade("system.loader", "Replace the boot loader", 2, 120, what);
}

/// Back to the system that runs now. Whatever the new one left, the old one is what the rest of the way back needs.
pub(super) fn back(s: &mut Stages, site: &Site, packs: &[&Pack]) {
    let Some(next) = next(site, packs) else { return };
    let (slots, version) = (next.slots, &next.system.version);
    let what = Action::RetireSystem { boot: slots.boot.device.clone(), version: version.clone() };
    s.retried("back.boot", &format!("Take system {version} out of the boot menu"), 2, 120, 3, what);
    switch(s, "back.switch", slots, &slots.version, &slots.root_hash);
}

fn switch(s: &mut Stages, id: &str, slots: &Slots, version: &str, root_hash: &str) {
    let what = Action::SwitchSystem {
        boot: slots.boot.device.clone(),
        version: version.to_owned(),
        root_hash: root_hash.to_owned(),
    };
    s.upgrade(id, &format!("Restart into system {version}"), 30, 600, what);
}

/// What stands against the system of the bundle; `None` where there is none of interest.
pub(super) fn finding(site: &Site, packs: &[Pack]) -> Option<Finding> {
    let (id, threshold) = ("upgrade.system", "a newer system that fits, or the running one");
    let pack = packs.iter().find(|pack| pack.system.is_some());
    let slots = match (&site.slots, pack) {
        (None, None) => return None,
        (None, Some(_)) => {
            let measured = "not used: this host has its own operating system";
            return Some(Finding::new(id, Outcome::Pass, measured, threshold, ""));
        }
        (Some(slots), _) => slots,
    };
    let slots = match slots.as_result() {
        Ok(slots) => slots,
        Err(reason) => {
            let mut finding =
                Finding::new(id, Outcome::Unknown, reason, threshold, "`lsblk` and `/proc/cmdline` tell more");
            finding.blocks = true;
            return Some(finding);
        }
    };
    let Some((pack, system)) = pack.and_then(|pack| Some((pack, pack.system.as_ref()?))) else {
        return Some(Finding::new(id, Outcome::Pass, format!("{} stays", slots.version), threshold, ""));
    };
    if system.root_hash == slots.root_hash {
        return Some(Finding::new(id, Outcome::Pass, format!("{} runs already", slots.version), threshold, ""));
    }
    let measured = format!("{} -> {}", slots.version, system.version);
    if let Some(why) = misfit(slots, pack, system) {
        let hint =
            "get a bundle whose system was built for this site: `cofferdam bundle inspect` shows what it carries";
        return Some(Finding::new(id, Outcome::Fail, format!("{measured}: {why}"), threshold, hint).hard());
    }
    let uses_tpm = !matches!(&site.config.storage.encryption, Encryption::Luks2 { tpm2: Tpm2::Off, .. });
    if uses_tpm && slots.pcr_key != Some(system.pcr_key) {
        let measured = format!("{measured}: signed for the TPM with another key than the running system");
        let hint = "build it with the same --pcr-key; accepted, the recovery key is asked for at each start until \
                    `cofferdam disk rebind`";
        return Some(Finding::new(id, Outcome::Fail, measured, threshold, hint));
    }
    Some(Finding::new(id, Outcome::Pass, measured, threshold, ""))
}

fn misfit(slots: &Slots, pack: &Pack, system: &System) -> Option<String> {
    let version = |text: &str| semver::Version::parse(text).ok();
    if version(&system.version).zip(version(&slots.version)).is_none_or(|(next, running)| next <= running) {
        return Some("the boot menu takes the highest version, and this one is not higher".to_owned());
    }
    let bytes = |name: &str| pack.files.iter().filter(|file| file.name == name).map(|file| file.size).sum::<u64>();
    for (name, partition) in [(System::ROOT, &slots.root), (System::VERITY, &slots.verity)] {
        if bytes(name) > partition.bytes {
            return Some(format!("{name} has {} bytes, {} has {}", bytes(name), partition.device, partition.bytes));
        }
    }
    // The running image stays beside the new one; both are of about one size.
    let boot = 2 * bytes(System::IMAGE) + 2 * bytes(System::LOADER) + BOOT_RESERVE;
    (boot > slots.boot.bytes).then(|| format!("the boot partition needs {boot} bytes and has {}", slots.boot.bytes))
}

/// An entry of the boot menu: a unified kernel image with what its name says of its attempts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Version of the system.
    pub(super) version: String,
    /// Attempts that are left; `None` when it has come up before, or was never counted.
    pub(super) left: Option<u32>,
}

impl Entry {
    /// The entry of a file's name in `EFI/Linux`; `None` when it is not ours.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_prefix("cofferdam_")?.strip_suffix(".efi")?;
        let Some((version, counter)) = stem.split_once('+') else {
            return Some(Self { version: stem.to_owned(), left: None });
        };
        let left = counter.split('-').next().and_then(|left| left.parse().ok());
        Some(Self { version: version.to_owned(), left: Some(left.unwrap_or(0)) })
    }
}

/// Names in `EFI/Linux` that are ours and of none of these versions.
pub(super) fn others<'a>(names: &'a [String], kept: &[&str]) -> Vec<&'a String> {
    let kept: BTreeSet<&str> = kept.iter().copied().collect();
    names.iter().filter(|name| Entry::parse(name).is_some_and(|entry| !kept.contains(entry.version.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Entry, others};

    #[test]
    fn the_boot_menu_tells_versions_and_attempts() {
        let entry = |version: &str, left| Some(Entry { version: version.to_owned(), left });
        assert_eq!(Entry::parse("cofferdam_1.2.0.efi"), entry("1.2.0", None));
        assert_eq!(Entry::parse("cofferdam_1.2.0+3.efi"), entry("1.2.0", Some(3)));
        assert_eq!(Entry::parse("cofferdam_1.2.0-rc.1+0-3.efi"), entry("1.2.0-rc.1", Some(0)));
        assert_eq!(Entry::parse("other_1.2.0.efi"), None);
        assert_eq!(Entry::parse("cofferdam_1.2.0.efi.tmp"), None);
        let names = ["cofferdam_1.0.0.efi", "cofferdam_1.1.0+0-3.efi", "memtest.efi"].map(str::to_owned);
        assert_eq!(others(&names, &["1.0.0"]), [&names[1]]);
    }
}
