//! Gathering: from `bundle.yaml` to a list of blobs, images and packs. Invariant: what comes out is complete (the
//! closed-world proof was done) and in its final order, which is that of `bundle.yaml`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;

use camino::Utf8Path;

use super::{Progress, Stage};
use crate::complete::{Images, missing_images};
use crate::definition::{BundleDefinition, FileDefinition, ManifestDefinition, PackDefinition};
use crate::error::Error;
use crate::frame::CHUNK;
use crate::index::{Image, Pack, PackDescriptor, PackManifest};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, ImageIndex, ImageManifest, Platform, Reference, media_type};
use crate::read::{MANIFEST_LIMIT, YAML_LIMIT};
use crate::source::download::is_url;
use crate::source::registry::Registry;
use crate::source::{Place, SourceBlob, Wanted, refuse, resolve};
use crate::system::System;
use crate::template;

const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const TITLE: &str = "org.opencontainers.image.title";

/// All that goes into a bundle.
pub(super) struct Gathered {
    /// In stream order.
    pub(super) blobs: Vec<SourceBlob>,
    pub(super) images: Vec<Image>,
    pub(super) packs: Vec<Pack>,
    /// The layout's `index.json`.
    pub(super) oci_index: Vec<u8>,
}

/// Blobs in two groups, each once.
#[derive(Default)]
struct Blobs {
    manifests: Vec<SourceBlob>,
    contents: Vec<SourceBlob>,
    sizes: HashMap<Digest, u64>,
}

impl Blobs {
    fn add(&mut self, blob: SourceBlob, is_manifest: bool) -> Result<(), Error> {
        match self.sizes.insert(blob.digest, blob.size) {
            None => {
                let group = if is_manifest { &mut self.manifests } else { &mut self.contents };
                group.push(blob);
                Ok(())
            }
            Some(size) if size == blob.size => Ok(()),
            Some(size) => {
                let why = format!("its size is {} here and {size} elsewhere", blob.size);
                Err(refuse(&blob.owner, &blob.digest.to_string(), why))
            }
        }
    }
}

pub(super) fn gather(
    definition: &BundleDefinition,
    registry: &mut Registry,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Gathered, Error> {
    let mut blobs = Blobs::default();
    let mut images: Vec<Image> = Vec::new();
    let mut drafts = Vec::new();
    for pack in &definition.packs {
        let mut descriptor = pack.draft();
        for (image, source) in descriptor.images.iter_mut().zip(&pack.images) {
            let manifest = add_image(&image.reference, &source.source, definition, registry, &mut blobs, progress)?;
            image.digest = manifest.digest;
            let found = Image {
                reference: image.reference.clone(),
                digest: manifest.digest,
                media_type: manifest.media_type,
                size: manifest.size,
            };
            match images.iter().find(|known| known.reference == found.reference) {
                None => images.push(found),
                Some(known) if *known == found => {}
                Some(_) => {
                    let what = found.reference.to_string();
                    return Err(refuse(&what, &source.source, "another pack has another image of this name"));
                }
            }
        }
        drafts.push(descriptor);
    }
    let world = Images::new(images.iter().map(|image| (&image.reference, image.digest)));
    let mut packs = Vec::new();
    let mut missing = Vec::new();
    for (draft, pack) in drafts.into_iter().zip(&definition.packs) {
        let mut layers = Vec::new();
        let mut descriptor = draft;
        let asks = descriptor.clone();
        for (part, source) in manifests_mut(&mut descriptor).zip(pack.all_manifests()) {
            let bytes = read_yaml(pack, source, &definition.directory)?;
            let what = format!("pack {}, manifest {}", pack.name, part.name);
            let found = missing_images(&world, &asks, &part.name, part.template, &bytes)
                .map_err(|why| refuse(&what, source.source.as_str(), why))?;
            missing.extend(found);
            let blob = SourceBlob::of_bytes(media_type::PACK_MANIFEST, bytes, &what);
            (part.digest, part.size) = (blob.digest, blob.size);
            layers.push(blob.descriptor().annotated(TITLE, &part.name));
            blobs.add(blob, false)?;
        }
        if let Some(folder) = &pack.system {
            let folder = definition.directory.join(folder);
            let system = System::read(&folder);
            let what = format!("pack {}, its operating system", pack.name);
            descriptor.system = Some(system.map_err(|why| refuse(&what, folder.as_str(), why))?);
        }
        for (part, source) in descriptor.files.iter_mut().zip(&pack.all_files()) {
            let blob = hash_file(pack, source, &definition.directory, registry, progress)?;
            (part.digest, part.size) = (blob.digest, blob.size);
            layers.push(blob.descriptor().annotated(TITLE, &part.name));
            blobs.add(blob, false)?;
        }
        packs.push(add_pack(descriptor, layers, &mut blobs)?);
    }
    if !missing.is_empty() {
        missing.sort();
        return Err(Error::Incomplete { missing });
    }
    let oci_index = layout_index(definition, &images, &packs)?;
    let mut all = blobs.manifests;
    all.append(&mut blobs.contents);
    Ok(Gathered { blobs: all, images, packs, oci_index })
}

/// In the order of [`PackDescriptor::all_manifests`].
fn manifests_mut(pack: &mut PackDescriptor) -> impl Iterator<Item = &mut PackManifest> {
    let migrations = pack.migrations.iter_mut();
    pack.manifests
        .iter_mut()
        .chain(migrations.flat_map(|migration| std::iter::once(&mut migration.apply).chain(migration.undo.as_mut())))
}

fn add_image(
    reference: &Reference,
    source: &str,
    definition: &BundleDefinition,
    registry: &mut Registry,
    blobs: &mut Blobs,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Descriptor, Error> {
    let what = format!("image {reference}");
    progress(&Progress { stage: Stage::Gather, what: &what, bytes_done: 0, bytes_total: 0 });
    let mut tick = |what: &str, bytes_done, bytes_total| {
        progress(&Progress { stage: Stage::Gather, what, bytes_done, bytes_total });
    };
    let wanted = Wanted { architecture: definition.architecture, pinned: reference.digest() };
    let image = resolve(&what, source, &definition.directory, wanted, registry, &mut tick)?;
    let descriptor = image.manifest.descriptor();
    if reference.digest().is_some_and(|digest| digest != descriptor.digest) {
        let why = format!("its manifest for {} is {}", definition.architecture, descriptor.digest);
        return Err(refuse(&what, source, why));
    }
    blobs.add(image.manifest, true)?;
    blobs.add(image.config, true)?;
    image.layers.into_iter().try_for_each(|layer| blobs.add(layer, false))?;
    Ok(descriptor)
}

fn read_yaml(pack: &PackDefinition, part: &ManifestDefinition, directory: &Utf8Path) -> Result<Vec<u8>, Error> {
    let path = directory.join(&part.source);
    let what = format!("pack {}, manifest {}", pack.name, part.name);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(YAML_LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(&what, path.as_str(), error))?;
    if bytes.len() as u64 > YAML_LIMIT {
        return Err(refuse(&what, path.as_str(), "it is larger than 4 MiB"));
    }
    Ok(bytes)
}

fn hash_file(
    pack: &PackDefinition,
    part: &FileDefinition,
    directory: &Utf8Path,
    registry: &mut Registry,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<SourceBlob, Error> {
    let what = format!("pack {}, file {}", pack.name, part.name);
    let path = if let Some(sha256) = part.sha256.as_deref().filter(|_| is_url(&part.source)) {
        let mut tick = |bytes_done, bytes_total| {
            progress(&Progress { stage: Stage::Gather, what: &what, bytes_done, bytes_total });
        };
        registry.download(&what, part.source.as_str(), sha256, &mut tick)?
    } else {
        directory.join(&part.source)
    };
    let fail = |why: String| refuse(&what, path.as_str(), why);
    let mut file = File::open(&path).map_err(|error| fail(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| fail(error.to_string()))?;
    if !metadata.is_file() {
        return Err(fail("it is not a file".to_owned()));
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut size = 0;
    let mut text = Vec::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file.read(&mut buffer).map_err(|error| fail(error.to_string()))?;
        if count == 0 {
            break;
        }
        let chunk = buffer.get(..count).unwrap_or_default();
        hasher.update(chunk);
        size += count as u64;
        if part.template {
            text.extend_from_slice(chunk);
            if text.len() as u64 > YAML_LIMIT {
                return Err(fail("it is a template and larger than 4 MiB".to_owned()));
            }
        }
        progress(&Progress { stage: Stage::Gather, what: &what, bytes_done: size, bytes_total: metadata.len() });
    }
    if part.template {
        let text = std::str::from_utf8(&text).map_err(|_| fail("it is a template and not UTF-8".to_owned()))?;
        if let Some(question) = template::texts_of(text, &pack.questions).first() {
            let why = format!(
                "the question {question} is answered with any text, which may stand in Kubernetes manifests only: nobody \
                 knows what it would mean here"
            );
            return Err(fail(why));
        }
        let is_asked = |name: &str| pack.questions.iter().any(|question| question.name == name);
        let known = |name: &str| (template::VARIABLES.contains(&name) || is_asked(name)).then(String::new);
        template::render(text, &mut { known }).map_err(|error| fail(error.to_string()))?;
    }
    Ok(SourceBlob {
        digest: hasher.finish(),
        size,
        media_type: media_type::PACK_FILE.to_owned(),
        place: Place::File { path: path.clone(), offset: 0 },
        owner: what,
    })
}

/// The pack as an OCI artifact: its descriptor is the config, its manifests and files are the layers.
fn add_pack(descriptor: PackDescriptor, mut layers: Vec<Descriptor>, blobs: &mut Blobs) -> Result<Pack, Error> {
    let what = format!("pack {}", descriptor.name);
    let too_odd = |error: serde_json::Error| refuse(&what, "bundle.yaml", error);
    if layers.is_empty() {
        // "There SHOULD be at least one layer" (OCI image-spec, manifest.md, "Guidelines for Artifact Usage").
        let empty = SourceBlob::of_bytes(media_type::OCI_EMPTY, b"{}".to_vec(), &what);
        layers.push(empty.descriptor());
        blobs.add(empty, false)?;
    }
    let config =
        SourceBlob::of_bytes(media_type::PACK_CONFIG, serde_json::to_vec(&descriptor).map_err(too_odd)?, &what);
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: Some(media_type::PACK.to_owned()),
        config: config.descriptor(),
        layers,
        annotations: BTreeMap::new(),
    };
    let manifest =
        SourceBlob::of_bytes(media_type::OCI_MANIFEST, serde_json::to_vec(&manifest).map_err(too_odd)?, &what);
    let pack = Pack { digest: manifest.digest, size: manifest.size, descriptor };
    if pack.size > MANIFEST_LIMIT || config.size > MANIFEST_LIMIT {
        return Err(refuse(&what, "bundle.yaml", "its manifest would be larger than 4 MiB"));
    }
    blobs.add(manifest, true)?;
    blobs.add(config, true)?;
    Ok(pack)
}

/// The layout's `index.json`: every image under its full reference, every pack under its own name.
fn layout_index(definition: &BundleDefinition, images: &[Image], packs: &[Pack]) -> Result<Vec<u8>, Error> {
    let named = |descriptor: Descriptor, name: &str| {
        descriptor.annotated(REFERENCE_NAME, name).annotated(CONTAINERD_NAME, name)
    };
    let image = |image: &Image| {
        let mut descriptor = Descriptor::new(&image.media_type, image.digest, image.size);
        descriptor.platform =
            Some(Platform { architecture: definition.architecture.to_string(), os: "linux".to_owned() });
        named(descriptor, &image.reference.to_string())
    };
    let pack = |pack: &Pack| {
        let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, pack.digest, pack.size);
        descriptor.artifact_type = Some(media_type::PACK.to_owned());
        descriptor.annotated(REFERENCE_NAME, &pack.layout_name())
    };
    let index = ImageIndex {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: images.iter().map(image).chain(packs.iter().map(pack)).collect(),
    };
    serde_json::to_vec(&index).map_err(|error| refuse("the layout's index", "bundle.yaml", error))
}
