//! Reading a bundle as one forward stream; no seeking.
//!
//! Invariant: the index is parsed only after its signature was verified; everything after it is compared with what the
//! index says must come next, byte for byte around the content and by digest for the content. Names in the archive are
//! never looked at but for that comparison. Called by `load`, `verify` and `inspect`.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use crate::archive::{self, BLOCK, INDEX_NAME, LAYOUT_NAME, OCI_INDEX_NAME, SIGNATURE_NAME};
use crate::delta;
use crate::error::{Distrust, Error};
use crate::frame::{self, CHUNK, Frame, FrameError, Stream};
use crate::index::{Blob, Index, Packed, SCHEMA_VERSION};
use crate::keys::{KeyId, Signature, TrustedKeys, UNTRUSTED_COMMENT};
use crate::oci::{Algorithm, Digest, Hasher, media_type};

/// Largest `cofferdam/index.json`, in bytes: some 40 000 blobs. A load takes about 2.2 times the index beside a fixed
/// 16 MiB (measured: 42 MB peak for an index of 11.8 MB), so that it stays below 64 MiB whatever the bundle.
pub const INDEX_LIMIT: u64 = 16 << 20;
/// Largest signature file, in bytes.
pub const SIGNATURE_LIMIT: u64 = 4 << 10;
/// Largest image manifest, pack manifest or pack descriptor, in bytes.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Largest Kubernetes manifest, in bytes.
pub const YAML_LIMIT: u64 = 4 << 20;

/// The first two members of a bundle, read but not trusted yet.
pub struct Head<R> {
    stream: Stream<R>,
    index_bytes: Vec<u8>,
    signature_bytes: Vec<u8>,
    signature: Signature,
}

impl<R: Read> Head<R> {
    /// Reads index and signature.
    pub fn read(stream: R) -> Result<Self, Error> {
        let mut stream = Stream::new(stream);
        let index_bytes = read_head_member(&mut stream, INDEX_NAME, INDEX_LIMIT)?;
        let signature_bytes = read_head_member(&mut stream, SIGNATURE_NAME, SIGNATURE_LIMIT)?;
        let signature = Signature::parse(&signature_bytes).map_err(Error::NotTrusted)?;
        if signature.untrusted_comment() != UNTRUSTED_COMMENT {
            return Err(Error::NotTrusted(Distrust::Malformed("its untrusted comment is not that of a bundle")));
        }
        Ok(Self { stream, index_bytes, signature_bytes, signature })
    }

    /// Who says to have signed it.
    pub fn key_id(&self) -> KeyId {
        self.signature.key_id()
    }

    /// The index without any trust: for people to look at, never to act on.
    pub fn untrusted_index(&self) -> Result<Index, Error> {
        parse_index(&self.index_bytes)
    }

    /// Whether the signature is by one of these keys and fits.
    pub fn check(&self, trust: &TrustedKeys) -> Result<KeyId, Error> {
        trust.verify(&self.index_bytes, &self.signature).map_err(Error::NotTrusted)
    }

    /// Verifies the signature, then the index, then the files of the layout.
    pub fn verify(self, trust: &TrustedKeys) -> Result<Reader<R>, Error> {
        let key_id = self.check(trust)?;
        let index = parse_index(&self.index_bytes)?;
        let mut reader = Reader {
            stream: self.stream,
            index: Arc::new(index),
            index_bytes: self.index_bytes,
            signature_bytes: self.signature_bytes,
            key_id,
            next: 0,
            buffer: vec![0; CHUNK],
        };
        let (layout, oci_index) = (reader.index.oci_layout, reader.index.oci_index);
        reader.read_content(LAYOUT_NAME, &layout.digest, layout.size, None, false, &mut |_| Ok(()))?;
        let is_last = reader.index.blobs.is_empty();
        reader.read_content(OCI_INDEX_NAME, &oci_index.digest, oci_index.size, None, is_last, &mut |_| Ok(()))?;
        Ok(reader)
    }
}

/// A bundle whose index was verified.
pub struct Reader<R> {
    stream: Stream<R>,
    index: Arc<Index>,
    index_bytes: Vec<u8>,
    signature_bytes: Vec<u8>,
    key_id: KeyId,
    next: usize,
    buffer: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Opens a bundle: verifies the signature over the index before anything else is used.
    pub fn open(stream: R, trust: &TrustedKeys) -> Result<Self, Error> {
        Head::read(stream)?.verify(trust)
    }

    /// The verified index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn shared_index(&self) -> Arc<Index> {
        Arc::clone(&self.index)
    }

    /// The bytes of the index as they were signed.
    pub fn index_bytes(&self) -> &[u8] {
        &self.index_bytes
    }

    /// The signature file.
    pub fn signature(&self) -> &[u8] {
        &self.signature_bytes
    }

    /// The trusted key that signed.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Bytes of the stream that were taken so far.
    pub fn bytes_read(&self) -> u64 {
        self.stream.position()
    }

    /// Bytes of the whole stream, computed from the index.
    pub fn bytes_total(&self) -> u64 {
        let name_and_size = [
            (INDEX_NAME, self.index_bytes.len() as u64),
            (SIGNATURE_NAME, self.signature_bytes.len() as u64),
            (LAYOUT_NAME, self.index.oci_layout.size),
            (OCI_INDEX_NAME, self.index.oci_index.size),
        ];
        let stored = |name: &str, size, is_last| frame::stored_size(archive::member_size(name, size, is_last));
        let head: u64 = name_and_size
            .iter()
            .map(|(name, size)| stored(name, *size, self.index.blobs.is_empty() && *name == OCI_INDEX_NAME))
            .sum();
        let blobs: u64 = self
            .index
            .blobs
            .iter()
            .enumerate()
            .map(|(at, blob)| match blob.packed {
                Some(packed) => packed.size,
                None => stored(&archive::blob_name(&blob.digest), blob.size, at + 1 == self.index.blobs.len()),
            })
            .sum();
        head + blobs
    }

    /// The blob that [`Self::read_blob`] gives next; `None` after the last one.
    pub fn upcoming(&self) -> Option<&Blob> {
        self.index.blobs.get(self.next)
    }

    /// Reads the next blob; its content goes to `take` in chunks of at most 256 KiB while it is hashed. An `Ok` means
    /// that size and digest were right; before that nothing that `take` got may be made visible.
    pub fn read_blob(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let Some(blob) = self.index.blobs.get(self.next) else {
            return Err(Error::corrupt("the stream", "there are no more blobs"));
        };
        let (digest, size, packed) = (blob.digest, blob.size, blob.packed);
        self.next += 1;
        let is_last = self.next == self.index.blobs.len();
        self.read_content(&archive::blob_name(&digest), &digest, size, packed.as_ref(), is_last, take)
    }

    /// Ends reading: all blobs were read and nothing follows.
    pub fn finish(&mut self) -> Result<(), Error> {
        if self.upcoming().is_some() {
            return Err(Error::corrupt("the stream", "not all blobs were read"));
        }
        match self.stream.is_at_end() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::corrupt("the end", "there are bytes after the last member")),
            Err(error) => Err(frame_error("the end", self.stream.position(), error)),
        }
    }

    fn read_content(
        &mut self,
        name: &str,
        digest: &Digest,
        size: u64,
        packed: Option<&Packed>,
        is_last: bool,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut hasher = Hasher::new(digest.algorithm());
        let mut outcome = Ok(());
        let result = read_member(&mut self.stream, name, size, packed, is_last, &mut self.buffer, &mut |chunk| {
            hasher.update(chunk);
            outcome = take(chunk);
            outcome.is_ok()
        });
        outcome?;
        result.map_err(|error| frame_error(name, self.stream.position(), error))?;
        if hasher.finish() != *digest {
            return Err(Error::corrupt(name, "its digest is not the one in the index"));
        }
        Ok(())
    }
}

fn frame_error(member: &str, position: u64, error: FrameError) -> Error {
    match error {
        FrameError::Truncated => Error::corrupt(member, format!("the file ends after {position} bytes, inside it")),
        FrameError::Malformed(why) => Error::corrupt(member, why),
        FrameError::Io(error) => Error::io(format!("read the bundle at byte {position} ({member})"), error),
    }
}

/// Reads one member that the index describes. `take` says whether to go on.
fn read_member<R: Read>(
    stream: &mut Stream<R>,
    name: &str,
    size: u64,
    packed: Option<&Packed>,
    is_last: bool,
    buffer: &mut [u8],
    take: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), FrameError> {
    let mut frame = match packed {
        Some(packed) => Frame::packed(stream, packed)?,
        None => Frame::stored(stream, archive::member_size(name, size, is_last))?,
    };
    let expected = archive::header(name, size);
    let mut header = vec![0; expected.len()];
    frame.read(&mut header)?;
    if header != expected {
        return Err(FrameError::Malformed("its tar header is not the one that the index asks for".to_owned()));
    }
    let mut remaining = size;
    while remaining > 0 {
        let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = buffer.get_mut(..length).unwrap_or_default();
        frame.read(chunk)?;
        if !take(chunk) {
            return Ok(());
        }
        remaining -= length as u64;
    }
    let rest = archive::padding(size) + if is_last { archive::END } else { 0 };
    read_zeros(&mut frame, rest)?;
    frame.finish()
}

fn read_zeros<R: Read>(frame: &mut Frame<'_, R>, count: u64) -> Result<(), FrameError> {
    let mut zeros = vec![0xff; usize::try_from(count).unwrap_or_default()];
    frame.read(&mut zeros)?;
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(FrameError::Malformed("the padding after it is not zero".to_owned()));
    }
    Ok(())
}

/// Reads one of the two members that nothing describes yet.
fn read_head_member<R: Read>(stream: &mut Stream<R>, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let mut read = || {
        let (mut frame, content) = Frame::stored_up_to(stream, limit + 2 * BLOCK)?;
        let mut header = [0; 512];
        frame.read(&mut header)?;
        let size = archive::stated_size(&header).filter(|size| *size <= limit);
        let Some(size) = size.filter(|size| {
            archive::header(name, *size) == header && content == archive::member_size(name, *size, false)
        }) else {
            return Err(FrameError::Malformed("its tar header is not the one of a bundle".to_owned()));
        };
        let mut bytes = Vec::new();
        // Grows with what really comes, so that a header alone cannot ask for memory.
        while (bytes.len() as u64) < size {
            let start = bytes.len();
            let length = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(start).min(CHUNK);
            bytes.resize(start + length, 0);
            frame.read(bytes.get_mut(start..).unwrap_or_default())?;
        }
        read_zeros(&mut frame, archive::padding(size))?;
        frame.finish()?;
        Ok(bytes)
    };
    let result = read();
    result.map_err(|error| frame_error(name, stream.position(), error))
}

fn parse_index(bytes: &[u8]) -> Result<Index, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Version {
        schema_version: u32,
    }
    let fail = |why: String| Error::corrupt(INDEX_NAME, why);
    let version: Version = serde_json::from_slice(bytes).map_err(|error| fail(error.to_string()))?;
    if version.schema_version != SCHEMA_VERSION {
        let found = version.schema_version;
        return Err(fail(format!("its schema version is {found}, this program knows {SCHEMA_VERSION} only")));
    }
    let index: Index = serde_json::from_slice(bytes).map_err(|error| fail(error.to_string()))?;
    check_index(&index).map_err(|why| fail(why.to_owned()))?;
    Ok(index)
}

/// What must hold of an index before anything is read by it.
fn check_index(index: &Index) -> Result<(), &'static str> {
    if index.media_type != media_type::BUNDLE_INDEX {
        return Err("its media type is not that of a bundle index");
    }
    let mut digests = HashSet::new();
    if !index.blobs.iter().all(|blob| digests.insert(blob.digest)) {
        return Err("a blob is listed twice");
    }
    let packed = index.blobs.iter().filter_map(|blob| blob.packed);
    if !packed.into_iter().all(|packed| packed.digest.algorithm() == Algorithm::Sha256) {
        return Err("the digest of a packed frame is not SHA-256");
    }
    // Sums of sizes are used for progress and space; they must not wrap.
    let total = index.blobs.iter().try_fold(0_u64, |sum, blob| {
        sum.checked_add(blob.size)?.checked_add(blob.packed.map_or(0, |packed| packed.size))
    });
    if total.is_none_or(|total| total > 1 << 60) {
        return Err("its sizes are beyond any medium");
    }
    if !index.held.iter().all(|blob| digests.insert(blob.digest)) {
        return Err("a blob that is left out is listed twice, or is also inside");
    }
    let left_out = index.held.iter().try_fold(total.unwrap_or_default(), |sum, blob| sum.checked_add(blob.size));
    if left_out.is_none_or(|total| total > 1 << 60) {
        return Err("its sizes are beyond any medium");
    }
    let needed = delta::proof_needs(index);
    if index.held.iter().any(|blob| needed.contains(&blob.digest)) {
        return Err("a manifest is left out");
    }
    let mut next = TrustedKeys::default();
    if index.trust.next_keys.iter().any(|key| next.add(key).is_err()) {
        return Err("a key that later bundles are signed with is not a minisign public key");
    }
    let mut references = HashSet::new();
    if !index.images.iter().all(|image| references.insert(&image.reference)) {
        return Err("an image is listed twice");
    }
    let mut names = HashSet::new();
    if !index.packs.iter().all(|pack| names.insert(&pack.name)) {
        return Err("a pack is listed twice");
    }
    if index.images.iter().any(|image| image.size > MANIFEST_LIMIT)
        || index.packs.iter().any(|pack| pack.size > MANIFEST_LIMIT)
    {
        return Err("a manifest is larger than 4 MiB");
    }
    if index.packs.iter().flat_map(|pack| pack.all_manifests()).any(|manifest| manifest.size > YAML_LIMIT) {
        return Err("a Kubernetes manifest is larger than 4 MiB");
    }
    if index.packs.iter().any(|pack| !crate::definition::problems_of(pack).is_empty()) {
        return Err("a name, path, mode, key or question of a pack is not allowed");
    }
    Ok(())
}
