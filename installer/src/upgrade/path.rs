//! Whether a bundle may follow the one that is installed: name, version, range, Kubernetes minor by minor. Pure.

use bundle::index::{Index, Layer, Pack};
use semver::{Version, VersionReq};

use crate::check::{Finding, Outcome};

/// The way from the installed release to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path<'a> {
    /// Kubernetes packs, one after another; empty when Kubernetes stays as it is.
    pub(super) hops: Vec<&'a Pack>,
    /// One finding for each rule.
    pub(super) findings: Vec<Finding>,
}

/// The Kubernetes packs of a bundle, oldest first. The last one is the release's own; those before it are stepping stones.
pub(super) fn kubernetes_packs(index: &Index) -> Vec<&Pack> {
    let mut packs: Vec<_> = index.packs.iter().filter(|pack| pack.layer == Layer::Kubernetes).collect();
    packs.sort_by_key(|pack| version(&pack.version));
    packs
}

/// The Kubernetes pack that an installation takes.
pub(crate) fn newest_kubernetes(index: &Index) -> Option<&Pack> {
    kubernetes_packs(index).pop()
}

/// A version as it stands in a pack; one that is none sorts first.
fn version(text: &str) -> Option<Version> {
    Version::parse(text.trim_start_matches('v')).ok()
}

/// Judges the way. `installed` and `next` are verified indexes.
pub(super) fn path<'a>(installed: &Index, next: &'a Index) -> Path<'a> {
    let mut findings = vec![bundle_version(installed, next)];
    let mut hops = Vec::new();
    let present = kubernetes_packs(installed).last().map(|pack| (pack.version.clone(), pack.digest));
    let threshold = "one minor version at a time, never back";
    if let (Some((text, digest)), Some(target)) = (present, kubernetes_packs(next).last()) {
        let finding = match (version(&text), version(&target.version)) {
            (Some(from), Some(to)) if to < from => {
                let measured = format!("Kubernetes {from} is installed, the bundle has {to}");
                failed(
                    "upgrade.kubernetes",
                    measured,
                    threshold,
                    "get a bundle with a newer Kubernetes; going back is `cofferdam upgrade rollback`",
                )
            }
            (Some(from), Some(to)) => {
                let between = kubernetes_packs(next).into_iter();
                hops = between.filter(|pack| version(&pack.version).is_some_and(|hop| hop > from)).collect();
                if from == to && target.digest != digest {
                    hops = vec![*target];
                }
                let mut minors = vec![from.minor];
                minors.extend(hops.iter().filter_map(|pack| version(&pack.version)).map(|hop| hop.minor));
                let gap = minors.windows(2).find(|pair| pair[1] > pair[0] + 1 || from.major != to.major);
                let way = std::iter::once(from.to_string()).chain(hops.iter().map(|pack| pack.version.clone()));
                let measured = way.collect::<Vec<_>>().join(" -> ");
                match gap {
                    None => Finding::new("upgrade.kubernetes", Outcome::Pass, measured, threshold, ""),
                    Some(pair) => {
                        let hint = format!(
                            "the allowed path: first a bundle with Kubernetes 1.{}, or one that carries it as a stepping stone",
                            pair[0] + 1
                        );
                        failed("upgrade.kubernetes", measured, threshold, &hint)
                    }
                }
            }
            _ => {
                let measured = format!("{text} and {} cannot be compared", target.version);
                failed("upgrade.kubernetes", measured, threshold, "the bundle needs mending")
            }
        };
        findings.push(finding);
    }
    Path { hops, findings }
}

fn failed(id: &str, measured: String, threshold: &str, hint: &str) -> Finding {
    Finding::new(id, Outcome::Fail, measured, threshold, hint).hard()
}

fn bundle_version(installed: &Index, next: &Index) -> Finding {
    let id = "upgrade.version";
    let present = format!("{} {}", installed.name, installed.version);
    if next.name != installed.name {
        let measured = format!("{present} is installed, this is {} {}", next.name, next.version);
        return failed(
            id,
            measured,
            "a bundle of the same name",
            "get the bundle of the product that is installed here",
        );
    }
    let (Ok(from), Ok(to)) = (Version::parse(&installed.version), Version::parse(&next.version)) else {
        let measured = format!("{} and {} cannot be compared", installed.version, next.version);
        return failed(id, measured, "semantic versions", "the bundle needs mending");
    };
    let range = next.upgrade_from.as_deref().unwrap_or("*");
    let threshold = format!("newer than {from}, upgrade-from {range}");
    if to < from {
        let hint = format!(
            "a version is never lowered by an upgrade; the allowed path is a bundle newer than {from}, or `cofferdam upgrade rollback` \
             as long as the last upgrade can be undone"
        );
        return failed(id, format!("{present} is installed, the bundle is {to}"), &threshold, &hint);
    }
    if to == from {
        return failed(id, format!("{present} is installed already"), &threshold, "there is nothing to do");
    }
    let allowed = VersionReq::parse(range);
    if !allowed.as_ref().is_ok_and(|allowed| allowed.matches(&from)) {
        let hint = format!("the allowed path: first upgrade to a version within {range}, then to {to}");
        return failed(id, format!("{from} is installed, {to} takes sites from {range} only"), &threshold, &hint);
    }
    Finding::new(id, Outcome::Pass, format!("{from} -> {to}"), threshold, "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn release(name: &str, version: &str, range: Option<&str>, kubernetes: &[&str]) -> Index {
        let zero = format!("sha256:{}", "0".repeat(64));
        let content = json!({"digest": zero, "size": 0});
        let packs: Vec<_> = kubernetes
            .iter()
            .map(|version| {
                json!({"digest": bundle::oci::Digest::sha256_of(version.as_bytes()), "size": 0, "name": format!("k{}", version.replace('.', "-")),
                    "version": version, "layer": "kubernetes", "description": "", "images": [], "files": [], "manifests": [],
                    "secrets": [], "gates": [], "optional-images": []})
            })
            .collect();
        let mut index = json!({
            "schema-version": 1, "media-type": "x", "name": name, "version": version, "architecture": "amd64", "packs": packs,
            "images": [], "blobs": [], "oci-layout": content, "oci-index": content, "trust": {"next-keys": []},
        });
        if let Some(range) = range {
            index["upgrade-from"] = json!(range);
        }
        serde_json::from_value(index).unwrap()
    }

    #[test]
    fn paths() {
        type Case = (
            &'static str,
            Option<&'static str>,
            &'static [&'static str],
            Result<&'static [&'static str], &'static str>,
        );
        let table: &[Case] = &[
            ("1.1.0", None, &["1.20.3"], Ok(&["1.20.3"])),
            ("1.1.0", Some(">=1.0.0"), &["1.21.0"], Ok(&["1.21.0"])),
            ("1.1.0", None, &["1.20.2"], Ok(&[])),
            ("1.1.0", None, &["1.22.1", "1.21.9"], Ok(&["1.21.9", "1.22.1"])),
            ("1.1.0", None, &["1.19.0", "1.20.2", "1.21.9"], Ok(&["1.21.9"])),
            ("1.1.0", None, &["1.22.1"], Err("first a bundle with Kubernetes 1.21")),
            ("1.1.0", None, &["1.23.0", "1.21.9"], Err("Kubernetes 1.22")),
            ("1.1.0", None, &["1.20.1"], Err("newer Kubernetes")),
            ("1.1.0", None, &["2.0.0"], Err("the allowed path")),
            ("1.0.0", None, &["1.20.2"], Err("nothing to do")),
            ("0.9.0", None, &["1.20.2"], Err("rollback")),
            (
                "2.0.0",
                Some(">=1.5.0, <2.0.0"),
                &["1.20.3"],
                Err("first upgrade to a version within >=1.5.0, <2.0.0, then to 2.0.0"),
            ),
        ];
        let installed = release("site", "1.0.0", None, &["1.20.2"]);
        for (version, range, kubernetes, expected) in table {
            let next = release("site", version, *range, kubernetes);
            let path = path(&installed, &next);
            let hints: Vec<_> = path.findings.iter().filter_map(|finding| finding.hint.clone()).collect();
            match expected {
                Ok(hops) => {
                    assert!(hints.is_empty(), "{version} {kubernetes:?}: {hints:?}");
                    assert_eq!(path.hops.iter().map(|pack| pack.version.as_str()).collect::<Vec<_>>(), *hops);
                }
                Err(hint) => {
                    assert!(hints.iter().any(|found| found.contains(hint)), "{version} {kubernetes:?}: {hints:?}");
                }
            }
        }
        let foreign = release("other", "1.1.0", None, &["1.20.3"]);
        assert!(path(&installed, &foreign).findings[0].hard);
    }
}
