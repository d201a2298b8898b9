//! Bodies of answers. Invariant: a file is sent in pieces of at most [`PIECE`] bytes, read when the client took the
//! ones before, so that memory does not grow with the size of a blob or the slowness of a client.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Bytes, Frame, SizeHint};
use rustix::io::ReadWriteFlags;
use tokio::task::JoinHandle;

/// How many bytes of a file are read at once.
pub(crate) const PIECE: usize = 256 << 10;

/// The body of an answer.
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    File(FileBody),
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// A part of a file that is being sent.
pub(crate) struct FileBody {
    file: Arc<File>,
    offset: u64,
    end: u64,
    /// A read that would have waited for the disk, on a thread that may.
    waiting: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(crate) fn new(file: File, start: u64, end: u64) -> Self {
        Self { file: Arc::new(file), offset: start, end, waiting: None }
    }

    /// File, first byte, and the one behind the last: for who sends it without hyper.
    pub(crate) fn into_parts(self) -> (Arc<File>, u64, u64) {
        (self.file, self.offset, self.end)
    }
}

impl Body {
    /// How many bytes are left of it.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.end.saturating_sub(file.offset),
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready(if bytes.is_empty() { None } else { Some(Ok(Frame::data(bytes))) })
            }
            Self::File(file) => file.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::File(file) => file.offset >= file.end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}

impl FileBody {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.offset >= self.end {
            return Poll::Ready(None);
        }
        let (offset, length) = (self.offset, piece(self.offset, self.end));
        if self.waiting.is_none() {
            // What is in the page cache is read at once; for the disk this thread would have to wait.
            match read(&self.file, offset, length, ReadWriteFlags::NOWAIT) {
                Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Some(self.sent(bytes))),
                _ => {
                    let file = Arc::clone(&self.file);
                    self.waiting =
                        Some(tokio::task::spawn_blocking(move || read(&file, offset, length, ReadWriteFlags::empty())));
                }
            }
        }
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
        let result = ready!(Pin::new(waiting).poll(context));
        self.waiting = None;
        Poll::Ready(Some(match result {
            Ok(Ok(bytes)) => self.sent(bytes),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }))
    }

    fn sent(&mut self, bytes: Bytes) -> io::Result<Frame<Bytes>> {
        if bytes.is_empty() {
            // The client sees that the body is too short; an answer that just ended would look complete.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        self.offset += bytes.len() as u64;
        Ok(Frame::data(bytes))
    }
}

fn piece(offset: u64, end: u64) -> usize {
    usize::try_from(end.saturating_sub(offset)).unwrap_or(PIECE).min(PIECE)
}

fn read(file: &File, offset: u64, length: usize, flags: ReadWriteFlags) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let count = loop {
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut buffer)], offset, flags) {
            Ok(count) => break count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    buffer.truncate(count);
    Ok(buffer.into())
}
