//! The audit log: one JSON object a line, each with the SHA-256 of the line before it.
//!
//! Invariant: lines are only appended, fsynced. A line that was changed, inserted or taken out breaks the chain, which
//! [`verify`] finds; what was cut off at the end is found by comparing the head with one that was noted elsewhere. A line
//! that a power cut left torn is told apart from tampering: it is no JSON and the chain goes on over it. It holds no
//! secret. Called by `install`, by upgrades and by `cofferdam audit`.

use bundle::oci::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::AUDIT;
use crate::host::{Host, HostError, HostExt};

/// What the first record names as the one before it.
const GENESIS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// From 1, without gaps.
    pub number: u64,
    /// When.
    pub time: Timestamp,
    /// Who: the user who called `sudo`, or the user himself.
    pub who: String,
    /// What, for example `upgrade.commit`.
    pub action: String,
    /// On what, for example `cofferdam-sample 1.0.0 -> 1.1.0`.
    pub subject: String,
    /// How it ended: `begun`, `done`, `failed`.
    pub result: String,
    /// Why it failed, which key signed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// SHA-256 of the record before it, as the line stands in the file without its end.
    pub previous: String,
}

/// What is found in an audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// Records whose chain is whole.
    pub records: u64,
    /// SHA-256 of the last record: compare it with one that was noted elsewhere.
    pub head: String,
    /// Lines that a power cut left torn.
    pub torn: u64,
    /// Everything that is wrong; empty when the chain is whole.
    pub problems: Vec<String>,
}

/// Appends a record; it is on disk when this returns.
pub fn append(
    host: &dyn Host,
    who: &str,
    action: &str,
    subject: &str,
    result: &str,
    detail: &str,
) -> Result<(), HostError> {
    let text = host.read_text(AUDIT.into())?.map(|text| text.to_string()).unwrap_or_default();
    let last = text.lines().rev().find_map(|line| Some((line, parse(line)?)));
    let record = Record {
        number: last.as_ref().map_or(1, |(_, record)| record.number + 1),
        time: host.now(),
        who: who.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        result: result.to_owned(),
        detail: detail.to_owned(),
        previous: last.map_or_else(|| GENESIS.to_owned(), |(line, _)| digest(line)),
    };
    // A leading newline ends a line that a crash left torn.
    let line = format!("\n{}\n", serde_json::to_string(&record).unwrap_or_default());
    host.append(AUDIT.into(), line.as_bytes())
}

/// All records that can be read.
pub fn records(host: &dyn Host) -> Result<Vec<Record>, HostError> {
    let text = host.read_text(AUDIT.into())?;
    Ok(text.iter().flat_map(|text| text.lines()).filter_map(parse).collect())
}

/// Follows the chain through the text of a log. `head`: what was noted elsewhere; some record must have it.
pub fn verify(text: &str, head: Option<&str>) -> Verdict {
    let mut verdict = Verdict { head: GENESIS.to_owned(), ..Verdict::default() };
    let mut found_head = head.is_none();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let Some(record) = parse(line) else {
            if serde_json::from_str::<serde_json::Value>(line).is_ok() {
                verdict.problems.push(format!("line {}: it is no record of this log", at + 1));
            } else {
                verdict.torn += 1;
            }
            continue;
        };
        if record.previous != verdict.head {
            let why = format!("line {}: record {} does not follow the one before it", at + 1, record.number);
            verdict.problems.push(why);
        }
        if record.number != verdict.records + 1 {
            let why = format!("line {}: record {} stands where {} belongs", at + 1, record.number, verdict.records + 1);
            verdict.problems.push(why);
        }
        verdict.records = record.number;
        verdict.head = digest(line);
        found_head |= head == Some(verdict.head.as_str());
    }
    if !found_head {
        verdict
            .problems
            .push(format!("no record has the head {}: records were cut off or changed", head.unwrap_or("")));
    }
    verdict
}

/// Who runs this program: the user behind `sudo`, else the user by number.
pub fn who() -> String {
    match std::env::var("SUDO_USER") {
        Ok(user) if !user.is_empty() => user,
        _ if rustix::process::getuid().is_root() => "root".to_owned(),
        _ => format!("uid {}", rustix::process::getuid().as_raw()),
    }
}

fn parse(line: &str) -> Option<Record> {
    serde_json::from_str(line).ok()
}

fn digest(line: &str) -> String {
    Digest::sha256_of(line.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn log() -> String {
        let mut text = String::new();
        let mut previous = GENESIS.to_owned();
        for number in 1..=4 {
            let record = Record {
                number,
                time: Timestamp::from_second(1_750_000_000 + i64::try_from(number).unwrap()).unwrap(),
                who: "root".to_owned(),
                action: "upgrade.commit".to_owned(),
                subject: format!("bundle {number}"),
                result: "done".to_owned(),
                detail: String::new(),
                previous: previous.clone(),
            };
            let line = serde_json::to_string(&record).unwrap();
            previous = digest(&line);
            text.push_str(&format!("\n{line}\n"));
        }
        text
    }

    #[test]
    fn a_chain_that_was_not_touched() {
        let verdict = verify(&log(), None);
        assert_eq!((verdict.records, verdict.torn, verdict.problems.len()), (4, 0, 0), "{verdict:?}");
        assert!(verify(&log(), Some(&verdict.head)).problems.is_empty());
        assert!(verify("", None).problems.is_empty());
    }

    #[test]
    fn every_way_to_tamper_is_found() {
        let good = log();
        let head = verify(&good, None).head;
        let lines: Vec<&str> = good.lines().filter(|line| !line.is_empty()).collect();
        let without = |at: usize| {
            let kept = lines.iter().enumerate().filter(|(place, _)| *place != at);
            kept.fold(String::new(), |text, (_, line)| format!("{text}{line}\n"))
        };
        let swapped = format!("{}\n{}\n{}\n{}\n", lines[0], lines[2], lines[1], lines[3]);
        let table = [
            ("a changed word", good.replace("bundle 2", "bundle 9")),
            ("a changed time", good.replacen("2025", "2024", 1)),
            ("the first record is gone", without(0)),
            ("a record in the middle is gone", without(1)),
            ("two records are swapped", swapped),
            ("a record twice", format!("{good}{}\n", lines[3])),
            ("a foreign object", good.replace("\n\n", "\n{\"a\": 1}\n")),
        ];
        for (name, text) in table {
            assert!(!verify(&text, None).problems.is_empty(), "{name}");
        }
        // The end is missing: only a head that was noted elsewhere tells.
        assert!(verify(&without(3), None).problems.is_empty());
        assert!(!verify(&without(3), Some(&head)).problems.is_empty());
    }

    #[test]
    fn a_torn_line_is_no_tampering() {
        let good = log();
        let at = good.find("\n\n").unwrap();
        let torn = format!("{}\n{{\"number\": 2, \"ti\n{}", &good[..at], &good[at + 1..]);
        let verdict = verify(&torn, None);
        assert_eq!((verdict.records, verdict.torn, verdict.problems.len()), (4, 1, 0), "{verdict:?}");
    }
}
