//! Durable changes of the file tree below a store.
//!
//! Invariant: when a function here returns, what it did survives a power cut: data is synced before the rename that
//! makes it visible, and the directory (and each parent that had to be made) after it. A [`Batch`] puts the directory
//! syncs off to its end. Called by every module of the store that writes.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
#[cfg(not(test))]
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::time::{SystemTime, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

#[cfg(test)]
use super::faults::Faults;
use crate::error::{Error, Result};

/// A change of the file tree; the tests make the n-th one fail, and look at the order of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change<'a> {
    Create(&'a Utf8Path),
    SyncFile(&'a Utf8Path),
    MakeDirectory(&'a Utf8Path),
    Rename(&'a Utf8Path, &'a Utf8Path),
    Remove(&'a Utf8Path),
    SyncDirectory(&'a Utf8Path),
}

/// Everything below the root of a store.
#[derive(Debug)]
pub(crate) struct Disk {
    root: Utf8PathBuf,
    /// Root loads bundles into a store that the server's user owns: what root makes is given to that user.
    owner: Option<(u32, u32)>,
    #[cfg(test)]
    pub(super) faults: Faults,
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
            faults: Faults::default(),
        })
    }

    /// Every change goes through here.
    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn change<T>(&self, _: Change<'_>, effect: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        effect()
    }

    #[cfg(test)]
    fn change<T>(&self, change: Change<'_>, effect: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.faults.change(change, effect)
    }

    pub(crate) fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// A new file, open for reading and writing.
    pub(crate) fn create_file(&self, path: &Utf8Path) -> Result<File> {
        let create = || -> io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            if let Some((user, group)) = self.owner {
                fchown(&file, Some(user), Some(group))?;
            }
            Ok(file)
        };
        match self.change(Change::Create(path), create) {
            // Somebody took the folder away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create_directory(path.parent().unwrap_or(&self.root))?;
                self.change(Change::Create(path), create).map_err(Error::io("create", path))
            }
            other => other.map_err(Error::io("create", path)),
        }
    }

    /// Appends to a file of that path.
    #[cfg_attr(not(test), allow(clippy::unused_self))]
    pub(crate) fn append(&self, file: &mut File, path: &Utf8Path, bytes: &[u8]) -> Result<()> {
        #[cfg(test)]
        let written = self.faults.write(file, path, bytes);
        #[cfg(not(test))]
        let written = file.write_all(bytes);
        written.map_err(Error::io("write", path))
    }

    /// Makes what was written to a file durable.
    pub(crate) fn sync(&self, file: &File, path: &Utf8Path) -> Result<()> {
        self.change(Change::SyncFile(path), || file.sync_data()).map_err(Error::io("sync", path))
    }

    /// Makes the entries of a directory durable.
    pub(crate) fn sync_directory(&self, path: &Utf8Path) -> Result<()> {
        let sync = || File::open(path).and_then(|directory| directory.sync_all());
        self.change(Change::SyncDirectory(path), sync).map_err(Error::io("sync", path))
    }

    /// A path for a file that is not yet complete, on the filesystem of the store.
    pub(crate) fn temporary_path(&self) -> Result<Utf8PathBuf> {
        Ok(self.root.join("temporary").join(crate::random::hex()?))
    }

    /// Makes a directory below the root with its parents; what is new is durable on return.
    pub(crate) fn create_directory(&self, path: &Utf8Path) -> Result<()> {
        if path.is_dir() || path == self.root {
            return Ok(());
        }
        let parent = path.parent().ok_or(Error::Unexpected("a path of the store has no parent"))?;
        self.create_directory(parent)?;
        match self.change(Change::MakeDirectory(path), || DirBuilder::new().mode(0o700).create(path)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(Error::io("create the folder", path)(error)),
        }
        if let Some((user, group)) = self.owner {
            lchown(path, Some(user), Some(group)).map_err(Error::io("change the owner of", path))?;
        }
        self.sync_directory(parent)
    }

    /// Removes a directory with all that is in it, not durably. That it is gone already is no error, nor that somebody
    /// puts something in meanwhile: the next collection takes it.
    pub(crate) fn remove_directory(&self, path: &Utf8Path) -> Result<()> {
        match self.change(Change::Remove(path), || fs::remove_dir_all(path)) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        }
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

    /// Sets the modification time of a file to now, by the clock that garbage collection compares with (the kernel's
    /// own stamps are some milliseconds late); `false` when there is no such file.
    pub(crate) fn touch(path: &Utf8Path) -> Result<bool> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos().into(),
        };
        let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let times = Timestamps { last_access: omit, last_modification: modified };
        match rustix::fs::utimensat(CWD, path.as_std_path(), &times, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
            Err(error) => Err(Error::io("touch", path)(error.into())),
        }
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
        self.disk.change(Change::Rename(from, to), || fs::rename(from, to)).map_err(Error::io("rename to", to))
    }

    /// See [`Disk::write`].
    pub(crate) fn write(&mut self, path: &Utf8Path, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() && path.is_file() {
            return self.prepare(path);
        }
        let temporary = self.disk.temporary_path()?;
        let mut file = self.disk.create_file(&temporary)?;
        if !bytes.is_empty() {
            self.disk.append(&mut file, &temporary, bytes)?;
        }
        self.disk.sync(&file, &temporary)?;
        self.publish(&temporary, path)
    }

    /// See [`Disk::remove`].
    pub(crate) fn remove(&mut self, path: &Utf8Path) -> Result<()> {
        match self.disk.change(Change::Remove(path), || fs::remove_file(path)) {
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
        self.directories.iter().filter(|path| path.is_dir()).try_for_each(|path| self.disk.sync_directory(path))
    }
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
