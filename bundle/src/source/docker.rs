//! `docker save` archives (Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format").
//!
//! Converted to an OCI image deterministically: the configuration stays as it is (so the image id stays too), each
//! layer becomes an OCI layer as it lies in the archive, and the manifest is a function of both.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use camino::Utf8PathBuf;
use serde::Deserialize;

use super::archive::ArchiveFile;
use super::{BlobSource, Place, SourceBlob, refuse};
use crate::error::Error;
use crate::frame::CHUNK;
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, ImageConfiguration, ImageManifest, media_type};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) struct DockerArchive {
    archive: ArchiveFile,
    entry: Entry,
}

/// The blobs of a converted image.
pub(super) struct Blobs(HashMap<Digest, Place>);

impl DockerArchive {
    pub(super) fn open(path: Utf8PathBuf, name: Option<&str>) -> Result<Self, String> {
        let archive = ArchiveFile::open(path)?;
        let bytes = archive.small_file("manifest.json")?;
        let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|error| format!("manifest.json: {error}"))?;
        let is_named = |entry: &&Entry| {
            name.is_none_or(|name| {
                // Docker writes short names; both sides are completed before they are compared.
                let wanted = name.parse::<crate::oci::Reference>().ok();
                entry
                    .repo_tags
                    .iter()
                    .flatten()
                    .any(|tag| tag == name || (wanted.is_some() && tag.parse().ok() == wanted))
            })
        };
        let mut found = entries.iter().filter(is_named);
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(Self { entry: entry.clone(), archive }),
            (None, _) => Err("it holds no such image".to_owned()),
            (Some(_), Some(_)) => Err("it holds several images; add :NAME:TAG to the source".to_owned()),
        }
    }

    /// The manifest's descriptor and all blobs.
    pub(super) fn convert(&self, what: &str) -> Result<(Descriptor, Blobs), String> {
        let mut blobs = HashMap::new();
        let config = self.archive.small_file(&self.entry.config)?;
        let configuration: ImageConfiguration =
            serde_json::from_slice(&config).map_err(|error| format!("{}: {error}", self.entry.config))?;
        let diff_ids = &configuration.rootfs.diff_ids;
        if diff_ids.len() != self.entry.layers.len() {
            return Err(format!(
                "it has {} layers, its configuration names {}",
                self.entry.layers.len(),
                diff_ids.len()
            ));
        }
        let layers = self.entry.layers.iter().zip(diff_ids).map(|(name, diff_id)| {
            let (descriptor, place) = self.layer(name, diff_id)?;
            blobs.insert(descriptor.digest, place);
            Ok(descriptor)
        });
        let layers = layers.collect::<Result<Vec<_>, String>>()?;
        let mut insert = |media_type: &str, bytes: Vec<u8>| {
            let blob = SourceBlob::of_bytes(media_type, bytes, what);
            let descriptor = blob.descriptor();
            blobs.insert(descriptor.digest, blob.place);
            descriptor
        };
        let config = insert(media_type::OCI_CONFIG, config);
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            annotations: std::collections::BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
        Ok((insert(media_type::OCI_MANIFEST, bytes), Blobs(blobs)))
    }

    fn layer(&self, name: &str, diff_id: &Digest) -> Result<(Descriptor, Place), String> {
        let (offset, size) = self.archive.find(name)?;
        let path = self.archive.path().to_owned();
        let (digest, first) = hash(&path, offset, size).map_err(|error| format!("{name}: {error}"))?;
        let kind = match first {
            [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => media_type::OCI_LAYER_ZSTD,
            _ if digest == *diff_id => media_type::OCI_LAYER,
            _ => return Err(format!("{name} is {digest}, the configuration says {diff_id}")),
        };
        Ok((Descriptor::new(kind, digest, size), Place::File { path, offset }))
    }
}

/// Digest and first four bytes of a part of a file.
fn hash(path: &Utf8PathBuf, offset: u64, size: u64) -> std::io::Result<(Digest, [u8; 4])> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = file.take(size);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut first = [0; 4];
    let mut taken = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = reader.read(&mut buffer)?;
        let chunk = buffer.get(..count).unwrap_or_default();
        first.iter_mut().skip(taken).zip(chunk).for_each(|(to, from)| *to = *from);
        taken += count;
        hasher.update(chunk);
        if count == 0 {
            return Ok((hasher.finish(), first));
        }
    }
}

impl BlobSource for Blobs {
    fn place(&mut self, descriptor: &Descriptor, _: bool) -> Result<Place, Error> {
        let missing = || refuse(&descriptor.digest.to_string(), "the archive", "it is not there");
        self.0.get(&descriptor.digest).cloned().ok_or_else(missing)
    }
}
