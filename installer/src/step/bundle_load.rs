//! `bundle.verify` and `bundle.load`: the two passes over the bundle. The first keeps nothing and comes before a disk is
//! erased; the second streams into the registry's store. Both read the file from stdin as a user without privileges:
//! what came from outside is parsed with none. The first is done when the store's folder is there, since what it
//! protects from has happened then; the second when the store has published this very index. A load that was killed goes
//! on where it stopped.

use camino::Utf8Path;
use serde_json::Value;

use super::{Context, Report, StepError};
use crate::engine::event::Progress;
use crate::host::{Command, Heard, HostError};
use crate::layout;

pub(super) fn verified(context: &Context) -> Result<bool, StepError> {
    Ok(context.host.look(layout::STORE.into())?.is_some())
}

pub(super) fn verify(context: &Context, path: &Utf8Path, bytes: u64, report: &mut Report) -> Result<(), StepError> {
    read(context, ("nobody", "nogroup"), &["verify", "-"], path, bytes, report)
}

pub(super) fn done(context: &Context) -> Result<bool, StepError> {
    let name = format!("{}-{}.json", context.index.name, context.index.version);
    let published = context.host.digest(&Utf8Path::new(layout::STORE).join("bundles").join(name))?;
    Ok(published.is_some_and(|digest| digest.to_string() == context.plan.index))
}

pub(super) fn run(context: &Context, path: &Utf8Path, bytes: u64, report: &mut Report) -> Result<(), StepError> {
    let user = layout::REGISTRY_USER;
    read(context, (user, user), &["load", "-", "--store", layout::STORE], path, bytes, report)
}

/// Runs `cofferdam bundle …` as this user and group, and makes sure that it read the bundle that the plan was made for.
fn read(
    context: &Context,
    (user, group): (&str, &str),
    what: &[&str],
    path: &Utf8Path,
    bytes: u64,
    report: &mut Report,
) -> Result<(), StepError> {
    let mut command = Command::new("setpriv")
        .args([format!("--reuid={user}"), format!("--regid={group}")])
        .args(["--clear-groups", "--no-new-privs", "--bounding-set=-all", layout::PROGRAM, "bundle"])
        .args(what.iter().copied())
        .args(["--json", "--progress", "json"]);
    for key in context.host.list(layout::TRUST.into())? {
        command = command.args(["--trust".to_owned(), format!("{}/{key}", layout::TRUST)]);
    }
    command = command.limit(context.limit());
    let mut refused = String::new();
    let output = context.host.run_from_medium(&command, &context.medium(path), &mut |heard| match heard {
        Heard::Medium(text) => report(Progress::Medium { text: text.to_owned() }),
        Heard::Bytes(_) => {}
        Heard::Line(line) => match serde_json::from_str::<Value>(line) {
            Ok(value) => {
                if let Some(done) = value["done"].as_u64() {
                    let blobs = serde_json::from_value(value["blobs"].clone()).ok();
                    report(Progress::Bytes { done, total: value["total"].as_u64().unwrap_or(bytes), blobs });
                }
            }
            Err(_) if line.starts_with("error:") => line.clone_into(&mut refused),
            Err(_) => {}
        },
    })?;
    match output.status {
        0 => {}
        4 => return Err(StepError::Bundle { reason: refused.trim_start_matches("error:").trim().to_owned() }),
        status => return Err(HostError::Failed { command: command.to_string(), status, last: output.stderr }.into()),
    }
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if found["index"] == context.plan.index.as_str() {
        return Ok(());
    }
    Err(StepError::Bundle {
        reason: format!(
            "{path} is now another bundle than the one that the plan was made for ({})",
            context.plan.index
        ),
    })
}
