//! The way back: files of the snapshot at their places, and etcd's data where the schema moved.

use camino::Utf8Path;

use super::migration;
use super::snapshot::{self, Copied};
use crate::engine::event::Progress;
use crate::host::{Command, HostExt};
use crate::step::{Context, Report, StepError};

const MANIFESTS: &str = "/etc/kubernetes/manifests";
const ETCD: &str = "/var/lib/etcd";

fn is_under(path: &Utf8Path, prefixes: &[String]) -> bool {
    prefixes.iter().any(|prefix| path == prefix.as_str() || path.as_str().starts_with(&format!("{prefix}/")))
}

pub(super) fn restored(context: &Context, number: u64, under: &[String]) -> Result<bool, StepError> {
    for file in snapshot::contents(context.host, number)?.files.iter().filter(|file| is_under(&file.path, under)) {
        let entry = context.host.look(&file.path)?;
        if entry.is_none_or(|entry| entry.mode != file.mode) || context.host.digest(&file.path)? != Some(file.digest) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn run(context: &Context, number: u64, under: &[String], report: &mut Report) -> Result<(), StepError> {
    let mut restart = std::collections::BTreeSet::new();
    for file in snapshot::contents(context.host, number)?.files.iter().filter(|file| is_under(&file.path, under)) {
        let entry = context.host.look(&file.path)?;
        if entry.is_some_and(|entry| entry.mode == file.mode) && context.host.digest(&file.path)? == Some(file.digest) {
            continue;
        }
        report(Progress::Note { text: file.path.to_string() });
        context.host.copy(&snapshot::kept(number, &file.path), &file.path, file.mode, Some(&file.digest))?;
        restart.extend(reader_of(&file.path));
    }
    if !restart.is_empty() {
        context.must("systemctl", ["daemon-reload"])?;
    }
    for unit in restart {
        context.must("systemctl", ["restart", unit])?;
    }
    Ok(())
}

/// The static pods of the snapshot whose files are gone or empty. kubeadm's upgrade moves the old file away, renames the new one
/// into its place and syncs neither.
fn lost_static_pods(context: &Context, number: u64) -> Result<Vec<Copied>, StepError> {
    if !snapshot::done(context, number)? {
        return Ok(Vec::new());
    }
    let files = snapshot::contents(context.host, number)?.files;
    let mut lost = Vec::new();
    for file in files.into_iter().filter(|file| file.path.starts_with(MANIFESTS)) {
        if context.host.look(&file.path)?.is_none_or(|entry| entry.size == 0) {
            lost.push(file);
        }
    }
    Ok(lost)
}

pub(super) fn static_pods_are_whole(context: &Context, number: u64) -> Result<bool, StepError> {
    Ok(lost_static_pods(context, number)?.is_empty())
}

pub(super) fn mend_static_pods(context: &Context, number: u64, report: &mut Report) -> Result<(), StepError> {
    for file in lost_static_pods(context, number)? {
        report(Progress::Note { text: file.path.to_string() });
        context.host.copy(&snapshot::kept(number, &file.path), &file.path, file.mode, Some(&file.digest))?;
    }
    Ok(())
}

/// The service that reads a file only when it starts.
fn reader_of(path: &Utf8Path) -> Option<&'static str> {
    let path = path.as_str();
    if path == "/etc/containerd/config.toml" || path.ends_with("/containerd.service") {
        Some("containerd.service")
    } else if path.starts_with("/var/lib/kubelet/") || path.contains("/kubelet.service") {
        Some("kubelet.service")
    } else {
        None
    }
}

/// Written into etcd's folder with the data that was put back.
fn marker(number: u64) -> String {
    format!("{ETCD}/cofferdam-restored-{number}")
}

/// Nothing is to be put back when none of the migrations ran that need it, and it is put back once only: a second time
/// would take away what was written since.
pub(super) fn etcd_restored(context: &Context, number: u64, only_after: &[String]) -> Result<bool, StepError> {
    if context.host.look(marker(number).as_str().into())?.is_some() {
        return Ok(true);
    }
    for name in only_after {
        if migration::began(context.host, number, name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Stops etcd and the API server by taking their manifests away, restores beside the data, swaps by two renames. The
/// manifests come back with the files of the snapshot.
pub(super) fn etcd(context: &Context, number: u64, image: &str, report: &mut Report) -> Result<(), StepError> {
    let (node, address) = (&context.config.node.name, context.config.node.address);
    for name in ["kube-apiserver", "etcd"] {
        context.host.remove(&Utf8Path::new(MANIFESTS).join(format!("{name}.yaml")))?;
    }
    context.wait("etcd does not stop", report, |context| {
        let tasks = context
            .must("ctr", ["-n", "k8s.io", "containers", "list", "labels.\"io.kubernetes.container.name\"==etcd"]);
        let containers = tasks?.text();
        let running = context.must("ctr", ["-n", "k8s.io", "tasks", "list"])?.text();
        let alive = containers
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .any(|id| running.lines().any(|line| line.starts_with(id) && line.contains("RUNNING")));
        Ok(if alive { Err("it is still running".to_owned()) } else { Ok(()) })
    })?;
    report(Progress::Note { text: "restoring etcd".to_owned() });
    let part = format!("{ETCD}/cofferdam-part");
    context.must("rm", ["-rf", "--one-file-system", &part])?;
    let db = format!("{ETCD}/cofferdam-snapshot.db");
    context.host.copy(&snapshot::etcd(number), Utf8Path::new(&db), 0o600, None)?;
    let peer = format!("https://{}:2380", crate::plan::bracketed(address));
    let command = Command::new("ctr")
        .args(["-n", "k8s.io", "run", "--rm", "--mount"])
        .arg(format!("type=bind,src={ETCD},dst={ETCD},options=rbind:rw"))
        .args([image, "cofferdam-etcd-restore", "etcdctl", "snapshot", "restore", &db])
        .arg(format!("--name={node}"))
        .arg(format!("--initial-cluster={node}={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--data-dir={part}"))
        .env("ETCDCTL_API", "3")
        .limit(context.limit());
    // What an attempt that was killed left behind.
    let _ = context.host.run(
        &Command::new("ctr").args(["-n", "k8s.io", "containers", "delete", "cofferdam-etcd-restore"]),
        &mut |_| {},
    )?;
    context.host.must(&command)?;
    context.must("rm", ["-rf", "--one-file-system", &format!("{ETCD}/cofferdam-failed")])?;
    if context.host.look(Utf8Path::new(ETCD).join("member").as_path())?.is_some() {
        context.must("mv", [format!("{ETCD}/member"), format!("{ETCD}/cofferdam-failed")])?;
    }
    context.must("mv", [format!("{part}/member"), format!("{ETCD}/member")])?;
    context.must("sync", ["--file-system", ETCD])?;
    context.host.write(marker(number).as_str().into(), b"", 0o600)?;
    context.host.remove(Utf8Path::new(&db))?;
    Ok(())
}
