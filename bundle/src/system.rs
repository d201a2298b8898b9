//! The operating system of an appliance, as a pack of the layer `os` carries it: four files of the pack, and this
//! description of them in the signed index.
//!
//! Invariant: a [`System`] that [`System::read`] or a verified index gave has a root hash and a version that can be part
//! of a file name. That the bytes of the root are those of the hash is proven where they are written.
//!
//! Format: docs/bundle-format.md, "The operating system".

use std::fs;
use std::io::Read as _;

use camino::Utf8Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::index::{Layer, PackDescriptor};
use crate::oci::Digest;

/// Longest description that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// The operating system of an appliance. Its parts are files of the pack, named as in [`System::PARTS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct System {
    /// Version of the image, a semantic version; a site takes only a higher one than it runs.
    pub version: String,
    /// Version of its kernel.
    pub kernel: String,
    /// dm-verity root hash, 64 hexadecimal digits in lower case; stands in the unified kernel image too.
    pub root_hash: String,
    /// SHA-256 of the public key (PEM) whose signatures on PCR 11 open the encrypted volume.
    pub pcr_key: Digest,
}

impl System {
    /// The root, a squashfs.
    pub const ROOT: &str = "root.squashfs";
    /// Its dm-verity tree.
    pub const VERITY: &str = "root.verity";
    /// The unified kernel image.
    pub const IMAGE: &str = "system.efi";
    /// The boot loader.
    pub const LOADER: &str = "loader.efi";
    /// Names of the pack's files that are the system, in the order in which they are in the bundle.
    pub const PARTS: [&str; 4] = [Self::ROOT, Self::VERITY, Self::IMAGE, Self::LOADER];
    /// Name of the description in a folder of the parts.
    pub const DESCRIPTION: &str = "system.json";

    /// Reads the description in a folder that `cofferdam iso system` made, and compares the unified kernel image with it.
    /// The error says what is wrong.
    pub fn read(folder: &Utf8Path) -> Result<Self, String> {
        let path = folder.join(Self::DESCRIPTION);
        let mut bytes = Vec::new();
        fs::File::open(&path)
            .and_then(|file| file.take(LONGEST).read_to_end(&mut bytes))
            .map_err(|error| format!("{path}: {error}"))?;
        let system: Self = serde_json::from_slice(&bytes).map_err(|error| format!("{path}: {error}"))?;
        if let Some(problem) = system.problem() {
            return Err(format!("{path}: {problem}"));
        }
        let image = folder.join(Self::IMAGE);
        let word = format!("roothash={}", system.root_hash).into_bytes();
        let bytes = fs::read(&image).map_err(|error| format!("{image}: {error}"))?;
        if bytes.windows(word.len()).any(|window| window == word) {
            return Ok(system);
        }
        Err(format!("{image} does not start the root {}: it belongs to another system", system.root_hash))
    }

    /// As it is written into a folder of the parts.
    pub fn to_json(&self) -> Vec<u8> {
        // Text and a digest: there is nothing that serialisation could refuse.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    fn problem(&self) -> Option<String> {
        let is_hash = self.root_hash.len() == 64
            && self.root_hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !is_hash {
            return Some(format!("{:?} is no root hash", self.root_hash));
        }
        if !is_version(&self.version) {
            return Some(format!("system version {:?} is not a semantic version without build metadata", self.version));
        }
        None
    }
}

/// Whether the boot menu can tell images of this version apart: a `+` counts attempts there (systemd-boot(7)).
pub fn is_version(text: &str) -> bool {
    text.len() <= 64 && !text.contains('+') && semver::Version::parse(text).is_ok()
}

/// What is wrong with the system of a pack.
pub(crate) fn problems(pack: &PackDescriptor) -> Vec<String> {
    let Some(system) = &pack.system else { return Vec::new() };
    let mut problems: Vec<String> = system.problem().into_iter().collect();
    if pack.layer != Layer::Os {
        problems.push("an operating system belongs to the layer os".to_owned());
    }
    for part in System::PARTS {
        match pack.files.iter().find(|file| file.name == part) {
            None => problems.push(format!("its system lacks the file {part}")),
            Some(file) if file.template || !file.install.is_empty() => {
                problems.push(format!("file {part}: a part of the system is neither installed nor a template"));
            }
            Some(_) => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn system() -> System {
        System {
            version: "1.2.0".to_owned(),
            kernel: "6.12".to_owned(),
            root_hash: "ab".repeat(32),
            pcr_key: Digest::sha256_of(b"key"),
        }
    }

    #[test]
    fn a_folder_is_read_when_its_image_starts_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap();
        assert!(System::read(path).unwrap_err().contains("system.json"));
        fs::write(path.join(System::DESCRIPTION), system().to_json()).unwrap();
        fs::write(path.join(System::IMAGE), format!("MZ roothash={} quiet", "ab".repeat(32))).unwrap();
        assert_eq!(System::read(path).unwrap(), system());
        fs::write(path.join(System::IMAGE), format!("MZ roothash={} quiet", "cd".repeat(32))).unwrap();
        assert!(System::read(path).unwrap_err().contains("another system"));
        for (bad, says) in [
            (System { root_hash: "AB".repeat(32), ..system() }, "no root hash"),
            (System { version: "1.2+3".to_owned(), ..system() }, "version"),
            (System { version: "../x".to_owned(), ..system() }, "version"),
        ] {
            fs::write(path.join(System::DESCRIPTION), bad.to_json()).unwrap();
            assert!(System::read(path).unwrap_err().contains(says), "{bad:?}");
        }
    }
}
