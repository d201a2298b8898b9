//! Reading ISO 9660 images (ECMA-119, with Rock Ridge names) without mounting them.
//!
//! Invariant: an [`Image`] that was opened lists each file once, and all its bytes lie inside the image and belong to no
//! other file. An image that lies about that is refused, whatever it holds; there is no limit that an image can break to
//! make this program loop or take much memory.
//!
//! Called by [`crate::medium`].

mod descriptor;
mod fields;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::Error;
use descriptor::{Descriptor, SECTOR, Volume};
use record::{Record, RecordError};

/// Descriptors that are looked through for the primary one and the end.
const MOST_DESCRIPTORS: u64 = 64;
const DEEPEST: usize = 32;
const MOST_ENTRIES: usize = 100_000;
/// Of all directories together.
const LARGEST_DIRECTORIES: u64 = 64 << 20;

/// What an entry of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file that can be read.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; where it leads is not looked at.
    SymbolicLink,
}

/// One file or directory of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path without a slash in front, as in `cofferdam/trust.pub`.
    pub path: String,
    /// File, directory or link.
    pub kind: Kind,
    /// Bytes of a file; 0 for all else.
    pub size: u64,
    extents: Vec<Extent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Extent {
    start: u64,
    length: u64,
}

/// An image that is sound as a whole: all directories were read and checked.
#[derive(Debug)]
pub struct Image {
    path: Utf8PathBuf,
    file: File,
    volume: Volume,
    entries: BTreeMap<String, Entry>,
}

impl Image {
    /// Opens an image file or a device with an image on it, and reads all its directories.
    pub fn open(path: &Utf8Path) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(Error::io(format!("open {path}")))?;
        // Not the metadata's length, which is zero for a device.
        let length = file.seek(SeekFrom::End(0)).map_err(Error::io(format!("find the end of {path}")))?;
        let source = Source { path, file: &file, length };
        let volume = source.volume()?;
        if volume.size > length {
            let why = format!("the volume has {} bytes, the file only {length}", volume.size);
            return Err(source.damaged("volume descriptor", why));
        }
        let entries = Walk::new(&source).run(&volume.root)?;
        Ok(Self { path: path.to_owned(), file, volume, entries })
    }

    /// The image's own path.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The volume's label.
    pub fn label(&self) -> &str {
        &self.volume.label
    }

    /// When the volume says that it was made, `YYYY-MM-DDTHH:MM:SS`.
    pub fn created(&self) -> Option<&str> {
        self.volume.created.as_deref()
    }

    /// Bytes of the volume.
    pub fn size(&self) -> u64 {
        self.volume.size
    }

    /// All entries, sorted by path.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Opens a file of the image, by its path without a slash in front.
    pub fn open_file(&self, name: &str) -> Result<FileReader<'_>, Error> {
        let entry = self.entries.get(name).filter(|entry| entry.kind == Kind::File);
        let entry = entry.ok_or_else(|| Error::NoSuchFile { path: self.path.clone(), name: name.to_owned() })?;
        Ok(FileReader { file: &self.file, rest: entry.extents.iter().rev().copied().collect() })
    }
}

/// Reads one file of an image.
#[derive(Debug)]
pub struct FileReader<'a> {
    file: &'a File,
    /// The next one last.
    rest: Vec<Extent>,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.pop_if(|extent| extent.length == 0);
        let Some(extent) = self.rest.last_mut() else { return Ok(0) };
        let most = usize::try_from(extent.length).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), extent.start)?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the image became shorter while it was read"));
        }
        extent.start += count as u64;
        extent.length -= count as u64;
        Ok(count)
    }
}

/// The bytes of an image, read within bounds only.
struct Source<'a> {
    path: &'a Utf8Path,
    file: &'a File,
    length: u64,
}

impl Source<'_> {
    fn damaged(&self, what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.to_owned(), what: what.into(), why: why.into() }
    }

    fn holds(&self, start: u64, length: u64) -> bool {
        start.checked_add(length).is_some_and(|end| end <= self.length)
    }

    /// The caller has asked [`Self::holds`].
    fn bytes(&self, start: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start).map_err(Error::io(format!("read {}", self.path)))?;
        Ok(bytes)
    }

    fn volume(&self) -> Result<Volume, Error> {
        let none = |why| Error::NotAnImage { path: self.path.to_owned(), why };
        for number in 16..16 + MOST_DESCRIPTORS {
            if !self.holds(number * SECTOR, SECTOR) {
                return Err(none("it ends before a volume descriptor"));
            }
            let sector = self.bytes(number * SECTOR, 2048)?;
            let descriptor = descriptor::parse(&sector).ok_or_else(|| none("it has no volume descriptor"))?;
            match descriptor.map_err(|why| self.damaged("volume descriptor", why))? {
                Descriptor::Primary(volume) => return Ok(volume),
                Descriptor::Terminator => break,
                Descriptor::Other => {}
            }
        }
        Err(none("it has no primary volume descriptor"))
    }
}

/// A walk over all directories.
struct Walk<'a> {
    source: &'a Source<'a>,
    skip: Option<usize>,
    entries: BTreeMap<String, Entry>,
    /// First blocks of directories; one that comes again is a loop.
    seen: BTreeSet<u32>,
    directory_bytes: u64,
    taken: Vec<(Extent, String)>,
}

impl<'a> Walk<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            skip: None,
            entries: BTreeMap::new(),
            seen: BTreeSet::new(),
            directory_bytes: 0,
            taken: Vec::new(),
        }
    }

    fn run(mut self, root: &Record) -> Result<BTreeMap<String, Entry>, Error> {
        let mut open = vec![(String::new(), self.extent(root, "the root directory")?, root.block)];
        while let Some((path, extent, block)) = open.pop() {
            let shown = if path.is_empty() { "the root directory" } else { &path };
            if !self.seen.insert(block) {
                return Err(self.source.damaged(shown, "the directory is in itself or in two places"));
            }
            if path.split('/').count() > DEEPEST {
                return Err(self.source.damaged(shown, "directories are nested too deeply"));
            }
            self.directory_bytes += extent.length;
            if self.directory_bytes > LARGEST_DIRECTORIES {
                return Err(self.source.damaged(shown, "directories are too large"));
            }
            self.taken.push((extent, shown.to_owned()));
            open.extend(self.directory(&path, extent)?);
        }
        self.check_overlaps()?;
        Ok(self.entries)
    }

    fn extent(&self, record: &Record, shown: &str) -> Result<Extent, Error> {
        let extent = Extent { start: u64::from(record.block) * SECTOR, length: u64::from(record.size) };
        if !self.source.holds(extent.start, extent.length) {
            return Err(self.source.damaged(shown, "it reaches behind the end of the image"));
        }
        Ok(extent)
    }

    /// Takes the files of one directory into the list; gives its directories: path, place, first block.
    fn directory(&mut self, path: &str, extent: Extent) -> Result<Vec<(String, Extent, u32)>, Error> {
        let shown = if path.is_empty() { "the root directory" } else { path };
        // Not more than LARGEST_DIRECTORIES.
        let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
        let bytes = self.source.bytes(extent.start, length)?;
        let mut directories = Vec::new();
        let mut unfinished: Option<Entry> = None;
        for (number, record) in records(&bytes).enumerate() {
            let record =
                record.map_err(|RecordError(why)| self.source.damaged(shown, format!("record {number}: {why}")))?;
            if number == 0 && path.is_empty() {
                self.skip = record.rock_ridge_skip();
            }
            if record.is_dot() || record.is_associated {
                continue;
            }
            let details = self.details(&record);
            let details =
                details.map_err(|RecordError(why)| self.source.damaged(shown, format!("record {number}: {why}")))?;
            if details.is_link_to_relocated {
                continue;
            }
            let name = String::from_utf8_lossy(&details.name);
            let path = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
            let extent = self.extent(&record, &path)?;
            if record.is_directory {
                directories.push((path.clone(), extent, record.block));
                self.add(Entry { path, kind: Kind::Directory, size: 0, extents: Vec::new() })?;
                continue;
            }
            if details.is_symlink {
                self.add(Entry { path, kind: Kind::SymbolicLink, size: 0, extents: Vec::new() })?;
                continue;
            }
            // 6.5.1: the parts of a file stand one after the other, and all but the last end with a full block.
            let mut entry = match unfinished.take() {
                Some(entry) if entry.path == path => entry,
                Some(entry) => return Err(self.source.damaged(entry.path, "its last part is missing")),
                None => Entry { path, kind: Kind::File, size: 0, extents: Vec::new() },
            };
            entry.size += extent.length;
            if extent.length > 0 {
                entry.extents.push(extent);
            }
            if record.has_more {
                if !extent.length.is_multiple_of(SECTOR) {
                    return Err(self.source.damaged(entry.path, "one of its parts does not end with a full block"));
                }
                unfinished = Some(entry);
            } else {
                self.add(entry)?;
            }
        }
        match unfinished {
            Some(entry) => Err(self.source.damaged(entry.path, "its last part is missing")),
            None => Ok(directories),
        }
    }

    fn details(&self, record: &Record) -> Result<record::Details, RecordError> {
        let Some(skip) = self.skip else {
            return record.details(usize::MAX, |_, _, _| Err("there is no continuation area".into()));
        };
        record.details(skip, |block, offset, length| {
            let start = u64::from(block) * SECTOR + u64::from(offset);
            if !self.source.holds(start, u64::from(length)) {
                return Err("a continuation area lies behind the end of the image".into());
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            self.source.bytes(start, length).map_err(|error| RecordError(error.to_string()))
        })
    }

    fn add(&mut self, entry: Entry) -> Result<(), Error> {
        if self.entries.len() >= MOST_ENTRIES {
            return Err(self.source.damaged(entry.path, "there are too many files"));
        }
        self.taken.extend(entry.extents.iter().map(|extent| (*extent, entry.path.clone())));
        let path = entry.path.clone();
        match self.entries.insert(path, entry) {
            None => Ok(()),
            Some(twice) => Err(self.source.damaged(twice.path, "the name is there twice")),
        }
    }

    /// Two files may have the very same bytes (hard links); bytes that belong to two things in part are a lie.
    fn check_overlaps(&mut self) -> Result<(), Error> {
        self.taken.sort();
        let mut last: Option<&(Extent, String)> = None;
        for next in &self.taken {
            if let Some((extent, owner)) = last
                && next.0.start < extent.start + extent.length
                && (next.0 != *extent || !self.is_file(owner) || !self.is_file(&next.1))
            {
                return Err(self.source.damaged(owner.clone(), format!("it shares bytes with {}", next.1)));
            }
            last = Some(next);
        }
        Ok(())
    }

    fn is_file(&self, path: &str) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.kind == Kind::File)
    }
}

/// The records of a directory. A record never goes over the end of a sector; what is left there is zero.
fn records(directory: &[u8]) -> impl Iterator<Item = Result<Record, RecordError>> {
    directory.chunks(2048).flat_map(|sector| {
        let mut rest = sector;
        std::iter::from_fn(move || {
            let record = Record::parse(rest);
            let length = rest.first().copied().map_or(0, usize::from);
            // After an error nothing more can be read from this sector.
            rest = if record.is_err() { &[] } else { rest.get(length..).unwrap_or_default() };
            record.transpose()
        })
    })
}
