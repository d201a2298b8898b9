//! A plain tar file read where it lies: a map from member names to offsets, so that nothing is unpacked. Serves as an
//! `oci-archive:` (an OCI layout in a tar) and under `docker-archive:`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use camino::{Utf8Path, Utf8PathBuf};

use super::{BlobSource, Place, refuse};
use crate::archive::blob_name;
use crate::error::Error;
use crate::oci::Descriptor;
use crate::read::MANIFEST_LIMIT;

/// More members than any image archive has.
const MEMBER_LIMIT: usize = 1_000_000;

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

pub(super) struct ArchiveFile {
    path: Utf8PathBuf,
    members: HashMap<String, Member>,
}

impl ArchiveFile {
    pub(super) fn open(path: Utf8PathBuf) -> Result<Self, String> {
        let mut file = File::open(&path).map_err(|error| error.to_string())?;
        let mut magic = Vec::new();
        Read::by_ref(&mut file).take(4).read_to_end(&mut magic).map_err(|error| error.to_string())?;
        if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
            return Err("the archive is compressed; decompress it first (gunzip, zstd -d)".to_owned());
        }
        file.seek(SeekFrom::Start(0)).map_err(|error| error.to_string())?;
        let mut members = HashMap::new();
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries_with_seek().map_err(|error| error.to_string())? {
            let entry = entry.map_err(|error| format!("it is not a readable tar archive: {error}"))?;
            let Ok(name) = std::str::from_utf8(&entry.path_bytes()).map(normal) else { continue };
            let member = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    Member::File { offset: entry.raw_file_position(), size: entry.size() }
                }
                kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let Ok(target) = std::str::from_utf8(&target) else { continue };
                    // A symlink starts from the directory of its own name, a hard link from the archive's root.
                    let directory = Utf8Path::new(&name).parent().filter(|_| kind == tar::EntryType::Symlink);
                    Member::Link(normal(directory.unwrap_or(Utf8Path::new("")).join(target).as_str()))
                }
                _ => continue,
            };
            members.insert(name, member);
            if members.len() > MEMBER_LIMIT {
                return Err("the archive has too many members".to_owned());
            }
        }
        Ok(Self { path, members })
    }

    /// Offset and size of a member, links followed.
    pub(super) fn find(&self, name: &str) -> Result<(u64, u64), String> {
        let mut name = normal(name);
        for _ in 0..8 {
            match self.members.get(&name) {
                Some(Member::File { offset, size }) => return Ok((*offset, *size)),
                Some(Member::Link(target)) => name.clone_from(target),
                None => return Err(format!("the archive holds no {name}")),
            }
        }
        Err(format!("{name} is a link that leads in a circle"))
    }

    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// The content of a member of at most 4 MiB.
    pub(super) fn small_file(&self, name: &str) -> Result<Vec<u8>, String> {
        let (offset, size) = self.find(name)?;
        if size > MANIFEST_LIMIT {
            return Err(format!("{name} is larger than 4 MiB"));
        }
        let mut bytes = Vec::new();
        File::open(&self.path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(offset))?;
                file.take(size).read_to_end(&mut bytes)
            })
            .map_err(|error| format!("{name}: {error}"))?;
        Ok(bytes)
    }
}

/// Without `.` components, `..` resolved: a key of the map, never a path on a disk.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl BlobSource for ArchiveFile {
    fn place(&mut self, descriptor: &Descriptor, _: bool) -> Result<Place, Error> {
        let name = blob_name(&descriptor.digest);
        let fail = |why: String| refuse(&name, self.path.as_str(), why);
        let (offset, size) = self.find(&name).map_err(fail)?;
        if size != descriptor.size {
            return Err(fail(format!("it has {size} bytes, its descriptor says {}", descriptor.size)));
        }
        Ok(Place::File { path: self.path.clone(), offset })
    }
}
