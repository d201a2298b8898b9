//! The boot medium as the live system sees it: mounted read-only, and checked before anything is taken from it.

use std::time::Duration;

use bundle::keys::TrustedKeys;
use camino::{Utf8Path, Utf8PathBuf};
use iso::appliance::manifest::{SYSTEM, SYSTEM_SIGNATURE, SystemManifest};

use super::{LiveError, argument};
use crate::engine::Stop;
use crate::host::{Command, Host, HostExt, Medium};
use crate::plan::{BootFile, SystemImage};

/// Where the medium's ISO 9660 volume is mounted.
pub const MOUNT: &str = "/run/cofferdam/medium";
/// Keys whose signature counts, part of the verified root.
pub const KEYS: &str = "/usr/share/cofferdam/trust";
/// A virtual disc of a management controller may stall for minutes.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_secs(4);
const READ_LIMIT: Duration = Duration::from_mins(2);

fn bad(why: impl Into<String>) -> LiveError {
    LiveError::Medium { why: why.into() }
}

/// Mounts the medium that this system was booted from. A medium that does not answer is tried again for two minutes;
/// `say` hears of each attempt.
pub fn mount(host: &dyn Host, say: &mut dyn FnMut(&str)) -> Result<(), LiveError> {
    let is_mounted = Command::new("findmnt").args(["--noheadings", "--mountpoint", MOUNT]);
    if host.run(&is_mounted, &mut |_| {})?.success() {
        return Ok(());
    }
    host.make_directory(MOUNT.into(), 0o755)?;
    let mut last = String::new();
    for attempt in 1..=ATTEMPTS {
        match device(host) {
            Ok(device) => {
                let command =
                    Command::new("mount").args(["-t", "iso9660", "-o", "ro,nodev,nosuid,noexec", &device, MOUNT]);
                let output = host.run(&command.limit(READ_LIMIT), &mut |_| {});
                match output {
                    Ok(output) if output.success() => return Ok(()),
                    Ok(output) => last = format!("{device}: {}", output.stderr.trim()),
                    Err(error) => last = error.to_string(),
                }
            }
            Err(error) => last = error.to_string(),
        }
        say(&format!("the medium does not answer (attempt {attempt} of {ATTEMPTS}): {last}"));
        host.pause(PAUSE);
    }
    Err(bad(format!("it does not answer: {last}")))
}

/// The device with the medium's volume: the disc itself, or the first partition of the stick that the root lies on.
fn device(host: &dyn Host) -> Result<String, LiveError> {
    let root = Command::new("readlink").args(["-f", "/dev/disk/by-partlabel/cofferdam-medium-root"]);
    let partition = host.must(&root)?.text();
    let parent = Command::new("lsblk").args(["--nodeps", "--noheadings", "--output", "PKNAME", &partition]);
    let parent = host.must(&parent)?.text();
    if parent.is_empty() {
        return Err(bad(format!("{partition} belongs to no disk")));
    }
    if !parent.starts_with("loop") {
        return Ok(crate::layout::partition(&format!("/dev/{parent}"), 1));
    }
    let backing = Utf8PathBuf::from(format!("/sys/class/block/{parent}/loop/backing_file"));
    let text = host.read_text(&backing)?.map(|text| text.to_string()).unwrap_or_default();
    disc(&text).ok_or_else(|| bad(format!("{parent} has no disc behind it")))
}

/// The device behind a loop device. Its path is told as the initrd saw it, which may be `/sr0`: only the name counts.
fn disc(backing_file: &str) -> Option<String> {
    Utf8Path::new(backing_file.trim()).file_name().map(|name| format!("/dev/{name}"))
}

/// The system of the mounted medium, after its manifest's signature was checked with the keys of the running root and the
/// running root is the one that it names. `say` hears when the medium is waited for.
pub fn verified(host: &dyn Host, say: &mut dyn FnMut(&str)) -> Result<SystemImage, LiveError> {
    let folder = Utf8Path::new(MOUNT).join(iso::manifest::FOLDER);
    let mut read = |name: &str| -> Result<Vec<u8>, LiveError> {
        let bytes = host.read_from_medium(&Medium::new(folder.join(name), &Stop::default()), say)?;
        bytes.map(|bytes| bytes.to_vec()).ok_or_else(|| bad(format!("it has no {}/{name}", iso::manifest::FOLDER)))
    };
    let mut trust = TrustedKeys::default();
    for name in host.list(KEYS.into())? {
        let text = host.read_text(&Utf8Path::new(KEYS).join(&name))?.map(|text| text.to_string()).unwrap_or_default();
        trust.add(&text).map_err(|why| bad(format!("{KEYS}/{name}: {why}")))?;
    }
    let (system, _) = SystemManifest::verify(&read(SYSTEM)?, &read(SYSTEM_SIGNATURE)?, &trust)
        .map_err(|why| bad(format!("its {SYSTEM} is not trusted: {why}")))?;
    let running = argument(host, "roothash")?.unwrap_or_default();
    if running != system.root_hash {
        return Err(bad(format!("it describes the root {}, but {running} runs", system.root_hash)));
    }
    let image = system.image();
    // What is only for the medium stays on it. The loader comes last: a disk without it does not boot.
    let mut boot: Vec<BootFile> = system
        .boot
        .iter()
        .filter(|(place, _)| !place.starts_with("loader/addons/"))
        .map(|(place, file)| BootFile {
            from: place.clone(),
            to: if *place == image { counted(place) } else { place.clone() },
            digest: file.digest,
        })
        .collect();
    boot.sort_by_key(|file| file.from.ends_with("BOOTX64.EFI"));
    Ok(SystemImage {
        version: system.version,
        root_hash: system.root_hash,
        root_bytes: system.root.size,
        verity_bytes: system.verity.size,
        boot,
    })
}

/// A name with three attempts left (systemd-boot's automatic boot assessment).
fn counted(image: &str) -> String {
    image.strip_suffix(".efi").map_or_else(|| image.to_owned(), |name| format!("{name}+3.efi"))
}

#[cfg(test)]
mod tests {
    use super::{counted, disc};

    #[test]
    fn a_disc_is_found_by_its_name() {
        assert_eq!(disc("/dev/sr0\n").as_deref(), Some("/dev/sr0"));
        assert_eq!(disc("/sr0\n").as_deref(), Some("/dev/sr0"));
        assert_eq!(disc("\n"), None);
    }

    #[test]
    fn an_installed_image_has_three_attempts() {
        assert_eq!(counted("EFI/Linux/cofferdam_1.2.efi"), "EFI/Linux/cofferdam_1.2+3.efi");
    }
}
