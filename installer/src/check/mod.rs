//! The host checks: rules over facts, each with a stable id, a measured value, a threshold and a hint.
//!
//! Invariant: [`run`] is pure, and what could not be probed is [`Outcome::Unknown`], never a pass. Called by the
//! command line before an installation and by `cofferdam check`; the ids are named in `accept:` of a configuration.

mod machine;
mod network;
mod report;
mod storage;
mod time;

use bundle::index::Index;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::InstallConfig;
use crate::facts::{Facts, Probed};

pub use report::Report;
pub(crate) use storage::data_bytes;

/// The version of the report's JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// The ids of all checks.
pub const IDS: &[&str] = &[
    "bundle.architecture",
    "cpu.count",
    "cpu.level",
    "disk.choice",
    "disk.fsync",
    "disk.in-use",
    "disk.medium",
    "disk.site",
    "disk.size",
    "dns.forward",
    "dns.reverse",
    "firmware.secure-boot",
    "firmware.uefi",
    "host.name",
    "host.os",
    "host.systemd",
    "host.tools",
    "kernel.cgroup",
    "kernel.modules",
    "memory.total",
    "net.address",
    "net.address-conflict",
    "net.cidr-overlap",
    "net.link",
    "net.mtu",
    "net.ports",
    "net.route",
    "net.vip-free",
    "site.absent",
    "swap",
    "time.sane",
    "time.skew",
    "tpm2.lockout",
    "tpm2.present",
    "virt",
];

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// It will work, with a drawback.
    Warn,
    /// An installation would fail or be unsafe.
    Fail,
    /// It could not be found out.
    Unknown,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// One of [`IDS`], or `accept` for the configuration's own list.
    pub id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found; for [`Outcome::Unknown`], why nothing was.
    pub measured: String,
    /// What is wanted.
    pub threshold: String,
    /// What to do about it; absent for a pass, and where nothing is known to be wrong.
    pub hint: Option<String>,
    /// It stands against an installation unless it is accepted.
    pub blocks: bool,
    /// The configuration lets it pass.
    pub accepted: bool,
    /// It cannot be accepted: the installation would destroy data or could not work at all.
    pub hard: bool,
}

impl Finding {
    pub(crate) fn new(
        id: &str,
        outcome: Outcome,
        measured: impl Into<String>,
        threshold: impl Into<String>,
        hint: &str,
    ) -> Self {
        Self {
            id: id.to_owned(),
            outcome,
            measured: measured.into(),
            threshold: threshold.into(),
            hint: (outcome != Outcome::Pass && !hint.is_empty()).then(|| hint.to_owned()),
            blocks: outcome == Outcome::Fail,
            accepted: false,
            hard: false,
        }
    }

    /// Judges a fact; one that is not known gives [`Outcome::Unknown`] with its reason.
    fn of<T>(
        id: &str,
        fact: &Probed<T>,
        threshold: impl Into<String>,
        hint: &str,
        judge: impl FnOnce(&T) -> (Outcome, String),
    ) -> Self {
        match fact.as_result() {
            Ok(value) => {
                let (outcome, measured) = judge(value);
                Self::new(id, outcome, measured, threshold, hint)
            }
            Err(reason) => Self::new(id, Outcome::Unknown, reason, threshold, hint),
        }
    }

    /// No one can let it pass.
    pub(crate) fn hard(mut self) -> Self {
        self.hard = true;
        self
    }

    /// Not to know it stands against an installation, too.
    fn needs_answer(mut self) -> Self {
        self.blocks |= self.outcome == Outcome::Unknown;
        self
    }
}

/// `pass` if it holds, else `otherwise`.
fn pass_or(holds: bool, otherwise: Outcome) -> Outcome {
    if holds { Outcome::Pass } else { otherwise }
}

/// Runs all checks that apply. `index`: of the verified bundle, when it was read.
pub fn run(config: &InstallConfig, facts: &Facts, index: Option<&Index>) -> Report {
    let mut findings = vec![site_absent(facts)];
    findings.extend(machine::findings(config, facts, index));
    findings.extend(time::findings(config, facts, index));
    findings.extend(storage::findings(config, facts, index));
    findings.extend(network::findings(config, facts));
    for finding in &mut findings {
        let is_named = config.accept.contains(&finding.id);
        finding.accepted = is_named && finding.blocks && !finding.hard;
        if finding.outcome == Outcome::Unknown && !finding.blocks {
            // Nothing is known to be wrong; the reason stands in `measured`.
            finding.hint = None;
        }
    }
    let strange: Vec<_> = config.accept.iter().filter(|id| !IDS.contains(&id.as_str())).map(String::as_str).collect();
    if !strange.is_empty() {
        let hint = "`cofferdam check` prints the ids of all checks; a misspelled id accepts nothing";
        findings.push(Finding::new(
            "accept",
            Outcome::Warn,
            format!("no check is called {}", strange.join(", ")),
            "ids of checks",
            hint,
        ));
    }
    Report { schema_version: SCHEMA_VERSION, probed_at: facts.probed_at.clone(), findings }
}

fn site_absent(facts: &Facts) -> Finding {
    let hint = "a site is changed by an upgrade, not by a second installation; `cofferdam status` shows it, `cofferdam resume` goes on \
                with an interrupted installation";
    Finding::of("site.absent", &facts.installed, "no site on this host", hint, |site| match site {
        None => (Outcome::Pass, "none".to_owned()),
        Some(site) => (Outcome::Fail, format!("site {:?}, version {:?}, is installed here", site.site, site.version)),
    })
    .hard()
    .needs_answer()
}

#[cfg(test)]
mod tests;
