//! Running the scanners in a machine, and reading what they say.
//!
//! Called by `tests/tests/hardening.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::virtual_machine::{DataDisk, VirtualMachine};

/// What a profile or lynis may take without KVM on two busy cores.
const SCAN_LIMIT: Duration = Duration::from_mins(25);
const SERIAL: &str = "SCANNERS";
/// Where the machine has the disk. Programs may run there.
const PLACE: &str = "/run/scanners";
const PROFILE_PREFIX: &str = "xccdf_org.ssgproject.content_profile_";
const RULE_PREFIX: &str = "xccdf_org.ssgproject.content_rule_";

/// A profile of the rules for Debian 13.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// As people say it.
    pub name: &'static str,
    id: &'static str,
}

/// The profiles that are looked at. The first one has a target.
pub const PROFILES: [Profile; 3] = [
    Profile { name: "CIS level 1, server", id: "cis_level1_server" },
    Profile { name: "CIS level 2, server", id: "cis_level2_server" },
    Profile { name: "ANSSI BP-028, enhanced", id: "anssi_bp28_enhanced" },
];

/// The disk with the scanners.
#[derive(Debug, Clone)]
pub struct ScannerDisk {
    image: Utf8PathBuf,
    /// A line for each scanner.
    pub versions: String,
}

impl ScannerDisk {
    /// Makes the disk if this machine has none yet.
    pub fn make() -> Result<Self> {
        let script = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("hardening/scanners.sh");
        // What it says on stderr is for the person who waits.
        let output = Command::new(&script).stderr(Stdio::inherit()).output().context("cannot start scanners.sh")?;
        ensure!(output.status.success(), "{script}: {}", output.status);
        let folder = Utf8PathBuf::from(String::from_utf8(output.stdout)?.trim());
        let versions = std::fs::read_to_string(folder.join("versions")).context("the versions of the scanners")?;
        Ok(Self { image: folder.join("scanners.img"), versions })
    }

    /// For a machine that is switched off. QEMU writes to it, so the machine gets a copy, in `folder`.
    pub fn attach(&self, machine: &mut VirtualMachine, folder: &Utf8Path) -> Result<()> {
        let copy = folder.join("scanners.img");
        let status = Command::new("cp").args(["--sparse=always", self.image.as_str(), copy.as_str()]).status()?;
        ensure!(status.success(), "cannot copy {}", self.image);
        machine.options_mut().data_disks.push(DataDisk::existing(copy, SERIAL)?);
        Ok(())
    }

    /// In the machine that has the disk.
    pub fn mount(machine: &mut VirtualMachine) -> Result<()> {
        let script = format!(
            "mkdir -p {PLACE} && mount -o ro,nodev,nosuid /dev/disk/by-id/virtio-{SERIAL} {PLACE} && {PLACE}/oscap --version"
        );
        machine.run_ok(&script, SCAN_LIMIT).map(drop)
    }
}

/// What came out of one profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The result of each rule, as XCCDF names it: `pass`, `fail`, `error`, `notapplicable` …
    pub results: BTreeMap<String, String>,
}

impl Outcome {
    /// How many rules have a result.
    pub fn count(&self, result: &str) -> usize {
        self.results.values().filter(|own| *own == result).count()
    }

    /// Rules that are not met, and those that could not be judged.
    pub fn open(&self) -> BTreeSet<String> {
        let is_open = |result: &str| matches!(result, "fail" | "error" | "unknown");
        self.results.iter().filter(|(_, result)| is_open(result)).map(|(rule, _)| rule.clone()).collect()
    }

    /// The share of the rules with a verdict that is met, in tenths of a percent, rounded down.
    pub fn per_mille(&self) -> usize {
        let (pass, fail) = (self.count("pass"), self.count("fail"));
        (1000 * pass).checked_div(pass + fail).unwrap_or(0)
    }

    /// Reads the lines `RULE:RESULT` of `oscap xccdf eval --progress`.
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (rule, result) = line.strip_prefix(RULE_PREFIX)?.split_once(':')?;
            Some((rule.to_owned(), result.to_owned()))
        };
        Self { results: text.lines().filter_map(line).collect() }
    }
}

/// Judges the machine by one profile.
pub fn openscap(machine: &mut VirtualMachine, profile: Profile) -> Result<Outcome> {
    let script = format!(
        "{PLACE}/oscap xccdf eval --progress --profile {PROFILE_PREFIX}{} {PLACE}/rules/ssg-debian13-ds.xml",
        profile.id
    );
    let output = machine.run_for(&script, SCAN_LIMIT)?;
    // 2 means that a rule is not met.
    ensure!(matches!(output.code, 0 | 2), "OpenSCAP ended with {}:\n{}", output.code, output.stderr);
    let outcome = Outcome::parse(&output.stdout);
    // Without the package record of a kernel the rules take a machine for a container: most do not apply then, and what is
    // left says nothing.
    let (all, left_out) = (outcome.results.len(), outcome.count("notapplicable"));
    ensure!(
        all > 200 && left_out * 4 < all,
        "{left_out} of {all} rules do not apply: this is not judged as a whole machine"
    );
    Ok(outcome)
}

/// What lynis says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lynis {
    /// The hardening index, of 100.
    pub index: u32,
    /// Its tests with a warning or a suggestion, and the first of these.
    pub findings: BTreeMap<String, String>,
}

impl Lynis {
    /// Reads its report.
    fn parse(report: &str) -> Result<Self> {
        let mut lynis = Self::default();
        for line in report.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            if key == "hardening_index" {
                lynis.index = value.parse().with_context(|| format!("{line:?} is no number"))?;
            } else if matches!(key, "warning[]" | "suggestion[]") {
                let mut parts = value.split('|');
                let test = parts.next().unwrap_or_default().to_owned();
                let text = parts.next().unwrap_or_default().to_owned();
                lynis.findings.entry(test).or_insert(text);
            }
        }
        ensure!(lynis.index > 0, "lynis gave no index:\n{report}");
        Ok(lynis)
    }
}

/// Runs lynis in the machine, from its own folder, with its default profile.
pub fn lynis(machine: &mut VirtualMachine) -> Result<Lynis> {
    let script = format!(
        "cd {PLACE}/lynis
        ./lynis audit system --cronjob --logfile /run/lynis.log --report-file /run/lynis-report.dat >/dev/null
        cat /run/lynis-report.dat"
    );
    Lynis::parse(&machine.run_ok(&script, SCAN_LIMIT)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn progress_lines_become_an_outcome() {
        let text = "xccdf_org.ssgproject.content_rule_a:pass\nxccdf_org.ssgproject.content_rule_b:fail\nE: noise\n\
                    xccdf_org.ssgproject.content_rule_c:notapplicable\nxccdf_org.ssgproject.content_rule_d:error\n\
                    xccdf_org.ssgproject.content_rule_e:pass\n";
        let outcome = Outcome::parse(text);
        assert_eq!((outcome.count("pass"), outcome.count("fail"), outcome.results.len()), (2, 1, 5));
        assert_eq!(outcome.per_mille(), 666);
        assert_eq!(outcome.open(), BTreeSet::from(["b".to_owned(), "d".to_owned()]));
        assert_eq!(Outcome::default().per_mille(), 0);
    }

    #[test]
    fn a_report_of_lynis_is_read() {
        let report = "# Lynis\nreport_version_major=1\nwarning[]=LOGG-2138|klogd is not running|-|-|\n\
                      suggestion[]=FILE-6310|first|-|-|\nsuggestion[]=FILE-6310|second|-|-|\nhardening_index=81\n";
        let lynis = Lynis::parse(report).unwrap();
        assert_eq!(lynis.index, 81);
        assert_eq!(lynis.findings["FILE-6310"], "first");
        assert_eq!(lynis.findings.len(), 2);
        assert!(Lynis::parse("hardening_index=\n").is_err() && Lynis::parse("").is_err());
    }
}
