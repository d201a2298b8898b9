//! The operating system of a finished medium as a folder of files: what a pack of the layer `os` carries to sites that run
//! an older one.
//!
//! Invariant: the folder appears whole or not at all, and only from a medium whose system a trusted key has signed and
//! whose digests all hold.

use std::fs;

use bundle::keys::TrustedKeys;
use bundle::system::System;
use camino::Utf8Path;

use super::{SystemManifest, Work, copy_partition, esp, inspect, measured, partition_reader, partitions};
use crate::Error;
use crate::manifest::ManifestFile;

/// Writes the system of the medium `image` into `folder`, which must not be there yet.
pub fn extract_system(
    image: &Utf8Path,
    trust: &TrustedKeys,
    folder: &Utf8Path,
    say: &mut dyn FnMut(&str),
) -> Result<SystemManifest, Error> {
    if folder.exists() {
        return Err(Error::Options { why: format!("{folder} is there already") });
    }
    say("checking the medium");
    let system = inspect(image, Some(trust))?.system;
    if !bundle::system::is_version(&system.version) {
        let why =
            format!("its system has the version {:?}; upgrades need a semantic version such as 1.2.0", system.version);
        return Err(Error::Options { why });
    }
    say("copying the system");
    let work = Work::beside(folder)?;
    let parts = work.join("parts");
    fs::create_dir(&parts).map_err(Error::io(format!("create {parts}")))?;
    let [boot, root, verity] = partitions(image)?;
    for (partition, listed, name) in [(&root, &system.root, System::ROOT), (&verity, &system.verity, System::VERITY)] {
        let output = parts.join(name);
        let mut reader = partition_reader(image, partition, listed.size)?;
        let mut file = fs::File::create(&output).map_err(Error::io(format!("create {output}")))?;
        std::io::copy(&mut reader, &mut file).map_err(Error::io(format!("copy a partition of {image}")))?;
        compare(image, &output, listed)?;
    }
    let boot_image = work.join("boot.img");
    copy_partition(image, &boot, &boot_image)?;
    for (place, name) in [(system.image(), System::IMAGE), (esp::LOADER.to_owned(), System::LOADER)] {
        let output = parts.join(name);
        esp::extract(&boot_image, &place, &output)?;
        let listed = system.boot.get(&place);
        let listed = listed.ok_or_else(|| lacks(image, format!("it does not list {place}")))?;
        compare(image, &output, listed)?;
    }
    let description = System {
        version: system.version.clone(),
        kernel: system.kernel.clone(),
        root_hash: system.root_hash.clone(),
        pcr_key: system.pcr_key,
    };
    let path = parts.join(System::DESCRIPTION);
    fs::write(&path, description.to_json()).map_err(Error::io(format!("write {path}")))?;
    System::read(&parts).map_err(|why| lacks(image, why))?;
    fs::rename(&parts, folder).map_err(Error::io(format!("rename {parts} to {folder}")))?;
    Ok(system)
}

fn lacks(image: &Utf8Path, why: String) -> Error {
    Error::NotAMedium { path: image.to_owned(), why }
}

/// The medium may have changed since it was inspected.
fn compare(image: &Utf8Path, output: &Utf8Path, listed: &ManifestFile) -> Result<(), Error> {
    if measured(output)? == *listed {
        return Ok(());
    }
    let problem = format!("{} is not the one of its signed manifest", output.file_name().unwrap_or_default());
    Err(Error::Differs { path: image.to_owned(), problems: vec![problem] })
}
