//! The transaction: what is going on, written whole before the first effect and removed after the last. Invariant: both
//! plans are complete in it, so that neither the way on nor the way back needs anything computed on a broken site.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{Host, HostError, HostExt};
use crate::plan::Plan;

/// An upgrade that is going on, or the last one that was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Transaction {
    /// Always 1.
    pub schema_version: u32,
    /// Number of its snapshot.
    pub snapshot: u64,
    /// The installed release, as `NAME VERSION`.
    pub from: String,
    /// The next release.
    pub to: String,
    /// Who began it.
    pub who: String,
    /// When.
    pub begun: Timestamp,
    /// Id of the key that signed the bundle.
    pub signer: String,
    /// Which of the two plans is run.
    pub direction: Direction,
    /// Why it goes back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// To the next release.
    pub forward: Plan,
    /// Back to the installed one.
    pub back: Plan,
}

/// Which plan is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To the next release.
    Forward,
    /// Back, because a step or gate failed.
    Back,
    /// Back, because somebody asked for it after the commit.
    Undo,
}

impl Transaction {
    /// The transaction in a file; `None` when there is none.
    pub fn read(host: &dyn Host, path: &str) -> Result<Option<Self>, HostError> {
        let Some(text) = host.read_text(path.into())? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| HostError::File {
            action: "understand",
            path: path.into(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        })
    }

    /// Writes it whole.
    pub fn write(&self, host: &dyn Host, path: &str) -> Result<(), HostError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        host.write(path.into(), text.as_bytes(), 0o600)
    }

    /// For people: `cofferdam-sample 1.0.0 -> 1.1.0, going back`.
    pub fn title(&self) -> String {
        let direction = match self.direction {
            Direction::Forward => "",
            Direction::Back | Direction::Undo => ", going back",
        };
        format!("{} -> {}{direction}", self.from, self.to)
    }
}
