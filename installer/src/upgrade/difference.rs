//! What an upgrade changes in files, shown before it is done: lines that come and go. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FileDifference {
    /// Where it lies on the host.
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub change: String,
    /// For texts that the installer writes: lines that go (`-`) and come (`+`), in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// The lines that go and come between two texts, by a longest common subsequence.
pub(super) fn lines(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // common[i][j]: length of the longest common subsequence of old[i..] and new[j..].
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut changes) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            changes.push(format!("-{}", old[i]));
            i += 1;
        } else {
            changes.push(format!("+{}", new[j]));
            j += 1;
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn differences() {
        let table: &[(&str, &str, &[&str])] = &[
            ("", "", &[]),
            ("a\nb\n", "a\nb\n", &[]),
            ("a\nb\nc\n", "a\nx\nc\n", &["-b", "+x"]),
            ("a\n", "a\nb\n", &["+b"]),
            ("a\nb\n", "b\n", &["-a"]),
            ("", "a\n", &["+a"]),
            ("a\nb\nc\nd\n", "b\nc\ne\n", &["-a", "-d", "+e"]),
        ];
        for (before, after, expected) in table {
            assert_eq!(lines(before, after), *expected, "{before:?} {after:?}");
        }
    }
}
