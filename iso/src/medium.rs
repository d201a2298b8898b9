//! The data medium: made from a bundle, a trust key and maybe an answers file; checked against its manifest.
//!
//! Invariant: an image stands under its final name only after it was read back and each file had its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;

use bundle::keys::{KeyId, TrustedKeys};
use bundle::load::LoadOptions;
use bundle::oci::{Algorithm, Hasher};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use crate::Error;
use crate::manifest::{self, Manifest, ManifestFile};
use crate::read::{Image, Kind};
use crate::xorriso::{self, Graft};

const BUFFER: usize = 1 << 20;

/// A volume's label: 1 to 32 of `A`–`Z`, `0`–`9` and `_` (ECMA-119, d-characters).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeLabel(String);

impl VolumeLabel {
    /// The label that the installer looks for.
    pub const DEFAULT: &str = "COFFERDAM";

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for VolumeLabel {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl std::str::FromStr for VolumeLabel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if text.is_empty() || text.len() > 32 || !text.bytes().all(good) {
            let why = format!("{text:?} is no volume label: 1 to 32 of A-Z, 0-9 and _");
            return Err(Error::Options { why });
        }
        Ok(Self(text.to_owned()))
    }
}

/// What a medium is made from.
#[derive(Debug, Clone)]
pub struct MediumOptions {
    /// The bundle: one file, or its parts in order.
    pub bundle: Vec<Utf8PathBuf>,
    /// The public key that the bundle is signed with.
    pub trust_key: Utf8PathBuf,
    /// An answers file. It must hold no secret: a medium is not encrypted.
    pub config: Option<Utf8PathBuf>,
    /// The volume's label.
    pub label: VolumeLabel,
    /// The image to write. What was there before is replaced once the new one is good.
    pub output: Utf8PathBuf,
}

/// What a medium holds, after all of it was read and compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MediumReport {
    /// The volume's label.
    pub label: String,
    /// Bytes of the volume.
    pub size: u64,
    /// What it holds; each file was compared with it.
    pub manifest: Manifest,
    /// Who signed the bundle, as it says itself. That is no proof: see [`bundle::load::verify`].
    pub bundle_signed_by: Option<KeyId>,
    /// Files outside of `cofferdam/`, which are not checked.
    pub others: Vec<String>,
}

/// Makes a medium. The bundle is verified with the key first, so that no medium leaves that a site would refuse.
///
/// `progress` gets the number of bytes read so far, of about four times the bundle's size: the bundle is verified, digested, written
/// by xorriso (which shows no progress), and read back.
pub fn build(options: &MediumOptions, progress: &mut dyn FnMut(u64)) -> Result<MediumReport, Error> {
    let output = &options.output;
    let name = output.file_name().ok_or_else(|| Error::Options { why: format!("{output:?} is no file name") })?;
    let mut done = 0;
    let mut count = |bytes: usize| {
        done += bytes as u64;
        progress(done);
    };
    verify_bundle(&options.bundle, &options.trust_key, &mut count)?;

    let bundle_names = bundle_names(options.bundle.len());
    let mut sources: Vec<(String, &Utf8Path)> =
        bundle_names.iter().cloned().zip(options.bundle.iter().map(AsRef::as_ref)).collect();
    sources.push((manifest::TRUST_KEY.to_owned(), &options.trust_key));
    if let Some(config) = &options.config {
        sources.push((manifest::CONFIG.to_owned(), config));
    }
    let mut files = BTreeMap::new();
    for (name, source) in &sources {
        let file = File::open(source).map_err(Error::io(format!("open {source}")))?;
        let file = digest(file, Algorithm::Sha256, &mut count).map_err(Error::io(format!("read {source}")))?;
        files.insert(name.clone(), file);
    }
    let manifest = Manifest::new(bundle_names, files);

    let directory = output.parent().filter(|parent| !parent.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    // Beside the output, so that it can be renamed; in a folder of its own, so that a crash leaves one thing behind.
    let work = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(directory);
    let work = work.map_err(Error::io(format!("create a directory in {directory}")))?;
    let work = Utf8Path::from_path(work.path())
        .map(|path| (path.join(manifest::MANIFEST), path.join("image"), &work))
        .ok_or_else(|| Error::Options { why: format!("{directory} has no UTF-8 name") })?;
    let (manifest_path, image, _keep) = work;
    std::fs::write(&manifest_path, manifest.to_json()).map_err(Error::io(format!("write {manifest_path}")))?;
    sources.insert(0, (manifest::MANIFEST.to_owned(), &manifest_path));
    let grafts = sources
        .iter()
        .map(|(name, source)| Graft { to: format!("/{}/{name}", manifest::FOLDER), from: source.to_path_buf() });
    xorriso::write(&image, options.label.as_str(), &grafts.collect::<Vec<_>>(), None)?;

    let report = inspect_with(&image, &mut count)?;
    let written = File::open(&image).map_err(Error::io(format!("open {image}")))?;
    written.sync_all().map_err(Error::io(format!("sync {image}")))?;
    std::fs::rename(&image, output).map_err(Error::io(format!("rename {image} to {output}")))?;
    let directory_file = File::open(directory).map_err(Error::io(format!("open {directory}")))?;
    directory_file.sync_all().map_err(Error::io(format!("sync {directory}")))?;
    Ok(report)
}

pub(crate) fn bundle_names(parts: usize) -> Vec<String> {
    if parts == 1 {
        return vec![manifest::BUNDLE.to_owned()];
    }
    (1..=parts).map(|part| format!("{}.part{part:03}", manifest::BUNDLE)).collect()
}

pub(crate) fn verify_bundle(
    bundle: &[Utf8PathBuf],
    trust_key: &Utf8Path,
    count: &mut dyn FnMut(usize),
) -> Result<(), Error> {
    let first = bundle.first().ok_or_else(|| Error::Options { why: "no bundle was named".to_owned() })?;
    let bad = |source| Error::Bundle { path: first.clone(), source };
    let trust = TrustedKeys::load(&[trust_key]).map_err(bad)?;
    let mut stream: Box<dyn Read + '_> = Box::new(std::io::empty());
    for part in bundle {
        let file = File::open(part).map_err(Error::io(format!("open {part}")))?;
        stream = Box::new(stream.chain(file));
    }
    let stream = Counted { inner: stream, count };
    bundle::load::verify(stream, &trust, &LoadOptions::default(), &mut |_| ()).map_err(bad)?;
    Ok(())
}

struct Counted<'a, R> {
    inner: R,
    count: &'a mut dyn FnMut(usize),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.inner.read(buffer)?;
        (self.count)(bytes);
        Ok(bytes)
    }
}

pub(crate) fn digest(
    mut file: impl Read,
    algorithm: Algorithm,
    count: &mut dyn FnMut(usize),
) -> std::io::Result<ManifestFile> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let bytes = match file.read(&mut buffer) {
            Ok(0) => return Ok(ManifestFile { size, digest: hasher.finish() }),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(buffer.get(..bytes).unwrap_or_default());
        size += bytes as u64;
        count(bytes);
    }
}

/// Reads a medium, without mounting it, and compares each file in `cofferdam/` with the manifest. A medium that differs
/// is an error that names all differences.
pub fn inspect(path: &Utf8Path) -> Result<MediumReport, Error> {
    inspect_with(path, &mut |_| ())
}

fn inspect_with(path: &Utf8Path, count: &mut dyn FnMut(usize)) -> Result<MediumReport, Error> {
    let image = Image::open(path)?;
    let (manifest, problems, others) = compare_with(&image, count)?;
    if !problems.is_empty() {
        return Err(Error::Differs { path: path.to_owned(), problems });
    }
    let bundle_signed_by = signer(&image, &manifest)?;
    Ok(MediumReport { label: image.label().to_owned(), size: image.size(), manifest, bundle_signed_by, others })
}

/// Compares each file in `cofferdam/` with the manifest; gives what differs.
pub(crate) fn compare(image: &Image) -> Result<(Manifest, Vec<String>), Error> {
    compare_with(image, &mut |_| ()).map(|(manifest, problems, _)| (manifest, problems))
}

type Compared = (Manifest, Vec<String>, Vec<String>);

fn compare_with(image: &Image, count: &mut dyn FnMut(usize)) -> Result<Compared, Error> {
    let path = image.path();
    let manifest = read_manifest(image)?;
    let folder = format!("{}/", manifest::FOLDER);
    let mut problems = Vec::new();
    let mut others = Vec::new();
    let mut found = BTreeSet::new();
    for entry in image.entries() {
        let Some(name) = entry.path.strip_prefix(&folder) else {
            if entry.kind != Kind::Directory {
                others.push(entry.path.clone());
            }
            continue;
        };
        if name == manifest::MANIFEST {
            continue;
        }
        found.insert(name);
        let Some(listed) = manifest.files.get(name) else {
            problems.push(format!("{}: is not listed", entry.path));
            continue;
        };
        if entry.kind != Kind::File {
            problems.push(format!("{}: is no file", entry.path));
        } else if entry.size != listed.size {
            problems.push(format!("{}: has {} bytes, listed are {}", entry.path, entry.size, listed.size));
        } else {
            let read = digest(image.open_file(&entry.path)?, listed.digest.algorithm(), count);
            let read = read.map_err(Error::io(format!("read {} in {path}", entry.path)))?;
            if read.digest != listed.digest {
                problems.push(format!("{}: has the digest {}, listed is {}", entry.path, read.digest, listed.digest));
            }
        }
    }
    let missing = manifest.files.keys().filter(|name| !found.contains(name.as_str()));
    problems.extend(missing.map(|name| format!("{folder}{name}: is missing")));
    Ok((manifest, problems, others))
}

fn read_manifest(image: &Image) -> Result<Manifest, Error> {
    let path = format!("{}/{}", manifest::FOLDER, manifest::MANIFEST);
    let not_ours = |why| Error::NotAMedium { path: image.path().to_owned(), why };
    let file = match image.open_file(&path) {
        Ok(file) => file,
        Err(Error::NoSuchFile { .. }) => return Err(not_ours(format!("it has no {path}"))),
        Err(other) => return Err(other),
    };
    let mut bytes = Vec::new();
    let limited = file.take(manifest::LONGEST_MANIFEST + 1).read_to_end(&mut bytes);
    limited.map_err(Error::io(format!("read {path} in {}", image.path())))?;
    if bytes.len() as u64 > manifest::LONGEST_MANIFEST {
        return Err(not_ours(format!("its {path} is too long")));
    }
    Manifest::parse(&bytes).map_err(|why| not_ours(format!("its {path}: {why}")))
}

/// A bundle says in its first bytes who signed it.
fn signer(image: &Image, manifest: &Manifest) -> Result<Option<KeyId>, Error> {
    let Some(first) = manifest.bundle.first() else { return Ok(None) };
    let file = image.open_file(&format!("{}/{first}", manifest::FOLDER))?;
    let inspection = bundle::inspect(file, None);
    Ok(inspection.ok().map(|inspection| inspection.signed_by))
}
