//! `boot.install` and `system.restart`: the last that the live system does. Both are done once the disk's own system runs;
//! before that they are done again, which costs seconds.

use std::time::Duration;

use camino::Utf8Path;

use super::{Context, Report, StepError};
use crate::engine::event::Progress;
use crate::host::Command;
use crate::layout;
use crate::plan::BootFile;

const MEDIUM: &str = "/run/cofferdam/medium-boot";
const MEDIUM_DEVICE: &str = "/dev/disk/by-partlabel/cofferdam-medium-boot";
const DISK: &str = "/run/cofferdam/boot";
/// Name of the firmware's boot entry.
const ENTRY: &str = "Cofferdam";
/// The loader, as the firmware writes paths on the boot partition.
const LOADER: &str = r"\EFI\BOOT\BOOTX64.EFI";
/// Where the escrow of the disk lies on the boot partition: a person needs it just when the volume does not open.
pub(crate) const ESCROW: &str = "cofferdam/escrow/disk.age";

pub(super) fn done(context: &Context) -> Result<bool, StepError> {
    Ok(!context.is_live()?)
}

pub(super) fn run(context: &Context, device: &str, files: &[BootFile], report: &mut Report) -> Result<(), StepError> {
    unmount(context)?;
    context.must("mkfs.vfat", ["-F", "32", "-n", "COFFERBOOT", device])?;
    for (source, options, place) in [(MEDIUM_DEVICE, "ro", MEDIUM), (device, "umask=0077,quiet", DISK)] {
        context.host.make_directory(place.into(), 0o700)?;
        context.must("mount", ["-t", "vfat", "-o", options, source, place])?;
    }
    if let Some(escrow) = context.host.read(&Utf8Path::new(layout::ESCROW).join("disk.age"))? {
        context.host.write(&Utf8Path::new(DISK).join(ESCROW), &escrow, 0o600)?;
    }
    for (done, file) in (1..).zip(files) {
        report(Progress::Items { done, total: files.len(), item: file.to.clone() });
        let (from, to) = (Utf8Path::new(MEDIUM).join(&file.from), Utf8Path::new(DISK).join(&file.to));
        if let Some(folder) = to.parent() {
            context.host.make_directory(folder, 0o700)?;
        }
        let say = &mut |text: &str| report(Progress::Medium { text: text.to_owned() });
        context.host.copy_from_medium(&context.medium(from), &to, 0o600, Some(&file.digest), say)?;
    }
    unmount(context)?;
    prefer(context, device, report)
}

/// Makes the disk the firmware's first choice, so that a medium which stays in its drive is not started again. A firmware
/// that keeps no entries, or has no room for one more, looks for a loader on each disk by itself: that is told, and no error.
fn prefer(context: &Context, device: &str, report: &mut Report) -> Result<(), StepError> {
    let ask = |arguments: &[&str]| {
        let command = Command::new("efibootmgr").args(arguments.iter().copied()).limit(context.limit());
        context.host.run(&command, &mut |_| {})
    };
    let list = ask(&[])?;
    if !list.success() {
        report(Progress::Note { text: format!("the firmware keeps no boot entries: {TAKE_OUT}") });
        return Ok(());
    }
    // Entries of earlier installations may lead to partitions that are gone. The order below is what counts: one that stays
    // does no harm.
    for number in list.text().lines().filter_map(own_entry) {
        ask(&["--quiet", "--bootnum", number, "--delete-bootnum"])?;
    }
    let disk = context.must("lsblk", ["--nodeps", "--noheadings", "--output", "PKNAME", device])?.text();
    let disk = format!("/dev/{}", disk.trim());
    let made = ask(&["--quiet", "--create", "--disk", &disk, "--part", "1", "--label", ENTRY, "--loader", LOADER])?;
    if !made.success() {
        let reason = made.stderr.trim();
        report(Progress::Note { text: format!("the firmware takes no boot entry ({reason}): {TAKE_OUT}") });
    }
    Ok(())
}

const TAKE_OUT: &str = "take the medium out before the restart";

/// The number in `Boot0003* Cofferdam\tHD(…)`, as efibootmgr lists its entries.
fn own_entry(line: &str) -> Option<&str> {
    let (number, name) = line.strip_prefix("Boot")?.split_at_checked(4)?;
    let name = name.trim_start_matches(['*', ' ']);
    let is_number = number.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_number && name.split('\t').next() == Some(ENTRY)).then_some(number)
}

/// Does something with the boot partition of a running appliance: `act` gets the folder where it is mounted.
pub(crate) fn at_boot<T>(
    context: &Context,
    device: &str,
    act: impl FnOnce(&Utf8Path) -> Result<T, StepError>,
) -> Result<T, StepError> {
    unmount(context)?;
    context.host.make_directory(DISK.into(), 0o700)?;
    context.must("mount", ["-t", "vfat", "-o", "umask=0077,quiet", device, DISK])?;
    let result = act(DISK.into());
    let unmounted = unmount(context);
    // What went wrong first is what is told.
    let value = result?;
    unmounted.map(|()| value)
}

fn unmount(context: &Context) -> Result<(), StepError> {
    for place in [MEDIUM, DISK] {
        let ask = Command::new("findmnt").args(["--noheadings", "--mountpoint", place]);
        if context.host.run(&ask, &mut |_| {})?.success() {
            context.must("umount", [place])?;
        }
    }
    Ok(())
}

/// Asks systemd for a restart and waits to be ended by it.
pub(crate) fn restart(context: &Context) -> Result<(), StepError> {
    context.must("sync", Vec::<String>::new())?;
    context.must("systemctl", ["--no-block", "reboot"])?;
    let mut waited = Duration::ZERO;
    while waited < context.limit() {
        context.host.pause(Duration::from_secs(1));
        waited += Duration::from_secs(1);
        // The restart ends this process too; it goes at once, so that nothing waits for it.
        if context.stop.is_requested() {
            return Err(StepError::Restarting);
        }
        // A simulated host that is off says so here.
        context.is_live()?;
    }
    Err(StepError::State {
        what: "this machine was asked to restart and did not".to_owned(),
        hint: "restart it by hand, without a medium: what was begun goes on from the disk".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::own_entry;

    #[test]
    fn our_entries_of_the_firmware() {
        let list = "BootCurrent: 0001\nTimeout: 0 seconds\nBootOrder: 0001,0000\nBoot0000* UiApp\tFvVol(7cb8)\n\
                    Boot0001* UEFI QEMU CD-ROM\tPciRoot(0x0)\nBoot000A* Cofferdam\tHD(1,GPT,aa)/File(\\EFI)\n\
                    Boot0003  Cofferdam\tHD(1,GPT,bb)\nBoot0004* Cofferdam two\tHD(1,GPT,bb)\n";
        assert_eq!(list.lines().filter_map(own_entry).collect::<Vec<_>>(), ["000A", "0003"]);
    }
}
