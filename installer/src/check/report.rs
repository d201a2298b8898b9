//! The findings together, as a table for people and as JSON.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Finding, Outcome};

const WIDTH: usize = 80;
const INDENT: usize = 4;
const ID_WIDTH: usize = 22;

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Always 1.
    pub schema_version: u32,
    /// When the machine was probed by its own clock, RFC 3339.
    pub probed_at: String,
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// What stands against an installation.
    pub fn blocking(&self) -> Vec<&Finding> {
        self.findings.iter().filter(|finding| finding.blocks && !finding.accepted).collect()
    }

    /// The ids of failing checks that the configuration let pass, for the site's state.
    pub fn accepted(&self) -> Vec<String> {
        let mut ids: Vec<_> =
            self.findings.iter().filter(|finding| finding.accepted).map(|finding| finding.id.clone()).collect();
        ids.dedup();
        ids
    }

    /// The JSON Schema of the report.
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// A table of at most 80 columns; hints stand under what is not a pass. The marks are told apart without colour.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let mark = match finding.outcome {
                Outcome::Pass => "✔",
                Outcome::Warn => "!",
                Outcome::Fail => "✘",
                Outcome::Unknown => "?",
            };
            let head = format!("{mark} {:<ID_WIDTH$}", finding.id);
            let mut measured = finding.measured.clone();
            if finding.outcome != Outcome::Pass {
                measured = format!("{measured} (wanted: {})", finding.threshold);
            }
            if finding.accepted {
                measured.push_str(" [accepted]");
            }
            wrap(&mut text, &head, &measured, ID_WIDTH + 3);
            if let Some(hint) = &finding.hint {
                wrap(&mut text, &format!("{:INDENT$}hint:", ""), hint, INDENT + 6);
            }
        }
        let count = |outcome| self.findings.iter().filter(|finding| finding.outcome == outcome).count();
        let summary = format!(
            "{} checks: {} pass, {} warn, {} fail, {} unknown; {} stand{} against an installation\n",
            self.findings.len(),
            count(Outcome::Pass),
            count(Outcome::Warn),
            count(Outcome::Fail),
            count(Outcome::Unknown),
            self.blocking().len(),
            if self.blocking().len() == 1 { "s" } else { "" },
        );
        text.push_str(&summary);
        text
    }
}

/// Appends words after `head`, broken at the width and indented on the lines that follow.
fn wrap(text: &mut String, head: &str, words: &str, indent: usize) {
    let mut line = head.to_owned();
    for word in words.split_whitespace() {
        let is_first = line.trim_end().is_empty();
        if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(indent - 1);
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(line.trim_end());
    text.push('\n');
}
