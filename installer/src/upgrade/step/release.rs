//! What makes a release: pinned keys, this program, the registry's tags, images in containerd, files, services that run
//! them, and the record. The same actions lead forward and back; only their arguments differ.

use bundle::index::PackImage;
use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};

use super::snapshot;
use crate::config::{self, InstallConfig};
use crate::engine::event::Progress;
use crate::host::{Command, HostExt};
use crate::layout;
use crate::step::{Context, Report, StepError};
use crate::upgrade::SNAPSHOTS;

const CERTS_D: &str = "/etc/containerd/certs.d";
const REGISTRY: &str = "cofferdam-registry.service";
const PINNED: &str = "io.cri-containerd.pinned=pinned";

fn key_files(keys: &[String]) -> Vec<(Utf8PathBuf, String)> {
    let name = |number: usize| Utf8Path::new(layout::TRUST).join(format!("{number}.pub"));
    let text = |key: &String| format!("untrusted comment: cofferdam trusted key\n{key}\n");
    keys.iter().enumerate().map(|(number, key)| (name(number), text(key))).collect()
}

/// The files say these keys and no others; how they say it is left as the operator gave it.
pub(super) fn pinned(context: &Context, keys: &[String]) -> Result<bool, StepError> {
    let mut present = Vec::new();
    for name in context.host.list(layout::TRUST.into())? {
        let text = context.host.read_text(&Utf8Path::new(layout::TRUST).join(name))?.unwrap_or_default();
        present.push(text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned());
    }
    Ok(present == keys)
}

pub(super) fn pin(context: &Context, keys: &[String]) -> Result<(), StepError> {
    let files = key_files(keys);
    for (path, text) in &files {
        context.host.ensure(path, text.as_bytes(), 0o644)?;
    }
    for name in context.host.list(layout::TRUST.into())? {
        let path = Utf8Path::new(layout::TRUST).join(name);
        if !files.iter().any(|(kept, _)| *kept == path) {
            context.host.remove(&path)?;
        }
    }
    Ok(())
}

pub(super) fn program_installed(context: &Context) -> Result<bool, StepError> {
    let own = context.host.digest("/proc/self/exe".into())?;
    Ok(context.host.digest(layout::PROGRAM.into())? == own && runs(context, REGISTRY, layout::PROGRAM)?)
}

pub(super) fn install_program(context: &Context) -> Result<(), StepError> {
    if context.host.digest(layout::PROGRAM.into())? != context.host.digest("/proc/self/exe".into())? {
        context.host.copy("/proc/self/exe".into(), layout::PROGRAM.into(), 0o755, None)?;
    }
    restart(context, REGISTRY, layout::PROGRAM, &mut |_| {})
}

/// Part of the running system of an appliance.
const BROUGHT: &str = "/usr/bin/cofferdam";

pub(super) fn program_adopted(context: &Context) -> Result<bool, StepError> {
    let brought = context.host.digest(BROUGHT.into())?;
    Ok(context.host.digest(layout::PROGRAM.into())? == brought && runs(context, REGISTRY, layout::PROGRAM)?)
}

pub(super) fn adopt_program(context: &Context) -> Result<(), StepError> {
    if context.host.digest(layout::PROGRAM.into())? != context.host.digest(BROUGHT.into())? {
        context.host.copy(BROUGHT.into(), layout::PROGRAM.into(), 0o755, None)?;
    }
    restart(context, REGISTRY, layout::PROGRAM, &mut |_| {})
}

pub(super) fn program_restored(context: &Context, number: u64) -> Result<bool, StepError> {
    let kept = context.host.digest(&snapshot::kept(number, layout::PROGRAM.into()))?;
    Ok(context.host.digest(layout::PROGRAM.into())? == kept && runs(context, REGISTRY, layout::PROGRAM)?)
}

pub(super) fn restore_program(context: &Context, number: u64) -> Result<(), StepError> {
    context.host.copy(&snapshot::kept(number, layout::PROGRAM.into()), layout::PROGRAM.into(), 0o755, None)?;
    restart(context, REGISTRY, layout::PROGRAM, &mut |_| {})
}

/// As the registry's user, as `bundle load` does it.
pub(super) fn activate(context: &Context, bundle: &str) -> Result<(), StepError> {
    let command = Command::new("setpriv")
        .arg(format!("--reuid={}", layout::REGISTRY_USER))
        .arg(format!("--regid={}", layout::REGISTRY_USER))
        .args(["--clear-groups", "--no-new-privs", "--bounding-set=-all"])
        .args([layout::PROGRAM, "registry", "activate", bundle, "--store", layout::STORE])
        .limit(context.limit());
    context.host.must(&command)?;
    Ok(())
}

/// Name, digest and whether it is pinned, of each image in containerd.
fn present(context: &Context) -> Result<Vec<(String, String, bool)>, StepError> {
    let output = context.must("ctr", ["-n", "k8s.io", "images", "list"])?;
    let image = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_pinned = words.last().is_some_and(|labels| labels.split(',').any(|label| label == PINNED));
        Some(((*words.first()?).to_owned(), (*words.get(2)?).to_owned(), is_pinned))
    };
    Ok(output.text().lines().skip(1).filter_map(image).collect())
}

fn is_present(present: &[(String, String, bool)], image: &PackImage) -> bool {
    let (name, digest) = (image.reference.to_string(), image.digest.to_string());
    present.iter().any(|(known, has, is_pinned)| *known == name && *has == digest && *is_pinned)
}

pub(super) fn pulled(context: &Context, images: &[PackImage]) -> Result<bool, StepError> {
    if context.host.look("/run/containerd/containerd.sock".into())?.is_none() {
        return Ok(false);
    }
    let present = present(context)?;
    Ok(images.iter().all(|image| is_present(&present, image)))
}

pub(super) fn pull(context: &Context, images: &[PackImage], report: &mut Report) -> Result<(), StepError> {
    let present = present(context)?;
    for (done, image) in images.iter().enumerate() {
        let name = image.reference.to_string();
        report(Progress::Items { done, total: images.len(), item: name.clone() });
        if is_present(&present, image) {
            continue;
        }
        context.must("ctr", ["-n", "k8s.io", "images", "pull", "--hosts-dir", CERTS_D, name.as_str()])?;
        // containerd 1.x does not sync what it unpacks; the pin says that the image is whole also after a power cut.
        context.must("sync", ["--file-system", "/var/lib/containerd"])?;
        context.must("ctr", ["-n", "k8s.io", "images", "label", name.as_str(), PINNED])?;
    }
    Ok(())
}

pub(super) fn removed(context: &Context, paths: &[String]) -> Result<bool, StepError> {
    for path in paths {
        if context.host.look(path.as_str().into())?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn remove(context: &Context, paths: &[String]) -> Result<(), StepError> {
    for path in paths {
        context.host.remove(path.as_str().into())?;
    }
    Ok(())
}

/// Whether the service is active and its main process was started from the file as it is now.
pub(super) fn runs(context: &Context, unit: &str, program: &str) -> Result<bool, StepError> {
    if !context.succeeds("systemctl", ["is-active", "--quiet", unit])? {
        return Ok(false);
    }
    let process = context.must("systemctl", ["show", "--property=MainPID", "--value", unit])?.text();
    let running: Option<Digest> = context.host.digest(format!("/proc/{process}/exe").as_str().into())?;
    Ok(running.is_some() && running == context.host.digest(program.into())?)
}

pub(super) fn restart(context: &Context, unit: &str, program: &str, report: &mut Report) -> Result<(), StepError> {
    context.must("systemctl", ["daemon-reload"])?;
    context.must("systemctl", ["restart", unit])?;
    context.wait(&format!("{unit} does not run {program}"), report, |context| {
        Ok(if runs(context, unit, program)? { Ok(()) } else { Err(format!("{unit} is starting")) })
    })
}

/// The answers that the stored configuration has are those of the plan.
pub(super) fn answers_stored(context: &Context) -> Result<bool, StepError> {
    Ok(stored(context)?.answers == context.plan.answers)
}

pub(super) fn store_answers(context: &Context) -> Result<(), StepError> {
    let config = InstallConfig { answers: context.plan.answers.clone(), ..stored(context)? };
    let text = config.to_yaml().map_err(|error| unreadable(&error))?;
    Ok(context.host.write(layout::CONFIG.into(), text.as_bytes(), 0o600)?)
}

/// The configuration as it is on the host at this moment.
fn stored(context: &Context) -> Result<InstallConfig, StepError> {
    let text = context.host.read_text(layout::CONFIG.into())?.unwrap_or_default();
    config::parse(&text).map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::fmt::Display) -> StepError {
    StepError::State {
        what: format!("{}: {error}", layout::CONFIG),
        hint: "`cofferdam config validate` checks a configuration".to_owned(),
    }
}

pub(super) fn committed(context: &Context) -> Result<bool, StepError> {
    let state = crate::step::State::read(context.host)?;
    Ok(state.is_some_and(|state| state.index == context.plan.index))
}

/// The record last: it is what says that the site is the new one.
pub(super) fn commit(context: &Context, number: u64) -> Result<(), StepError> {
    let (index, signature) = context.signed_index;
    context.host.ensure(layout::INDEX_SIGNATURE.into(), signature, 0o644)?;
    context.host.ensure(layout::INDEX.into(), index, 0o644)?;
    crate::step::record_upgrade(context)?;
    // Only this upgrade can be undone from now on.
    for name in context.host.list(SNAPSHOTS.into())? {
        if name != number.to_string() {
            context.must("rm", ["-rf", "--one-file-system", &format!("{SNAPSHOTS}/{name}")])?;
        }
    }
    Ok(())
}
