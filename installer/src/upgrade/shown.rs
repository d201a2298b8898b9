//! What `upgrade plan` shows: both plans and what a person or a machine wants to know before one of them is run.
//!
//! Made by [`super::plan::plan`]; its JSON schema is recorded.

use schemars::JsonSchema;
use serde::Serialize;

use super::answers::{self, AnswerChange};
use super::difference::FileDifference;
use super::space::Need;
use crate::check::Finding;
use crate::plan::Plan;

/// What `upgrade plan` shows.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct UpgradePlan {
    /// Always 1.
    pub schema_version: u32,
    /// The installed release.
    pub from: Release,
    /// The next release.
    pub to: Release,
    /// Id of the key that signed the bundle.
    pub signer: String,
    /// Kubernetes versions that are gone through, the last one being the next release's; empty when it stays.
    pub hops: Vec<String>,
    /// What was checked.
    pub findings: Vec<Finding>,
    /// What is needed on each filesystem at the peak.
    pub space: Vec<Need>,
    /// Packs that change.
    pub packs: Vec<PackChange>,
    /// Answers to the questions of packs that change, new questions, and questions that are gone.
    pub answers: Vec<AnswerChange>,
    /// All that is wrong with the answers is that some are missing: a person can be asked.
    #[serde(skip)]
    pub is_open_only: bool,
    /// Files that change.
    pub differences: Vec<FileDifference>,
    /// Steps during which something cannot be reached; those that are missing cost nothing.
    pub downtime: Vec<Downtime>,
    /// The way forward.
    pub plan: Plan,
    /// The way back.
    pub back: Plan,
}

/// A release.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Release {
    /// The bundle's name.
    pub bundle: String,
    /// Its version.
    pub version: String,
    /// Kubernetes in it.
    pub kubernetes: String,
}

/// A pack that changes.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PackChange {
    /// Its name.
    pub name: String,
    /// The installed version; absent for a new pack.
    pub from: Option<String>,
    /// The next version; absent for one that goes.
    pub to: Option<String>,
    /// Migrations that run.
    pub migrations: Vec<String>,
    /// Those of them that only the snapshot of etcd undoes.
    pub irreversible: Vec<String>,
}

/// What a step makes unreachable.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Downtime {
    /// The step.
    pub step: String,
    /// Seconds without API, expected on this machine.
    pub api_seconds: u32,
    /// Seconds without a workload, expected on this machine.
    pub workload_seconds: u32,
    /// Of what.
    pub what: String,
}

impl UpgradePlan {
    /// What stands against the upgrade.
    pub fn blocking(&self) -> Vec<&Finding> {
        self.findings.iter().filter(|finding| finding.blocks && !finding.accepted).collect()
    }

    /// Whether nothing but questions that nobody has answered stands against the upgrade.
    pub fn lacks_answers_only(&self) -> bool {
        let blocking = self.blocking();
        !blocking.is_empty() && blocking.iter().all(|finding| finding.id == answers::FINDING) && self.is_open_only
    }
}
