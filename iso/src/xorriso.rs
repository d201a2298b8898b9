//! The one place that runs xorriso, the tool that writes ISO images. Called by [`crate::medium`].

use std::io;
use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};

use crate::Error;

/// All dates in an image are this one, 1 January 2020: an image says what is inside, not when someone made it.
const DATE: &str = "2020010100000000";
/// The same in seconds since 1970.
const EPOCH: &str = "1577836800";

/// One file of the image and where its bytes come from.
pub(crate) struct Graft {
    /// Path in the image, `/` first.
    pub(crate) to: String,
    /// A file.
    pub(crate) from: Utf8PathBuf,
}

/// What makes an image boot, by UEFI; a BIOS is told so.
pub(crate) struct Boot<'a> {
    /// GUID of the partition table; those of the partitions are derived from it.
    pub(crate) disk: &'a str,
    /// Code of the master boot record.
    pub(crate) record: &'a Utf8Path,
    /// The same for an optical disc: a file of the image, without a slash in front.
    pub(crate) bios: &'a str,
    /// Boot partition, root, verity tree: paths or interval readers.
    pub(crate) partitions: &'a [String; 3],
}

/// Writes an image: ISO 9660 level 3 (files over 4 GiB in several extents) with Rock Ridge (names as they are).
/// The same files and label give the same bytes.
pub(crate) fn write(output: &Utf8Path, label: &str, grafts: &[Graft], boot: Option<&Boot>) -> Result<(), Error> {
    let mut command = Command::new("xorriso");
    // Without this it would read a configuration of the user.
    command.arg("-no_rc").args(["-as", "mkisofs", "-quiet"]);
    // -r: the owner is root. The sources' modes do not count. No padding, so that the volume's size is the file's.
    command.args(["-r", "-file-mode", "0444", "-dir-mode", "0555"]);
    command.args(["-iso-level", "3", "-no-pad", "-V", label, "-A", "COFFERDAM", "-volset", label]);
    command.arg(format!("--modification-date={DATE}")).args(["--set_all_file_dates", DATE]);
    if let Some(boot) = boot {
        let [esp, root, verity] = boot.partitions;
        // Type of the boot partition by its MBR number; the others are "Linux filesystem data", which nothing mounts by itself.
        let data = "0fc63daf-8483-4772-8e79-3d69d8477de4";
        command.args(["-partition_offset", "16", "--protective-msdos-label", "-G", boot.record.as_str()]);
        command.args(["--gpt_disk_guid", boot.disk, "-append_partition", "2", "0xef", esp]);
        command.args([
            "-append_partition",
            "3",
            data,
            root,
            "-append_partition",
            "4",
            data,
            verity,
            "-appended_part_as_gpt",
        ]);
        command.args(["-b", boot.bios, "-no-emul-boot", "-boot-load-size", "4", "-eltorito-alt-boot"]);
        command.args(["-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]);
    }
    command.args(["-o", output.as_str(), "-graft-points"]);
    command.args(grafts.iter().map(|graft| format!("{}={}", escaped(&graft.to), escaped(graft.from.as_str()))));
    let result = command
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Xorriso {
            is_missing: error.kind() == io::ErrorKind::NotFound,
            why: error.to_string(),
        })?;
    if result.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&result.stderr);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let why = last.into_iter().rev().collect::<Vec<_>>().join("; ");
    Err(Error::Xorriso { why: format!("ended with {}: {why}", result.status), is_missing: false })
}

/// In a graft point `=` parts the two paths and a backslash takes a special meaning away.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\").replace('=', "\\=")
}
