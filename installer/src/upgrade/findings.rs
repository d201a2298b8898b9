//! What stands against an upgrade: rules over the site and the next index, each with a stable id. Pure.

use bundle::index::{Architecture, Index};
use jiff::{SignedDuration, Timestamp};

use super::answers::Answered;
use super::path::{Path, kubernetes_packs};
use super::site::Site;
use super::slots;
use super::space::{self, Need};
use crate::check::{Finding, Outcome};
use crate::headless::megabytes;

/// Certificates that end within this many days are told.
const WARN_DAYS: i64 = 30;
/// Members of etcd whose logs are this far apart are not in sync.
const LAG: u64 = 100;

/// The ids that speak of the bundle and not of the site: exit code 4.
pub const OF_THE_BUNDLE: &[&str] =
    &["upgrade.version", "upgrade.kubernetes", "upgrade.architecture", "upgrade.complete", "upgrade.packs"];

/// All findings. `drains`: pods are moved to other nodes.
pub(super) fn findings(site: &Site, next: &Index, path: &Path, answered: &Answered, drains: bool) -> Vec<Finding> {
    let mut findings = path.findings.clone();
    findings.push(unfinished(site));
    findings.push(architecture(next));
    findings.push(complete(site, next));
    findings.push(packs(site, next));
    findings.extend(answered.finding());
    findings.extend(slots::finding(site, &next.packs));
    findings.extend(space(site, next));
    findings.push(clock(site, next));
    findings.push(nodes(site));
    findings.push(etcd(site));
    findings.push(certificates(site));
    findings.push(disruption(site, drains));
    findings.push(deprecated(site, next));
    for finding in &mut findings {
        finding.accepted = finding.blocks && !finding.hard && site.config.accept.contains(&finding.id);
    }
    findings
}

fn unfinished(site: &Site) -> Finding {
    let (outcome, measured) = match &site.unfinished {
        None => (Outcome::Pass, "none".to_owned()),
        Some(title) => (Outcome::Fail, title.clone()),
    };
    Finding::new("upgrade.unfinished", outcome, measured, "no upgrade is going on", "`cofferdam resume` ends it").hard()
}

fn architecture(next: &Index) -> Finding {
    let ours = Architecture::of_this_machine();
    let outcome = if ours == Some(next.architecture) { Outcome::Pass } else { Outcome::Fail };
    let threshold = ours.map_or("a known architecture", Architecture::as_str);
    let hint = "get the bundle that was made for this machine's architecture";
    Finding::new("upgrade.architecture", outcome, next.architecture.as_str(), threshold, hint).hard()
}

/// Bundle and store together must hold everything.
fn complete(site: &Site, next: &Index) -> Finding {
    let lacking: std::collections::HashSet<_> = site.lacking.iter().map(|blob| blob.digest).collect();
    let missing: Vec<_> = next.held.iter().filter(|blob| lacking.contains(&blob.digest)).collect();
    let threshold = "everything is in the bundle or in the store";
    if missing.is_empty() {
        let new: u64 = site.lacking.iter().map(|blob| blob.size).sum();
        let measured =
            format!("{} blobs to load, {}; {} held already", site.lacking.len(), megabytes(new), next.held.len());
        return Finding::new("upgrade.complete", Outcome::Pass, measured, threshold, "");
    }
    let list = missing.iter().map(|blob| format!("{} ({} bytes)", blob.digest, blob.size)).collect::<Vec<_>>();
    let measured = format!("the store lacks {} blobs that the bundle leaves out: {}", missing.len(), list.join(", "));
    let hint = format!(
        "load a bundle that this one was made on ({}), or send the output of `cofferdam bundle inventory` to the publisher",
        next.base.join(", ")
    );
    Finding::new("upgrade.complete", Outcome::Fail, measured, threshold, &hint).hard()
}

/// The packs that the answers ask for must still be there.
fn packs(site: &Site, next: &Index) -> Finding {
    let asked = site.config.cluster.packs.iter().flatten();
    let gone: Vec<_> = asked.filter(|name| next.pack(name).is_none()).map(String::as_str).collect();
    let outcome = if gone.is_empty() { Outcome::Pass } else { Outcome::Fail };
    let measured =
        if gone.is_empty() { "all there".to_owned() } else { format!("not in the bundle: {}", gone.join(", ")) };
    let hint = "the site was installed with these packs; get a bundle that has them";
    Finding::new("upgrade.packs", outcome, measured, "the packs that cluster.packs names", hint).hard()
}

fn space(site: &Site, next: &Index) -> Vec<Finding> {
    let hint = "free some space; `cofferdam registry gc --dry-run` tells what the registry could give";
    match space::peak(site, next) {
        Err(reason) => vec![blocking_unknown("upgrade.space", reason, "room for the peak", hint)],
        Ok(needs) => needs
            .iter()
            .map(|Need { filesystem, needed, available }| {
                let outcome = if needed <= available { Outcome::Pass } else { Outcome::Fail };
                let measured = format!("{filesystem}: {} free", megabytes(*available));
                Finding::new("upgrade.space", outcome, measured, format!("{} at the peak", megabytes(*needed)), hint)
            })
            .collect(),
    }
}

fn clock(site: &Site, next: &Index) -> Finding {
    let times = [next.created.as_deref(), Some(site.state.installed.as_str())];
    let latest = times.into_iter().flatten().filter_map(|time| time.parse::<Timestamp>().ok()).max();
    let outcome = if latest.is_none_or(|latest| site.now >= latest) { Outcome::Pass } else { Outcome::Fail };
    let threshold = format!("not before {}", latest.map(|time| time.to_string()).unwrap_or_default());
    let hint = "set the clock: certificates that are made now would not be valid yet";
    Finding::new("time.sane", outcome, site.now.to_string(), threshold, hint)
}

fn nodes(site: &Site) -> Finding {
    let hint = "`kubectl describe node` tells more; an upgrade starts from a healthy site";
    let (id, threshold) = ("cluster.nodes", "all nodes Ready");
    match site.nodes.as_result() {
        Err(reason) => blocking_unknown(id, reason, threshold, hint),
        Ok(nodes) => {
            let bad: Vec<_> = nodes.iter().filter(|node| !node.ready).map(|node| node.name.as_str()).collect();
            let outcome = if bad.is_empty() && !nodes.is_empty() { Outcome::Pass } else { Outcome::Fail };
            let measured = if bad.is_empty() {
                format!("{} Ready", nodes.len())
            } else {
                format!("not Ready: {}", bad.join(", "))
            };
            Finding::new(id, outcome, measured, threshold, hint)
        }
    }
}

fn etcd(site: &Site) -> Finding {
    let hint = "`kubectl logs -n kube-system etcd-NODE` tells more; an upgrade starts with a whole quorum";
    let (id, threshold) = ("cluster.etcd", "all members healthy and in sync");
    match site.members.as_result() {
        Err(reason) => blocking_unknown(id, reason, threshold, hint),
        Ok(members) => match super::step::judge_members(members, LAG) {
            Ok(()) => Finding::new(id, Outcome::Pass, format!("{} members", members.len()), threshold, ""),
            Err(why) => Finding::new(id, Outcome::Fail, why, threshold, hint),
        },
    }
}

fn certificates(site: &Site) -> Finding {
    let days = |end: &Timestamp| end.duration_since(site.now).as_hours().div_euclid(24);
    let soonest = site.certificates.iter().min_by_key(|(_, end)| *end);
    let threshold = format!("more than {WARN_DAYS} days left");
    let Some((path, end)) = soonest else {
        return Finding::new("cluster.certificates", Outcome::Unknown, "none could be read", threshold, "");
    };
    let left = days(end);
    let outcome = match end.duration_since(site.now) {
        time if time <= SignedDuration::ZERO => Outcome::Fail,
        _ if left <= WARN_DAYS => Outcome::Warn,
        _ => Outcome::Pass,
    };
    let hint = "`cofferdam certs renew` makes them anew; kubeadm renews its own in an upgrade";
    Finding::new("cluster.certificates", outcome, format!("{left} days left: {path}"), threshold, hint)
}

fn disruption(site: &Site, drains: bool) -> Finding {
    let (id, threshold) = ("cluster.disruption", "every pod may be moved");
    let hint = "add a replica or loosen the budget; a node that cannot be drained stops the upgrade";
    match site.undisruptable.as_result() {
        Err(reason) => Finding::new(id, Outcome::Unknown, reason, threshold, hint),
        Ok(budgets) if budgets.is_empty() => Finding::new(id, Outcome::Pass, "no budget is used up", threshold, ""),
        Ok(budgets) => {
            let outcome = if drains { Outcome::Fail } else { Outcome::Warn };
            Finding::new(id, outcome, format!("no disruption allowed: {}", budgets.join(", ")), threshold, hint)
        }
    }
}

fn deprecated(site: &Site, next: &Index) -> Finding {
    let target = kubernetes_packs(next).last().and_then(|pack| crate::plan::kubernetes_minor(&pack.version));
    let threshold = "no API in use that the next version removes";
    let hint = "move the clients to the newer API first; audit.log under /var/log/kubernetes names them";
    match site.deprecated.as_result() {
        Err(reason) => Finding::new("cluster.deprecated-apis", Outcome::Unknown, reason, threshold, hint),
        Ok(apis) => {
            let gone =
                |removed: &Option<u32>| removed.is_some_and(|minor| target.is_some_and(|target| minor <= target));
            let removed: Vec<_> = apis.iter().filter(|(_, minor)| gone(minor)).map(|(api, _)| api.as_str()).collect();
            let (outcome, measured) = match (removed.is_empty(), apis.is_empty()) {
                (false, _) => (Outcome::Fail, format!("removed by the upgrade: {}", removed.join(", "))),
                (true, false) => {
                    let names: Vec<_> = apis.iter().map(|(api, _)| api.as_str()).collect();
                    (Outcome::Warn, format!("deprecated: {}", names.join(", ")))
                }
                (true, true) => (Outcome::Pass, "none".to_owned()),
            };
            Finding::new("cluster.deprecated-apis", outcome, measured, threshold, hint)
        }
    }
}

fn blocking_unknown(id: &str, reason: impl Into<String>, threshold: &str, hint: &str) -> Finding {
    let mut finding = Finding::new(id, Outcome::Unknown, reason, threshold, hint);
    finding.blocks = true;
    finding
}
