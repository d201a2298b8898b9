//! `system.write`: root and verity tree into a slot. Done when every byte in the slot hashes to the root hash, which is also
//! the proof after the copy.

use super::{Context, Report, StepError};
use crate::engine::event::Progress;
use crate::host::{Command, HostExt};
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
    for (from, to, bytes) in [(MEDIUM_ROOT, root, root_bytes), (MEDIUM_VERITY, verity, verity_bytes)] {
        report(Progress::Note { text: format!("copying {bytes} bytes to {to}") });
        let copy = [
            format!("if={from}"),
            format!("of={to}"),
            format!("count={bytes}"),
            "bs=4M".to_owned(),
            "iflag=fullblock,count_bytes".to_owned(),
            "conv=fsync".to_owned(),
            "status=none".to_owned(),
        ];
        context.must("dd", copy)?;
        // What is verified comes from the disk and not from memory.
        context.must("blockdev", ["--flushbufs", to])?;
    }
    report(Progress::Note { text: "verifying the copy".to_owned() });
    context.host.must(&verify(context, root, verity, root_hash))?;
    Ok(())
}
