//! The EFI system partition of a medium: a FAT image that mtools fill, so that no mount and no privileges are needed.
//!
//! Called by [`super::compose`] and [`super::customise`].

use std::fs::{self, File};

use camino::{Utf8Path, Utf8PathBuf};

use crate::system::{ARGUMENT_AREA, System};
use crate::{Error, tool};

/// Where the boot loader is.
pub(crate) const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";
/// Where the addon for further kernel arguments is.
pub(crate) const ARGUMENTS: &str = "loader/addons/arguments.addon.efi";
/// What the arguments of that addon begin with; the kernel passes over a word with a dot that it does not know.
const MARK: &str = "cofferdam.arguments=";
const LOADER_CONFIG: &str =
    "# Written by cofferdam.\ntimeout 0\neditor no\nauto-firmware no\nsecure-boot-enroll if-safe\n";
/// Room that is left, so that a customised medium has its place.
const SLACK: u64 = 4 << 20;
const MEBIBYTE: u64 = 1 << 20;
/// FAT32 has at least 65,525 clusters.
const LEAST: u64 = 40 * MEBIBYTE;

/// The files of the partition: place and source.
pub(crate) fn files(system: &System, work: &Utf8Path) -> Result<Vec<(String, Utf8PathBuf)>, Error> {
    let config = work.join("loader.conf");
    fs::write(&config, LOADER_CONFIG).map_err(Error::io(format!("write {config}")))?;
    let mut files = vec![
        (LOADER.to_owned(), system.loader.clone()),
        (image_name(&system.version), system.image.clone()),
        ("loader/addons/live.addon.efi".to_owned(), system.live_addon.clone()),
        (ARGUMENTS.to_owned(), system.argument_addon.clone()),
        ("loader/loader.conf".to_owned(), config),
    ];
    let enrolment = system.enrolment.iter();
    files.extend(enrolment.map(|(name, source)| (format!("loader/keys/auto/{name}"), source.clone())));
    Ok(files)
}

/// Where the unified kernel image of a version is.
pub(crate) fn image_name(version: &str) -> String {
    format!("EFI/Linux/cofferdam_{version}.efi")
}

/// Makes the partition's image.
pub(crate) fn make(output: &Utf8Path, files: &[(String, Utf8PathBuf)]) -> Result<(), Error> {
    let mut bytes = SLACK;
    for (_, source) in files {
        bytes += fs::metadata(source).map_err(Error::io(format!("look at {source}")))?.len();
    }
    let file = File::create(output).map_err(Error::io(format!("create {output}")))?;
    file.set_len(((bytes / MEBIBYTE + 1) * MEBIBYTE).max(LEAST))
        .map_err(Error::io(format!("give room to {output}")))?;
    // FAT32 with a fixed serial number; mtools take all dates from SOURCE_DATE_EPOCH.
    tool::run("mformat", ["-i", output.as_str(), "-F", "-N", "c0ffe4da", "-v", "COFFERBOOT", "::"])?;
    let mut made: Vec<String> = Vec::new();
    for (place, source) in files {
        let mut folder = String::new();
        for part in place.split('/').take(place.matches('/').count()) {
            folder = if folder.is_empty() { part.to_owned() } else { format!("{folder}/{part}") };
            if !made.contains(&folder) {
                tool::run("mmd", ["-i", output.as_str(), &format!("::{folder}")])?;
                made.push(folder.clone());
            }
        }
        tool::run("mcopy", ["-i", output.as_str(), source.as_str(), &format!("::{place}")])?;
    }
    Ok(())
}

/// Copies a file out of the partition's image.
pub(crate) fn extract(image: &Utf8Path, place: &str, output: &Utf8Path) -> Result<(), Error> {
    tool::run("mcopy", ["-n", "-o", "-i", image.as_str(), &format!("::{place}"), output.as_str()]).map(drop)
}

/// The kernel arguments of a fresh medium: none, in an area of [`ARGUMENT_AREA`] bytes.
pub(crate) fn empty_area() -> String {
    area("").unwrap_or_default()
}

/// Arguments as they stand in the area; `None` when they are too long.
fn area(arguments: &str) -> Option<String> {
    let text = if arguments.is_empty() { format!("{MARK}0") } else { format!("{MARK}1 {arguments}") };
    // A word of dots at the end, since white space there would be cut off.
    let room = ARGUMENT_AREA.checked_sub(text.len())?.checked_sub(MARK.len() + 1)?;
    Some(format!("{text} {MARK}{}", ".".repeat(room)))
}

/// The arguments that an addon carries.
pub(crate) fn arguments(addon: &[u8]) -> Option<String> {
    let start = find(addon)?;
    let text = std::str::from_utf8(addon.get(start..start + ARGUMENT_AREA)?).ok()?;
    let (inside, _) = text.strip_prefix(MARK)?.rsplit_once(&format!(" {MARK}"))?;
    Some(inside.get(1..)?.trim().to_owned())
}

/// Writes other arguments into an addon.
pub(crate) fn set_arguments(addon: &mut [u8], arguments: &str) -> Result<(), Error> {
    let wrong = |why: String| Error::Options { why };
    if !arguments.chars().all(|letter| letter.is_ascii_graphic() || letter == ' ') {
        return Err(wrong(format!("{arguments:?} holds what cannot stand on a kernel's command line")));
    }
    let text = area(arguments).ok_or_else(|| {
        wrong(format!(
            "the kernel arguments are too long: {} bytes are there for them",
            ARGUMENT_AREA - 2 * MARK.len() - 4
        ))
    })?;
    let start = find(addon).ok_or_else(|| wrong("this medium has no room for kernel arguments".to_owned()))?;
    if let Some(place) = addon.get_mut(start..start + ARGUMENT_AREA) {
        place.copy_from_slice(text.as_bytes());
    }
    Ok(())
}

fn find(addon: &[u8]) -> Option<usize> {
    addon.windows(MARK.len()).position(|window| window == MARK.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_are_read_as_they_were_written_and_can_be_taken_back() {
        let fresh = [b"head".as_slice(), empty_area().as_bytes(), b"tail"].concat();
        let mut addon = fresh.clone();
        assert_eq!(arguments(&addon).unwrap(), "");
        for text in ["cofferdam.config=/x quiet", "a", &"x".repeat(ARGUMENT_AREA - 2 * MARK.len() - 4)] {
            set_arguments(&mut addon, text).unwrap();
            assert_eq!(arguments(&addon).unwrap(), text);
            assert!(addon.len() == fresh.len() && addon.starts_with(b"head") && addon.ends_with(b"tail"));
        }
        set_arguments(&mut addon, "").unwrap();
        assert_eq!(addon, fresh);
        for bad in ["a\nb", "ä", &"x".repeat(ARGUMENT_AREA)] {
            assert_eq!(set_arguments(&mut addon, bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
        assert_eq!(addon, fresh);
    }
}
