//! Creating a bundle: gather what `bundle.yaml` names, prove that nothing is missing, sign, write.
//!
//! Invariant: nothing has the bundle's name before all of it was written and synced; the same definition, sources and
//! key give the same bytes. Memory is bounded: layers and files are streamed, what is compressed goes through a work
//! directory beside the output. Called by `cofferdam bundle create`.

mod gather;
mod write;

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

pub use crate::definition::{BundleDefinition, FileDefinition, ImageDefinition, ManifestDefinition, PackDefinition};
pub use crate::source::registry::RegistryOptions;

use crate::delta::Base;
use crate::error::Error;
use crate::index::Index;
use crate::keys::{KeyId, SigningKey, TrustedKeys};
use crate::source::registry::Registry;

/// How a bundle is created.
#[derive(Debug)]
pub struct CreateOptions {
    /// Where the bundle is written: a file name, or an existing directory, in which it is called
    /// `NAME-VERSION.tar.zst`. An existing file is replaced once the new one is complete.
    pub output: Utf8PathBuf,
    /// Who signs.
    pub signing_key: SigningKey,
    /// How registries are reached.
    pub registries: RegistryOptions,
    /// What the sites hold already: layers and files of it are left out. Empty: a full bundle.
    pub base: Base,
}

/// What `create` does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Images are looked up, pulled and checked, files are hashed.
    Gather,
    /// What is not compressed yet is compressed.
    Compress,
    /// The bundle is written.
    Write,
}

/// How far `create` is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// What it does.
    pub stage: Stage,
    /// On what: an image, a file, a blob.
    pub what: &'a str,
    /// Bytes done: of this object while gathering, of the whole stage otherwise.
    pub bytes_done: u64,
    /// Bytes in all, of the same; 0 if not known.
    pub bytes_total: u64,
}

/// What `create` made.
#[derive(Debug, Clone)]
pub struct CreateReport {
    /// The bundle.
    pub path: Utf8PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Who signed it.
    pub key_id: KeyId,
    /// Its index.
    pub index: Index,
}

/// Creates a bundle. Blocking; must not be called on the thread of an async runtime.
pub fn create(
    definition: &BundleDefinition,
    options: &CreateOptions,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<CreateReport, Error> {
    let output =
        if options.output.is_dir() { options.output.join(definition.file_name()) } else { options.output.clone() };
    let directory = output.parent().filter(|parent| !parent.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let work = tempfile::Builder::new()
        .prefix(".cofferdam-create-")
        .tempdir_in(directory)
        .map_err(|error| Error::io(format!("make a work directory in {directory}"), error))?;
    let work_path = Utf8Path::from_path(work.path())
        .ok_or_else(|| Error::io("use the work directory", std::io::Error::other("its name is not UTF-8")))?;
    let pulled = work_path.join("pulled");
    fs::create_dir(&pulled).map_err(|error| Error::io(format!("create {pulled}"), error))?;

    let mut registry = Registry::new(options.registries.clone(), pulled);
    let gathered = gather::gather(definition, &mut registry, progress)?;
    let next_keys = next_keys(definition)?;
    let (gathered, index) = write::draft(definition, gathered, &options.base, next_keys);
    let packed = write::pack(&gathered, work_path, progress)?;
    let written = write::write(index, &gathered, &packed, &options.signing_key, &output, directory, progress)?;
    Ok(CreateReport { path: output, size: written.size, key_id: options.signing_key.id(), index: written.index })
}

/// The base64 lines of the public keys that later bundles are signed with.
fn next_keys(definition: &BundleDefinition) -> Result<Vec<String>, Error> {
    let paths: Vec<_> = definition.next_trust_keys.iter().map(|path| definition.directory.join(path)).collect();
    TrustedKeys::load(&paths)?;
    let line = |path: &Utf8PathBuf| {
        let text = fs::read_to_string(path).map_err(|error| Error::io(format!("read {path}"), error))?;
        Ok(text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned())
    };
    paths.iter().map(line).collect()
}
