//! The machine itself: name, system, processor, memory, virtualisation, firmware, TPM, clock, programs.

use bundle::index::Architecture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probed, answer, ask, needed, text};
use crate::host::{Entry, EntryKind, Host};

/// What is known of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Machine {
    /// Host name.
    pub host_name: Probed<String>,
    /// The operating system.
    pub system: Probed<System>,
    /// `amd64` or `arm64`.
    pub architecture: Probed<Architecture>,
    /// PID 1 is systemd.
    pub systemd: Probed<bool>,
    /// What it runs in, for example `kvm`, `qemu`, `lxc`; `none` on bare metal.
    pub virtualisation: Probed<String>,
    /// The processor.
    pub processor: Probed<Processor>,
    /// In bytes.
    pub memory_bytes: Probed<u64>,
    /// The firmware.
    pub firmware: Firmware,
    /// The TPM.
    pub tpm2: Tpm,
    /// The clock is kept by a time service.
    pub clock_synchronised: Probed<bool>,
    /// The server that the time service asks.
    pub time_source: Probed<Option<String>>,
}

/// The operating system, from os-release(5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct System {
    /// For example `debian`.
    pub id: String,
    /// For example `12`; empty for rolling systems.
    pub version: String,
    /// For people.
    pub name: String,
    /// Whether it is the system of a Cofferdam medium, live or installed.
    #[serde(default)]
    pub is_appliance: bool,
}

/// The processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Processor {
    /// Logical processors.
    pub count: u32,
    /// For people; empty where the kernel does not tell.
    pub model: String,
    /// Flags that x86-64-v2 wants and this processor lacks; empty on other architectures.
    pub missing_for_v2: Vec<String>,
}

/// The firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Firmware {
    /// Started by UEFI.
    pub uefi: Probed<bool>,
    /// Secure Boot was on; false without UEFI.
    pub secure_boot: Probed<bool>,
}

/// The TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Tpm {
    /// A TPM 2.0 with its device is there.
    pub present: Probed<bool>,
    /// It refuses authorisations after too many failures.
    pub lockout: Probed<bool>,
}

impl Tpm {
    /// It is there and not known to be in lockout.
    pub fn is_usable(&self) -> bool {
        self.present.known() == Some(&true) && self.lockout.known() != Some(&true)
    }
}

/// A program and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its path; `None` when it is in none of the usual directories.
    pub path: Option<String>,
}

/// All programs that are looked for.
pub const TOOLS: &[&str] = &[
    "arping",
    "blockdev",
    "blkid",
    "conntrack",
    "containerd",
    "cryptsetup",
    "ctr",
    "ethtool",
    "ip",
    "iptables",
    "kubeadm",
    "kubectl",
    "kubelet",
    "lsblk",
    "mkfs.ext4",
    "modprobe",
    "mount",
    "nsenter",
    "runc",
    "setpriv",
    "sfdisk",
    "socat",
    "sysctl",
    "systemctl",
    "systemd-cryptenroll",
    "systemd-sysusers",
    "tpm2_getcap",
    "udevadm",
    "useradd",
    "wipefs",
];

const DIRECTORIES: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

pub(super) fn tools(host: &dyn Host) -> Vec<Tool> {
    let is_program = |path: &String| matches!(host.look(path.as_str().into()), Ok(Some(Entry { kind: EntryKind::File, mode, .. })) if mode & 0o111 != 0);
    TOOLS
        .iter()
        .map(|name| Tool {
            name: (*name).to_owned(),
            path: DIRECTORIES.iter().map(|directory| format!("{directory}/{name}")).find(is_program),
        })
        .collect()
}

pub(super) fn probe(host: &dyn Host) -> Machine {
    let uefi = exists(host, "/sys/firmware/efi");
    let secure_boot = if uefi.known() == Some(&false) { Probed::Known(false) } else { secure_boot(host).into() };
    Machine {
        host_name: answer(host, "uname", ["-n"]).into(),
        system: needed(host, "/etc/os-release").map(|text| parse_os_release(&text)).into(),
        architecture: answer(host, "uname", ["-m"]).and_then(|name| architecture(&name)).into(),
        systemd: exists(host, "/run/systemd/system"),
        virtualisation: virtualisation(host).into(),
        processor: needed(host, "/proc/cpuinfo").and_then(|text| parse_cpuinfo(&text)).into(),
        memory_bytes: needed(host, "/proc/meminfo").and_then(|text| parse_meminfo(&text)).into(),
        firmware: Firmware { uefi, secure_boot },
        tpm2: tpm(host),
        clock_synchronised: clock(host).into(),
        time_source: time_source(host).into(),
    }
}

fn exists(host: &dyn Host, path: &str) -> Probed<bool> {
    host.look(path.into()).map(|entry| entry.is_some()).into()
}

fn architecture(name: &str) -> Result<Architecture, String> {
    match name {
        "x86_64" => Ok(Architecture::Amd64),
        "aarch64" => Ok(Architecture::Arm64),
        _ => Err(format!("{name} is neither x86_64 nor aarch64")),
    }
}

fn parse_os_release(text: &str) -> System {
    let field = |wanted: &str| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(wanted)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let is_appliance = field("IMAGE_ID") == "cofferdam";
    System { id: field("ID"), version: field("VERSION_ID"), name: field("PRETTY_NAME"), is_appliance }
}

/// Flags of x86-64-v2 beyond the baseline, in the kernel's words (System V ABI for AMD64, "Micro-Architecture Levels").
const V2_FLAGS: &[&str] = &["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"];

fn parse_cpuinfo(text: &str) -> Result<Processor, String> {
    let values = |wanted: &'static str| {
        text.lines()
            .filter_map(move |line| line.split_once(':').filter(|(key, _)| key.trim() == wanted))
            .map(|(_, value)| value.trim())
    };
    let count = u32::try_from(values("processor").count()).unwrap_or(u32::MAX);
    if count == 0 {
        return Err("/proc/cpuinfo lists no processor".to_owned());
    }
    // Only x86 has a line called `flags`.
    let missing_for_v2 = values("flags").next().map_or_else(Vec::new, |flags| {
        let has: Vec<_> = flags.split_whitespace().collect();
        V2_FLAGS.iter().filter(|flag| !has.contains(flag)).map(|flag| (*flag).to_owned()).collect()
    });
    Ok(Processor { count, model: values("model name").next().unwrap_or_default().to_owned(), missing_for_v2 })
}

fn parse_meminfo(text: &str) -> Result<u64, String> {
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| "/proc/meminfo has no MemTotal".to_owned())
}

/// systemd-detect-virt(1) prints `none` and fails on bare metal.
fn virtualisation(host: &dyn Host) -> Result<String, String> {
    let word = ask(host, "systemd-detect-virt", [])?.text();
    if word.is_empty() { Err("systemd-detect-virt printed nothing".to_owned()) } else { Ok(word) }
}

/// The variable of the UEFI specification: four bytes of attributes, then 0 or 1.
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

fn secure_boot(host: &dyn Host) -> Result<bool, String> {
    match host.read(SECURE_BOOT.into()) {
        Ok(Some(bytes)) => Ok(bytes.get(4) == Some(&1)),
        Ok(None) => Err("the firmware has no variable SecureBoot, or efivarfs is not mounted".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn tpm(host: &dyn Host) -> Tpm {
    let present = (|| {
        let version = text(host, "/sys/class/tpm/tpm0/tpm_version_major").map_err(|error| error.to_string())?;
        let device = host.look("/dev/tpmrm0".into()).map_err(|error| error.to_string())?;
        Ok::<_, String>(version.is_some_and(|version| version.trim() == "2") && device.is_some())
    })();
    let lockout = match present {
        Ok(true) => answer(host, "tpm2_getcap", ["properties-variable"]).and_then(|text| parse_lockout(&text)),
        _ => Err("there is no TPM to ask".to_owned()),
    };
    Tpm { present: present.into(), lockout: lockout.into() }
}

/// `tpm2_getcap`(1), `TPM2_PT_PERMANENT`: `inLockout: 0`.
fn parse_lockout(text: &str) -> Result<bool, String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("inLockout:"));
    match value.map(str::trim) {
        Some("0") => Ok(false),
        Some("1") => Ok(true),
        _ => Err("tpm2_getcap does not tell about lockout".to_owned()),
    }
}

fn clock(host: &dyn Host) -> Result<bool, String> {
    match answer(host, "timedatectl", ["show", "--property=NTPSynchronized", "--value"])?.as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(format!("timedatectl answered {other:?}")),
    }
}

/// chrony is asked first: where it runs, systemd-timesyncd does not.
fn time_source(host: &dyn Host) -> Result<Option<String>, String> {
    if let Ok(text) = answer(host, "chronyc", ["-n", "-c", "tracking"]) {
        // chronyc(1), `-c`: reference id, then the source's name or address.
        let source = text.split(',').nth(1).unwrap_or_default().to_owned();
        return Ok((!source.is_empty()).then_some(source));
    }
    let name = answer(host, "timedatectl", ["show-timesync", "--property=ServerName", "--value"])?;
    Ok((!name.is_empty()).then_some(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{parse_cpuinfo, parse_lockout, parse_meminfo, parse_os_release};

    #[test]
    fn os_release() {
        let system = parse_os_release(include_str!("fixtures/os-release.txt"));
        assert_eq!((system.id.as_str(), system.version.as_str()), ("debian", "12"));
        assert_eq!(system.name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(parse_os_release("ID='arch'\n").id, "arch");
        assert_eq!(parse_os_release("").version, "");
    }

    #[test]
    fn cpuinfo() {
        let text = include_str!("fixtures/cpuinfo.txt");
        let processor = parse_cpuinfo(text).unwrap();
        assert_eq!((processor.count, processor.missing_for_v2.len()), (2, 0));
        assert_eq!(processor.model, "Intel(R) Xeon(R) Processor");
        let old = parse_cpuinfo(&text.replace(" popcnt", "").replace(" sse4_2", "")).unwrap();
        assert_eq!(old.missing_for_v2, ["popcnt", "sse4_2"]);
        let arm = parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\n").unwrap();
        assert_eq!((arm.count, arm.missing_for_v2.len()), (2, 0));
        assert!(parse_cpuinfo("").is_err());
    }

    #[test]
    fn memory() {
        assert_eq!(parse_meminfo("MemTotal:       24684096 kB\nMemFree: 1 kB\n").unwrap(), 24_684_096 * 1024);
        assert!(parse_meminfo("MemFree: 1 kB\n").is_err());
    }

    #[test]
    fn lockout() {
        let text = "TPM2_PT_PERMANENT:\n  ownerAuthSet:              0\n  inLockout:                 1\n";
        assert_eq!(parse_lockout(text), Ok(true));
        assert_eq!(
            parse_lockout(&text.replace("inLockout:                 1", "inLockout:                 0")),
            Ok(false)
        );
        assert!(parse_lockout("ERROR: no TPM").is_err());
    }
}
