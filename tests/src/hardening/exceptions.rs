//! The list of exceptions, `tests/hardening/exceptions.yaml`: findings that stay, with their reasons.
//!
//! Called by `tests/tests/hardening.rs`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use camino::Utf8Path;
use serde::Deserialize;

/// Findings that stay, each with its reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// Rules of `OpenSCAP`'s profiles, without their common prefix.
    pub openscap: BTreeMap<String, String>,
    /// Tests of lynis.
    pub lynis: BTreeMap<String, String>,
}

/// What a list says about findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Found, and not on the list.
    pub new: BTreeSet<String>,
    /// On the list, and not found any more.
    pub needless: BTreeSet<String>,
}

impl Verdict {
    /// Compares findings with one half of the list.
    pub fn of(found: &BTreeSet<String>, listed: &BTreeMap<String, String>) -> Self {
        let listed: BTreeSet<String> = listed.keys().cloned().collect();
        Self { new: found - &listed, needless: &listed - found }
    }

    /// True when the list is true.
    pub fn is_good(&self) -> bool {
        self.new.is_empty() && self.needless.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    openscap: Vec<Group>,
    lynis: Vec<Group>,
}

/// Findings that share a reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    reason: String,
    rules: Vec<String>,
}

impl Exceptions {
    /// Reads the list of this source tree.
    pub fn read() -> Result<Self> {
        let path = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("hardening/exceptions.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(&text).with_context(|| path.to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let file: File = serde_yaml::from_str(text)?;
        Ok(Self { openscap: flat(file.openscap)?, lynis: flat(file.lynis)? })
    }
}

fn flat(groups: Vec<Group>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for group in groups {
        let reason = group.reason.trim();
        ensure!(!reason.is_empty() && !group.rules.is_empty(), "a reason without rules, or rules without a reason");
        for rule in group.rules {
            if all.insert(rule.clone(), reason.to_owned()).is_some() {
                bail!("{rule} is on the list twice");
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_exception_has_one_reason() {
        let list = Exceptions::read().unwrap();
        assert!(!list.openscap.is_empty() && !list.lynis.is_empty());
        let text =
            |rules: &str, reason: &str| format!("openscap:\n- reason: {reason:?}\n  rules: {rules}\nlynis: []\n");
        assert_eq!(Exceptions::parse(&text("[a, b]", "x")).unwrap().openscap["b"], "x");
        for (rules, reason) in [("[a, a]", "x"), ("[a]", " "), ("[]", "x")] {
            assert!(Exceptions::parse(&text(rules, reason)).is_err(), "{rules} {reason}");
        }
    }

    #[test]
    fn new_findings_and_needless_exceptions_are_told_apart() {
        let found = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let listed = BTreeMap::from([("b".to_owned(), "x".to_owned()), ("c".to_owned(), "y".to_owned())]);
        let verdict = Verdict::of(&found, &listed);
        assert_eq!(verdict.new, BTreeSet::from(["a".to_owned()]));
        assert_eq!(verdict.needless, BTreeSet::from(["c".to_owned()]));
        assert!(!verdict.is_good() && Verdict::of(&BTreeSet::new(), &BTreeMap::new()).is_good());
    }
}
