//! The closed-world proof: whatever a bundle's packs and images name is in the bundle.
//!
//! Invariant: a bundle passes only if (1) every blob that an image's or a pack's manifest names is in the index with
//! the same size, and (2) every image reference of every Kubernetes manifest resolves to an image of the bundle or is
//! declared optional by the pack. What a delta leaves out counts as being in the index, and is never of a kind that the
//! proof has to read ([`crate::delta`]). All that is missing is collected, not the first of it. `create` runs it before
//! anything is written, `load` and `verify` again over the blobs that pass by.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Missing};
use crate::index::{Blob, Index, PackDescriptor};
use crate::oci::{Digest, ImageManifest, Reference};
use crate::read::{MANIFEST_LIMIT, YAML_LIMIT};
use crate::{references, template};

/// The images that a bundle holds, as a set that answers whether a reference would resolve.
pub(crate) struct Images {
    tagged: HashSet<String>,
    pinned: HashSet<(String, Digest)>,
}

impl Images {
    pub(crate) fn new<'a>(images: impl Iterator<Item = (&'a Reference, Digest)>) -> Self {
        let mut set = Self { tagged: HashSet::new(), pinned: HashSet::new() };
        for (reference, digest) in images {
            let repository = format!("{}/{}", reference.registry(), reference.repository());
            if let Some(tag) = reference.tag() {
                set.tagged.insert(format!("{repository}:{tag}"));
            }
            set.pinned.insert((repository, digest));
        }
        set
    }

    /// A digest decides over a tag, as it does for containerd.
    fn resolves(&self, reference: &Reference) -> bool {
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => self.pinned.contains(&(repository, digest)),
            (None, Some(tag)) => self.tagged.contains(&format!("{repository}:{tag}")),
            (None, None) => false,
        }
    }
}

/// What is missing for one Kubernetes manifest. The error says why it is no YAML; one line.
pub(crate) fn missing_images(
    images: &Images,
    pack: &PackDescriptor,
    manifest: &str,
    is_template: bool,
    yaml: &[u8],
) -> Result<Vec<Missing>, String> {
    let text = std::str::from_utf8(yaml).map_err(|_| "it is not UTF-8".to_owned())?;
    let rendered;
    let text = if is_template {
        // A variable inside an image reference becomes a name that is not in the bundle, and is reported as such.
        let is_asked = |name: &str| pack.questions.iter().any(|question| question.name == name);
        let mut value =
            |name: &str| (template::VARIABLES.contains(&name) || is_asked(name)).then(|| format!("TEMPLATE-{name}"));
        rendered = template::render(text, &mut value).map_err(|error| error.to_string())?;
        if !pack.questions.is_empty() {
            template::confined(text, &pack.questions)?;
        }
        &rendered
    } else {
        text
    };
    let missing = |image: String| match image.parse::<Reference>() {
        Ok(reference) if images.resolves(&reference) || pack.optional_images.contains(&reference) => None,
        Ok(reference) => Some(Missing::Image { pack: pack.name.clone(), manifest: manifest.to_owned(), reference }),
        Err(_) => Some(Missing::Unreadable { pack: pack.name.clone(), manifest: manifest.to_owned(), text: image }),
    };
    Ok(references::images(text)?.into_iter().filter_map(missing).collect())
}

/// Which role a blob plays for the proof.
enum Role<'i> {
    /// The manifest of an image.
    Image(&'i Reference),
    /// The OCI manifest of a pack.
    Pack(&'i PackDescriptor),
    /// A Kubernetes manifest: pack, name, whether it is a template.
    Kubernetes(&'i PackDescriptor, &'i str, bool),
}

/// The proof over a bundle that passes by.
pub(crate) struct Proof<'i> {
    roles: HashMap<Digest, Vec<Role<'i>>>,
    sizes: HashMap<Digest, u64>,
    images: Images,
    missing: Vec<Missing>,
}

impl<'i> Proof<'i> {
    /// Checks what the index alone says; the rest when blobs come.
    pub(crate) fn new(index: &'i Index) -> Self {
        let mut roles: HashMap<Digest, Vec<Role<'i>>> = HashMap::new();
        let sizes: HashMap<Digest, u64> = index.contents().map(|blob| (blob.digest, blob.size)).collect();
        let mut wanted: Vec<(String, Digest, u64)> = Vec::new();
        for image in &index.images {
            roles.entry(image.digest).or_default().push(Role::Image(&image.reference));
            wanted.push((format!("image {}", image.reference), image.digest, image.size));
        }
        for pack in &index.packs {
            roles.entry(pack.digest).or_default().push(Role::Pack(pack));
            wanted.push((format!("pack {}", pack.name), pack.digest, pack.size));
            for manifest in pack.all_manifests() {
                let role = Role::Kubernetes(pack, &manifest.name, manifest.template);
                roles.entry(manifest.digest).or_default().push(role);
                let owner = format!("pack {}, manifest {}", pack.name, manifest.name);
                wanted.push((owner, manifest.digest, manifest.size));
            }
            for file in &pack.files {
                wanted.push((format!("pack {}, file {}", pack.name, file.name), file.digest, file.size));
            }
        }
        let images = Images::new(index.images.iter().map(|image| (&image.reference, image.digest)));
        let mut proof = Self { roles, sizes, images, missing: Vec::new() };
        for (owner, digest, size) in wanted {
            proof.want(owner, digest, size);
        }
        for pack in &index.packs {
            for image in &pack.images {
                if !index.images.iter().any(|known| known.reference == image.reference && known.digest == image.digest)
                {
                    proof.missing.push(Missing::Image {
                        pack: pack.name.clone(),
                        manifest: "(its image list)".to_owned(),
                        reference: image.reference.clone(),
                    });
                }
            }
        }
        proof
    }

    fn want(&mut self, owner: String, digest: Digest, size: u64) {
        if self.sizes.get(&digest) != Some(&size) {
            self.missing.push(Missing::Blob { owner, digest });
        }
    }

    /// Whether [`Self::observe`] must see the content of this blob.
    ///
    /// A blob over the limit is not: it does not have the size that its role states, and is reported for that already.
    pub(crate) fn needs(&self, blob: &Blob) -> bool {
        blob.size <= MANIFEST_LIMIT.max(YAML_LIMIT) && self.roles.contains_key(&blob.digest)
    }

    /// Takes in a verified blob.
    pub(crate) fn observe(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        for role in self.roles.remove(digest).unwrap_or_default() {
            match role {
                Role::Image(reference) => {
                    let manifest = parse_manifest(digest, bytes)?;
                    self.want_all(&format!("image {reference}"), &manifest);
                }
                Role::Pack(pack) => {
                    let manifest = parse_manifest(digest, bytes)?;
                    let owner = format!("pack {}", pack.name);
                    self.want_all(&owner, &manifest);
                    let layers: HashSet<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
                    let parts = pack.all_manifests().map(|part| part.digest);
                    for part in parts.chain(pack.files.iter().map(|part| part.digest)) {
                        if !layers.contains(&part) {
                            self.missing
                                .push(Missing::Blob { owner: format!("the manifest of {owner}"), digest: part });
                        }
                    }
                }
                Role::Kubernetes(pack, name, is_template) => {
                    let missing = missing_images(&self.images, pack, name, is_template, bytes)
                        .map_err(|why| Error::corrupt(format!("pack {}, manifest {name}", pack.name), why))?;
                    self.missing.extend(missing);
                }
            }
        }
        Ok(())
    }

    fn want_all(&mut self, owner: &str, manifest: &ImageManifest) {
        for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
            self.want(owner.to_owned(), part.digest, part.size);
        }
    }

    /// The verdict, after all blobs.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        if self.missing.is_empty() {
            return Ok(());
        }
        self.missing.sort();
        self.missing.dedup();
        Err(Error::Incomplete { missing: self.missing })
    }
}

fn parse_manifest(digest: &Digest, bytes: &[u8]) -> Result<ImageManifest, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::corrupt(digest, format!("it is not an image manifest: {error}")))
}
