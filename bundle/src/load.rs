//! Loading a bundle: one forward pass that verifies everything and hands each blob to a [`Sink`] while it is hashed.
//!
//! Invariant: [`BlobWriter::commit`] is called only after size and digest of the blob were right, and
//! [`Sink::publish`] only after the whole bundle was verified. Called by the `cofferdam` binary with the registry's
//! store as the sink, and by `verify` with one that throws all away.

use std::fmt;

use crate::index::Index;
use crate::oci::Digest;

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
