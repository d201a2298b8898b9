//! The folder on the encrypted volume that holds a site's secrets, one file each.
//!
//! Invariants: the folder is 0700 and each file 0600, both ours; an entry is there whole or not at all (written beside,
//! fsynced, renamed, folder fsynced); what is open to others is not read but refused, since it may be known already.
//! Writers hold a lock on the folder, so that the leftovers of a crash can be told from a write that is under way.

use std::{
    ffi::CStr,
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat},
    io::Errno,
    process::geteuid,
};
use zeroize::Zeroizing;

use crate::{CertsError, random_bytes};

/// The largest entry is a LUKS2 header backup of 16 MiB.
const ENTRY_MAX: u64 = 32 * 1024 * 1024;
const NAME_MAX: usize = 100;
/// No entry name begins with a dot, so these never collide.
const TEMPORARY_PREFIX: &str = ".new-";

/// The name of an entry: 1 to 100 of `a-z 0-9 . _ -`, not beginning with a dot or hyphen. For example `site-ca.key`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(String);

impl EntryName {
    /// The name as text, which is the file's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EntryName {
    type Err = CertsError;

    fn from_str(name: &str) -> Result<Self, CertsError> {
        let bad = |reason| CertsError::EntryName { name: name.to_owned(), reason };
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(bad("it has to have 1 to 100 characters"));
        }
        if name.starts_with(['.', '-']) {
            return Err(bad("it begins with a dot or a hyphen"));
        }
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)) {
            return Err(bad("only a-z, 0-9, dot, underscore and hyphen are allowed"));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An open keystore. All file names are resolved from the folder that was checked, not from its path again.
#[derive(Debug)]
pub struct Keystore {
    path: PathBuf,
    folder: OwnedFd,
}

impl Keystore {
    /// Mode of the folder.
    pub const FOLDER_MODE: u32 = 0o700;
    /// Mode of each entry.
    pub const ENTRY_MODE: u32 = 0o600;

    /// Opens the keystore; the folder is made if it is missing (its parent is not).
    pub fn open(path: &Path) -> Result<Self, CertsError> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(Self::FOLDER_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(file_error("create", path, error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| file_error("open", path, error))?;
        let stat = rustix::fs::fstat(&folder).map_err(|error| file_error("examine", path, error))?;
        check_private(path, &stat)?;
        Ok(Self { path: path.to_owned(), folder })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an entry, whole or not at all; one that is there already is replaced.
    pub fn write(&self, name: &EntryName, secret: &[u8]) -> Result<(), CertsError> {
        let path = self.path.join(name.as_str());
        if secret.len() as u64 > ENTRY_MAX {
            let reason = format!("{} bytes; {ENTRY_MAX} are the limit", secret.len());
            return Err(CertsError::Invalid { what: "size of a keystore entry", reason });
        }
        let failed = |error: Errno| file_error("write", &path, error);
        let lock = self.lock()?;
        self.sweep()?;
        let temporary = format!("{TEMPORARY_PREFIX}{:016x}", u64::from_ne_bytes(*random_bytes()?));
        let written = self
            .write_temporary(&temporary, secret)
            .and_then(|()| Ok(rustix::fs::renameat(&self.folder, &temporary, &self.folder, name.as_str())?))
            .and_then(|()| Ok(rustix::fs::fsync(&self.folder)?));
        if written.is_err() {
            // Best effort: what remains is swept by the next write.
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        }
        drop(lock);
        written.map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)).map_err(failed)
    }

    /// Reads an entry. Refuses one that is a link, not ours, or open to group or others.
    pub fn read(&self, name: &EntryName) -> Result<Zeroizing<Vec<u8>>, CertsError> {
        let path = self.path.join(name.as_str());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.folder, name.as_str(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(CertsError::NoEntry { path }),
            Err(Errno::LOOP) => {
                return Err(CertsError::Unsafe { path, reason: "it is a symbolic link".to_owned() });
            }
            Err(error) => return Err(file_error("open", &path, error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| file_error("examine", &path, error))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(CertsError::Unsafe { path, reason: "it is not a regular file".to_owned() });
        }
        check_private(&path, &stat)?;
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let Some(capacity) = usize::try_from(size).ok().filter(|_| size <= ENTRY_MAX) else {
            return Err(CertsError::Unsafe { path, reason: format!("it has {size} bytes, more than any entry") });
        };
        // One byte more than the size, so that the buffer never moves and leaves a copy behind.
        let mut secret = Zeroizing::new(Vec::with_capacity(capacity + 1));
        fs::File::from(file).take(size).read_to_end(&mut secret).map_err(|source| CertsError::File {
            action: "read",
            path,
            source,
        })?;
        Ok(secret)
    }

    /// Whether there is such an entry.
    pub fn contains(&self, name: &EntryName) -> Result<bool, CertsError> {
        match rustix::fs::statat(&self.folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(file_error("examine", &self.path.join(name.as_str()), error)),
        }
    }

    /// The names of all entries, sorted.
    pub fn list(&self) -> Result<Vec<EntryName>, CertsError> {
        let mut names: Vec<EntryName> = self.file_names()?.iter().filter_map(|name| name.parse().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// Removes an entry for good. On flash the old bytes may live on; the encrypted volume below is what protects them.
    pub fn remove(&self, name: &EntryName) -> Result<(), CertsError> {
        let path = self.path.join(name.as_str());
        let lock = self.lock()?;
        let removed = match rustix::fs::unlinkat(&self.folder, name.as_str(), AtFlags::empty()) {
            Ok(()) => rustix::fs::fsync(&self.folder).map_err(|error| file_error("sync", &self.path, error)),
            Err(Errno::NOENT) => Err(CertsError::NoEntry { path }),
            Err(error) => Err(file_error("remove", &path, error)),
        };
        drop(lock);
        removed
    }

    fn write_temporary(&self, temporary: &str, secret: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(Self::ENTRY_MODE);
        let mut file = fs::File::from(rustix::fs::openat(&self.folder, temporary, flags, mode)?);
        file.write_all(secret)?;
        file.sync_all()
    }

    /// A second opening of the folder, so that the lock ends with it.
    fn lock(&self) -> Result<OwnedFd, CertsError> {
        let failed = |error| file_error("lock", &self.path, error);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&self.folder, ".", flags, Mode::empty()).map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(failed)?;
        Ok(lock)
    }

    /// Removes what a crash left behind. Only under the lock.
    fn sweep(&self) -> Result<(), CertsError> {
        for name in self.file_names()?.iter().filter(|name| name.starts_with(TEMPORARY_PREFIX)) {
            rustix::fs::unlinkat(&self.folder, name.as_str(), AtFlags::empty())
                .map_err(|error| file_error("remove", &self.path.join(name), error))?;
        }
        Ok(())
    }

    fn file_names(&self) -> Result<Vec<String>, CertsError> {
        let failed = |error| file_error("list", &self.path, error);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = CStr::to_str(entry.file_name()) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

fn check_private(path: &Path, stat: &Stat) -> Result<(), CertsError> {
    let refused = |reason| Err(CertsError::Unsafe { path: path.to_owned(), reason });
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return refused(format!("its mode is {mode:04o}; group and others must have no access"));
    }
    if stat.st_uid != geteuid().as_raw() {
        return refused(format!("it belongs to the user {}, and we are {}", stat.st_uid, geteuid().as_raw()));
    }
    Ok(())
}

fn file_error(action: &'static str, path: &Path, error: Errno) -> CertsError {
    CertsError::File { action, path: path.to_owned(), source: error.into() }
}
