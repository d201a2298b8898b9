//! A connection, plain or by TLS, and how a file goes out over it.
//!
//! Plain: sendfile(2) from the page cache into the socket. TLS: reads of 256 KiB into one buffer of the connection, and
//! from there through rustls. Invariant: a thread that serves many connections never waits for the disk: what is not in
//! the page cache is fetched by another thread first. Called by [`super::exchange`].

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::{Errno, ReadWriteFlags};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::patience::Progress;

/// How much goes to the kernel at once by sendfile, and is looked up in the page cache before.
const STRETCH: u64 = 1 << 20;
/// How much is read for TLS at once.
const PIECE: usize = 256 << 10;

/// A connection.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Sends bytes.
    pub(crate) async fn send(&mut self, mut bytes: &[u8], progress: &mut Progress) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = progress.wait(self.write(bytes)).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            progress.add(count as u64);
            bytes = bytes.get(count..).unwrap_or_default();
        }
        progress.wait(self.flush()).await
    }

    /// Sends a part of a file. Fails when the file is shorter than that: the client then sees that the body ends early.
    pub(crate) async fn send_file(
        &mut self,
        file: &Arc<File>,
        start: u64,
        end: u64,
        progress: &mut Progress,
    ) -> io::Result<()> {
        match self {
            Self::Plain(stream) => send_plain(stream, file, start, end, progress).await,
            Self::Tls(_) => self.send_pieces(file, start, end, progress).await,
        }
    }

    async fn send_pieces(
        &mut self,
        file: &Arc<File>,
        mut offset: u64,
        end: u64,
        progress: &mut Progress,
    ) -> io::Result<()> {
        let mut buffer = vec![0; piece(offset, end)];
        while offset < end {
            let wanted = piece(offset, end);
            let count = match read(file, buffer.get_mut(..wanted).unwrap_or_default(), offset, ReadWriteFlags::NOWAIT) {
                Ok(count) if count > 0 => count,
                _ => {
                    let (file, mut moved) = (Arc::clone(file), std::mem::take(&mut buffer));
                    let result;
                    (buffer, result) = tokio::task::spawn_blocking(move || {
                        let result =
                            read(&file, moved.get_mut(..wanted).unwrap_or_default(), offset, ReadWriteFlags::empty());
                        (moved, result)
                    })
                    .await?;
                    result?
                }
            };
            if count == 0 {
                return Err(shorter());
            }
            self.send(buffer.get(..count).unwrap_or_default(), progress).await?;
            offset += count as u64;
        }
        Ok(())
    }
}

async fn send_plain(
    stream: &TcpStream,
    file: &Arc<File>,
    mut offset: u64,
    end: u64,
    progress: &mut Progress,
) -> io::Result<()> {
    while offset < end {
        let stretch_end = end.min(offset + STRETCH);
        if !is_cached(file, offset, stretch_end) {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || fetch(&file, offset, stretch_end)).await??;
        }
        while offset < stretch_end {
            progress.wait(stream.writable()).await?;
            let wanted = usize::try_from(stretch_end - offset).unwrap_or(usize::MAX);
            let result = stream.try_io(Interest::WRITABLE, || {
                let mut from = offset;
                Ok(rustix::fs::sendfile(stream, file, Some(&mut from), wanted)?)
            });
            match result {
                Ok(0) => return Err(shorter()),
                Ok(count) => {
                    offset += count as u64;
                    progress.add(count as u64);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Whether the ends of a stretch are in the page cache; the kernel reads ahead what lies between.
fn is_cached(file: &File, start: u64, end: u64) -> bool {
    [start, end - 1].iter().all(|offset| read(file, &mut [0; 1], *offset, ReadWriteFlags::NOWAIT).is_ok())
}

/// Brings a stretch into the page cache. To be called on a thread that may wait.
fn fetch(file: &File, start: u64, end: u64) -> io::Result<()> {
    let length = std::num::NonZeroU64::new(end - start);
    // Advice only: what comes of it is seen by the reads.
    let _ = rustix::fs::fadvise(file, start, length, rustix::fs::Advice::WillNeed);
    for offset in (start..end).step_by(64 << 10).chain([end - 1]) {
        if read(file, &mut [0; 1], offset, ReadWriteFlags::empty())? == 0 {
            return Err(shorter());
        }
    }
    Ok(())
}

fn piece(offset: u64, end: u64) -> usize {
    usize::try_from(end.saturating_sub(offset)).unwrap_or(PIECE).min(PIECE)
}

fn read(file: &File, buffer: &mut [u8], offset: u64, flags: ReadWriteFlags) -> io::Result<usize> {
    loop {
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], offset, flags) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was")
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// A stream whose first bytes were read already.
pub(crate) struct Rewound<T> {
    prefix: Vec<u8>,
    inner: T,
}

impl<T> Rewound<T> {
    pub(crate) fn new(prefix: Vec<u8>, inner: T) -> Self {
        Self { prefix, inner }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(self.prefix.get(..count).unwrap_or_default());
        self.prefix.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
