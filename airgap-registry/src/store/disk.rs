//! Durable changes of the file tree below a store.
//!
//! Invariant: when a function here returns, what it did survives a power cut: data is synced before the rename that
//! makes it visible, and the directory (and each parent that had to be made) after it. A [`Batch`] puts the directory
//! syncs off to its end. Called by every module of the store that writes.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::{Error, Result};

/// Everything below the root of a store.
#[derive(Debug)]
pub(crate) struct Disk {
    root: Utf8PathBuf,
    /// Root loads bundles into a store that the server's user owns: what root makes is given to that user.
    owner: Option<(u32, u32)>,
    /// After so many changes all further ones fail, as if the process had been killed.
    #[cfg(test)]
    pub(crate) fuse: std::sync::atomic::AtomicUsize,
}

impl Disk {
    /// For a root that exists.
    pub(crate) fn new(root: &Utf8Path) -> Result<Self> {
        let metadata = fs::metadata(root).map_err(Error::io("read", root))?;
        let owner = (rustix::process::geteuid().is_root() && (metadata.uid(), metadata.gid()) != (0, 0))
            .then_some((metadata.uid(), metadata.gid()));
        Ok(Self {
            root: root.to_owned(),
            owner,
            #[cfg(test)]
            fuse: std::sync::atomic::AtomicUsize::new(usize::MAX),
        })
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn burn(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn burn(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        let left = self.fuse.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| io::Error::other("the fuse is burnt"))
    }

    pub(crate) fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// A new file, open for reading and writing. Its directory must exist.
    pub(crate) fn create_file(&self, path: &Utf8Path) -> Result<File> {
        let create = || -> io::Result<File> {
            self.burn()?;
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            if let Some((user, group)) = self.owner {
                fchown(&file, Some(user), Some(group))?;
            }
            Ok(file)
        };
        create().map_err(Error::io("create", path))
    }

    /// A path for a file that is not yet complete, on the filesystem of the store.
    pub(crate) fn temporary_path(&self) -> Result<Utf8PathBuf> {
        Ok(self.root.join("temporary").join(super::upload::random_hex()?))
    }

    /// Makes a directory below the root with its parents; what is new is durable on return.
    pub(crate) fn create_directory(&self, path: &Utf8Path) -> Result<()> {
        if path.is_dir() || path == self.root {
            return Ok(());
        }
        let parent = path.parent().ok_or(Error::Unexpected("a path of the store has no parent"))?;
        self.create_directory(parent)?;
        match self.burn().and_then(|()| DirBuilder::new().mode(0o700).create(path)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(Error::io("create the folder", path)(error)),
        }
        if let Some((user, group)) = self.owner {
            lchown(path, Some(user), Some(group)).map_err(Error::io("change the owner of", path))?;
        }
        sync_directory(parent)
    }

    /// Renames a complete and synced file to where it becomes visible. What is there already is replaced.
    pub(crate) fn publish(&self, from: &Utf8Path, to: &Utf8Path) -> Result<()> {
        let mut batch = self.batch();
        batch.publish(from, to)?;
        batch.finish()
    }

    /// Writes a small file so that a reader sees the old content or the new one, never a part.
    pub(crate) fn write(&self, path: &Utf8Path, bytes: &[u8]) -> Result<()> {
        let mut batch = self.batch();
        batch.write(path, bytes)?;
        batch.finish()
    }

    /// Removes a file; that it is gone already is no error.
    pub(crate) fn remove(&self, path: &Utf8Path) -> Result<()> {
        let mut batch = self.batch();
        batch.remove(path)?;
        batch.finish()
    }

    /// Several changes that become durable together.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { disk: self, directories: BTreeSet::new() }
    }
}

/// Changes whose directories are synced once, by [`Batch::finish`].
pub(crate) struct Batch<'a> {
    disk: &'a Disk,
    directories: BTreeSet<Utf8PathBuf>,
}

impl Batch<'_> {
    fn prepare(&mut self, path: &Utf8Path) -> Result<()> {
        let parent = path.parent().ok_or(Error::Unexpected("a path of the store has no parent"))?;
        if self.directories.insert(parent.to_owned()) {
            self.disk.create_directory(parent)?;
        }
        Ok(())
    }

    /// See [`Disk::publish`].
    pub(crate) fn publish(&mut self, from: &Utf8Path, to: &Utf8Path) -> Result<()> {
        self.prepare(to)?;
        self.disk.burn().and_then(|()| fs::rename(from, to)).map_err(Error::io("rename to", to))
    }

    /// See [`Disk::write`].
    pub(crate) fn write(&mut self, path: &Utf8Path, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() && path.is_file() {
            return self.prepare(path);
        }
        let temporary = self.disk.temporary_path()?;
        let mut file = self.disk.create_file(&temporary)?;
        let written = file.write_all(bytes).and_then(|()| self.disk.burn()).and_then(|()| file.sync_data());
        written.map_err(Error::io("write", &temporary))?;
        self.publish(&temporary, path)
    }

    /// See [`Disk::remove`].
    pub(crate) fn remove(&mut self, path: &Utf8Path) -> Result<()> {
        match self.disk.burn().and_then(|()| fs::remove_file(path)) {
            Ok(()) => {
                self.directories.extend(path.parent().map(Utf8Path::to_owned));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", path)(error)),
        }
    }

    /// Syncs all directories that were touched.
    pub(crate) fn finish(self) -> Result<()> {
        self.directories.iter().filter(|path| path.is_dir()).try_for_each(|path| sync_directory(path))
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Utf8Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io("sync", path))
}

/// The names in a directory, sorted; none when it is not there.
pub(crate) fn names_in(path: &Utf8Path) -> Result<Vec<String>> {
    let entries = match path.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("list", path)(error)),
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(Error::io("list", path))?;
    names.sort_unstable();
    Ok(names)
}

/// The content of a small file; `None` when it is not there.
pub(crate) fn read_if_there(path: &Utf8Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
