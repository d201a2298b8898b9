//! What is there: one read-only look at the machine.
//!
//! Invariant: a probe that could not run is recorded with its reason ([`Probed::Unknown`]) and never fails the rest;
//! "unknown" is never mistaken for "no". Each parser is a pure function over text, a separate function reads. The only
//! thing that touches a disk is [`Host::measure_sync`], with a file that has no name.
//! Called by the command line; `check/` judges the facts, `plan/` takes the disk and the speed from them.

pub mod choice;
pub mod disk;
pub mod kernel;
pub mod machine;
pub mod network;
pub mod speed;
pub mod storage;
pub mod time;

pub(crate) use speed::slowness;

use std::net::IpAddr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Encryption, InstallConfig};
use crate::host::{Command, Host, HostError, HostExt, Output};
use crate::layout;

/// The version of the facts' JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// What a probe found, or why it could not look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Probed<T> {
    /// It looked, and this is what is there.
    Known(T),
    /// It could not look.
    Unknown {
        /// Why not.
        reason: String,
    },
}

impl<T> Probed<T> {
    /// Unknown for this reason.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into() }
    }

    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }

    /// The value, or the reason why it is not known.
    pub fn as_result(&self) -> Result<&T, &str> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Unknown { reason } => Err(reason),
        }
    }
}

impl<T, E: ToString> From<Result<T, E>> for Probed<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(reason) => Self::Unknown { reason: reason.to_string() },
        }
    }
}

/// What is asked beyond the machine itself; taken from the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// The name whose addresses are looked up.
    pub fqdn: Option<String>,
    /// The node's address: its name is looked up, and whether another machine answers for it.
    pub address: Option<IpAddr>,
    /// The virtual address: whether a machine answers for it.
    pub vip: Option<IpAddr>,
    /// NTP servers that are asked; empty: those of this host's own time service.
    pub time_servers: Vec<String>,
    /// Files and directories whose filesystems are looked at besides `/` and `/var/lib/cofferdam`.
    pub paths: Vec<Utf8PathBuf>,
    /// Where small durable writes are measured, if they are; the nearest directory that exists is taken.
    pub sync_directory: Option<Utf8PathBuf>,
}

impl Questions {
    /// What an installation by this configuration needs to know.
    pub fn of(config: &InstallConfig) -> Self {
        let mut paths = vec![config.bundle.path.clone()];
        if let Encryption::Luks2 { escrow_directory: Some(directory), .. } = &config.storage.encryption {
            paths.push(directory.clone());
        }
        if let Some((certificate, ..)) = config.certificates.files() {
            paths.push(certificate.to_owned());
        }
        Self {
            fqdn: Some(config.site.fqdn.clone()),
            address: Some(config.node.address),
            vip: config.site.vip,
            time_servers: config.network.as_ref().map(|network| network.time_servers.clone()).unwrap_or_default(),
            paths,
            // A disk that will be erased holds no filesystem to measure on, and another disk would tell nothing.
            sync_directory: matches!(config.storage.encryption, Encryption::None { .. }).then(|| layout::DATA.into()),
        }
    }
}

/// All that was found. JSON with kebab-case keys; sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Facts {
    /// Always 1.
    pub schema_version: u32,
    /// When the machine was probed by its own clock, RFC 3339.
    pub probed_at: String,
    /// Name, system, processor, memory, firmware, TPM, clock.
    pub machine: machine::Machine,
    /// All disks that a site could be put on, and why not.
    pub disks: Probed<Vec<disk::Disk>>,
    /// Swap in use.
    pub swap: Probed<Vec<disk::Swap>>,
    /// The filesystems of `/`, `/var/lib/cofferdam` and the paths that were asked for.
    pub filesystems: Vec<storage::Filesystem>,
    /// 99th percentile of small durable writes, in microseconds.
    pub sync_microseconds: Probed<u64>,
    /// What the kernel can do.
    pub kernel: kernel::Kernel,
    /// Adapters, routes, listeners, names.
    pub network: network::Network,
    /// The programs that an installation runs.
    pub tools: Vec<machine::Tool>,
    /// How many times slower than a core of a normal server: 1 to 20, in halves. Time limits are scaled by it.
    pub slowness: f64,
    /// The site that is installed here already.
    pub installed: Probed<Option<Installed>>,
}

/// A site that is installed already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Installed {
    /// Its name; empty when its record cannot be understood.
    pub site: String,
    /// Version of its bundle; empty when its record cannot be understood.
    pub version: String,
}

impl Facts {
    /// Looks at the machine. Takes a few seconds; nothing is changed.
    pub fn probe(host: &dyn Host, questions: &Questions) -> Self {
        let kernel = kernel::probe(host);
        let (disks, swap) = disk::probe(host);
        let mut paths = vec![Utf8PathBuf::from("/"), layout::HOME.into()];
        paths.extend(questions.paths.iter().cloned());
        paths.dedup();
        let machine = machine::probe(host);
        let mut network = network::probe(host, questions);
        network.time_servers = time::probe(host, questions, &machine);
        Self {
            schema_version: SCHEMA_VERSION,
            probed_at: host.now().to_string(),
            machine,
            disks,
            swap,
            filesystems: paths.iter().map(|path| storage::filesystem(host, path)).collect(),
            sync_microseconds: storage::sync(host, questions.sync_directory.as_deref()),
            kernel,
            network,
            tools: machine::tools(host),
            slowness: speed::slowness(host),
            installed: installed(host),
        }
    }

    /// The JSON Schema of the facts.
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// What was found of the filesystem that this path lies on, or will lie on.
    pub fn filesystem(&self, path: &str) -> Option<&storage::Filesystem> {
        self.filesystems.iter().find(|filesystem| filesystem.path == path)
    }
}

fn installed(host: &dyn Host) -> Probed<Option<Installed>> {
    text(host, layout::STATE).map(|text| text.map(|text| parse_installed(&text))).into()
}

fn parse_installed(text: &str) -> Installed {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let field = |name: &str| value.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Installed { site: field("site"), version: field("version") }
}

/// The text of a file, `None` when there is none.
fn text(host: &dyn Host, path: &str) -> Result<Option<String>, HostError> {
    Ok(host.read_text(Utf8Path::new(path))?.map(|text| text.as_str().to_owned()))
}

/// The text of a file that must be there.
fn needed(host: &dyn Host, path: &str) -> Result<String, String> {
    match text(host, path) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(format!("there is no {path}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs a command that only looks, with a short time limit.
fn ask<const N: usize>(host: &dyn Host, program: &str, arguments: [&str; N]) -> Result<Output, String> {
    let command = Command::new(program).args(arguments).limit(Duration::from_secs(20));
    host.run(&command, &mut |_| {}).map_err(|error| error.to_string())
}

/// The output of a command that only looks and must succeed.
fn answer<const N: usize>(host: &dyn Host, program: &str, arguments: [&str; N]) -> Result<String, String> {
    let output = ask(host, program, arguments)?;
    if output.success() {
        return Ok(output.text());
    }
    let why = output.stderr.lines().last().unwrap_or("it printed no reason").to_owned();
    Err(format!("`{program}` ended with status {}: {why}", output.status))
}

#[cfg(test)]
mod tests;
