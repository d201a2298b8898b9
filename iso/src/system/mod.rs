//! The appliance's operating system: Debian's packages and the drop-ins of `iso/recipe/`, as a read-only root under
//! dm-verity, with its hash in a unified kernel image.
//!
//! Invariant: the same recipe, archive, program and keys give the same bytes. What comes from Debian is made once and kept
//! in the cache under a key of the recipe and of the archive's state.
//!
//! Called by `cofferdam iso build`. Needs root: packages are unpacked with their owners.

mod cache;
mod enrolment;
mod recipe;
mod root;
mod sbom;
mod seal;
mod sources;

use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};

use crate::Error;

pub(crate) use seal::{ARGUMENT_AREA, MEDIUM_ROOT, MEDIUM_VERITY, uuid};

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// For servers: storage controllers, network adapters, consoles.
    #[default]
    Generic,
    /// For virtual machines only, a third of the size.
    Cloud,
}

/// What Secure Boot signatures are made with, PEM files.
#[derive(Debug, Clone)]
pub struct SecureBoot {
    /// Private key.
    pub key: Utf8PathBuf,
    /// Its certificate, which the firmware must trust.
    pub certificate: Utf8PathBuf,
}

/// What a system is made of.
#[derive(Debug, Clone)]
pub struct SystemOptions {
    /// Version of the image; boot loaders sort by it (UAPI version format).
    pub version: String,
    /// The kernel.
    pub kernel: Kernel,
    /// Debian packages of firmware, for example `firmware-bnx2x`. They must be in the component `main` of the archive.
    pub firmware: Vec<String>,
    /// The program `cofferdam` that goes in.
    pub program: Utf8PathBuf,
    /// A folder that is laid over the root: agents, certificates and units of the site's own.
    pub extra_tree: Option<Utf8PathBuf>,
    /// Public keys whose media and bundles this system trusts.
    pub trust: Vec<Utf8PathBuf>,
    /// The key whose signatures on PCR 11 open encrypted volumes, PEM. Made when the file is not there.
    pub pcr_key: Utf8PathBuf,
    /// Sign for Secure Boot.
    pub secure_boot: Option<SecureBoot>,
    /// More arguments for the kernel, part of the signed image.
    pub kernel_arguments: Vec<String>,
    /// zstd level of the root, 1 to 22.
    pub compression: u32,
    /// What Debian's packages are kept in.
    pub cache: Utf8PathBuf,
}

/// A finished system: files in the folder that [`build`] was given.
#[derive(Debug, Clone)]
pub struct System {
    /// As in the options.
    pub version: String,
    /// The kernel's version.
    pub kernel: String,
    /// The root, a squashfs.
    pub root: Utf8PathBuf,
    /// Its verity tree.
    pub verity: Utf8PathBuf,
    /// The hash over that, 64 hexadecimal digits.
    pub root_hash: String,
    /// SHA-256 of the public key (PEM) of the signatures on PCR 11.
    pub pcr_key: Digest,
    /// The unified kernel image.
    pub image: Utf8PathBuf,
    /// systemd-boot.
    pub loader: Utf8PathBuf,
    /// What the medium's boot has more than the installed one.
    pub live_addon: Utf8PathBuf,
    /// Room for further arguments of a finished medium.
    pub argument_addon: Utf8PathBuf,
    /// Secure Boot variables, signed, for a firmware in setup mode: name and file. Empty without a key.
    pub enrolment: Vec<(String, Utf8PathBuf)>,
    /// `CycloneDX` bill of materials.
    pub materials: Utf8PathBuf,
}

/// Makes a system in the folder `into`, which is empty. `say` hears what is done just now.
pub fn build(options: &SystemOptions, into: &Utf8Path, say: &mut dyn FnMut(&str)) -> Result<System, Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Options {
            why: "an operating system's files belong to root: this needs to run as root".to_owned(),
        });
    }
    say("asking the archive for its state");
    let archive = root::Archive::look()?;
    let recipe_key = recipe_key(options);
    let toolbox_key = recipe::key(recipe::toolbox().iter().map(String::as_bytes));
    let (toolbox, tree) = if let Some(state) = &archive.state {
        let state = recipe::key([state.as_slice()]);
        let toolbox = cache::folder(&options.cache, "toolbox", &format!("{toolbox_key}-{state}"), |into| {
            say("fetching the tools");
            archive.make_toolbox(into)
        })?;
        let tree = cache::folder(&options.cache, "system", &format!("{recipe_key}-{state}"), |into| {
            archive.make_tree(options, into, say)
        })?;
        (toolbox, tree)
    } else {
        say("the archive cannot be reached: using what was fetched last");
        let kept = |kind, key: &str| {
            cache::newest(&options.cache, kind, key).ok_or_else(|| Error::Options {
                why: "the archive that this machine's apt names cannot be reached, and nothing of this recipe is in the cache"
                    .to_owned(),
            })
        };
        (kept("toolbox", &toolbox_key)?, kept("system", &recipe_key)?)
    };
    seal::seal(options, &toolbox, &tree, into, say)
}

fn recipe_key(options: &SystemOptions) -> String {
    let packages = root::packages(options);
    let mut parts: Vec<&[u8]> = vec![recipe::RELEASE.as_bytes(), recipe::DRACUT.as_bytes(), recipe::FINISH.as_bytes()];
    parts.extend(packages.iter().map(String::as_bytes));
    for file in recipe::TREE {
        parts.extend([file.path.as_bytes(), file.content]);
    }
    recipe::key(parts)
}
