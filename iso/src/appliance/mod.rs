//! The boot medium: an ISO image that brings its own operating system, boots by UEFI from an optical disc and from a USB
//! stick, and carries answers, keys and bundle for the site.
//!
//! Layout: an ISO 9660 volume with the folder `cofferdam/`, then by GPT the boot partition (systemd-boot, the unified
//! kernel image, addons), the root and its verity tree. The bytes of the system stand on it once: the live system boots
//! from the partitions that are copied to the disk.
//!
//! Invariant: the same parts give the same bytes, so that a medium can be customised without being built again, and a
//! customisation can be taken back.
//!
//! Called by `cofferdam iso build | customize | inspect | system`.

mod bios;
mod esp;
mod extract;
mod gpt;
pub mod manifest;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek as _, SeekFrom, Write as _};

use bundle::keys::{KeyId, Signature, SigningKey, TrustedKeys};
use bundle::oci::Algorithm;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use crate::manifest::{CONFIG, FOLDER, MANIFEST, Manifest, ManifestFile, TRUST_KEY};
use crate::read::{Image, Kind};
use crate::system::{MEDIUM_ROOT, MEDIUM_VERITY, System, SystemOptions};
use crate::xorriso::{self, Boot, Graft};
use crate::{Error, medium, system};
use manifest::{MATERIALS, SYSTEM, SYSTEM_SIGNATURE, SystemManifest};

pub(crate) use esp::empty_area;
pub use extract::extract_system;

/// The volume's label: another one than that of a data medium, which may be in the machine too.
pub const LABEL: &str = "COFFERDAM_OS";
const MEDIUM_BOOT: &str = "cofferdam-medium-boot";
/// Numbers of the partitions; 1 is the ISO 9660 volume.
const PARTITIONS: [(u32, &str); 3] = [(2, MEDIUM_BOOT), (3, MEDIUM_ROOT), (4, MEDIUM_VERITY)];
const BIOS: &str = "boot/bios.img";

/// What a medium carries besides its system.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The bundle: one file, or its parts in order; may be empty.
    pub bundle: Vec<Utf8PathBuf>,
    /// The public key that the bundle is signed with.
    pub trust_key: Option<Utf8PathBuf>,
    /// Answers for an unattended installation. They must hold no secret.
    pub config: Option<Utf8PathBuf>,
    /// Further kernel arguments of the live system.
    pub arguments: String,
}

/// What a boot medium is made from.
#[derive(Debug, Clone)]
pub struct ApplianceOptions {
    /// The operating system.
    pub system: SystemOptions,
    /// The secret key that signs the system's manifest; its public key must be among those that the system trusts.
    pub signing_key: Utf8PathBuf,
    /// What else it carries.
    pub contents: Contents,
    /// The image to write.
    pub output: Utf8PathBuf,
}

/// What a medium carries, after all of it was read and compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ApplianceReport {
    /// Bytes of the image.
    pub size: u64,
    /// The operating system.
    pub system: SystemManifest,
    /// Who signed that, as it says itself; proven only when keys were given.
    pub signed_by: Option<KeyId>,
    /// Whether the signature was checked with a key that the caller trusts.
    pub is_trusted: bool,
    /// Further kernel arguments of the live system.
    pub arguments: String,
    /// The files in `cofferdam/`.
    pub files: Manifest,
}

/// A folder for the work, beside the output so that the result can be renamed.
struct Work {
    folder: tempfile::TempDir,
    path: Utf8PathBuf,
}

impl Work {
    fn beside(output: &Utf8Path) -> Result<Self, Error> {
        let name = output.file_name().ok_or_else(|| Error::Options { why: format!("{output:?} is no file name") })?;
        let parent = output.parent().filter(|parent| !parent.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
        let folder = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(parent);
        let folder = folder.map_err(Error::io(format!("create a directory in {parent}")))?;
        let path = folder.path().canonicalize().ok().and_then(|path| Utf8PathBuf::from_path_buf(path).ok());
        let path = path.ok_or_else(|| Error::Options { why: format!("{parent} has no UTF-8 name") })?;
        Ok(Self { folder, path })
    }

    fn join(&self, name: &str) -> Utf8PathBuf {
        self.path.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<Utf8PathBuf, Error> {
        let path = self.join(name);
        fs::write(&path, bytes).map_err(Error::io(format!("write {path}")))?;
        Ok(path)
    }

    fn finish(self, image: &Utf8Path, output: &Utf8Path) -> Result<(), Error> {
        let file = File::open(image).map_err(Error::io(format!("open {image}")))?;
        file.sync_all().map_err(Error::io(format!("sync {image}")))?;
        fs::rename(image, output).map_err(Error::io(format!("rename {image} to {output}")))?;
        drop(self.folder);
        Ok(())
    }
}

fn measured(path: &Utf8Path) -> Result<ManifestFile, Error> {
    let file = File::open(path).map_err(Error::io(format!("open {path}")))?;
    medium::digest(file, Algorithm::Sha256, &mut |_| ()).map_err(Error::io(format!("read {path}")))
}

/// Builds the system and the medium. `say` hears what is done just now.
pub fn build(options: &ApplianceOptions, say: &mut dyn FnMut(&str)) -> Result<ApplianceReport, Error> {
    let unusable = |source| Error::Key { path: options.signing_key.clone(), source };
    let key = SigningKey::load(&options.signing_key, None).map_err(unusable)?;
    let trust = TrustedKeys::load(&options.system.trust).map_err(unusable)?;
    if !trust.ids().contains(&key.id()) {
        let why = format!(
            "the system would not trust the key {} that signs it: name its public key too",
            options.signing_key
        );
        return Err(Error::Options { why });
    }
    verify_bundle(&options.contents, say)?;
    let work = Work::beside(&options.output)?;
    let system_folder = work.join("system");
    fs::create_dir(&system_folder).map_err(Error::io(format!("create {system_folder}")))?;
    let system = system::build(&options.system, &system_folder, say)?;
    say("writing the medium");
    let image = assemble(&system, &key, &options.contents, &work)?;
    let report = inspect(&image, Some(&trust))?;
    work.finish(&image, &options.output)?;
    Ok(report)
}

/// The medium of a finished system, in the folder of the work.
fn assemble(system: &System, key: &SigningKey, contents: &Contents, work: &Work) -> Result<Utf8PathBuf, Error> {
    let boot_files = esp::files(system, &work.path)?;
    let boot = work.join("boot.img");
    esp::make(&boot, &boot_files)?;
    let manifest = describe(system, &boot_files)?.to_json();
    let signature = key.sign(&manifest, &format!("cofferdam system {}", system.version));
    let mut files = vec![
        (SYSTEM.to_owned(), work.write(SYSTEM, &manifest)?),
        (SYSTEM_SIGNATURE.to_owned(), work.write(SYSTEM_SIGNATURE, signature.as_bytes())?),
        (MATERIALS.to_owned(), system.materials.clone()),
    ];
    let bundle = add_contents(&mut files, contents);
    set_arguments(&boot, &contents.arguments)?;
    let image = work.join("image");
    let disk = system::uuid(system.root_hash.get(..32).unwrap_or_default());
    let parts = [boot.to_string(), system.root.to_string(), system.verity.to_string()];
    compose(work, &image, &disk, &parts, files, bundle)?;
    Ok(image)
}

fn verify_bundle(contents: &Contents, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    if contents.bundle.is_empty() {
        return Ok(());
    }
    say("verifying the bundle");
    let trust_key = contents.trust_key.as_ref();
    let trust_key = trust_key
        .ok_or_else(|| Error::Options { why: "a bundle goes with the public key that it is signed with".to_owned() })?;
    medium::verify_bundle(&contents.bundle, trust_key, &mut |_| ())
}

fn describe(system: &System, boot: &[(String, Utf8PathBuf)]) -> Result<SystemManifest, Error> {
    let boot = boot.iter().map(|(place, source)| Ok((place.clone(), measured(source)?)));
    Ok(SystemManifest {
        schema_version: SystemManifest::SCHEMA_VERSION,
        version: system.version.clone(),
        kernel: system.kernel.clone(),
        root_hash: system.root_hash.clone(),
        pcr_key: system.pcr_key,
        root: measured(&system.root)?,
        verity: measured(&system.verity)?,
        boot: boot.collect::<Result<_, Error>>()?,
        materials: measured(&system.materials)?,
    })
}

/// Adds the site's own files; gives the names of the bundle's.
fn add_contents(files: &mut Vec<(String, Utf8PathBuf)>, contents: &Contents) -> Vec<String> {
    let names = match contents.bundle.len() {
        0 => Vec::new(),
        parts => medium::bundle_names(parts),
    };
    files.extend(names.iter().cloned().zip(contents.bundle.iter().cloned()));
    files.extend(contents.trust_key.clone().map(|key| (TRUST_KEY.to_owned(), key)));
    files.extend(contents.config.clone().map(|config| (CONFIG.to_owned(), config)));
    names
}

/// Written in place: another copy of the file would lie elsewhere in the partition, and the change could not be taken back
/// to the byte. What was written is read by [`inspect`] as a file.
fn set_arguments(boot: &Utf8Path, arguments: &str) -> Result<(), Error> {
    let mut bytes = fs::read(boot).map_err(Error::io(format!("read {boot}")))?;
    esp::set_arguments(&mut bytes, arguments)?;
    fs::write(boot, bytes).map_err(Error::io(format!("write {boot}")))
}

/// Writes the image of a medium from its parts: boot partition, root and verity tree, as xorriso takes them.
fn compose(
    work: &Work,
    image: &Utf8Path,
    disk: &str,
    parts: &[String; 3],
    files: Vec<(String, Utf8PathBuf)>,
    bundle: Vec<String>,
) -> Result<(), Error> {
    let mut listed = BTreeMap::new();
    for (name, source) in &files {
        listed.insert(name.clone(), measured(source)?);
    }
    let manifest = work.write(MANIFEST, &Manifest::new(bundle, listed).to_json())?;
    let mut code = bios::code();
    let record = work.write("record", &code)?;
    code.resize(2048, 0);
    let bios = work.write("bios.img", &code)?;
    let graft = |name: String, from: Utf8PathBuf| Graft { to: format!("/{FOLDER}/{name}"), from };
    let mut grafts = vec![graft(MANIFEST.to_owned(), manifest), Graft { to: format!("/{BIOS}"), from: bios }];
    grafts.extend(files.into_iter().map(|(name, source)| graft(name, source)));
    let boot = Boot { disk, record: &record, bios: BIOS, partitions: parts };
    xorriso::write(image, LABEL, &grafts, Some(&boot))?;
    let file = File::options().read(true).write(true).open(image).map_err(Error::io(format!("open {image}")))?;
    gpt::rename(image, &file, &PARTITIONS)
}

/// The partitions of a medium, in the order boot, root, verity.
fn partitions(path: &Utf8Path) -> Result<[gpt::Partition; 3], Error> {
    let file = File::open(path).map_err(Error::io(format!("open {path}")))?;
    let all = gpt::partitions(path, &file)?;
    let find = |name: &str| {
        all.iter()
            .find(|partition| partition.name == name)
            .cloned()
            .ok_or_else(|| Error::NotAMedium { path: path.to_owned(), why: format!("it has no partition {name}") })
    };
    Ok([find(MEDIUM_BOOT)?, find(MEDIUM_ROOT)?, find(MEDIUM_VERITY)?])
}

fn partition_reader(path: &Utf8Path, partition: &gpt::Partition, bytes: u64) -> Result<impl Read, Error> {
    let mut file = File::open(path).map_err(Error::io(format!("open {path}")))?;
    file.seek(SeekFrom::Start(partition.start)).map_err(Error::io(format!("read {path}")))?;
    Ok(file.take(bytes.min(partition.length)))
}

fn copy_partition(path: &Utf8Path, partition: &gpt::Partition, output: &Utf8Path) -> Result<(), Error> {
    let mut reader = partition_reader(path, partition, partition.length)?;
    let mut file = File::create(output).map_err(Error::io(format!("create {output}")))?;
    std::io::copy(&mut reader, &mut file)
        .and_then(|_| file.flush())
        .map_err(Error::io(format!("copy a partition of {path}")))
}

/// A file of `cofferdam/` as bytes, at most [`manifest::LONGEST`].
fn small_file(image: &Image, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = image.open_file(&format!("{FOLDER}/{name}"))?;
    file.take(manifest::LONGEST)
        .read_to_end(&mut bytes)
        .map_err(Error::io(format!("read {name} in {}", image.path())))?;
    Ok(bytes)
}

/// Whether an image is a boot medium; one that is not may be a data medium.
pub fn is_appliance(image: &Image) -> bool {
    image.entries().any(|entry| entry.path == format!("{FOLDER}/{SYSTEM}") && entry.kind == Kind::File)
}

/// Reads a medium, without mounting it, and compares all of it with its manifests. With `trust`, the system's signature
/// must be of one of these keys.
pub fn inspect(path: &Utf8Path, trust: Option<&TrustedKeys>) -> Result<ApplianceReport, Error> {
    let image = Image::open(path)?;
    let not_ours = |why: String| Error::NotAMedium { path: path.to_owned(), why };
    if !is_appliance(&image) {
        return Err(not_ours(format!("it has no {FOLDER}/{SYSTEM}, so it brings no system")));
    }
    let (bytes, signature) = (small_file(&image, SYSTEM)?, small_file(&image, SYSTEM_SIGNATURE)?);
    let (system, signed_by) = if let Some(trust) = trust {
        SystemManifest::verify(&bytes, &signature, trust)
            .map(|(system, key)| (system, Some(key)))
            .map_err(|why| not_ours(format!("its {SYSTEM} is not trusted: {why}")))?
    } else {
        let system = SystemManifest::parse(&bytes).map_err(|why| not_ours(format!("its {SYSTEM}: {why}")))?;
        (system, Signature::parse(&signature).ok().map(|signature| signature.key_id()))
    };
    let (files, mut problems) = medium::compare(&image)?;
    let [boot, root, verity] = partitions(path)?;
    for (what, partition, listed) in [("the root", &root, &system.root), ("the verity tree", &verity, &system.verity)] {
        let found = medium::digest(partition_reader(path, partition, listed.size)?, Algorithm::Sha256, &mut |_| ());
        if found.map_err(Error::io(format!("read {path}")))? != *listed {
            problems.push(format!("{what} is not the one of {SYSTEM}"));
        }
    }
    if files.files.get(MATERIALS) != Some(&system.materials) {
        problems.push(format!("{MATERIALS} is not the one of {SYSTEM}"));
    }
    let arguments = compare_boot(path, &boot, &system, &mut problems)?;
    if !problems.is_empty() {
        return Err(Error::Differs { path: path.to_owned(), problems });
    }
    let size = fs::metadata(path).map_err(Error::io(format!("look at {path}")))?.len();
    Ok(ApplianceReport { size, system, signed_by, is_trusted: trust.is_some(), arguments, files })
}

/// Compares the files of the boot partition; gives the further kernel arguments.
fn compare_boot(
    path: &Utf8Path,
    partition: &gpt::Partition,
    system: &SystemManifest,
    problems: &mut Vec<String>,
) -> Result<String, Error> {
    let folder = tempfile::tempdir().map_err(Error::io("create a temporary directory"))?;
    let folder = Utf8Path::from_path(folder.path())
        .ok_or_else(|| Error::Options { why: "the temporary directory has no UTF-8 name".to_owned() })?;
    let (boot, copy) = (folder.join("boot.img"), folder.join("file"));
    copy_partition(path, partition, &boot)?;
    let mut arguments = String::new();
    for (place, listed) in &system.boot {
        if esp::extract(&boot, place, &copy).is_err() {
            problems.push(format!("{place} is missing in the boot partition"));
            continue;
        }
        if place == esp::ARGUMENTS {
            let mut bytes = fs::read(&copy).map_err(Error::io(format!("read {copy}")))?;
            arguments = esp::arguments(&bytes).unwrap_or_default();
            if esp::set_arguments(&mut bytes, "").is_ok() {
                fs::write(&copy, bytes).map_err(Error::io(format!("write {copy}")))?;
            }
        }
        if measured(&copy)? != *listed {
            problems.push(format!("{place} in the boot partition is not the one of {SYSTEM}"));
        }
    }
    Ok(arguments)
}

/// What is changed on a medium. What is not named stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Take all customisation away first.
    pub reset: bool,
    /// Another bundle, with its key.
    pub bundle: Vec<Utf8PathBuf>,
    /// Another public key.
    pub trust_key: Option<Utf8PathBuf>,
    /// Other answers.
    pub config: Option<Utf8PathBuf>,
    /// Other kernel arguments of the live system.
    pub arguments: Option<String>,
}

/// Writes a medium with other contents; the system is taken as it is. Needs no privileges.
pub fn customise(
    input: &Utf8Path,
    output: &Utf8Path,
    changes: &Changes,
    say: &mut dyn FnMut(&str),
) -> Result<ApplianceReport, Error> {
    say("reading the medium");
    let before = inspect(input, None)?;
    let image = Image::open(input)?;
    let work = Work::beside(output)?;
    let mut contents = Contents::default();
    if !changes.reset {
        contents.arguments.clone_from(&before.arguments);
        let extract = |name: &str| extract_file(&image, name, &work.join(name)).map(|()| work.join(name));
        if changes.bundle.is_empty() {
            contents.bundle = before.files.bundle.iter().map(|name| extract(name)).collect::<Result<_, _>>()?;
        }
        let kept = |name: &str| before.files.files.contains_key(name).then(|| extract(name)).transpose();
        contents.trust_key = kept(TRUST_KEY)?;
        contents.config = kept(CONFIG)?;
    }
    if !changes.bundle.is_empty() {
        contents.bundle.clone_from(&changes.bundle);
    }
    contents.trust_key = changes.trust_key.clone().or(contents.trust_key);
    contents.config = changes.config.clone().or(contents.config);
    contents.arguments = changes.arguments.clone().unwrap_or(contents.arguments);
    verify_bundle(&contents, say)?;

    say("writing the medium");
    let mut files = Vec::new();
    for name in [SYSTEM, SYSTEM_SIGNATURE, MATERIALS] {
        extract_file(&image, name, &work.join(name))?;
        files.push((name.to_owned(), work.join(name)));
    }
    let bundle = add_contents(&mut files, &contents);
    let [boot, root, verity] = partitions(input)?;
    let boot_image = work.join("boot.img");
    copy_partition(input, &boot, &boot_image)?;
    set_arguments(&boot_image, &contents.arguments)?;
    // xorriso reads these ranges out of the old medium (man xorriso, "-append_partition", interval reader).
    let range = |partition: &gpt::Partition| {
        let first = partition.start / gpt::BLOCK;
        format!("--interval:local_fs:{first}d-{}d::{input}", first + partition.length / gpt::BLOCK - 1)
    };
    let parts = [boot_image.to_string(), range(&root), range(&verity)];
    let written = work.join("image");
    let disk = system::uuid(before.system.root_hash.get(..32).unwrap_or_default());
    compose(&work, &written, &disk, &parts, files, bundle)?;
    let report = inspect(&written, None)?;
    work.finish(&written, output)?;
    Ok(report)
}

fn extract_file(image: &Image, name: &str, output: &Utf8Path) -> Result<(), Error> {
    let mut reader = image.open_file(&format!("{FOLDER}/{name}"))?;
    let mut file = File::create(output).map_err(Error::io(format!("create {output}")))?;
    std::io::copy(&mut reader, &mut file).map(drop).map_err(Error::io(format!("copy {name} out of {}", image.path())))
}

#[cfg(test)]
mod tests;
