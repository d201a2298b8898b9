//! The zstd side of a bundle: one frame per tar member (RFC 8878).
//!
//! A *stored* frame is raw blocks with exactly one possible encoding of given content; a *packed* frame is compressed,
//! and the signed index names its length and SHA-256. So every byte of a bundle is determined by what was signed.
//! Invariant: a reader never gives out more bytes than were asked for, and never lets the decoder take a window above
//! [`WINDOW_LOG`]. Called by `create` (writing) and `read` (reading).

use std::io::{self, BufReader, Read, Write};

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::index::Packed;
use crate::oci::{Algorithm, Digest, Hasher};

/// Largest window, as a power of two: 8 MiB.
pub(crate) const WINDOW_LOG: u32 = 23;
/// Compression level of packed frames.
const LEVEL: i32 = 10;
/// Content bytes of one raw block, the most that RFC 8878 allows (section 3.1.1.2.4).
const RAW_BLOCK: usize = 128 * 1024;
/// Chunk for compressing and decompressing.
pub(crate) const CHUNK: usize = 256 * 1024;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Content size in eight bytes, a window descriptor, no checksum, no dictionary.
const DESCRIPTOR: u8 = 0b1100_0000;
/// Exponent 7, mantissa 0: a window of 128 KiB.
const WINDOW: u8 = 7 << 3;
const STORED_HEADER: usize = 14;

/// Length of the stored frame of that much content.
pub(crate) fn stored_size(content: u64) -> u64 {
    STORED_HEADER as u64 + content + 3 * content.div_ceil(RAW_BLOCK as u64).max(1)
}

fn stored_header(content: u64) -> [u8; STORED_HEADER] {
    let mut header = [0; STORED_HEADER];
    let parts = MAGIC.iter().chain([&DESCRIPTOR, &WINDOW]).copied().chain(content.to_le_bytes());
    header.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    header
}

fn block_header(size: usize, is_last: bool) -> [u8; 3] {
    // The size is at most 128 KiB, so it fits the 21 bits that the format has for it.
    let [a, b, c, _] = (u32::try_from(size).unwrap_or(0) << 3 | u32::from(is_last)).to_le_bytes();
    [a, b, c]
}

/// Writes one stored frame; the content's size must be known before.
pub(crate) struct StoredWriter<W> {
    inner: W,
    block: Vec<u8>,
    remaining: u64,
}

impl<W: Write> StoredWriter<W> {
    pub(crate) fn new(mut inner: W, content: u64) -> io::Result<Self> {
        inner.write_all(&stored_header(content))?;
        Ok(Self { inner, block: Vec::with_capacity(RAW_BLOCK), remaining: content })
    }

    /// Appends content; fails when it is more than was announced.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(RAW_BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == RAW_BLOCK {
                self.flush_block()?;
            }
        }
        Ok(())
    }

    fn flush_block(&mut self) -> io::Result<()> {
        self.remaining = self
            .remaining
            .checked_sub(self.block.len() as u64)
            .ok_or_else(|| io::Error::other("there is more content than was announced"))?;
        self.inner.write_all(&block_header(self.block.len(), self.remaining == 0))?;
        self.inner.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Ends the frame; fails when content is missing.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() || self.remaining > 0 {
            self.flush_block()?;
        }
        if self.remaining > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "there is less content than was announced"));
        }
        Ok(())
    }
}

/// Writes one packed frame.
pub(crate) struct PackedWriter<W> {
    inner: W,
    encoder: Encoder<'static>,
    buffer: Vec<u8>,
    size: u64,
    hasher: Hasher,
}

impl<W: Write> PackedWriter<W> {
    pub(crate) fn new(inner: W, content: u64) -> io::Result<Self> {
        let mut encoder = Encoder::new(LEVEL)?;
        // Small content gets the small window that libzstd would choose; large content never more than 8 MiB.
        let window = (u64::BITS - content.saturating_sub(1).leading_zeros()).clamp(17, WINDOW_LOG);
        encoder.set_parameter(CParameter::WindowLog(window))?;
        encoder.set_parameter(CParameter::ChecksumFlag(false))?;
        encoder.set_parameter(CParameter::ContentSizeFlag(true))?;
        encoder.set_pledged_src_size(Some(content))?;
        Ok(Self { inner, encoder, buffer: vec![0; CHUNK], size: 0, hasher: Hasher::new(Algorithm::Sha256) })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            let mut output = OutBuffer::around(self.buffer.as_mut_slice());
            self.encoder.run(&mut input, &mut output)?;
            let written = output.pos();
            self.emit(written)?;
        }
        Ok(())
    }

    fn emit(&mut self, length: usize) -> io::Result<()> {
        let bytes = self.buffer.get(..length).unwrap_or_default();
        self.hasher.update(bytes);
        self.size += length as u64;
        self.inner.write_all(bytes)
    }

    pub(crate) fn finish(mut self) -> io::Result<Packed> {
        loop {
            let mut output = OutBuffer::around(self.buffer.as_mut_slice());
            let remaining = self.encoder.finish(&mut output, true)?;
            let written = output.pos();
            self.emit(written)?;
            if remaining == 0 {
                return Ok(Packed { size: self.size, digest: self.hasher.finish() });
            }
        }
    }
}

/// Why a frame cannot be read.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The stream ended.
    Truncated,
    /// The bytes are not what the format or the index asks for.
    Malformed(String),
    /// The stream failed.
    Io(io::Error),
}

fn malformed<T>(why: &str) -> Result<T, FrameError> {
    Err(FrameError::Malformed(why.to_owned()))
}

/// The forward stream with a count of the bytes that were taken.
pub(crate) struct Stream<R> {
    inner: BufReader<R>,
    position: u64,
}

impl<R: Read> Stream<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner: BufReader::with_capacity(CHUNK, inner), position: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> Result<(), FrameError> {
        match self.inner.read_exact(buffer) {
            Ok(()) => {
                self.position += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
            Err(error) => Err(FrameError::Io(error)),
        }
    }

    /// Whether nothing follows.
    pub(crate) fn is_at_end(&mut self) -> Result<bool, FrameError> {
        let mut byte = [0];
        loop {
            match self.inner.read(&mut byte) {
                Ok(count) => return Ok(count == 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FrameError::Io(error)),
            }
        }
    }
}

/// One frame being read.
pub(crate) struct Frame<'s, R> {
    stream: &'s mut Stream<R>,
    kind: Kind,
}

enum Kind {
    Stored { remaining: u64, block: usize },
    Packed(Box<Unpacking>),
}

struct Unpacking {
    decoder: Decoder<'static>,
    buffer: Vec<u8>,
    /// What of the buffer was not given to the decoder yet.
    unread: std::ops::Range<usize>,
    remaining: u64,
    hasher: Hasher,
    digest: Digest,
    is_finished: bool,
}

impl<'s, R: Read> Frame<'s, R> {
    /// Opens a stored frame whose content the caller knows to be of that size.
    pub(crate) fn stored(stream: &'s mut Stream<R>, content: u64) -> Result<Self, FrameError> {
        let mut header = [0; STORED_HEADER];
        stream.take(&mut header)?;
        if header != stored_header(content) {
            return malformed("the zstd frame's header is not the one that the index asks for");
        }
        Ok(Self { stream, kind: Kind::Stored { remaining: content, block: 0 } })
    }

    /// Opens a stored frame of unknown size, at most `limit` bytes of content; gives the size too.
    pub(crate) fn stored_up_to(stream: &'s mut Stream<R>, limit: u64) -> Result<(Self, u64), FrameError> {
        let mut header = [0; STORED_HEADER];
        stream.take(&mut header)?;
        let mut size = [0; 8];
        size.iter_mut().zip(header.iter().skip(6)).for_each(|(to, from)| *to = *from);
        let content = u64::from_le_bytes(size);
        if header != stored_header(content) {
            return malformed("it does not begin with a stored zstd frame; this is not a bundle");
        }
        if content > limit {
            return malformed("it is larger than a bundle may have it");
        }
        Ok((Self { stream, kind: Kind::Stored { remaining: content, block: 0 } }, content))
    }

    /// Opens a packed frame that the index describes.
    pub(crate) fn packed(stream: &'s mut Stream<R>, packed: &Packed) -> Result<Self, FrameError> {
        let mut decoder = Decoder::new().map_err(FrameError::Io)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(FrameError::Io)?;
        let unpacking = Unpacking {
            decoder,
            buffer: vec![0; usize::try_from(packed.size).unwrap_or(CHUNK).min(CHUNK)],
            unread: 0..0,
            remaining: packed.size,
            hasher: Hasher::new(Algorithm::Sha256),
            digest: packed.digest,
            is_finished: false,
        };
        Ok(Self { stream, kind: Kind::Packed(Box::new(unpacking)) })
    }

    /// Fills the buffer with content.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<(), FrameError> {
        match &mut self.kind {
            Kind::Stored { remaining, block } => {
                let mut buffer = buffer;
                while !buffer.is_empty() {
                    if *block == 0 {
                        *block = next_block(self.stream, *remaining)?;
                    }
                    let length = buffer.len().min(*block);
                    let (now, later) = buffer.split_at_mut(length);
                    self.stream.take(now)?;
                    *block -= length;
                    *remaining -= length as u64;
                    buffer = later;
                }
                Ok(())
            }
            Kind::Packed(unpacking) => {
                let mut filled = 0;
                while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                    if unpacking.is_finished {
                        return malformed("the zstd frame holds less than the index says");
                    }
                    filled += unpacking.run(self.stream, rest)?;
                }
                Ok(())
            }
        }
    }

    /// Ends the frame: all of it was read, nothing is left over, and it was the one that the index names.
    pub(crate) fn finish(self) -> Result<(), FrameError> {
        match self.kind {
            Kind::Stored { remaining: 0, .. } => Ok(()),
            Kind::Stored { .. } => malformed("the zstd frame holds more than it should"),
            Kind::Packed(mut unpacking) => {
                while !unpacking.is_finished {
                    // One byte of room: a frame that still gives output is larger than it may be.
                    if unpacking.run(self.stream, &mut [0])? > 0 {
                        return malformed("the zstd frame holds more than the index says");
                    }
                }
                if unpacking.remaining > 0 || !unpacking.unread.is_empty() {
                    return malformed("the zstd frame is shorter than the index says");
                }
                if unpacking.hasher.finish() != unpacking.digest {
                    return malformed("the zstd frame's digest is not the one in the index");
                }
                Ok(())
            }
        }
    }
}

fn next_block<R: Read>(stream: &mut Stream<R>, remaining: u64) -> Result<usize, FrameError> {
    let size = usize::try_from(remaining).unwrap_or(usize::MAX).min(RAW_BLOCK);
    if size == 0 {
        return malformed("the zstd frame holds less than the index says");
    }
    let mut header = [0; 3];
    stream.take(&mut header)?;
    if header != block_header(size, size as u64 == remaining) {
        return malformed("a zstd block header is not the one that the size asks for");
    }
    Ok(size)
}

impl Unpacking {
    /// One step of the decoder; gives the number of bytes that it put out.
    fn run<R: Read>(&mut self, stream: &mut Stream<R>, output: &mut [u8]) -> Result<usize, FrameError> {
        if self.unread.is_empty() && self.remaining > 0 {
            let length = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(self.buffer.len());
            let chunk = self.buffer.get_mut(..length).unwrap_or_default();
            stream.take(chunk)?;
            self.hasher.update(chunk);
            self.remaining -= length as u64;
            self.unread = 0..length;
        }
        let mut input = InBuffer::around(self.buffer.get(self.unread.clone()).unwrap_or_default());
        let mut output = OutBuffer::around(output);
        let left = self
            .decoder
            .run(&mut input, &mut output)
            .map_err(|error| FrameError::Malformed(format!("the zstd frame cannot be decompressed: {error}")))?;
        let (consumed, produced) = (input.pos(), output.pos());
        self.unread.start += consumed;
        self.is_finished = left == 0;
        if !self.is_finished && consumed == 0 && produced == 0 {
            return malformed("the zstd frame does not end where the index says");
        }
        Ok(produced)
    }
}
