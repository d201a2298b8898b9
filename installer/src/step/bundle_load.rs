//! `bundle.load`: streams the bundle into the registry's store, as the registry's user: the one step that parses what
//! came from outside runs without privileges. Done when the store has published this very index. A load that was killed
//! goes on where it stopped.

use camino::Utf8Path;
use serde_json::Value;

use super::{Context, Report, StepError};
use crate::engine::event::Progress;
use crate::host::Command;
use crate::layout;

pub(super) fn done(context: &Context) -> Result<bool, StepError> {
    let name = format!("{}-{}.json", context.index.name, context.index.version);
    let published = context.host.digest(&Utf8Path::new(layout::STORE).join("bundles").join(name))?;
    Ok(published.is_some_and(|digest| digest.to_string() == context.plan.index))
}

pub(super) fn run(context: &Context, path: &Utf8Path, bytes: u64, report: &mut Report) -> Result<(), StepError> {
    let mut command = Command::new("setpriv")
        .arg(format!("--reuid={}", layout::REGISTRY_USER))
        .arg(format!("--regid={}", layout::REGISTRY_USER))
        .args(["--clear-groups", "--no-new-privs", "--bounding-set=-all"])
        .args([layout::PROGRAM, "bundle", "load", "-", "--progress", "json", "--store", layout::STORE]);
    for key in context.host.list(layout::TRUST.into())? {
        command = command.args(["--trust".to_owned(), format!("{}/{key}", layout::TRUST)]);
    }
    command = command.stdin_file(path).limit(context.limit());
    let mut refused = String::new();
    let output = context.host.run(&command, &mut |line| match serde_json::from_str::<Value>(line) {
        Ok(value) => {
            if let Some(done) = value["done"].as_u64() {
                let blobs = serde_json::from_value(value["blobs"].clone()).ok();
                report(Progress::Bytes { done, total: value["total"].as_u64().unwrap_or(bytes), blobs });
            }
        }
        Err(_) if line.starts_with("error:") => line.clone_into(&mut refused),
        Err(_) => {}
    })?;
    match output.status {
        0 => Ok(()),
        4 => Err(StepError::Bundle { reason: refused.trim_start_matches("error:").trim().to_owned() }),
        status => {
            Err(crate::host::HostError::Failed { command: command.to_string(), status, last: output.stderr }.into())
        }
    }
}
