//! The two trees that come from Debian: the system's root with its initrd, and the folder of tools.
//!
//! Invariant: nothing in them depends on the machine that builds, on the time or on the order of things; the same recipe
//! and the same state of the archive give the same files.
//!
//! Called by [`super::build`].

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use bundle::oci::Digest;
use camino::{Utf8Path, Utf8PathBuf};

use super::{Kernel, SystemOptions, recipe, sbom, sources};
use crate::{Error, tool};

/// The tree as it goes into the squashfs, in the folder of the cache.
pub(crate) const ROOT: &str = "root";
/// The initrd beside it.
pub(crate) const INITRD: &str = "initrd.img";
/// The kernel beside it.
pub(crate) const KERNEL: &str = "vmlinuz";
/// Its version, as `uname -r` says it.
pub(crate) const KERNEL_VERSION: &str = "kernel-version";
/// The bill of materials beside it.
pub(crate) const SBOM: &str = "sbom.cdx.json";

/// The archives and what state they are in.
pub(crate) struct Archive {
    sources: Vec<sources::Source>,
    /// Of all signed indexes; `None` when the archive cannot be reached.
    pub(crate) state: Option<Vec<u8>>,
}

impl Archive {
    /// Asks the archives which state they are in: the signed index of each suite decides over all package versions.
    pub(crate) fn look() -> Result<Self, Error> {
        let read = |path: Utf8PathBuf| {
            let text = fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
            Ok((path.extension() == Some("sources"), text))
        };
        let texts = sources::files().into_iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        let sources = sources::parse(&texts, recipe::RELEASE);
        if sources.is_empty() {
            return Err(sources::none(recipe::RELEASE));
        }
        let folder = tempfile::tempdir().map_err(Error::io("create a temporary directory"))?;
        let file = Utf8Path::from_path(folder.path()).unwrap_or(Utf8Path::new("/tmp")).join("index");
        let mut state = Some(Vec::new());
        for (uri, suite) in
            sources.iter().flat_map(|source| source.suites.iter().map(move |suite| (&source.uri, suite)))
        {
            let index = format!("{}/dists/{suite}/InRelease", uri.trim_end_matches('/'));
            let fetched = tool::run("/usr/lib/apt/apt-helper", ["download-file", &index, file.as_str()]);
            match (fetched, &mut state) {
                (Ok(_), Some(bytes)) => {
                    let read = fs::read(&file).map_err(Error::io(format!("read {file}")))?;
                    bytes.extend_from_slice(Digest::sha256_of(&read).as_bytes());
                }
                (Err(missing @ Error::Tool { is_missing: true, .. }), _) => return Err(missing),
                _ => state = None,
            }
            // apt-helper leaves the file alone when it is there.
            let _ = fs::remove_file(&file);
        }
        Ok(Self { sources, state })
    }

    /// Packages and all they need into a new folder.
    fn install(&self, packages: &[String], into: &Utf8Path) -> Result<(), Error> {
        let list = Utf8PathBuf::from(format!("{into}.sources"));
        fs::write(&list, sources::to_deb822(&self.sources)).map_err(Error::io(format!("write {list}")))?;
        let include = format!("--include={}", packages.join(","));
        tool::run(
            "mmdebstrap",
            [
                "--quiet",
                "--variant=minbase",
                "--mode=root",
                "--format=directory",
                "--architectures=amd64",
                &include,
                "--aptopt=Acquire::Retries \"3\"",
                "--aptopt=Acquire::Languages \"none\"",
                "--dpkgopt=path-exclude=/usr/share/man/*",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-exclude=/usr/share/info/*",
                "--dpkgopt=path-exclude=/usr/share/locale/*",
                recipe::RELEASE,
                into.as_str(),
                list.as_str(),
            ],
        )?;
        fs::remove_file(&list).map_err(Error::io(format!("remove {list}")))
    }

    /// The folder of tools.
    pub(crate) fn make_toolbox(&self, into: &Utf8Path) -> Result<(), Error> {
        self.install(&recipe::toolbox(), &into.join(ROOT))
    }

    /// The system's tree, its kernel, its initrd and its bill of materials.
    pub(crate) fn make_tree(
        &self,
        options: &SystemOptions,
        into: &Utf8Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let tree = into.join(ROOT);
        say("installing Debian's packages");
        self.install(&packages(options), &tree)?;
        lay_over(&tree)?;
        say("making the initrd");
        let modules = tree.join("usr/lib/modules");
        let version = modules
            .read_dir_utf8()
            .map_err(Error::io(format!("list {modules}")))?
            .flatten()
            .map(|entry| entry.file_name().to_owned())
            .max()
            .ok_or_else(|| Error::Options { why: "the system has no kernel".to_owned() })?;
        make_initrd(&tree, into, &version)?;
        let kernel = tree.join(format!("boot/vmlinuz-{version}"));
        fs::rename(&kernel, into.join(KERNEL)).map_err(Error::io(format!("move {kernel}")))?;
        fs::write(into.join(KERNEL_VERSION), &version).map_err(Error::io("write the kernel's version"))?;
        say("finishing the tree");
        let script = into.join("finish.sh");
        fs::write(&script, recipe::FINISH).map_err(Error::io(format!("write {script}")))?;
        tool::run("bash", [script.as_str(), tree.as_str()])?;
        fs::remove_file(&script).map_err(Error::io(format!("remove {script}")))?;
        let status = tree.join("usr/lib/sysimage/dpkg/status");
        let status = fs::read_to_string(&status).map_err(Error::io(format!("read {status}")))?;
        let materials = sbom::render(&sbom::packages(&status), recipe::RELEASE_NUMBER);
        fs::write(into.join(SBOM), materials).map_err(Error::io("write the bill of materials"))
    }
}

/// Kernel and firmware are chosen by options.
pub(crate) fn packages(options: &SystemOptions) -> Vec<String> {
    let mut all = recipe::packages();
    all.push(
        match options.kernel {
            Kernel::Generic => "linux-image-amd64",
            Kernel::Cloud => "linux-image-cloud-amd64",
        }
        .to_owned(),
    );
    all.extend(options.firmware.iter().cloned());
    all
}

fn lay_over(tree: &Utf8Path) -> Result<(), Error> {
    for file in recipe::TREE {
        let path = tree.join(file.path);
        let write = || {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            // Not through a link that a package left there.
            if path.is_symlink() {
                fs::remove_file(&path)?;
            }
            fs::write(&path, file.content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))
        };
        write().map_err(Error::io(format!("write {path}")))?;
    }
    Ok(())
}

fn make_initrd(tree: &Utf8Path, into: &Utf8Path, version: &str) -> Result<(), Error> {
    let work = into.join("initrd");
    let none = work.join("none");
    fs::create_dir_all(&none).map_err(Error::io(format!("create {none}")))?;
    fs::write(work.join("dracut.conf"), recipe::DRACUT).map_err(Error::io("write dracut's configuration"))?;
    let place = "/mnt";
    let inside = |name: &str| format!("{place}/{name}");
    let (conf, none, image) = (inside("dracut.conf"), inside("none"), inside(INITRD));
    let arguments = [
        "dracut",
        "--force",
        "--no-hostonly",
        "--conf",
        &conf,
        "--confdir",
        &none,
        "--tmpdir",
        "/mnt",
        "--kver",
        version,
        &image,
    ];
    tool::run_inside(tree, &[(&work, place)], &arguments)?;
    let image = work.join(INITRD);
    fs::rename(&image, into.join(INITRD)).map_err(Error::io(format!("move {image}")))?;
    fs::remove_dir_all(&work).map_err(Error::io(format!("remove {work}")))
}
