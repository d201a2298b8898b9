//! What the engine says while it runs. One JSON object a line in `--events`; as text for people on stderr.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the event lines; each line carries it as `v`.
pub const VERSION: u32 = 1;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event {
    /// The run begins.
    Started {
        /// Name of the site.
        site: String,
        /// Number of steps.
        steps: usize,
        /// Sum of the steps' weights.
        weight: u64,
    },
    /// A step begins.
    StepStarted {
        /// Its id.
        id: String,
        /// Its title.
        title: String,
        /// Its place in the plan, from 1.
        number: usize,
        /// How many steps the plan has.
        of: usize,
    },
    /// A step was done already.
    StepSkipped {
        /// Its id.
        id: String,
        /// Its title.
        title: String,
        /// Its place in the plan, from 1.
        number: usize,
    },
    /// A step goes on.
    StepProgress {
        /// Its id.
        id: String,
        /// How far it is.
        #[serde(flatten)]
        progress: Progress,
    },
    /// An attempt failed.
    StepFailed {
        /// Its id.
        id: String,
        /// Its title.
        title: String,
        /// What failed.
        error: String,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// Which attempt, from 1.
        attempt: u32,
        /// It is tried again.
        again: bool,
    },
    /// A step is done.
    StepFinished {
        /// Its id.
        id: String,
        /// Its title.
        title: String,
        /// Its place in the plan, from 1.
        number: usize,
        /// How long it took.
        milliseconds: u64,
    },
    /// How far the whole is.
    Overall {
        /// Weight of the steps that are done.
        weight: u64,
        /// Weight of all.
        total: u64,
    },
    /// All steps are done.
    Finished {
        /// Name of the site.
        site: String,
    },
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Progress {
    /// Bytes of a known total.
    Bytes {
        /// So far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Things of a known number.
    Items {
        /// So far.
        done: usize,
        /// In all.
        total: usize,
        /// The present one.
        item: String,
    },
    /// A line from a command, or what is waited for.
    Note {
        /// The line.
        text: String,
    },
}

/// An event with its version and time, as it stands in a line.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// [`VERSION`].
    pub v: u32,
    /// RFC 3339.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub event: &'a Event,
}
