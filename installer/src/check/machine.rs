//! Checks of the machine: processor, memory, system, firmware, TPM, kernel.

use bundle::index::{Architecture, Index};

use super::{Finding, Outcome, pass_or};
use crate::config::{Encryption, InstallConfig, Tpm2};
use crate::facts::disk::size;
use crate::facts::{Facts, Probed};

const GIB: u64 = 1 << 30;
const PROCESSORS: (u32, u32) = (2, 4);
const MEMORY: (u64, u64) = (2 * GIB, 8 * GIB);
/// Firmware and kernel keep a part of the memory that was bought.
const MEMORY_TOLERANCE_PERCENT: u64 = 10;
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "memory", "pids"];
const NAME_LIMIT: usize = 53;

pub(super) fn findings(config: &InstallConfig, facts: &Facts, index: Option<&Index>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(architecture(facts, index));
    findings.extend(processor(facts));
    findings.push(memory(facts));
    findings.extend(system(config, facts));
    findings.push(tools(config, facts, index));
    findings.extend(firmware(facts));
    findings.extend(tpm(config, facts));
    findings.push(modules(config, facts));
    findings.push(cgroup(facts));
    findings.push(swap(facts));
    findings
}

fn architecture(facts: &Facts, index: Option<&Index>) -> Option<Finding> {
    let index = index?;
    let hint = format!(
        "this bundle's programs and images run on {} only; bring the bundle for this machine",
        index.architecture
    );
    Some(
        Finding::of("bundle.architecture", &facts.machine.architecture, index.architecture.as_str(), &hint, |found| {
            (
                pass_or(*found == index.architecture, Outcome::Fail),
                format!("this machine is {found}, the bundle is for {}", index.architecture),
            )
        })
        .hard()
        .needs_answer(),
    )
}

fn processor(facts: &Facts) -> Vec<Finding> {
    let processor = &facts.machine.processor;
    let (least, wanted) = PROCESSORS;
    let threshold = format!("at least {least}, better {wanted}");
    let mut findings =
        vec![Finding::of("cpu.count", processor, threshold, "give the machine more processors", |found| {
            let outcome =
                if found.count < least { Outcome::Fail } else { pass_or(found.count >= wanted, Outcome::Warn) };
            (outcome, format!("{} processors", found.count))
        })];
    if facts.machine.architecture.known() != Some(&Architecture::Arm64) {
        let hint = "current container images are built for x86-64-v2; for a virtual machine choose the CPU type `host`";
        findings.push(Finding::of("cpu.level", processor, "x86-64-v2", hint, |found| {
            if found.missing_for_v2.is_empty() {
                (Outcome::Pass, "x86-64-v2".to_owned())
            } else {
                (Outcome::Fail, format!("the processor lacks {}", found.missing_for_v2.join(", ")))
            }
        }));
    }
    findings
}

fn memory(facts: &Facts) -> Finding {
    let (least, wanted) = MEMORY;
    let tolerated = |bytes: u64| bytes / 100 * (100 - MEMORY_TOLERANCE_PERCENT);
    let threshold = format!("at least {}, better {}", size(least), size(wanted));
    Finding::of("memory.total", &facts.machine.memory_bytes, threshold, "give the machine more memory", |found| {
        let outcome =
            if *found < tolerated(least) { Outcome::Fail } else { pass_or(*found >= tolerated(wanted), Outcome::Warn) };
        (outcome, size(*found))
    })
}

fn system(config: &InstallConfig, facts: &Facts) -> Vec<Finding> {
    let machine = &facts.machine;
    let name = &config.node.name;
    // An appliance is named by the plan.
    let is_named = machine.system.known().is_some_and(|system| system.is_appliance);
    vec![
        Finding::of(
            "host.os",
            &machine.system,
            "Debian 12, or the medium's own",
            "other systems with systemd may work, but are not tested",
            |found| {
                let is_tested = found.is_appliance || found.id == "debian" && found.version == "12";
                (pass_or(is_tested, Outcome::Warn), found.name.clone())
            },
        ),
        Finding::of(
            "host.systemd",
            &machine.systemd,
            "systemd as PID 1",
            "the site's services are systemd units",
            |found| (pass_or(*found, Outcome::Fail), if *found { "is running" } else { "is not running" }.to_owned()),
        )
        .hard(),
        Finding::of(
            "host.name",
            &machine.host_name,
            format!("at most {NAME_LIMIT} characters, not localhost, equal to node.name"),
            &format!("`hostnamectl set-hostname {name}`"),
            |found| {
                let is_local = found == "localhost" || found.starts_with("localhost.");
                let outcome = if found.len() > NAME_LIMIT || is_local || found.is_empty() {
                    Outcome::Fail
                } else {
                    pass_or(found == name || is_named, Outcome::Warn)
                };
                let measured = match (found == name, is_named) {
                    (true, _) => found.clone(),
                    (false, true) => format!("the installation names this machine {name}"),
                    (false, false) => format!("{found}, while node.name is {name}"),
                };
                (outcome, measured)
            },
        ),
        Finding::of(
            "virt",
            &machine.virtualisation,
            "bare metal",
            "keep the machine's disk on fast storage and its memory reserved",
            |found| {
                (
                    pass_or(found == "none", Outcome::Warn),
                    if found == "none" { "bare metal".to_owned() } else { format!("runs in {found}") },
                )
            },
        ),
    ]
}

/// Programs that steps and kubeadm's own checks start; the bundle may bring some of them.
fn tools(config: &InstallConfig, facts: &Facts, index: Option<&Index>) -> Finding {
    let mut needed = vec![
        "conntrack",
        "ip",
        "iptables",
        "modprobe",
        "mount",
        "nsenter",
        "setpriv",
        "sysctl",
        "systemctl",
        "systemd-sysusers",
    ];
    if let Encryption::Luks2 { tpm2, .. } = &config.storage.encryption {
        needed.extend(["cryptsetup", "lsblk", "mkfs.ext4", "wipefs"]);
        if *tpm2 == Tpm2::Require || (*tpm2 == Tpm2::Auto && facts.machine.tpm2.is_usable()) {
            needed.push("systemd-cryptenroll");
        }
    }
    if index.is_some() {
        needed.extend(["containerd", "ctr", "kubeadm", "kubectl", "kubelet", "runc"]);
    }
    let is_brought = |name: &str| {
        let targets =
            index.iter().flat_map(|index| &index.packs).flat_map(|pack| &pack.files).flat_map(|file| &file.install);
        targets.into_iter().any(|target| target.path.rsplit('/').next() == Some(name))
    };
    let is_there =
        |name: &str| facts.tools.iter().any(|tool| tool.name == name && tool.path.is_some()) || is_brought(name);
    let missing = |names: &[&str]| names.iter().filter(|name| !is_there(name)).copied().collect::<Vec<_>>().join(", ");
    let (lacking, drawback) = (missing(&needed), missing(&["ethtool", "socat"]));
    let hint = "install them from your system's own packages, or bring a bundle that carries them";
    let threshold = "all programs that the installation starts";
    if !lacking.is_empty() {
        Finding::new("host.tools", Outcome::Fail, format!("missing: {lacking}"), threshold, hint)
    } else if !drawback.is_empty() {
        Finding::new("host.tools", Outcome::Warn, format!("missing: {drawback}"), threshold, hint)
    } else {
        Finding::new("host.tools", Outcome::Pass, "all are there", threshold, hint)
    }
}

/// On a host that is there already the firmware is as it is: never a failure.
fn firmware(facts: &Facts) -> Vec<Finding> {
    let firmware = &facts.machine.firmware;
    vec![
        Finding::of(
            "firmware.uefi",
            &firmware.uefi,
            "UEFI",
            "without UEFI the boot chain is not measured as a whole",
            |found| (pass_or(*found, Outcome::Warn), if *found { "UEFI" } else { "legacy BIOS" }.to_owned()),
        ),
        Finding::of(
            "firmware.secure-boot",
            &firmware.secure_boot,
            "on",
            "switch it on in the firmware's setup",
            |found| (pass_or(*found, Outcome::Warn), if *found { "on" } else { "off" }.to_owned()),
        ),
    ]
}

fn tpm(config: &InstallConfig, facts: &Facts) -> Vec<Finding> {
    let Encryption::Luks2 { tpm2, .. } = &config.storage.encryption else { return Vec::new() };
    let absent = match tpm2 {
        Tpm2::Require => Outcome::Fail,
        Tpm2::Auto => Outcome::Warn,
        Tpm2::Off => return Vec::new(),
    };
    let tpm = &facts.machine.tpm2;
    let hint = match tpm2 {
        Tpm2::Require => "switch the TPM on in the firmware's setup, or choose `tpm2: auto`",
        _ => "without a TPM the recovery key is typed at each boot",
    };
    let mut present = Finding::of("tpm2.present", &tpm.present, "a TPM 2.0 with /dev/tpmrm0", hint, |found| {
        (pass_or(*found, absent), if *found { "TPM 2.0" } else { "no TPM 2.0" }.to_owned())
    });
    if absent == Outcome::Fail {
        present = present.hard().needs_answer();
    }
    let mut findings = vec![present];
    if tpm.present.known() == Some(&true) {
        let hint =
            "wait until the lockout has passed, or `tpm2_dictionarylockout --clear-lockout` with its authorisation";
        findings.push(Finding::of("tpm2.lockout", &tpm.lockout, "not in lockout", hint, |found| {
            (pass_or(!found, absent), if *found { "in lockout" } else { "not in lockout" }.to_owned())
        }));
    }
    findings
}

fn modules(config: &InstallConfig, facts: &Facts) -> Finding {
    let is_encrypted = matches!(config.storage.encryption, Encryption::Luks2 { .. });
    let mut wanted = vec!["overlay", "br_netfilter", "nf_conntrack"];
    if is_encrypted {
        wanted.push("dm_crypt");
    }
    let (mut missing, mut unknown) = (Vec::new(), Vec::new());
    for name in &wanted {
        match facts.kernel.feature(name) {
            Probed::Known(true) => {}
            Probed::Known(false) => missing.push(*name),
            Probed::Unknown { reason } => unknown.push(format!("{name}: {reason}")),
        }
    }
    let threshold = wanted.join(", ");
    let is_about_encryption = is_encrypted && facts.kernel.feature("dm_crypt") != Probed::Known(true);
    let hint = if is_about_encryption {
        "without dm-crypt there is no encrypted volume: start a kernel with CONFIG_DM_CRYPT and its modules (a container cannot have one \
         of its own)"
    } else {
        "start a kernel with these modules, and install its package of modules"
    };
    let finding = if !missing.is_empty() {
        Finding::new("kernel.modules", Outcome::Fail, format!("missing: {}", missing.join(", ")), threshold, hint)
    } else if !unknown.is_empty() {
        Finding::new("kernel.modules", Outcome::Unknown, unknown.join("; "), threshold, hint)
    } else {
        Finding::new("kernel.modules", Outcome::Pass, "all are there", threshold, hint)
    };
    if is_about_encryption { finding.hard().needs_answer() } else { finding }
}

fn cgroup(facts: &Facts) -> Finding {
    let hint = "enable the controllers on the kernel's command line (cgroup_enable=…)";
    Finding::of("kernel.cgroup", &facts.kernel.cgroup, CONTROLLERS.join(", "), hint, |found| {
        let missing: Vec<_> =
            CONTROLLERS.iter().filter(|name| !found.controllers.iter().any(|has| has == *name)).copied().collect();
        if missing.is_empty() {
            (Outcome::Pass, format!("version {}, all controllers", found.version))
        } else {
            (Outcome::Fail, format!("version {}, without {}", found.version, missing.join(", ")))
        }
    })
}

/// kubelet does not start while swap is on, and swap that is not encrypted writes secrets to a disk.
fn swap(facts: &Facts) -> Finding {
    let hint = "`swapoff -a`, and take swap out of /etc/fstab: kubelet does not start while it is on";
    Finding::of("swap", &facts.swap, "no swap", hint, |areas| {
        if areas.is_empty() {
            return (Outcome::Pass, "none".to_owned());
        }
        let area = |area: &crate::facts::disk::Swap| match area.encrypted.known() {
            Some(true) => area.path.clone(),
            Some(false) => format!("{} (not encrypted)", area.path),
            None => format!("{} (encryption unknown)", area.path),
        };
        (Outcome::Fail, areas.iter().map(area).collect::<Vec<_>>().join(", "))
    })
}
