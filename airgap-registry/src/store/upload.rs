//! Uploads that are going on: `uploads/ID/{data,session.json}`.
//!
//! Invariant: [`Upload::offset`] bytes of `data` are exactly what was hashed so far; what a crash left behind them is
//! cut off, and after a restart the rest is hashed again, so that an upload can be resumed. Nothing of it is visible
//! before [`Store::finish_upload`] compared the digest. Called by the server's handlers for `…/blobs/uploads/`.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::str::FromStr;

use bundle::oci::{Algorithm, Digest, Hasher, RepositoryName};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::{Store, disk, layout};
use crate::error::{Error, Result};

/// The name of an upload: 128 random bits, so that nobody guesses that of another client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(String);

impl FromStr for UploadId {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() == 32 && is_hex { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl UploadId {
    /// The name of what is fetched from another registry; no text that a client sends is parsed to it.
    pub(super) fn of_fetch(digest: &Digest) -> Self {
        Self(format!("fetch-{}-{}", digest.algorithm().name(), digest.hex()))
    }
}

/// What is kept of an upload beside its data.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Session {
    repository: RepositoryName,
    algorithm: String,
}

impl Session {
    pub(super) fn new(repository: &RepositoryName, algorithm: Algorithm) -> Self {
        Self { repository: repository.clone(), algorithm: algorithm.name().to_owned() }
    }
}

/// An upload that is going on.
pub struct Upload {
    id: UploadId,
    repository: RepositoryName,
    algorithm: Algorithm,
    folder: Utf8PathBuf,
    file: File,
    offset: u64,
    hasher: Hasher,
}

impl Upload {
    /// Its name.
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// The repository it was started for.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// How many bytes arrived.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The same bytes, for another repository.
    pub(super) fn into_repository(self, repository: &RepositoryName) -> Self {
        Self { repository: repository.clone(), ..self }
    }
}

impl Store {
    pub(super) fn upload_folder(&self, id: &UploadId) -> Utf8PathBuf {
        self.root().join("uploads").join(&id.0)
    }

    /// Starts an upload.
    pub fn begin_upload(&self, repository: &RepositoryName, algorithm: Algorithm) -> Result<Upload> {
        let id = UploadId(crate::random::hex()?);
        let folder = self.upload_folder(&id);
        self.disk.create_directory(&folder)?;
        self.write_session(&folder, &Session::new(repository, algorithm))?;
        self.new_upload(id, repository, algorithm)
    }

    pub(super) fn write_session(&self, folder: &Utf8Path, session: &Session) -> Result<()> {
        let session = serde_json::to_vec(session).map_err(|_| Error::Unexpected("cannot write JSON"))?;
        self.disk.write(&folder.join("session.json"), &session)
    }

    /// An upload without a byte; its folder and session are there.
    pub(super) fn new_upload(&self, id: UploadId, repository: &RepositoryName, algorithm: Algorithm) -> Result<Upload> {
        let folder = self.upload_folder(&id);
        let file = self.disk.create_file(&folder.join("data"))?;
        let hasher = Hasher::new(algorithm);
        Ok(Upload { id, repository: repository.clone(), algorithm, folder, file, offset: 0, hasher })
    }

    /// Takes up an upload that an earlier process of the server began; `None` when there is none of that name.
    pub fn resume_upload(&self, id: &UploadId) -> Result<Option<Upload>> {
        let folder = self.upload_folder(id);
        let path = folder.join("session.json");
        let Some(session) = disk::read_if_there(&path)? else { return Ok(None) };
        let session: Session = serde_json::from_slice(&session)
            .map_err(|error| Error::Damaged { path: path.clone(), why: error.to_string() })?;
        let algorithm = match session.algorithm.as_str() {
            "sha512" => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        };
        let data = folder.join("data");
        let mut file = match OpenOptions::new().read(true).write(true).open(&data) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &data)(error)),
        };
        let mut hasher = Hasher::new(algorithm);
        let offset = hash_file(&mut file, &mut hasher).map_err(Error::io("read", &data))?;
        Ok(Some(Upload { id: id.clone(), repository: session.repository, algorithm, folder, file, offset, hasher }))
    }

    /// Appends bytes to an upload.
    pub fn append_to_upload(&self, upload: &mut Upload, bytes: &[u8]) -> Result<()> {
        let data = upload.folder.join("data");
        if let Err(error) = self.disk.append(&mut upload.file, &data, bytes) {
            // A part may have been written: the file goes back to what was hashed, so that the client can resume.
            let file = &mut upload.file;
            let back = file.set_len(upload.offset).and_then(|()| file.seek(SeekFrom::Start(upload.offset)));
            if let Err(error) = back {
                tracing::error!(upload = %upload.id, %error, "cannot cut an upload back to its last good byte");
            }
            return Err(error);
        }
        upload.hasher.update(bytes);
        upload.offset += bytes.len() as u64;
        Ok(())
    }

    /// Ends an upload: when the data has this digest it becomes a blob of the repository, durably; otherwise it is
    /// thrown away and the error is [`Error::WrongDigest`].
    pub fn finish_upload(&self, mut upload: Upload, expected: &Digest) -> Result<()> {
        let data = upload.folder.join("data");
        let hasher = std::mem::replace(&mut upload.hasher, Hasher::new(upload.algorithm));
        let actual = if expected.algorithm() == upload.algorithm {
            hasher.finish()
        } else {
            let mut hasher = Hasher::new(expected.algorithm());
            upload.file.seek(SeekFrom::Start(0)).map_err(Error::io("read", &data))?;
            hash_file(&mut upload.file, &mut hasher).map_err(Error::io("read", &data))?;
            hasher.finish()
        };
        if actual != *expected {
            let size = upload.offset;
            self.cancel_upload(upload)?;
            return Err(Error::WrongDigest {
                path: data,
                expected: Box::new(*expected),
                actual: Box::new(actual),
                size,
            });
        }
        self.disk.sync(&upload.file, &data)?;
        let linking = self.linking()?;
        self.disk.publish(&data, &layout::blob(self.root(), expected))?;
        if !self.rely_on(&linking, &upload.repository, expected)? {
            return Err(self.missing(expected));
        }
        drop(linking);
        self.cancel_upload(upload)
    }

    /// Throws an upload away.
    pub fn cancel_upload(&self, upload: Upload) -> Result<()> {
        let folder = upload.folder.clone();
        drop(upload);
        self.disk.remove_directory(&folder)
    }
}

/// Hashes a file from where it stands to its end; returns how many bytes.
pub(crate) fn hash_file(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(buffer.get(..count).unwrap_or_default());
        total += count as u64;
    }
}
