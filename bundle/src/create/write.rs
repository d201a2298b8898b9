//! Writing: first what is to be compressed is compressed into one spool file, so that the signed index can name the
//! length and digest of each frame; then the bundle is written from front to back under a temporary name.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};

use super::gather::Gathered;
use super::{Progress, Stage};
use crate::archive::{self, INDEX_NAME, LAYOUT_NAME, OCI_INDEX_NAME, SIGNATURE_NAME};
use crate::definition::BundleDefinition;
use crate::delta::{self, Base};
use crate::error::Error;
use crate::frame::{CHUNK, PackedWriter, StoredWriter};
use crate::index::{Blob, Content, Index, Packed, SCHEMA_VERSION, Trust};
use crate::keys::SigningKey;
use crate::oci::{Digest, media_type};
use crate::read::{INDEX_LIMIT, SIGNATURE_LIMIT};
use crate::source::{SourceBlob, refuse};

/// The layout's `oci-layout` file (OCI image-spec, image-layout.md).
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The frames that were compressed, in one file.
pub(super) struct Spool {
    path: Utf8PathBuf,
    /// Offset in the file, length and digest of each frame.
    frames: HashMap<Digest, (u64, Packed)>,
}

/// What [`write`] made.
pub(super) struct Written {
    pub(super) size: u64,
    pub(super) index: Index,
}

/// Whether content begins like something that does not compress further: gzip, zstd, xz, bzip2.
fn looks_compressed(first: &[u8]) -> bool {
    const MAGICS: [&[u8]; 4] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], &[0xfd, b'7', b'z', b'X', b'Z', 0], b"BZh"];
    MAGICS.iter().any(|magic| first.starts_with(magic))
}

fn is_stored(blob: &SourceBlob) -> Result<bool, Error> {
    Ok(media_type::is_compressed(&blob.media_type) || looks_compressed(&blob.first_bytes(6)?))
}

/// Compresses all that is worth it.
pub(super) fn pack(
    gathered: &Gathered,
    work: &Utf8Path,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Spool, Error> {
    let path = work.join("packed");
    let fail = |error| Error::io(format!("write {path}"), error);
    let mut file = BufWriter::with_capacity(CHUNK, File::create(&path).map_err(fail)?);
    let mut frames = HashMap::new();
    let mut offset = 0;
    let mut to_pack = Vec::new();
    for (at, blob) in gathered.blobs.iter().enumerate() {
        if !is_stored(blob)? {
            to_pack.push((blob, at + 1 == gathered.blobs.len()));
        }
    }
    let bytes_total = to_pack.iter().map(|(blob, _)| blob.size).sum();
    let mut bytes_done = 0;
    for (blob, is_last) in to_pack {
        let name = archive::blob_name(&blob.digest);
        let content = archive::member_size(&name, blob.size, is_last);
        let mut frame = PackedWriter::new(&mut file, content).map_err(fail)?;
        write_member(&name, blob, is_last, &mut |bytes| frame.write(bytes).map_err(fail), &mut |count| {
            bytes_done += count;
            progress(&Progress { stage: Stage::Compress, what: &blob.owner, bytes_done, bytes_total });
        })?;
        let packed = frame.finish().map_err(fail)?;
        frames.insert(blob.digest, (offset, packed));
        offset += packed.size;
    }
    file.flush().map_err(fail)?;
    drop(file);
    Ok(Spool { path, frames })
}

/// Header, verified content, padding, and the end if it is the last member.
fn write_member(
    name: &str,
    blob: &SourceBlob,
    is_last: bool,
    put: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    count: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    put(&archive::header(name, blob.size))?;
    blob.read_verified(&mut |chunk| {
        put(chunk)?;
        count(chunk.len() as u64);
        Ok(())
    })?;
    let zeros = archive::padding(blob.size) + if is_last { archive::END } else { 0 };
    put(&vec![0; usize::try_from(zeros).unwrap_or_default()])
}

/// The index without the frames, and what goes into the stream: of a delta, what the sites hold is left out.
pub(super) fn draft(
    definition: &BundleDefinition,
    mut gathered: Gathered,
    base: &Base,
    next_keys: Vec<String>,
) -> (Gathered, Index) {
    let content = |bytes: &[u8]| Content { digest: Digest::sha256_of(bytes), size: bytes.len() as u64 };
    let mut index = Index {
        schema_version: SCHEMA_VERSION,
        media_type: media_type::BUNDLE_INDEX.to_owned(),
        name: definition.name.clone(),
        version: definition.version.clone(),
        architecture: definition.architecture,
        created: definition.created.clone(),
        upgrade_from: definition.upgrade_from.clone(),
        packs: std::mem::take(&mut gathered.packs),
        images: std::mem::take(&mut gathered.images),
        blobs: Vec::new(),
        base: if base.is_empty() { Vec::new() } else { base.names() },
        held: Vec::new(),
        oci_layout: content(LAYOUT),
        oci_index: content(&gathered.oci_index),
        trust: Trust { next_keys },
    };
    (gathered.blobs, index.held) = base.split(gathered.blobs, &delta::proof_needs(&index));
    (gathered, index)
}

/// Signs and writes the bundle.
pub(super) fn write(
    mut index: Index,
    gathered: &Gathered,
    spool: &Spool,
    key: &SigningKey,
    output: &Utf8Path,
    directory: &Utf8Path,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<Written, Error> {
    let layout = SourceBlob::of_bytes("", LAYOUT.to_vec(), "the layout");
    let oci_index = SourceBlob::of_bytes("", gathered.oci_index.clone(), "the layout");
    let entry = |blob: &SourceBlob| Blob {
        digest: blob.digest,
        size: blob.size,
        media_type: blob.media_type.clone(),
        packed: spool.frames.get(&blob.digest).map(|(_, packed)| *packed),
    };
    index.blobs = gathered.blobs.iter().map(entry).collect();
    let bytes = serde_json::to_vec(&index).map_err(|error| refuse("the index", "bundle.yaml", error))?;
    if bytes.len() as u64 > INDEX_LIMIT {
        return Err(refuse("the index", "bundle.yaml", "it would be larger than 16 MiB"));
    }
    let signature = key.sign(&bytes, &format!("cofferdam bundle {} {}", index.name, index.version));
    if signature.len() as u64 > SIGNATURE_LIMIT {
        return Err(refuse("the signature", "bundle.yaml", "it would be larger than 4 KiB"));
    }
    let index_blob = SourceBlob::of_bytes("", bytes, "the index");
    let signature = SourceBlob::of_bytes("", signature.into_bytes(), "the signature");

    let fail = |error| Error::io(format!("write {output}"), error);
    let temporary = tempfile::Builder::new()
        .prefix(".cofferdam-create-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(fail)?;
    let mut file = BufWriter::with_capacity(CHUNK, temporary.as_file());
    let head =
        [(INDEX_NAME, &index_blob), (SIGNATURE_NAME, &signature), (LAYOUT_NAME, &layout), (OCI_INDEX_NAME, &oci_index)];
    for (name, blob) in head {
        write_stored(&mut file, name, blob, false, output, &mut |_| ())?;
    }
    let bytes_total = index.blobs.iter().map(|blob| blob.packed.map_or(blob.size, |packed| packed.size)).sum();
    let mut bytes_done = 0;
    let mut spooled = File::open(&spool.path).map_err(fail)?;
    for (at, blob) in gathered.blobs.iter().enumerate() {
        let mut count = |count| {
            bytes_done += count;
            progress(&Progress { stage: Stage::Write, what: &blob.owner, bytes_done, bytes_total });
        };
        if let Some((offset, packed)) = spool.frames.get(&blob.digest) {
            spooled.seek(SeekFrom::Start(*offset)).map_err(fail)?;
            let copied = io::copy(&mut Read::by_ref(&mut spooled).take(packed.size), &mut file).map_err(fail)?;
            if copied != packed.size {
                return Err(fail(io::ErrorKind::UnexpectedEof.into()));
            }
            count(copied);
        } else {
            let name = archive::blob_name(&blob.digest);
            write_stored(&mut file, &name, blob, at + 1 == gathered.blobs.len(), output, &mut count)?;
        }
    }
    file.flush().map_err(fail)?;
    drop(file);
    temporary.as_file().sync_all().map_err(fail)?;
    let size = temporary.as_file().metadata().map_err(fail)?.len();
    temporary.persist(output).map_err(|error| fail(error.error))?;
    OpenOptions::new().read(true).open(directory).and_then(|directory| directory.sync_all()).map_err(fail)?;
    Ok(Written { size, index })
}

fn write_stored(
    file: &mut impl Write,
    name: &str,
    blob: &SourceBlob,
    is_last: bool,
    output: &Utf8Path,
    count: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let fail = |error| Error::io(format!("write {output}"), error);
    let mut frame = StoredWriter::new(file, archive::member_size(name, blob.size, is_last)).map_err(fail)?;
    write_member(name, blob, is_last, &mut |bytes| frame.write(bytes).map_err(fail), count)?;
    frame.finish().map_err(fail)
}
