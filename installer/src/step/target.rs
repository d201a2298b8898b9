//! `target.mount`: in the live system, the data volume of the disk that is being installed. Done when `/var/lib/cofferdam` is
//! the volume's: from then on journal, plan, escrow and registry lie where the installed system finds them.

use camino::{Utf8Path, Utf8PathBuf};

use super::{Context, StepError};
use crate::host::{Command, HostExt};
use crate::layout;

pub(super) fn done(context: &Context) -> Result<bool, StepError> {
    Ok(!context.is_live()? || is_mounted(context, layout::HOME)?)
}

pub(super) fn run(context: &Context, device: &str) -> Result<(), StepError> {
    mount(context, device)?;
    let target_home = home();
    context.host.make_directory(&target_home, 0o755)?;
    for (from, to) in files(context)? {
        if let Some(content) = context.host.read(&from)? {
            let mode = context.host.look(&from)?.map_or(0o600, |entry| entry.mode);
            if to.as_str().ends_with("journal.jsonl") {
                // The journal of an interrupted run is kept.
                context.host.append(&to, &content)?;
            } else {
                context.host.write(&to, &content, mode)?;
            }
        }
    }
    context.must("mount", ["--bind", target_home.as_str(), layout::HOME])?;
    Ok(())
}

/// `/var/lib/cofferdam` of the disk: the volume is its /var.
fn home() -> Utf8PathBuf {
    Utf8Path::new(layout::TARGET).join("lib/cofferdam")
}

/// What the live system has so far, and where it goes.
fn files(context: &Context) -> Result<Vec<(Utf8PathBuf, Utf8PathBuf)>, StepError> {
    let mut names = vec!["config.yaml".to_owned(), "plan.json".to_owned(), "journal.jsonl".to_owned()];
    for folder in [layout::TRUST, layout::ESCROW] {
        let short = folder.rsplit('/').next().unwrap_or_default();
        names.extend(context.host.list(folder.into())?.into_iter().map(|name| format!("{short}/{name}")));
    }
    let place = |name: &String| (Utf8Path::new(layout::HOME).join(name), home().join(name));
    Ok(names.iter().map(place).collect())
}

/// Mounts the volume at [`layout::TARGET`], opening it with the TPM if it is not open.
pub(super) fn mount(context: &Context, device: &str) -> Result<(), StepError> {
    if is_mounted(context, layout::TARGET)? {
        return Ok(());
    }
    let mapped = format!("/dev/mapper/{}", layout::VOLUME);
    if context.host.look(Utf8Path::new(&mapped))?.is_none() {
        context.must(
            super::disk::SYSTEMD_CRYPTSETUP,
            ["attach", layout::VOLUME, device, "-", "tpm2-device=auto,headless=1"],
        )?;
    }
    context.host.make_directory(layout::TARGET.into(), 0o755)?;
    context.must("mount", ["-t", "ext4", "-o", "nodev,nosuid", &mapped, layout::TARGET])?;
    Ok(())
}

/// Whether the mounted volume is that of an interrupted run of this plan: its escrow is there, its
/// bundle is the same, and no site was finished on it.
pub(super) fn is_interrupted(context: &Context) -> Result<bool, StepError> {
    let has = |name: &str| Ok::<_, StepError>(context.host.look(&home().join(name))?.is_some());
    let plan = context.host.read_text(&home().join("plan.json"))?;
    let plan: serde_json::Value = plan.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let has_escrow = !super::disk::is_escrowed(context) || has("escrow/disk.age")?;
    Ok(has_escrow && !has("state.json")? && plan["index"] == context.plan.index.as_str())
}

/// Unmounts and closes what an earlier attempt left open.
pub(super) fn release(context: &Context) -> Result<(), StepError> {
    for place in [layout::HOME, layout::TARGET] {
        if is_mounted(context, place)? {
            context.must("umount", [place])?;
        }
    }
    if context.host.look(&Utf8Path::new("/dev/mapper").join(layout::VOLUME))?.is_some() {
        context.must("cryptsetup", ["close", layout::VOLUME])?;
    }
    Ok(())
}

fn is_mounted(context: &Context, path: &str) -> Result<bool, StepError> {
    Ok(context.host.run(&Command::new("findmnt").args(["--noheadings", "--mountpoint", path]), &mut |_| {})?.success())
}
