//! A file or device of a medium that may stall, such as the virtual CD of a management controller: read in a thread of its own,
//! waited for with words, tried again from the same byte after an error.
//!
//! Invariant: nobody waits for a medium longer than [`LIMIT`] without a byte, or without having been told of it. Bytes are
//! given in their order, each once; that they are the right ones is for whoever takes them to verify, as always.
//! At most 3 MiB are held. Called by [`real`](super::real).

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek as _, SeekFrom};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::io::Errno;

use super::HostError;
use crate::engine::Stop;
use crate::headless::megabytes;

/// How long a medium may give no byte until the installation fails, and can be resumed.
pub const LIMIT: Duration = Duration::from_mins(10);
/// Said for the first time after this, then each time that the silence has become twice as long.
const FIRST_WORD: Duration = Duration::from_secs(15);
/// Between two attempts after an error at first; each pause is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_secs(1);
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 10;
static IN_MEMORY: Once = Once::new();
const QUESTION: &str = "is the BMC's virtual CD connected?";

/// What is read of a medium, and who may stop the wait for it.
#[derive(Debug, Clone)]
pub struct Medium {
    path: Utf8PathBuf,
    bytes: Option<u64>,
    stop: Stop,
}

impl Medium {
    /// The whole of a file.
    pub fn new(path: impl Into<Utf8PathBuf>, stop: &Stop) -> Self {
        Self { path: path.into(), bytes: None, stop: stop.clone() }
    }

    /// So many bytes from the beginning.
    #[must_use]
    pub fn first(self, bytes: u64) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    /// Where it lies.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Begins to read it. That it is not there is said by the first read.
    pub(super) fn open(self) -> Reader {
        IN_MEMORY.call_once(|| {
            // A program that lies on the medium itself must be able to say that it stalls. Without it that comes later.
            let _ = std::fs::read("/proc/self/exe");
        });
        let path = self.path.clone();
        let open = move |offset| -> io::Result<(Box<dyn Read + Send>, u64)> {
            let mut file = File::open(&path)?;
            // Of a device, the length is where its end is.
            let length = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(offset))?;
            Ok((Box::new(file), length))
        };
        let began = Instant::now();
        Reader::new(self, Arc::new(open), Pace { tick: TICK, now: Box::new(move || began.elapsed()) })
    }
}

/// Opens the medium at a byte; gives its length as well.
type Open = dyn Fn(u64) -> io::Result<(Box<dyn Read + Send>, u64)> + Send + Sync;

/// The clock, and how often it is looked at.
struct Pace {
    tick: Duration,
    now: Box<dyn Fn() -> Duration + Send>,
}

/// What the thread that reads gives.
enum Given {
    Length(u64),
    /// An empty one is the end.
    Chunk(Vec<u8>),
    Failed(io::Error),
}

/// Reads a medium.
pub(super) struct Reader {
    medium: Medium,
    open: Arc<Open>,
    pace: Pace,
    // Kept, so that the channel is open while no thread reads.
    giver: SyncSender<Given>,
    given: Receiver<Given>,
    offset: u64,
    length: Option<u64>,
    is_at_end: bool,
}

impl Reader {
    fn new(medium: Medium, open: Arc<Open>, pace: Pace) -> Self {
        let (giver, given) = sync_channel(CHUNKS);
        let length = medium.bytes;
        let reader = Self { medium, open, pace, giver, given, offset: 0, length, is_at_end: false };
        reader.begin();
        reader
    }

    /// Bytes that were given so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes; `None` at the end. Waits for the medium, tries again, and tells `say` of both.
    pub(super) fn next(&mut self, say: &mut dyn FnMut(&str)) -> Result<Option<Vec<u8>>, HostError> {
        if self.is_at_end || self.medium.bytes.is_some_and(|bytes| self.offset >= bytes) {
            return Ok(None);
        }
        let mut wait = Wait::begin((self.pace.now)());
        loop {
            match self.given.recv_timeout(self.pace.tick) {
                Ok(Given::Length(length)) => self.length = self.medium.bytes.or(Some(length)),
                Ok(Given::Chunk(chunk)) => return self.take(chunk, &wait, say).map(Some),
                Ok(Given::Failed(source)) if !may_pass(&source, self.offset > 0 || wait.attempts > 0) => {
                    return Err(HostError::File { action: "read", path: self.medium.path.clone(), source });
                }
                Ok(Given::Failed(error)) => wait.failed((self.pace.now)(), error),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if self.medium.stop.is_requested() {
                return Err(HostError::Stopped { path: self.medium.path.clone() });
            }
            match wait.look((self.pace.now)()) {
                Next::Wait => {}
                Next::Say(what) => say(&format!("the medium {what} ({}): {QUESTION}", self.place())),
                Next::Again => self.begin(),
                Next::GiveUp => {
                    let silent = io::Error::new(ErrorKind::TimedOut, format!("no byte for {} s", LIMIT.as_secs()));
                    return Err(self.failed(wait.error.as_ref().unwrap_or(&silent)));
                }
            }
        }
    }

    fn take(&mut self, mut chunk: Vec<u8>, wait: &Wait, say: &mut dyn FnMut(&str)) -> Result<Vec<u8>, HostError> {
        if wait.has_spoken {
            let seconds = (self.pace.now)().saturating_sub(wait.began).as_secs();
            say(&format!("the medium answers again after {seconds} s"));
        }
        self.is_at_end = chunk.is_empty();
        if let Some(bytes) = self.medium.bytes {
            let left = bytes.saturating_sub(self.offset);
            if self.is_at_end {
                return Err(
                    self.failed(&io::Error::new(ErrorKind::UnexpectedEof, format!("it ends {left} bytes early")))
                );
            }
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.offset += chunk.len() as u64;
        Ok(chunk)
    }

    fn begin(&self) {
        let (open, giver, offset) = (Arc::clone(&self.open), self.giver.clone(), self.offset);
        // It ends with the medium, with an error, or when nobody takes what it gives. One that hangs in the kernel is left there.
        std::thread::spawn(move || give(&*open, offset, &giver));
    }

    fn place(&self) -> String {
        let at = megabytes(self.offset);
        self.length.map_or_else(|| format!("at {at}"), |length| format!("at {at} of {}", megabytes(length)))
    }

    fn failed(&self, error: &io::Error) -> HostError {
        HostError::Medium { path: self.medium.path.clone(), place: self.place(), reason: error.to_string() }
    }
}

/// A [`Reader`] for whom wants a plain one.
pub struct Plain<'a> {
    reader: Reader,
    say: &'a mut dyn FnMut(&str),
    chunk: Vec<u8>,
    taken: usize,
}

impl Medium {
    /// Reads it, for what is parsed while it comes; `say` hears when it is waited for.
    pub fn plain<'a>(&self, say: &'a mut dyn FnMut(&str)) -> Plain<'a> {
        Plain { reader: self.clone().open(), say, chunk: Vec::new(), taken: 0 }
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() {
            self.chunk = self.reader.next(self.say).map_err(io::Error::other)?.unwrap_or_default();
            self.taken = 0;
        }
        let count = self.chunk.get(self.taken..).unwrap_or_default().read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

fn give(open: &Open, offset: u64, giver: &SyncSender<Given>) {
    // Nobody is there to hear of what cannot be sent.
    let failed = |error| drop(giver.send(Given::Failed(error)));
    let mut input = match open(offset) {
        Ok((input, length)) => {
            if giver.send(Given::Length(length)).is_err() {
                return;
            }
            input
        }
        Err(error) => return failed(error),
    };
    loop {
        let mut chunk = vec![0; CHUNK];
        match input.read(&mut chunk) {
            Ok(count) => {
                chunk.truncate(count);
                if giver.send(Given::Chunk(chunk)).is_err() || count == 0 {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return failed(error),
        }
    }
}

/// Whether a medium that gave this error may come back. One that was there before may also be gone for a while.
fn may_pass(error: &io::Error, was_there: bool) -> bool {
    let Some(errno) = Errno::from_io_error(error) else { return false };
    let passing = [
        Errno::IO,
        Errno::NODEV,
        Errno::NXIO,
        Errno::NOMEDIUM,
        Errno::MEDIUMTYPE,
        Errno::TIMEDOUT,
        Errno::REMOTEIO,
        Errno::NOLINK,
        Errno::STALE,
    ];
    passing.contains(&errno) || (errno == Errno::NOENT && was_there)
}

/// The wait for one chunk. Times are those of the [`Pace`].
struct Wait {
    began: Duration,
    next_word: Duration,
    has_spoken: bool,
    attempts: u32,
    again: Option<Duration>,
    error: Option<io::Error>,
}

enum Next {
    Wait,
    /// The medium … .
    Say(String),
    Again,
    GiveUp,
}

impl Wait {
    fn begin(now: Duration) -> Self {
        Self { began: now, next_word: FIRST_WORD, has_spoken: false, attempts: 0, again: None, error: None }
    }

    fn failed(&mut self, now: Duration, error: io::Error) {
        if self.error.is_none() {
            // An error is told at once, a silence only when it lasts.
            self.next_word = Duration::ZERO;
        }
        self.again = Some(now + (FIRST_PAUSE * 2_u32.saturating_pow(self.attempts)).min(LONGEST_PAUSE));
        self.attempts += 1;
        self.error = Some(error);
    }

    fn look(&mut self, now: Duration) -> Next {
        let silent = now.saturating_sub(self.began);
        if silent >= LIMIT {
            return Next::GiveUp;
        }
        if silent >= self.next_word {
            self.next_word = (2 * silent).max(FIRST_WORD);
            self.has_spoken = true;
            return Next::Say(match &self.error {
                Some(error) => format!("gives an error, it is tried again: {error}"),
                None => format!("has not answered for {} s", silent.as_secs()),
            });
        }
        if self.again.is_some_and(|again| now >= again) {
            self.again = None;
            return Next::Again;
        }
        Next::Wait
    }
}

#[cfg(test)]
mod tests;
