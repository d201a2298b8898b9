//! Loading a bundle: one forward pass that verifies everything and hands each blob to a [`Sink`] while it is hashed.
//!
//! Invariant: [`BlobWriter::commit`] is called only after size and digest of the blob were right, and
//! [`Sink::publish`] only after the whole bundle was verified. Called by the `cofferdam` binary with the registry's
//! store as the sink, and by `verify` with one that throws all away.

use std::fmt;
use std::io::Read;

use serde::Serialize;

use crate::complete::Proof;
use crate::error::Error;
use crate::index::{Architecture, Blob, Index};
use crate::keys::{KeyId, TrustedKeys};
use crate::oci::Digest;
use crate::read::Reader;

/// What a store could not do. Holds what it did, on what, and the cause.
#[derive(Debug)]
pub struct SinkError {
    what: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl SinkError {
    /// `what` names the action and its object, for example `cannot write /var/lib/…/staging/ab…`.
    pub fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for SinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// Where blobs go.
pub trait Sink {
    /// Whether a blob with this digest and size is there already, verified and durable (published, or staged by an
    /// earlier load that was interrupted). It is then read and verified, but not written.
    fn holds(&mut self, digest: &Digest, size: u64) -> Result<bool, SinkError>;

    /// Starts to write a blob. Exactly `size` bytes follow, then `commit`; a writer that is dropped before that was
    /// aborted and leaves nothing behind that `holds` would find.
    fn begin(&mut self, digest: &Digest, size: u64) -> Result<Box<dyn BlobWriter>, SinkError>;

    /// Called once, after the whole bundle was verified and all its blobs are held: makes the content visible, all of
    /// it or nothing. `index_bytes` and `signature` are `cofferdam/index.json` and its `.minisig` as they were signed.
    fn publish(&mut self, index: &Index, index_bytes: &[u8], signature: &[u8]) -> Result<(), SinkError>;
}

/// A blob that is being written. Chunks are at most 256 KiB.
pub trait BlobWriter {
    /// Appends a chunk.
    fn write(&mut self, chunk: &[u8]) -> Result<(), SinkError>;

    /// The blob is complete and its digest was right: make it durable (fsync), so that `holds` finds it from now on.
    fn commit(self: Box<Self>) -> Result<(), SinkError>;
}

/// What a load is to check beyond the bundle itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// The architecture of the machine; a bundle for another one is refused before a blob is read.
    pub architecture: Option<Architecture>,
}

/// How far a load is.
#[derive(Debug, Clone, Copy)]
pub struct LoadProgress<'a> {
    /// Bytes of the stream read so far.
    pub bytes_done: u64,
    /// Bytes of the whole stream, as the signed index gives it.
    pub bytes_total: u64,
    /// The blob in work.
    pub blob: &'a Digest,
    /// Blobs that are read whole.
    pub blobs_done: usize,
    /// Blobs of the bundle.
    pub blobs_total: usize,
}

/// What a load did. Serialises to the last line of `cofferdam bundle load --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadReport {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: String,
    /// Digest of the signed index.
    pub index: Digest,
    /// Id of the key that signed it.
    pub key_id: KeyId,
    /// Bytes of the stream.
    pub bytes_read: u64,
    /// Bytes given to the sink.
    pub bytes_written: u64,
    /// Bytes of blobs that the sink held already.
    pub bytes_skipped: u64,
    /// Blobs given to the sink.
    pub blobs_written: u64,
    /// Blobs that the sink held already.
    pub blobs_skipped: u64,
    /// Images in the bundle.
    pub images: u64,
    /// Packs in the bundle.
    pub packs: u64,
}

/// Loads a bundle into a sink: one forward pass, bounded memory, nothing published unless all of it was verified and
/// complete. Also skipped blobs are read and verified, so that a damaged bundle is never reported as loaded.
pub fn load(
    stream: impl Read,
    trust: &TrustedKeys,
    sink: &mut dyn Sink,
    options: &LoadOptions,
    progress: &mut dyn FnMut(&LoadProgress<'_>),
) -> Result<LoadReport, Error> {
    let mut reader = Reader::open(stream, trust)?;
    // Shared with the proof while the reader moves on.
    let index = reader.shared_index();
    if let Some(expected) = options.architecture
        && expected != index.architecture
    {
        return Err(Error::Architecture { expected, found: index.architecture });
    }
    let mut report = LoadReport {
        name: index.name.clone(),
        version: index.version.clone(),
        index: Digest::sha256_of(reader.index_bytes()),
        key_id: reader.key_id(),
        bytes_read: 0,
        bytes_written: 0,
        bytes_skipped: 0,
        blobs_written: 0,
        blobs_skipped: 0,
        images: index.images.len() as u64,
        packs: index.packs.len() as u64,
    };
    let mut proof = Proof::new(&index);
    let bytes_total = reader.bytes_total();
    let mut captured = Vec::new();
    let blobs_total = index.blobs.len();
    for (blobs_done, blob) in index.blobs.iter().enumerate() {
        let is_held = sink.holds(&blob.digest, blob.size)?;
        let mut writer = if is_held { None } else { Some(sink.begin(&blob.digest, blob.size)?) };
        let needs_content = proof.needs(blob);
        captured.clear();
        let start = reader.bytes_read();
        let mut counted = 0;
        reader.read_blob(&mut |chunk| {
            if needs_content {
                captured.extend_from_slice(chunk);
            }
            if let Some(writer) = &mut writer {
                writer.write(chunk)?;
            }
            counted += chunk.len() as u64;
            let bytes_done = start + stream_share(blob, counted);
            progress(&LoadProgress { bytes_done, bytes_total, blob: &blob.digest, blobs_done, blobs_total });
            Ok(())
        })?;
        progress(&LoadProgress {
            bytes_done: reader.bytes_read(),
            bytes_total,
            blob: &blob.digest,
            blobs_done: blobs_done + 1,
            blobs_total,
        });
        if needs_content {
            proof.observe(&blob.digest, &captured)?;
        }
        if let Some(writer) = writer {
            writer.commit()?;
            report.bytes_written += counted;
            report.blobs_written += 1;
        } else {
            report.bytes_skipped += counted;
            report.blobs_skipped += 1;
        }
    }
    reader.finish()?;
    report.bytes_read = reader.bytes_read();
    proof.finish()?;
    sink.publish(&index, reader.index_bytes(), reader.signature())?;
    Ok(report)
}

/// How much of the stream that much of a blob's content makes up.
fn stream_share(blob: &Blob, counted: u64) -> u64 {
    match blob.packed {
        Some(packed) => {
            let share = u128::from(counted) * u128::from(packed.size) / u128::from(blob.size.max(1));
            u64::try_from(share).unwrap_or(packed.size)
        }
        None => counted,
    }
}

/// Verifies a bundle: all that [`load`] does, but nothing is kept.
pub fn verify(
    stream: impl Read,
    trust: &TrustedKeys,
    options: &LoadOptions,
    progress: &mut dyn FnMut(&LoadProgress<'_>),
) -> Result<LoadReport, Error> {
    load(stream, trust, &mut Discard, options, progress)
}

/// Holds nothing, keeps nothing.
struct Discard;

impl Sink for Discard {
    fn holds(&mut self, _: &Digest, _: u64) -> Result<bool, SinkError> {
        Ok(false)
    }

    fn begin(&mut self, _: &Digest, _: u64) -> Result<Box<dyn BlobWriter>, SinkError> {
        Ok(Box::new(Self))
    }

    fn publish(&mut self, _: &Index, _: &[u8], _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }
}

impl BlobWriter for Discard {
    fn write(&mut self, _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}
