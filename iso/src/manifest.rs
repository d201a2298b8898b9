//! `cofferdam/manifest.json`: what a medium holds, with size and digest of each file.
//!
//! Invariant: a manifest that was parsed names each file once, by a plain name below `cofferdam/`.

use std::collections::BTreeMap;

use bundle::oci::Digest;
use serde::{Deserialize, Serialize};

/// The folder of a medium that is ours; another folder on it is left alone.
pub const FOLDER: &str = "cofferdam";
/// The manifest itself, in [`FOLDER`].
pub const MANIFEST: &str = "manifest.json";
/// The public key that the bundle's signature is checked against.
pub const TRUST_KEY: &str = "trust.pub";
/// The answers file; not on each medium.
pub const CONFIG: &str = "install.yaml";
/// The bundle, when it is one file; parts are named after it (`bundle.tar.zst.part001` …).
pub const BUNDLE: &str = "bundle.tar.zst";

/// A manifest is small: one line per file.
pub(crate) const LONGEST_MANIFEST: u64 = 1 << 20;

const SCHEMA_VERSION: u32 = 1;

/// What a medium holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format, 1.
    pub schema_version: u32,
    /// The files of the bundle, in the order in which they make one stream.
    pub bundle: Vec<String>,
    /// All files but the manifest, by name in the folder `cofferdam/`.
    pub files: BTreeMap<String, ManifestFile>,
}

/// One file of a medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ManifestFile {
    /// Bytes.
    pub size: u64,
    /// Of all bytes.
    pub digest: Digest,
}

impl Manifest {
    pub(crate) fn new(bundle: Vec<String>, files: BTreeMap<String, ManifestFile>) -> Self {
        Self { schema_version: SCHEMA_VERSION, bundle, files }
    }

    /// Reads a manifest. The error says what is wrong with it, in words for people.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(format!("schema-version is {}, this program knows {SCHEMA_VERSION}", manifest.schema_version));
        }
        if let Some(name) = manifest.files.keys().find(|name| !is_plain_name(name) || *name == MANIFEST) {
            return Err(format!("{name:?} cannot be a file of a medium"));
        }
        // A boot medium may go without a bundle, which another medium brings.
        let is_system = manifest.files.contains_key(crate::appliance::manifest::SYSTEM);
        if manifest.bundle.is_empty() && !is_system {
            return Err("it lists no bundle".to_owned());
        }
        let key = (!manifest.bundle.is_empty()).then_some(TRUST_KEY);
        let must = manifest.bundle.iter().map(String::as_str).chain(key);
        if let Some(name) = must.into_iter().find(|name| !manifest.files.contains_key(*name)) {
            return Err(format!("it has no size and digest of {name:?}"));
        }
        Ok(manifest)
    }

    /// As it is written: stable, with a line end.
    pub fn to_json(&self) -> Vec<u8> {
        // A map with text keys, numbers and text: there is nothing that serialisation could refuse.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// Letters, digits, `.`, `_` and `-`, not beginning with a dot: as much as each reader of ISO images keeps.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(good)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn manifest() -> Manifest {
        let file = ManifestFile { size: 3, digest: Digest::sha256_of(b"abc") };
        let files = [BUNDLE, TRUST_KEY].map(|name| (name.to_owned(), file.clone()));
        Manifest::new(vec![BUNDLE.to_owned()], files.into())
    }

    #[test]
    fn is_read_as_it_was_written() {
        assert_eq!(Manifest::parse(&manifest().to_json()).unwrap(), manifest());
    }

    #[test]
    fn what_it_must_not_say() {
        let text = String::from_utf8(manifest().to_json()).unwrap();
        let cases = [
            (text.replace("\"schema-version\": 1", "\"schema-version\": 2"), "schema-version is 2"),
            (text.replace("\"trust.pub\"", "\"../trust.pub\""), "cannot be a file"),
            (text.replace("\"trust.pub\"", "\"manifest.json\""), "cannot be a file"),
            (text.replace("\"trust.pub\"", "\"another.pub\""), "\"trust.pub\""),
            (text.replace("\"bundle\": [", "\"bundle\": [\"more\","), "\"more\""),
            (text.replace("\"size\": 3", "\"size\": -3"), "invalid value"),
            (text.replace("\"size\": 3", "\"extra\": 1, \"size\": 3"), "unknown field"),
            ("{".to_owned(), "EOF"),
        ];
        for (text, says) in cases {
            let error = Manifest::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{error:?} for {text}");
        }
    }
}
