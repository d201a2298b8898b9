//! Where images come from: registries, OCI layouts, and archives of both kinds. Each kind gives blobs by digest
//! ([`BlobSource`]); what is common, choosing the architecture and checking what an image is made of, is here.
//!
//! Invariant: manifests and configurations are digest-checked here; layers are [`Place`]s whose content is checked when
//! `create` reads it. Called by `create`.

mod archive;
mod docker;
pub(crate) mod download;
mod layout;
pub(crate) mod registry;

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::Error;
use crate::frame::CHUNK;
use crate::index::Architecture;
use crate::oci::{Descriptor, Digest, Hasher, ImageConfiguration, ImageIndex, ImageManifest, Reference, media_type};
use crate::read::MANIFEST_LIMIT;

use archive::ArchiveFile;
use docker::DockerArchive;
use layout::LayoutDirectory;
use registry::Registry;

/// Where the content of a blob lies.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In memory; small.
    Bytes(Arc<[u8]>),
    /// In a file, from an offset on.
    File { path: Utf8PathBuf, offset: u64 },
}

/// A blob and where its content lies.
#[derive(Debug, Clone)]
pub(crate) struct SourceBlob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) place: Place,
    /// What it belongs to, for errors and progress.
    pub(crate) owner: String,
}

impl SourceBlob {
    pub(crate) fn of_bytes(media_type: &str, bytes: Vec<u8>, owner: &str) -> Self {
        Self {
            digest: Digest::sha256_of(&bytes),
            size: bytes.len() as u64,
            media_type: media_type.to_owned(),
            place: Place::Bytes(bytes.into()),
            owner: owner.to_owned(),
        }
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.size)
    }

    fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match &self.place {
            Place::Bytes(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
            Place::File { path, offset } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Box::new(file.take(self.size))
            }
        })
    }

    /// The first bytes, fewer than asked for if there are no more.
    pub(crate) fn first_bytes(&self, count: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.open()
            .and_then(|reader| reader.take(count).read_to_end(&mut bytes))
            .map_err(|error| self.unreadable(&error))?;
        Ok(bytes)
    }

    fn unreadable(&self, error: &io::Error) -> Error {
        Error::io(
            format!("read blob {} of {}", self.digest, self.owner),
            io::Error::new(error.kind(), error.to_string()),
        )
    }

    /// Gives the whole content in chunks; fails at the end if size or digest are not right.
    pub(crate) fn read_verified(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut reader = self.open().map_err(|error| self.unreadable(&error))?;
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut size = 0;
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unreadable(&error)),
            };
            let chunk = buffer.get(..count).unwrap_or_default();
            hasher.update(chunk);
            size += count as u64;
            take(chunk)?;
        }
        if size != self.size || hasher.finish() != self.digest {
            let why = format!("its content is not what its digest says ({size} bytes of {})", self.size);
            return Err(refuse(&self.owner, &self.digest.to_string(), why));
        }
        Ok(())
    }

    /// The whole content of a small blob.
    pub(crate) fn bytes(&self, limit: u64) -> Result<Vec<u8>, Error> {
        if self.size > limit {
            let why = format!("it has {} bytes, more than {limit}", self.size);
            return Err(refuse(&self.owner, &self.digest.to_string(), why));
        }
        let mut bytes = Vec::new();
        self.read_verified(&mut |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }
}

pub(crate) fn refuse(what: &str, source_name: &str, why: impl fmt::Display) -> Error {
    Error::Source { what: what.to_owned(), source_name: source_name.to_owned(), why: why.to_string() }
}

/// An image as it goes into a bundle.
pub(crate) struct SourceImage {
    pub(crate) manifest: SourceBlob,
    pub(crate) config: SourceBlob,
    pub(crate) layers: Vec<SourceBlob>,
}

/// Gives blobs by their descriptors.
trait BlobSource {
    /// Makes a blob readable. `is_manifest` matters to registries, which keep manifests elsewhere.
    fn place(&mut self, descriptor: &Descriptor, is_manifest: bool) -> Result<Place, Error>;
}

/// The source of an image, as written in `bundle.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ImageSource {
    Layout(Utf8PathBuf, Option<String>),
    OciArchive(Utf8PathBuf, Option<String>),
    DockerArchive(Utf8PathBuf, Option<String>),
    Registry(Reference),
}

impl ImageSource {
    fn parse(text: &str, directory: &Utf8Path) -> Result<Self, String> {
        let local = |rest: &str| split_at_file(rest, directory).ok_or_else(|| format!("{rest} does not exist"));
        if let Some(rest) = text.strip_prefix("oci:") {
            local(rest).map(|(path, tag)| Self::Layout(path, tag))
        } else if let Some(rest) = text.strip_prefix("oci-archive:") {
            local(rest).map(|(path, tag)| Self::OciArchive(path, tag))
        } else if let Some(rest) = text.strip_prefix("docker-archive:") {
            local(rest).map(|(path, tag)| Self::DockerArchive(path, tag))
        } else {
            let reference = text.strip_prefix("docker://").unwrap_or(text);
            reference.parse().map(Self::Registry).map_err(|error| error.to_string())
        }
    }
}

/// `PATH[:NAME]`, where both may hold colons: the longest path that exists wins.
fn split_at_file(text: &str, directory: &Utf8Path) -> Option<(Utf8PathBuf, Option<String>)> {
    let whole = directory.join(text);
    if whole.exists() {
        return Some((whole, None));
    }
    text.rmatch_indices(':').find_map(|(at, _)| {
        let (path, name) = text.split_at_checked(at)?;
        let path = directory.join(path);
        path.exists().then(|| (path, name.strip_prefix(':').map(str::to_owned)))
    })
}

/// What a source is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Chosen from multi-architecture sources.
    pub(crate) architecture: Architecture,
    /// The digest that the image's name is pinned to. Such a manifest is kept as it is, also a Docker one.
    pub(crate) pinned: Option<Digest>,
}

/// Finds an image and everything it is made of. `what` names it in errors.
pub(crate) fn resolve(
    what: &str,
    source: &str,
    directory: &Utf8Path,
    wanted: Wanted,
    registry: &mut Registry,
    tick: &mut dyn FnMut(&str, u64, u64),
) -> Result<SourceImage, Error> {
    let fail = |why: String| refuse(what, source, why);
    match ImageSource::parse(source, directory).map_err(fail)? {
        ImageSource::Layout(path, tag) => {
            let mut layout = LayoutDirectory::new(path);
            let entry = choose(&layout.index().map_err(fail)?, tag.as_deref()).map_err(fail)?;
            from_entry(what, source, entry, wanted, &mut layout)
        }
        ImageSource::OciArchive(path, tag) => {
            let mut archive = ArchiveFile::open(path).map_err(fail)?;
            let bytes = archive.small_file("index.json").map_err(fail)?;
            let index: ImageIndex =
                serde_json::from_slice(&bytes).map_err(|error| fail(format!("index.json: {error}")))?;
            let entry = choose(&index, tag.as_deref()).map_err(fail)?;
            from_entry(what, source, entry, wanted, &mut archive)
        }
        ImageSource::DockerArchive(path, name) => {
            let archive = DockerArchive::open(path, name.as_deref()).map_err(fail)?;
            let (entry, mut blobs) = archive.convert(what).map_err(fail)?;
            from_entry(what, source, entry, wanted, &mut blobs)
        }
        ImageSource::Registry(reference) => {
            let (entry, mut puller) = registry.open(&reference, tick)?;
            from_entry(what, source, entry, wanted, &mut puller)
        }
    }
}

/// The entry of a layout's index that a name means.
fn choose(index: &ImageIndex, name: Option<&str>) -> Result<Descriptor, String> {
    let annotation = |entry: &Descriptor, key: &str| entry.annotations.get(key).cloned();
    let is_named = |entry: &&Descriptor, name: &str| {
        ["org.opencontainers.image.ref.name", "io.containerd.image.name"]
            .iter()
            .any(|key| annotation(entry, key).as_deref() == Some(name))
    };
    let mut found = index.manifests.iter().filter(|entry| name.is_none_or(|name| is_named(entry, name)));
    match (found.next(), found.next(), name) {
        (Some(entry), None, _) => Ok(entry.clone()),
        (None, _, Some(name)) => Err(format!("it holds no image named {name:?}")),
        (None, _, None) => Err("it holds no image".to_owned()),
        (Some(_), Some(_), Some(name)) => Err(format!("it holds several images named {name:?}")),
        (Some(_), Some(_), None) => Err("it holds several images; add :NAME to the source".to_owned()),
    }
}

/// How deep indexes may be nested.
const DEPTH: usize = 4;

/// Follows indexes to the manifest for the architecture, and checks what it is made of.
fn from_entry(
    what: &str,
    source: &str,
    mut entry: Descriptor,
    wanted: Wanted,
    blobs: &mut dyn BlobSource,
) -> Result<SourceImage, Error> {
    let architecture = wanted.architecture;
    let fail = |why: String| refuse(what, source, why);
    let mut blob = |descriptor: &Descriptor, is_manifest: bool| {
        let place = blobs.place(descriptor, is_manifest)?;
        let (digest, size, media_type) = (descriptor.digest, descriptor.size, descriptor.media_type.clone());
        Ok::<_, Error>(SourceBlob { digest, size, media_type, place, owner: what.to_owned() })
    };
    for _ in 0..DEPTH {
        let found = blob(&entry, true)?;
        let bytes = found.bytes(MANIFEST_LIMIT)?;
        if media_type::is_manifest_list(&entry.media_type) {
            let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
            entry = for_architecture(&index, architecture).map_err(fail)?;
            continue;
        }
        if !media_type::is_manifest(&entry.media_type) {
            return Err(fail(format!("media type {} is not that of an image manifest", entry.media_type)));
        }
        let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
        if let Some(layer) = manifest.layers.iter().find(|layer| is_not_distributable(&layer.media_type)) {
            return Err(fail(format!("layer {} is not distributable ({})", layer.digest, layer.media_type)));
        }
        let config = blob(&manifest.config, false)?;
        let configuration: ImageConfiguration = serde_json::from_slice(&config.bytes(MANIFEST_LIMIT)?)
            .map_err(|error| fail(format!("its configuration: {error}")))?;
        if (configuration.architecture.as_str(), configuration.os.as_str()) != (architecture.as_str(), "linux") {
            return Err(fail(format!(
                "it is for {}/{}, the bundle is for linux/{architecture}",
                configuration.os, configuration.architecture
            )));
        }
        let layers = manifest.layers.iter().map(|layer| blob(layer, false)).collect::<Result<_, _>>()?;
        let image = SourceImage { manifest: found, config, layers };
        if entry.media_type == media_type::DOCKER_MANIFEST && wanted.pinned != Some(entry.digest) {
            return to_oci(manifest, image).map_err(fail);
        }
        return Ok(image);
    }
    Err(fail(format!("its indexes are nested more than {DEPTH} deep")))
}

/// A Docker schema 2 image as an OCI image, because the layout must be one that any OCI tool reads. Layers and
/// configuration stay as they are; the manifest is a function of the old one, so that it stays the same each time.
fn to_oci(mut manifest: ImageManifest, mut image: SourceImage) -> Result<SourceImage, String> {
    manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
    for (descriptor, blob) in std::iter::once((&mut manifest.config, &mut image.config))
        .chain(manifest.layers.iter_mut().zip(&mut image.layers))
    {
        let converted = media_type::oci_for_docker(&descriptor.media_type)
            .ok_or_else(|| format!("{} has the unknown media type {}", descriptor.digest, descriptor.media_type))?;
        converted.clone_into(&mut descriptor.media_type);
        converted.clone_into(&mut blob.media_type);
    }
    let bytes = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
    image.manifest = SourceBlob::of_bytes(media_type::OCI_MANIFEST, bytes, &image.manifest.owner);
    Ok(image)
}

fn is_not_distributable(media_type: &str) -> bool {
    media_type.contains("nondistributable") || media_type.contains("foreign")
}

fn for_architecture(index: &ImageIndex, architecture: Architecture) -> Result<Descriptor, String> {
    if let [only] = index.manifests.as_slice()
        && only.platform.is_none()
    {
        return Ok(only.clone());
    }
    let fits = |entry: &&Descriptor| {
        entry.platform.as_ref().is_some_and(|it| it.os == "linux" && it.architecture == architecture.as_str())
    };
    index.manifests.iter().find(fits).cloned().ok_or_else(|| {
        let platforms: Vec<String> = index
            .manifests
            .iter()
            .flat_map(|entry| &entry.platform)
            .map(|it| format!("{}/{}", it.os, it.architecture))
            .collect();
        format!("it has no image for linux/{architecture}, only for {}", platforms.join(", "))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap();
        std::fs::create_dir(base.join("layout")).unwrap();
        std::fs::write(base.join("a:b.tar"), "").unwrap();
        let name = |text: &str| Some(text.to_owned());
        for (text, expected) in [
            ("oci:layout", ImageSource::Layout(base.join("layout"), None)),
            ("oci:layout:k8s.gcr.io/pause:3.2", ImageSource::Layout(base.join("layout"), name("k8s.gcr.io/pause:3.2"))),
            ("oci-archive:a:b.tar", ImageSource::OciArchive(base.join("a:b.tar"), None)),
            ("docker-archive:a:b.tar:x:1", ImageSource::DockerArchive(base.join("a:b.tar"), name("x:1"))),
            ("docker://a.example/b:1", ImageSource::Registry("a.example/b:1".parse().unwrap())),
            ("nginx", ImageSource::Registry("docker.io/library/nginx:latest".parse().unwrap())),
        ] {
            assert_eq!(ImageSource::parse(text, base).unwrap(), expected, "{text}");
        }
        for bad in ["oci:nothing", "oci-archive:nothing:x", "docker-archive:nothing", "docker://", "a b", ""] {
            assert!(ImageSource::parse(bad, base).is_err(), "{bad:?}");
        }
    }
}
