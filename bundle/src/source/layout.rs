//! An OCI image layout in a directory (OCI image-spec, image-layout.md). Paths are made of digests only.

use std::fs::File;
use std::io::Read;

use camino::Utf8PathBuf;

use super::{BlobSource, Place};
use crate::archive::blob_name;
use crate::error::Error;
use crate::oci::{Descriptor, ImageIndex};
use crate::read::MANIFEST_LIMIT;

pub(super) struct LayoutDirectory {
    path: Utf8PathBuf,
}

impl LayoutDirectory {
    pub(super) fn new(path: Utf8PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn index(&self) -> Result<ImageIndex, String> {
        let mut bytes = Vec::new();
        File::open(self.path.join("index.json"))
            .and_then(|file| file.take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("index.json: {error}"))?;
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err("index.json is larger than 4 MiB".to_owned());
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("index.json: {error}"))
    }
}

impl BlobSource for LayoutDirectory {
    fn place(&mut self, descriptor: &Descriptor, _: bool) -> Result<Place, Error> {
        Ok(Place::File { path: self.path.join(blob_name(&descriptor.digest)), offset: 0 })
    }
}
