//! Connections that are given up when they no longer get on.
//!
//! Invariant: a transfer that makes progress is never cut, however long it takes; one that moves fewer than
//! [`MINIMUM_PROGRESS`] bytes within the given time is. (The head of a request has a time of its own.)

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::MINIMUM_PROGRESS;

/// How a transfer gets on.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    patience: Duration,
    deadline: Instant,
    counted: u64,
}

impl Progress {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, deadline: Instant::now() + patience, counted: 0 }
    }

    /// Bytes were moved.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.counted += bytes;
        if self.counted >= MINIMUM_PROGRESS {
            self.counted = 0;
            self.deadline = Instant::now() + self.patience;
        }
    }

    /// Waits for something that moves bytes; fails when it is too late for that.
    pub(crate) async fn wait<T>(&self, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match tokio::time::timeout_at(self.deadline, future).await {
            Ok(result) => result,
            Err(_) => Err(too_slow()),
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client takes too few bytes")
}

/// Wraps a stream: what is written to it must be taken in time.
pub(crate) struct Patient<T> {
    inner: T,
    progress: Progress,
    alarm: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl<T> Patient<T> {
    pub(crate) fn new(inner: T, patience: Duration) -> Self {
        let progress = Progress::new(patience);
        Self { inner, alarm: Box::pin(sleep_until(progress.deadline)), progress, is_waiting: false }
    }

    /// Looks at the result of a write; `bytes` says how many it moved.
    fn watch<R>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<R>>,
        bytes: impl Fn(&R) -> u64,
    ) -> Poll<io::Result<R>> {
        if let Poll::Ready(result) = result {
            // Between answers nothing is waited for: the time begins when the client does not take what there is.
            if self.is_waiting {
                self.progress.add(result.as_ref().map_or(0, bytes));
                self.is_waiting = self.progress.counted > 0;
            }
            return Poll::Ready(result);
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.progress = Progress::new(self.progress.patience);
        }
        self.alarm.as_mut().reset(self.progress.deadline);
        if self.alarm.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(too_slow()));
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, result, |count| *count as u64)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, result, |count| *count as u64)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, result, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(context, result, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_served_and_a_dead_one_is_cut() {
        let (ours, mut theirs) = duplex(1024);
        let mut ours = Patient::new(ours, Duration::from_mins(1));
        let slow = tokio::spawn(async move {
            // 100 bytes a second, for hours.
            for _ in 0..1000 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                theirs.read_exact(&mut [0; 1000]).await.unwrap();
            }
            theirs
        });
        ours.write_all(&vec![1; 1_000_000]).await.unwrap();
        let _theirs = slow.await.unwrap();
        let before = Instant::now();
        let error = ours.write_all(&[1; 10 * 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() >= Duration::from_mins(1) && before.elapsed() < Duration::from_secs(62));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_a_byte_now_and_then_is_cut() {
        let (ours, mut theirs) = duplex(1024);
        let mut ours = Patient::new(ours, Duration::from_mins(1));
        let trickle = tokio::spawn(async move {
            while theirs.read_exact(&mut [0; 1]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let error = ours.write_all(&[1; 10 * 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        trickle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_counted_in_bytes() {
        let mut progress = Progress::new(Duration::from_secs(10));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            progress.add(MINIMUM_PROGRESS);
        }
        progress.wait(async { Ok(()) }).await.unwrap();
        for _ in 0..9 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            progress.add(MINIMUM_PROGRESS / 20);
        }
        let error = progress.wait(async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(())
        });
        assert_eq!(error.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
