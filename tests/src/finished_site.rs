//! Finished appliances that stories begin with. An installation to the finished cluster takes half an hour without KVM: it is
//! done once for each program, sample and bench, and kept with its medium, disk, TPM and the firmware's memory, switched off.
//! Called by `appliance_upgrade`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use camino::Utf8Path;
use rustix::fs::{FlockOperation, flock};

use crate::cache;
use crate::encrypted_site::piped;
use crate::sample::{self, Release};

/// A place for one kind of site.
#[derive(Debug)]
pub struct FinishedSite {
    folder: PathBuf,
    key: String,
}

impl FinishedSite {
    /// Finds the place for sites of this build. Whatever has a part in an installation has a part in its name.
    pub fn find() -> Result<Self> {
        let source = tempfile::tempdir()?;
        let definition = sample::define(source.path(), "sample", &Release::default())?;
        let definition = definition.parent().context("a definition lies in a folder")?;
        let bed = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (program, tree, bench) = (sample::cofferdam()?, bed.join("machines/tree"), bed.join("src/appliance.rs"));
        let sums =
            r#"set -o pipefail; find "$@" -type f -exec sha256sum {} + | cut -c 1-64 | sort | sha256sum | cut -c 1-16"#;
        let mut arguments = vec!["-c", sums, "bash"];
        for part in [&program, definition, &tree, &bench] {
            arguments.push(part.to_str().with_context(|| format!("{} is no UTF-8", part.display()))?);
        }
        let key = String::from_utf8(piped("bash", &arguments, b"")?)?.trim().to_owned();
        Ok(Self { folder: cache::folder("finished-site")?, key })
    }

    /// Copies the site into a folder; false when none is kept.
    pub fn bring(&self, to: &Utf8Path) -> Result<bool> {
        let _lock = self.lock()?;
        let kept = self.folder.join(&self.key);
        if !kept.is_dir() {
            return Ok(false);
        }
        copy(&kept, to.as_std_path())?;
        Ok(true)
    }

    /// Keeps the site that lies in a folder, in place of those of other builds.
    pub fn keep(&self, from: &Utf8Path) -> Result<()> {
        let _lock = self.lock()?;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        let half = self.folder.join("half");
        copy(from.as_std_path(), &half)?;
        fs::rename(&half, self.folder.join(&self.key)).context("the finished site")
    }

    /// Held for as long as the file is open.
    fn lock(&self) -> Result<File> {
        let path = self.folder.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }
}

/// Disks keep their holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let (from, to) = (from.join("."), to.to_str().context("the folder's name is no UTF-8")?);
    let from = from.to_str().context("the folder's name is no UTF-8")?;
    piped("cp", &["--archive", "--sparse=always", "--reflink=auto", from, to], b"").map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]

    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_last_one_kept_comes_back_with_its_holes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| camino::Utf8PathBuf::from_path_buf(folder.path().join(name)).unwrap();
        for name in ["cache", "site", "copy"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("site").join("key"), "secret").unwrap();
        File::create(path("site").join("disk.img")).unwrap().set_len(64 << 20).unwrap();
        let of = |key: &str| FinishedSite { folder: path("cache").into(), key: key.to_owned() };
        assert!(!of("one").bring(&path("copy")).unwrap());
        of("one").keep(&path("site")).unwrap();
        assert!(of("one").bring(&path("copy")).unwrap());
        assert_eq!(fs::read_to_string(path("copy").join("key")).unwrap(), "secret");
        let disk = path("copy").join("disk.img").metadata().unwrap();
        assert_eq!((disk.len(), disk.blocks()), (64 << 20, 0));
        of("another").keep(&path("site")).unwrap();
        assert!(!of("one").bring(&path("copy")).unwrap());
    }
}
