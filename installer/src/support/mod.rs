//! The support bundle: what somebody who was not there needs to understand an installation that failed or a site that
//! is ill, as one `tar.zst`.
//!
//! Invariant: no secret is in it. What is collected holds none by itself (rule 5 of docs/architecture.md); what commands
//! and services printed may, so every text goes through [`scrub::Scrubber`], which knows the site's secrets and their
//! shapes. A part that cannot be read becomes a line that says why, and never fails the rest.
//! Called by `cofferdam support-bundle` and by the failure page.

mod scrub;

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::check;
use crate::config;
use crate::facts::{Facts, Questions};
use crate::host::{Command, Host, HostError, HostExt};
use crate::layout;
use scrub::Scrubber;

/// The newest part of a file or of a command's output that is taken.
const PART_LIMIT: usize = 8 << 20;

/// Files that are taken as they are.
const FILES: &[(&str, &str)] = &[
    ("plan.json", layout::PLAN),
    ("journal.jsonl", layout::JOURNAL),
    ("events.jsonl", layout::EVENTS),
    ("config.yaml", layout::CONFIG),
    ("state.json", layout::STATE),
    ("os-release", "/etc/os-release"),
    ("kernel", "/proc/version"),
    ("crypttab", "/etc/crypttab"),
];

/// Our own units and what they stand on.
const UNITS: &[&str] = &[
    "cofferdam-registry.service",
    "containerd.service",
    "kubelet.service",
    "systemd-cryptsetup@cofferdam.service",
    "var-lib-cofferdam-data.mount",
];

/// Commands of which the output is taken: name, program, arguments.
const COMMANDS: &[(&str, &str, &[&str])] = &[
    ("units.txt", "systemctl", &["list-units", "--all", "--no-pager", "--plain"]),
    ("failed-units.txt", "systemctl", &["list-units", "--failed", "--no-pager", "--plain"]),
    ("disks.txt", "lsblk", &["--output", "NAME,TYPE,SIZE,FSTYPE,MOUNTPOINTS,MODEL,SERIAL"]),
    ("space.txt", "df", &["--human-readable"]),
    ("addresses.txt", "ip", &["-brief", "address"]),
    ("routes.txt", "ip", &["route"]),
    (
        "nodes.txt",
        "kubectl",
        &["--kubeconfig=/etc/kubernetes/admin.conf", "--request-timeout=10s", "get", "nodes", "-o", "wide"],
    ),
    (
        "pods.txt",
        "kubectl",
        &["--kubeconfig=/etc/kubernetes/admin.conf", "--request-timeout=10s", "get", "pods", "-A", "-o", "wide"],
    ),
];

/// Why there is no support bundle.
#[derive(Debug, thiserror::Error)]
pub enum SupportError {
    /// The place.
    #[error("{directory} is no directory on this host")]
    NoDirectory {
        /// What was asked for.
        directory: Utf8PathBuf,
    },
    /// The archive.
    #[error("the support bundle cannot be made: {0}")]
    Archive(#[from] std::io::Error),
    /// Writing it.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl SupportError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoDirectory { .. } => "mount the medium first, or name a directory that is there, for example /root",
            Self::Archive(_) | Self::Host(_) => "is there space left, and can the medium be written to?",
        }
    }
}

/// Collects everything and writes `cofferdam-support-SITE-TIME.tar.zst` (mode 0600) into a directory; gives its path.
pub fn write(host: &dyn Host, directory: &Utf8Path) -> Result<Utf8PathBuf, SupportError> {
    if host.look(directory)?.is_none_or(|entry| entry.kind != crate::host::EntryKind::Directory) {
        return Err(SupportError::NoDirectory { directory: directory.to_owned() });
    }
    let now = host.now();
    let scrubber = Scrubber::of(host);
    let parts: Vec<(String, String)> =
        collect(host).into_iter().map(|(name, text)| (name, scrubber.scrub(&text))).collect();
    let name = format!("cofferdam-support-{}-{}", site(host), now.strftime("%Y%m%dT%H%M%SZ"));
    let path = directory.join(format!("{name}.tar.zst"));
    host.write(&path, &archive(&name, &parts, now)?, 0o600)?;
    Ok(path)
}

fn site(host: &dyn Host) -> String {
    let config = host.read_text(layout::CONFIG.into()).ok().flatten();
    config.and_then(|text| config::parse(&text).ok()).map_or_else(|| "unknown".to_owned(), |config| config.site.name)
}

fn collect(host: &dyn Host) -> Vec<(String, String)> {
    let mut parts =
        vec![("versions.txt".to_owned(), concat!("cofferdam ", env!("CARGO_PKG_VERSION"), "\n").to_owned())];
    for (name, path) in FILES {
        let text = match host.read((*path).into()) {
            Ok(Some(bytes)) => newest(&String::from_utf8_lossy(&bytes)),
            Ok(None) => format!("(there is no {path})\n"),
            Err(error) => format!("({error})\n"),
        };
        parts.push(((*name).to_owned(), text));
    }
    parts.push(("report.json".to_owned(), report(host)));
    for (name, program, arguments) in COMMANDS {
        parts.push(((*name).to_owned(), output(host, &Command::new(*program).args(arguments.iter().copied()))));
    }
    for unit in UNITS {
        let lines =
            Command::new("journalctl").args(["--no-pager", "--lines=5000", "--output=short-iso", "--unit", unit]);
        parts.push((format!("log/{unit}.txt"), output(host, &lines)));
    }
    let kernel = Command::new("journalctl").args(["--no-pager", "--lines=2000", "--output=short-iso", "--dmesg"]);
    parts.push(("log/kernel.txt".to_owned(), output(host, &kernel)));
    parts
}

/// The host checks as they come out now.
fn report(host: &dyn Host) -> String {
    let parsed = match host.read_text(layout::CONFIG.into()) {
        Ok(Some(text)) => config::parse(&text).map_err(|error| error.to_string()),
        Ok(None) => Err(format!("there is no {}", layout::CONFIG)),
        Err(error) => Err(error.to_string()),
    };
    match parsed {
        Ok(config) => {
            let facts = Facts::probe(host, &Questions::of(&config));
            let report = check::run(&config, &facts, None);
            serde_json::to_string_pretty(&serde_json::json!({"report": report, "facts": facts})).unwrap_or_default()
        }
        Err(reason) => format!("(the host was not checked: {reason})\n"),
    }
}

fn output(host: &dyn Host, command: &Command) -> String {
    match host.run(&command.clone().limit(Duration::from_secs(30)), &mut |_| {}) {
        Ok(output) => {
            let said = newest(&String::from_utf8_lossy(&output.stdout));
            format!("$ {command}\n{said}\n{}(status {})\n", output.stderr, output.status)
        }
        Err(error) => format!("$ {command}\n({error})\n"),
    }
}

/// The end of a text that is too long.
fn newest(text: &str) -> String {
    let mut cut = text.len().saturating_sub(PART_LIMIT);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    text.get(cut..).unwrap_or_default().to_owned()
}

fn archive(folder: &str, parts: &[(String, String)], now: Timestamp) -> Result<Vec<u8>, std::io::Error> {
    let mut builder = tar::Builder::new(zstd::Encoder::new(Vec::new(), 6)?);
    for (name, text) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or(0));
        builder.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())?;
    }
    builder.into_inner()?.finish()
}

#[cfg(test)]
mod tests;
