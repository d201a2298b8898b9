//! `pack.files:NAME`: the files of a pack at their places on the host, taken from the registry's store. Done when each
//! has the content and mode that the signed index says.

use bundle::index::InstallTarget;

use super::{Context, Report, StepError, blob_path, mode};
use crate::engine::event::Progress;
use crate::host::{EntryKind, HostExt};

pub(super) fn done(context: &Context, pack: &str) -> Result<bool, StepError> {
    installed(context, pack, None)
}

pub(super) fn run(context: &Context, pack: &str, report: &mut Report) -> Result<(), StepError> {
    install(context, pack, None, report)
}

/// Whether the targets of a pack are as they should be: all of them, or only those at these paths.
pub(crate) fn installed(context: &Context, pack: &str, only: Option<&[String]>) -> Result<bool, StepError> {
    let pack = context.pack(pack)?;
    for file in &pack.files {
        for target in file.install.iter().filter(|target| is_wanted(target, only)) {
            let path = target.path.as_str().into();
            let mode = mode(&target.mode)?;
            let is_there =
                if file.template {
                    // The store may not hold the pack yet.
                    context.host.look(&blob_path(&file.digest))?.is_some()
                        && context.host.holds(path, context.rendered_file(pack, file)?.as_bytes(), mode)?
                } else {
                    context.host.look(path)?.is_some_and(|entry| {
                        entry.kind == EntryKind::File && entry.size == file.size && entry.mode == mode
                    }) && context.host.digest(path)? == Some(file.digest)
                };
            if !is_there {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn is_wanted(target: &InstallTarget, only: Option<&[String]>) -> bool {
    only.is_none_or(|paths| paths.contains(&target.path))
}

/// Puts the targets of a pack at their places: all of them, or only those at these paths.
pub(crate) fn install(
    context: &Context,
    pack: &str,
    only: Option<&[String]>,
    report: &mut Report,
) -> Result<(), StepError> {
    let pack = context.pack(pack)?;
    let targets = pack.files.iter().flat_map(|file| &file.install);
    let total = targets.filter(|target| is_wanted(target, only)).count();
    let mut done = 0;
    for file in &pack.files {
        for target in file.install.iter().filter(|target| is_wanted(target, only)) {
            report(Progress::Items { done, total, item: target.path.clone() });
            let (path, mode) = (target.path.as_str().into(), mode(&target.mode)?);
            if file.template {
                let text = context.rendered_file(pack, file)?;
                context.host.ensure(path, text.as_bytes(), mode)?;
            } else {
                context.host.copy(&blob_path(&file.digest), path, mode, Some(&file.digest))?;
            }
            done += 1;
        }
    }
    Ok(())
}
