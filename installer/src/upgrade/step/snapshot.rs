//! `upgrade.snapshot`: everything that the way back needs and that is not in the registry's store: keys, certificates,
//! configuration, the record of the site, this program, etcd. It lies on the data volume, since it holds keys. Done when
//! its list is there, which is written last.

use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::engine::event::Progress;
use crate::host::{EntryKind, Host, HostExt};
use crate::layout;
use crate::step::{Context, Report, StepError};
use crate::upgrade::SNAPSHOTS;
use crate::upgrade::site::etcdctl;

/// Folders whose files are copied, with what is below them.
const FOLDERS: [&str; 6] = [
    "/etc/kubernetes",
    "/etc/containerd",
    "/etc/cofferdam",
    layout::TRUST,
    "/var/lib/cofferdam/bundle",
    layout::KEYSTORE,
];
/// Single files.
const FILES: [&str; 8] = [
    layout::CONFIG,
    layout::STATE,
    layout::PROGRAM,
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/etc/systemd/system/containerd.service",
    "/etc/systemd/system/kubelet.service",
    "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf",
];
/// Where etcd's own client writes its snapshot: a folder that both the pod and the host see.
const ETCD_PART: &str = "/var/lib/etcd/cofferdam-snapshot.db";

/// What a snapshot holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Contents {
    /// The copied files, sorted by path.
    pub(super) files: Vec<Copied>,
    /// etcd's revision at the snapshot.
    pub(super) etcd_revision: u64,
}

/// A copied file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copied {
    /// Where it lay.
    pub(super) path: Utf8PathBuf,
    /// Its permission bits.
    pub(super) mode: u32,
    /// Of its content.
    pub(super) digest: Digest,
}

/// The snapshot's folder.
pub(super) fn folder(number: u64) -> Utf8PathBuf {
    Utf8Path::new(SNAPSHOTS).join(number.to_string())
}

/// Where a file of the host is kept.
pub(super) fn kept(number: u64, path: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{}/files{path}", folder(number)))
}

/// etcd's snapshot.
pub(super) fn etcd(number: u64) -> Utf8PathBuf {
    folder(number).join("etcd.db")
}

fn list(number: u64) -> Utf8PathBuf {
    folder(number).join("snapshot.json")
}

/// What the snapshot holds.
pub(super) fn contents(host: &dyn Host, number: u64) -> Result<Contents, StepError> {
    let path = list(number);
    let text = host.read_text(&path)?;
    text.and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(|| StepError::State {
        what: format!("the snapshot {path} is not there or not whole"),
        hint: "without it nothing can be put back; `cofferdam upgrade history` tells what was done".to_owned(),
    })
}

pub(super) fn done(context: &Context, number: u64) -> Result<bool, StepError> {
    Ok(context.host.look(&list(number))?.is_some())
}

pub(super) fn run(context: &Context, number: u64, report: &mut Report) -> Result<(), StepError> {
    let host = context.host;
    host.make_directory(SNAPSHOTS.into(), 0o700)?;
    host.make_directory(&folder(number), 0o700)?;
    let mut paths: Vec<Utf8PathBuf> = Vec::new();
    for folder in FOLDERS {
        walk(host, folder.into(), &mut paths)?;
    }
    for file in FILES {
        if host.look(file.into())?.is_some() {
            paths.push(file.into());
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        report(Progress::Items { done: at, total: paths.len(), item: path.to_string() });
        let (Some(entry), Some(digest)) = (host.look(path)?, host.digest(path)?) else { continue };
        host.copy(path, &kept(number, path), entry.mode, Some(&digest))?;
        files.push(Copied { path: path.clone(), mode: entry.mode, digest });
    }
    report(Progress::Note { text: "a snapshot of etcd".to_owned() });
    let etcd_revision = etcd_snapshot(context, number)?;
    let contents = serde_json::to_vec_pretty(&Contents { files, etcd_revision }).unwrap_or_default();
    host.write(&list(number), &contents, 0o600)?;
    Ok(())
}

/// The files below a folder. kubeadm's own backups of earlier upgrades are left out.
fn walk(host: &dyn Host, folder: &Utf8Path, found: &mut Vec<Utf8PathBuf>) -> Result<(), StepError> {
    for name in host.list(folder)? {
        let path = folder.join(&name);
        if path == "/etc/kubernetes/tmp" {
            continue;
        }
        match host.look(&path)?.map(|entry| entry.kind) {
            Some(EntryKind::File) => found.push(path),
            Some(EntryKind::Directory) => walk(host, &path, found)?,
            _ => {}
        }
    }
    Ok(())
}

/// Saves etcd by its own client, checks what it saved, and takes it to the snapshot's folder. Gives the revision.
fn etcd_snapshot(context: &Context, number: u64) -> Result<u64, StepError> {
    let node = &context.config.node.name;
    // One that a crash left would be refused.
    context.host.remove(ETCD_PART.into())?;
    let save = etcdctl(node, &["snapshot", "save", ETCD_PART]);
    context.host.must(&context.kubectl(save.iter().map(AsRef::as_ref)))?;
    let status = etcdctl(node, &["snapshot", "status", ETCD_PART, "-w", "json"]);
    let status = context.host.must(&context.kubectl(status.iter().map(AsRef::as_ref)))?.text();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
    let revision = status["revision"].as_u64().filter(|revision| *revision > 0).ok_or_else(|| StepError::State {
        what: "etcd's snapshot cannot be read back".to_owned(),
        hint: "look at the disk and at `kubectl logs -n kube-system etcd-NODE`".to_owned(),
    })?;
    context.host.copy(ETCD_PART.into(), &etcd(number), 0o600, None)?;
    context.host.remove(ETCD_PART.into())?;
    Ok(revision)
}
