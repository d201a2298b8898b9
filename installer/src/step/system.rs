//! `system.write`: root and verity tree into a slot. Done when every byte in the slot hashes to the root hash, which is also
//! the proof after the copy.

use super::{Context, Report, StepError};
use crate::engine::event::Progress;
use crate::host::{Command, Heard, HostError, HostExt};
use crate::plan::Action;

const MEDIUM_ROOT: &str = "/dev/disk/by-partlabel/cofferdam-medium-root";
const MEDIUM_VERITY: &str = "/dev/disk/by-partlabel/cofferdam-medium-verity";

pub(super) fn done(context: &Context, root: &str, verity: &str, hash: &str) -> Result<bool, StepError> {
    if !context.is_live()? {
        return Ok(true);
    }
    Ok(context.host.run(&verify(context, root, verity, hash), &mut |_| {})?.success())
}

fn verify(context: &Context, root: &str, verity: &str, hash: &str) -> Command {
    Command::new("veritysetup").args(["verify", root, verity, hash]).limit(context.limit())
}

pub(super) fn run(context: &Context, report: &mut Report) -> Result<(), StepError> {
    let Action::WriteSystem { root, verity, root_bytes, verity_bytes, root_hash } = &context.step.action else {
        return Ok(());
    };
    let total = root_bytes + verity_bytes;
    for (from, to, bytes, before) in
        [(MEDIUM_ROOT, root, *root_bytes, 0), (MEDIUM_VERITY, verity, *verity_bytes, *root_bytes)]
    {
        report(Progress::Note { text: format!("copying {bytes} bytes to {to}") });
        let target = format!("of={to}");
        let copy = Command::new("dd")
            .args([target.as_str(), "bs=4M", "iflag=fullblock", "conv=fsync", "status=none"])
            .limit(context.limit());
        let medium = context.medium(from).first(bytes);
        let output = context.host.run_from_medium(&copy, &medium, &mut |heard| match heard {
            Heard::Bytes(done) => report(Progress::Bytes { done: before + done, total, blobs: None }),
            Heard::Medium(text) => report(Progress::Medium { text: text.to_owned() }),
            Heard::Line(_) => {}
        })?;
        if !output.success() {
            let (command, status) = (copy.to_string(), output.status);
            return Err(HostError::Failed { command, status, last: output.stderr }.into());
        }
        // What is verified comes from the disk and not from memory.
        context.must("blockdev", ["--flushbufs", to])?;
    }
    report(Progress::Note { text: "verifying the copy".to_owned() });
    context.host.must(&verify(context, root, verity, root_hash))?;
    Ok(())
}
