//! The journal: one JSON object a line, appended and fsynced. It says what was begun and what was ended; `resume`
//! uses it to find an unfinished plan, people to see what happened. It holds no secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{Host, HostError, HostExt};
use crate::layout;
use crate::plan::Step;
use crate::step::StepError;

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// When.
    pub time: Timestamp,
    /// The step's id.
    pub step: String,
    /// What happened.
    pub result: Outcome,
    /// Which attempt, from 1; 0 for a step that was done already.
    pub attempt: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What happened to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its first effect comes next.
    Started,
    /// All of its effects are done.
    Finished,
    /// An attempt failed.
    Failed,
    /// It was done already.
    Skipped,
}

impl Record {
    pub(super) fn started(step: &Step, attempt: u32, time: Timestamp) -> Self {
        Self { time, step: step.id.clone(), result: Outcome::Started, attempt, error: None }
    }

    pub(super) fn finished(step: &Step, attempt: u32, time: Timestamp) -> Self {
        Self { time, step: step.id.clone(), result: Outcome::Finished, attempt, error: None }
    }

    pub(super) fn skipped(step: &Step, time: Timestamp) -> Self {
        Self { time, step: step.id.clone(), result: Outcome::Skipped, attempt: 0, error: None }
    }

    pub(super) fn failed(step: &Step, attempt: u32, time: Timestamp, error: &StepError) -> Self {
        Self { time, step: step.id.clone(), result: Outcome::Failed, attempt, error: Some(error.to_string()) }
    }
}

/// The journal of a host.
pub struct Journal<'a> {
    host: &'a dyn Host,
}

impl<'a> Journal<'a> {
    /// The journal of this host.
    pub fn new(host: &'a dyn Host) -> Self {
        Self { host }
    }

    /// Appends a record; it is on disk when this returns.
    pub fn append(&self, record: &Record) -> Result<(), HostError> {
        // A leading newline ends a line that a crash left torn; empty lines are passed over when reading.
        let mut line = String::from("\n");
        line.push_str(&serde_json::to_string(record).unwrap_or_default());
        line.push('\n');
        self.host.append(layout::JOURNAL.into(), line.as_bytes())
    }

    /// Whether no other step than these was ever begun.
    pub fn has_only(&self, steps: &[&str]) -> Result<bool, HostError> {
        Ok(self.records()?.iter().all(|record| steps.contains(&record.step.as_str())))
    }

    /// All records that are whole; a line torn by a crash is passed over.
    pub fn records(&self) -> Result<Vec<Record>, HostError> {
        let text = self.host.read_text(layout::JOURNAL.into())?;
        Ok(text.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}
