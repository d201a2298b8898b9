//! Checks of the disk: which one, whether it may be erased, whether all fits, whether it is fast enough for etcd.

use bundle::index::Index;

use super::{Finding, Outcome, pass_or};
use crate::config::{DiskChoice, Encryption, InstallConfig};
use crate::facts::choice::{ChoiceError, choose, word};
use crate::facts::disk::{Disk, size};
use crate::facts::storage::Space;
use crate::facts::{Facts, Probed};
use crate::layout;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// containerd keeps the packed layers and unpacks them: three times what the registry's store holds.
const UNPACKED_FACTOR: u64 = 3;
/// Logs, kubelet, a small etcd.
const BASE: u64 = GIB;
/// What etcd may grow to with its default quota.
const ETCD: u64 = 2 * GIB;
/// On the root filesystem: the program, configuration, units.
const ROOT: u64 = 256 * MIB;
/// What LUKS and ext4 take for themselves.
const OVERHEAD_PERCENT: u64 = 5;
const LEFT_PERCENT: u64 = 20;
/// 99th percentile of small durable writes, microseconds: etcd's own advice is 10 ms.
const SYNC: (u64, u64) = (20_000, 10_000);

pub(super) fn findings(config: &InstallConfig, facts: &Facts, index: Option<&Index>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let chosen = match (&config.storage.encryption, &config.storage.disk) {
        (Encryption::Luks2 { .. }, Some(choice)) => disk(facts, choice, &mut findings),
        _ => None,
    };
    findings.extend(sizes(config, facts, index, chosen));
    let (most, wanted) = SYNC;
    let hint = "etcd wants a disk that makes small writes durable quickly: an SSD with power-loss protection";
    findings.push(Finding::of(
        "disk.fsync",
        &facts.sync_microseconds,
        "p99 of small durable writes at most 20 ms, better 10 ms",
        hint,
        |found| {
            let outcome = if *found > most { Outcome::Fail } else { pass_or(*found <= wanted, Outcome::Warn) };
            (outcome, format!("p99 {}.{} ms", found / 1000, found % 1000 / 100))
        },
    ));
    findings
}

fn disk<'a>(facts: &'a Facts, choice: &DiskChoice, findings: &mut Vec<Finding>) -> Option<&'a Disk> {
    let wanted = "exactly one unused disk that fits storage.disk.match and its erase token";
    let disks = match facts.disks.as_result() {
        Ok(disks) => disks,
        Err(reason) => {
            let hint = "lsblk of util-linux is needed to see the disks";
            findings.push(Finding::new("disk.choice", Outcome::Unknown, reason, wanted, hint).hard().needs_answer());
            return None;
        }
    };
    match choose(disks, choice) {
        Ok(disk) => {
            findings.push(Finding::new("disk.choice", Outcome::Pass, word(disk), wanted, ""));
            let (outcome, measured) = if disk.contents.is_empty() {
                (Outcome::Pass, "not in use, and empty".to_owned())
            } else {
                (Outcome::Warn, format!("not in use; will be erased: {}", disk.contents.join("; ")))
            };
            findings.push(Finding::new(
                "disk.in-use",
                outcome,
                measured,
                "not in use",
                "look twice: nothing of it can be brought back",
            ));
            let (outcome, measured) = match &disk.site {
                Some(site) => (Outcome::Fail, format!("holds the site {site}, which was finished")),
                None => (Outcome::Pass, "none".to_owned()),
            };
            let hint =
                "take the medium out and start the machine from this disk; `accept: [disk.site]` gives the site up";
            findings.push(Finding::new("disk.site", outcome, measured, "no finished site", hint));
            findings.push(Finding::new(
                "disk.medium",
                Outcome::Pass,
                "no installation medium",
                "no installation medium",
                "",
            ));
            Some(disk)
        }
        Err(error) => {
            let (id, wanted) = match &error {
                ChoiceError::InUse { .. } => ("disk.in-use", "not in use"),
                ChoiceError::Medium { .. } => ("disk.medium", "no installation medium"),
                _ => ("disk.choice", wanted),
            };
            findings.push(Finding::new(id, Outcome::Fail, error.to_string(), wanted, error.hint()).hard());
            None
        }
    }
}

/// A demand on a disk or filesystem, in bytes.
struct Demand {
    place: String,
    size: u64,
    usable: u64,
    need: u64,
    /// Etcd lies there and may grow.
    has_etcd: bool,
}

fn sizes(config: &InstallConfig, facts: &Facts, index: Option<&Index>, disk: Option<&Disk>) -> Vec<Finding> {
    let hint = "choose a larger disk or make room; a bundle with fewer packs needs less";
    let Some(index) = index else {
        return vec![Finding::new(
            "disk.size",
            Outcome::Unknown,
            "the bundle was not read",
            "room for the bundle",
            hint,
        )];
    };
    let data = data_bytes(index);
    let files: u64 = index
        .packs
        .iter()
        .flat_map(|pack| &pack.files)
        .filter(|file| !file.install.is_empty())
        .map(|file| file.size)
        .sum();
    let root = ROOT + files;
    let space = |path: &str| {
        facts.filesystem(path).map_or_else(|| Probed::unknown("it was not looked at"), |found| found.space.clone())
    };
    let is_encrypted = matches!(config.storage.encryption, Encryption::Luks2 { .. });

    let mut demands = Vec::new();
    let mut unknown = Vec::new();
    let mut on = |path: &str, need, has_etcd| match space(path) {
        // The root of an appliance is read-only: what is written goes to the data volume.
        Probed::Known(Space { kind, .. }) if kind == "squashfs" => {}
        Probed::Known(Space { mount, size_bytes, available_bytes, .. }) => {
            demands.push(Demand { place: mount, size: size_bytes, usable: available_bytes, need, has_etcd });
        }
        Probed::Unknown { reason } => unknown.push(format!("{path}: {reason}")),
    };
    let is_one_filesystem = match (space("/").known(), space(layout::HOME).known()) {
        (Some(root), Some(home)) => root.mount == home.mount,
        _ => false,
    };
    match (is_encrypted, is_one_filesystem) {
        (true, _) => on("/", root, false),
        (false, true) => on("/", root + data, true),
        (false, false) => {
            on("/", root, false);
            on(layout::HOME, data, true);
        }
    }
    if let Some(disk) = disk {
        let usable = disk.size_bytes / 100 * (100 - OVERHEAD_PERCENT);
        demands.push(Demand { place: disk.path.clone(), size: disk.size_bytes, usable, need: data, has_etcd: true });
    }
    let judged = demands.into_iter().map(|demand| judge(&demand, hint));
    judged
        .chain(
            unknown
                .into_iter()
                .map(|reason| Finding::new("disk.size", Outcome::Unknown, reason, "room for the bundle", hint)),
        )
        .collect()
}

/// What the data volume must hold: the store, the images unpacked, and a base.
pub(crate) fn data_bytes(index: &Index) -> u64 {
    index.blob_bytes().saturating_mul(1 + UNPACKED_FACTOR) + BASE
}

fn judge(demand: &Demand, hint: &str) -> Finding {
    let Demand { place, size: whole, usable, need, has_etcd } = demand;
    let comfortable = need + if *has_etcd { ETCD } else { 0 };
    let left = usable.saturating_sub(*need);
    let outcome = if usable < need {
        Outcome::Fail
    } else {
        pass_or(*usable >= comfortable && left >= whole / 100 * LEFT_PERCENT, Outcome::Warn)
    };
    let threshold = format!("{}, better {} and {LEFT_PERCENT} % left", size(*need), size(comfortable));
    Finding::new(
        "disk.size",
        outcome,
        format!("{} free on {place}, {} needed", size(*usable), size(*need)),
        threshold,
        hint,
    )
}
