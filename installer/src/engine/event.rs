//! What the engine says while it runs. One JSON object a line in `--events`; as text for people on stderr.

use jiff::Timestamp;
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
        /// What kind of failure it is, stable: `command-failed`, `timed-out`, `bundle-refused` …
        #[serde(default)]
        code: String,
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
    /// The operator stopped the run; nothing failed, and `resume` goes on.
    Stopped {
        /// The id of the step that comes next.
        next: String,
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
        /// The blobs that these bytes are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blobs: Option<Count>,
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
    /// A medium that stalls is waited for, or answers again.
    Medium {
        /// What is said of it.
        text: String,
    },
}

/// How many of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// So far.
    pub done: usize,
    /// In all.
    pub total: usize,
}

/// An event with its version and time, as it stands in a line.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// [`VERSION`].
    pub v: u32,
    /// When.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: &'a Event,
}

impl<'a> Line<'a> {
    /// The line of an event that happens now.
    pub fn new(time: Timestamp, event: &'a Event) -> Self {
        Self { v: VERSION, time, event }
    }

    /// The line with its end.
    pub fn text(&self) -> String {
        // A struct of numbers and text always becomes JSON.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// A line as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Heard {
    /// When.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Heard {
    /// Reads a line; `None` for one that is torn, or of a version that this program does not know.
    pub fn parse(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let version: Version = serde_json::from_str(line).ok()?;
        if version.v == VERSION { serde_json::from_str(line).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let progress = Progress::Bytes { done: 1, total: 2, blobs: Some(Count { done: 3, total: 4 }) };
        let event = Event::StepProgress { id: "bundle.load".to_owned(), progress };
        let text = Line::new(Timestamp::UNIX_EPOCH, &event).text();
        assert_eq!(Heard::parse(&text).unwrap(), Heard { time: Timestamp::UNIX_EPOCH, event });
        assert_eq!(Heard::parse(&text[..text.len() / 2]), None);
        assert_eq!(Heard::parse(&text.replace("\"v\":1", "\"v\":2")), None);
        let older = r#"{"v":1,"time":"1970-01-01T00:00:00Z","event":"step-progress","id":"x","kind":"bytes","done":1,"total":2}"#;
        assert!(Heard::parse(older).is_some());
    }
}
