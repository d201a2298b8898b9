//! The other slot of an appliance: written, put into the boot menu, started; or taken out again. What tells how far it came
//! is the disk itself: the slot's bytes and GUIDs, the names of the images on the boot partition, and which root runs.

use bundle::oci::Digest;
use camino::Utf8Path;
use serde_json::Value;

use crate::engine::event::Progress;
use crate::engine::journal::{Journal, Outcome, Record};
use crate::host::{Command, HostExt};
use crate::plan;
use crate::step::{Context, Report, StepError, at_boot, blob_path};
use crate::upgrade::slots::{Entry, Partition, others};
use crate::upgrade::transaction::Transaction;
use crate::upgrade::{Action, CURRENT, PREVIOUS};

const IMAGES: &str = "EFI/Linux";
const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
/// How often the loader starts a new system that does not come up (systemd-boot(7), automatic boot assessment).
const ATTEMPTS: u32 = 3;
/// How often a machine is restarted into a system before a person has to look; power cuts on the way count too.
const RESTARTS: usize = 10;

pub(super) fn runs(context: &Context, root_hash: &str) -> Result<bool, StepError> {
    Ok(crate::live::root(context.host)?.as_deref() == Some(root_hash))
}

fn verify(context: &Context, root: &Partition, verity: &Partition, root_hash: &str) -> Command {
    Command::new("veritysetup").args(["verify", &root.device, &verity.device, root_hash]).limit(context.limit())
}

fn ids(root_hash: &str) -> Result<(String, String), StepError> {
    plan::root_ids(root_hash).ok_or_else(|| StepError::State {
        what: format!("{root_hash:?} is no root hash"),
        hint: "the bundle needs mending".to_owned(),
    })
}

/// The GUID of a partition as the table has it.
fn id_of(table: &Value, partition: &Partition) -> String {
    let found = &table["partitiontable"]["partitions"][partition.number as usize - 1]["uuid"];
    found.as_str().unwrap_or_default().to_ascii_lowercase()
}

pub(super) fn written(
    context: &Context,
    disk: &str,
    root: &Partition,
    verity: &Partition,
    root_hash: &str,
) -> Result<bool, StepError> {
    if runs(context, root_hash)? {
        return Ok(true);
    }
    let table = context.must("sfdisk", ["--json", disk])?;
    let table: Value = serde_json::from_str(&table.text()).unwrap_or_default();
    let (root_id, verity_id) = ids(root_hash)?;
    Ok(id_of(&table, root) == root_id
        && id_of(&table, verity) == verity_id
        && context.host.run(&verify(context, root, verity, root_hash), &mut |_| {})?.success())
}

pub(super) fn write(context: &Context, action: &Action, report: &mut Report) -> Result<(), StepError> {
    let Action::WriteSlot {
        disk,
        boot,
        running,
        root,
        root_blob,
        root_bytes,
        verity,
        verity_blob,
        verity_bytes,
        root_hash,
    } = action
    else {
        return Ok(());
    };
    // What is in the slot now would not come up any more, and nothing leads back to it.
    forget_undo(context)?;
    at_boot(context, boot, |folder| remove_others(context, folder, &[running]))?;
    for (blob, bytes, partition) in [(root_blob, root_bytes, root), (verity_blob, verity_bytes, verity)] {
        report(Progress::Note { text: format!("writing {bytes} bytes to {}", partition.device) });
        let copy = [
            format!("if={}", blob_path(blob)),
            format!("of={}", partition.device),
            "bs=4M".to_owned(),
            "conv=fsync".to_owned(),
            "status=none".to_owned(),
        ];
        context.must("dd", copy)?;
        // What is verified comes from the disk and not from memory.
        context.must("blockdev", ["--flushbufs", &partition.device])?;
    }
    report(Progress::Note { text: "verifying the slot".to_owned() });
    context.host.must(&verify(context, root, verity, root_hash))?;
    let (root_id, verity_id) = ids(root_hash)?;
    for (partition, id) in [(root, root_id), (verity, verity_id)] {
        // The disk is in use, and the partitions stay where they are: the kernel need not read the table again.
        let number = partition.number.to_string();
        context.must("sfdisk", ["--quiet", "--no-reread", "--no-tell-kernel", "--part-uuid", disk, &number, &id])?;
    }
    Ok(())
}

/// The last upgrade cannot be undone any more when that would restart into the slot.
fn forget_undo(context: &Context) -> Result<(), StepError> {
    let Some(last) = Transaction::read(context.host, PREVIOUS)? else { return Ok(()) };
    let switches =
        |step: &plan::Step| matches!(&step.action, plan::Action::Upgrade { what: Action::SwitchSystem { .. } });
    if last.back.steps.iter().any(switches) {
        context.host.remove(PREVIOUS.into())?;
    }
    Ok(())
}

/// The entries of the boot menu that are of none of these versions go.
fn remove_others(context: &Context, folder: &Utf8Path, kept: &[&str]) -> Result<(), StepError> {
    let names = context.host.list(&folder.join(IMAGES))?;
    for name in others(&names, kept) {
        context.host.remove(&folder.join(IMAGES).join(name))?;
    }
    Ok(())
}

pub(super) fn add(context: &Context, boot: &str, version: &str, image: &Digest) -> Result<(), StepError> {
    at_boot(context, boot, |folder| {
        let images = folder.join(IMAGES);
        let names = context.host.list(&images)?;
        let is_it = |name: &&String| Entry::parse(name).is_some_and(|entry| entry.version == version);
        for name in names.iter().filter(is_it) {
            // One that is there keeps its count: it may have had its attempts.
            if context.host.digest(&images.join(name))? == Some(*image) {
                return Ok(());
            }
            context.host.remove(&images.join(name))?;
        }
        let fresh = images.join(format!("cofferdam_{version}+{ATTEMPTS}.efi"));
        context.host.copy(&blob_path(image), &fresh, 0o600, Some(image))?;
        Ok(())
    })
}

pub(super) fn update_loader(context: &Context, boot: &str, loader: &Digest) -> Result<(), StepError> {
    at_boot(context, boot, |folder| {
        let place = folder.join(LOADER);
        if context.host.digest(&place)? != Some(*loader) {
            context.host.copy(&blob_path(loader), &place, 0o600, Some(loader))?;
        }
        Ok(())
    })
}

pub(super) fn retire(context: &Context, boot: &str, version: &str) -> Result<(), StepError> {
    at_boot(context, boot, |folder| {
        let images = folder.join(IMAGES);
        for name in context.host.list(&images)? {
            if Entry::parse(&name).is_some_and(|entry| entry.version == version) {
                context.host.remove(&images.join(name))?;
            }
        }
        Ok(())
    })
}

/// Restarts, unless the boot menu says that the system has had its attempts: then it is not the one that runs.
pub(super) fn switch(context: &Context, boot: &str, version: &str) -> Result<(), StepError> {
    let entry = at_boot(context, boot, |folder| {
        let names = context.host.list(&folder.join(IMAGES))?;
        Ok(names.iter().filter_map(|name| Entry::parse(name)).find(|entry| entry.version == version))
    })?;
    match entry {
        None => Err(StepError::State {
            what: format!("the boot menu has no system {version}"),
            hint: "look at EFI/Linux on the boot partition".to_owned(),
        }),
        Some(Entry { left: Some(0), .. }) => Err(StepError::State {
            what: format!("system {version} was started {ATTEMPTS} times and did not come up"),
            hint: "`journalctl --list-boots` and the console's log tell how far it came".to_owned(),
        }),
        Some(_) if restarts(context)? > RESTARTS => Err(StepError::State {
            what: format!("this machine was restarted {RESTARTS} times, and another system than {version} came up"),
            hint: format!("restart it and choose {version} in the boot menu, then `cofferdam resume`"),
        }),
        Some(_) => crate::step::restart(context),
    }
}

/// How often this step was begun in the upgrade that is going on, this time included: each ended with a restart.
fn restarts(context: &Context) -> Result<usize, StepError> {
    let Some(transaction) = Transaction::read(context.host, CURRENT)? else { return Ok(0) };
    let records = Journal::new(context.host).records()?;
    let is_one = |record: &&Record| {
        record.step == context.step.id && record.result == Outcome::Started && record.time >= transaction.begun
    };
    Ok(records.iter().filter(is_one).count())
}
