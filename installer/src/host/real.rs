//! The machine itself. The only place of the installer that starts processes, writes files and reads the clock.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek as _, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt as _, ExitStatusExt};
use std::process::{ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bundle::oci::{Algorithm, Digest, Hasher};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{
    Command, Entry, EntryKind, Heard, Host, HostError, HttpsAnswer, HttpsRequest, Medium, Output, TimeAnswer,
    TimeRequest, medium,
};

const READ_LIMIT: u64 = 64 << 20;
const STDOUT_LIMIT: usize = 64 << 20;
const STDERR_KEPT: usize = 4 << 10;
/// Between two counts of the bytes that a command got from a medium.
const FED_PAUSE: Duration = Duration::from_millis(500);

/// The machine this program runs on.
#[derive(Debug, Default)]
pub struct RealHost;

impl Host for RealHost {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn run(&self, command: &Command, watch: &mut dyn FnMut(&str)) -> Result<Output, HostError> {
        run(command, None, &mut |heard| {
            if let Heard::Line(line) = heard {
                watch(line);
            }
        })
    }

    fn run_from_medium(
        &self,
        command: &Command,
        medium: &Medium,
        watch: &mut dyn FnMut(Heard),
    ) -> Result<Output, HostError> {
        run(command, Some(medium.clone().open()), watch)
    }

    fn read_from_medium(
        &self,
        medium: &Medium,
        say: &mut dyn FnMut(&str),
    ) -> Result<Option<Zeroizing<Vec<u8>>>, HostError> {
        let mut reader = medium.clone().open();
        let mut content = Zeroizing::new(Vec::new());
        loop {
            match reader.next(say) {
                Ok(Some(chunk)) => content.extend_from_slice(&chunk),
                Ok(None) => return Ok(Some(content)),
                Err(HostError::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
            if content.len() as u64 > READ_LIMIT {
                return Err(failed("read", medium.path(), too_large()));
            }
        }
    }

    fn read(&self, path: &Utf8Path) -> Result<Option<Zeroizing<Vec<u8>>>, HostError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", path, error)),
        };
        let mut content = Zeroizing::new(Vec::new());
        file.take(READ_LIMIT + 1).read_to_end(&mut content).map_err(|error| failed("read", path, error))?;
        if content.len() as u64 > READ_LIMIT {
            return Err(failed("read", path, too_large()));
        }
        Ok(Some(content))
    }

    fn look(&self, path: &Utf8Path) -> Result<Option<Entry>, HostError> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(failed("look at", path, error)),
        };
        let kind = match metadata.file_type() {
            kind if kind.is_file() => EntryKind::File,
            kind if kind.is_dir() => EntryKind::Directory,
            kind if kind.is_block_device() => EntryKind::BlockDevice,
            _ => EntryKind::Other,
        };
        Ok(Some(Entry { kind, size: metadata.len(), mode: metadata.permissions().mode() & 0o7777 }))
    }

    fn list(&self, directory: &Utf8Path) -> Result<Vec<String>, HostError> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", directory, error)),
        };
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| failed("list", directory, error))?;
        names.sort();
        Ok(names)
    }

    fn write(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Result<(), HostError> {
        replace(path, mode, |file| file.write_all(content).map_err(|error| failed("write", path, error)))
    }

    fn append(&self, path: &Utf8Path, content: &[u8]) -> Result<(), HostError> {
        let is_new = self.look(path)?.is_none();
        let mut file = open_to_append(path)?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| failed("append to", path, error))?;
        if is_new { sync_directory(parent_of(path)) } else { Ok(()) }
    }

    fn lock(&self, path: &Utf8Path) -> Result<Option<Box<dyn Send>>, HostError> {
        let file = open_to_append(path)?;
        // A look by `is_locked` holds it for an instant.
        for attempt in 0..5 {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Box::new(file))),
                Err(Errno::WOULDBLOCK) if attempt < 4 => std::thread::sleep(Duration::from_millis(50)),
                Err(Errno::WOULDBLOCK) => break,
                Err(error) => return Err(failed("lock", path, error.into())),
            }
        }
        Ok(None)
    }

    fn is_locked(&self, path: &Utf8Path) -> Result<bool, HostError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed("open", path, error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(failed("look at the lock", path, error.into())),
        }
    }

    fn note(&self, path: &Utf8Path, content: &[u8]) -> Result<(), HostError> {
        open_to_append(path)?.write_all(content).map_err(|error| failed("append to", path, error))
    }

    fn make_directory(&self, path: &Utf8Path, mode: u32) -> Result<(), HostError> {
        fs::create_dir_all(path)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
            .map_err(|error| failed("make", path, error))?;
        sync_directory(parent_of(path))
    }

    fn remove(&self, path: &Utf8Path) -> Result<(), HostError> {
        match fs::remove_file(path) {
            Ok(()) => sync_directory(parent_of(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", path, error)),
        }
    }

    fn copy(&self, source: &Utf8Path, target: &Utf8Path, mode: u32, digest: Option<&Digest>) -> Result<(), HostError> {
        let mut input = File::open(source).map_err(|error| failed("open", source, error))?;
        copy(source, target, mode, digest, &mut || {
            let mut buffer = vec![0; 256 << 10];
            let count = input.read(&mut buffer).map_err(|error| failed("read", source, error))?;
            buffer.truncate(count);
            Ok((count > 0).then_some(buffer))
        })
    }

    fn copy_from_medium(
        &self,
        medium: &Medium,
        target: &Utf8Path,
        mode: u32,
        digest: Option<&Digest>,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), HostError> {
        let mut reader = medium.clone().open();
        copy(medium.path(), target, mode, digest, &mut || reader.next(say))
    }

    fn digest(&self, path: &Utf8Path) -> Result<Option<Digest>, HostError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", path, error)),
        };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(|error| failed("read", path, error))? {
                0 => return Ok(Some(hasher.finish())),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    fn measure_sync(&self, directory: &Utf8Path, writes: u32) -> Result<Duration, HostError> {
        let path = directory.join(format!(".cofferdam-sync.{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("make", &path, error))?;
        fs::remove_file(&path).map_err(|error| failed("remove", &path, error))?;
        let record = [0x5a; 2_300];
        let mut times = (0..writes.clamp(1, 10_000))
            .map(|_| {
                let started = Instant::now();
                file.write_all(&record)?;
                file.sync_data()?;
                Ok(started.elapsed())
            })
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| failed("sync", &path, error))?;
        times.sort_unstable();
        let rank = (times.len() * 99).div_ceil(100);
        Ok(times[rank.saturating_sub(1)])
    }

    fn https_get(&self, request: &HttpsRequest) -> Result<HttpsAnswer, HostError> {
        super::https::get(request)
    }

    fn ask_time(&self, requests: &[TimeRequest]) -> Vec<Result<TimeAnswer, HostError>> {
        super::ntp::ask_all(requests)
    }
}

/// A shell at this terminal, until it ends.
pub fn shell() -> std::io::Result<()> {
    let mut shell = std::process::Command::new("/bin/bash");
    let status = shell.arg("--login").status();
    match status {
        Err(error) if error.kind() == ErrorKind::NotFound => std::process::Command::new("/bin/sh").status().map(drop),
        other => other.map(drop),
    }
}

fn failed(action: &'static str, path: &Utf8Path, source: std::io::Error) -> HostError {
    HostError::File { action, path: path.to_owned(), source }
}

fn too_large() -> std::io::Error {
    std::io::Error::new(ErrorKind::FileTooLarge, "larger than 64 MiB")
}

/// Copies what `next` gives until it gives nothing more.
pub(super) fn copy(
    source: &Utf8Path,
    target: &Utf8Path,
    mode: u32,
    digest: Option<&Digest>,
    next: &mut dyn FnMut() -> Result<Option<Vec<u8>>, HostError>,
) -> Result<(), HostError> {
    replace(target, mode, |file| {
        let mut hasher = Hasher::new(digest.map_or(Algorithm::Sha256, Digest::algorithm));
        while let Some(bytes) = next()? {
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(|error| failed("write", target, error))?;
        }
        let found = hasher.finish();
        match digest {
            Some(expected) if *expected != found => Err(HostError::Digest {
                path: source.to_owned(),
                expected: expected.to_string(),
                found: found.to_string(),
            }),
            _ => Ok(()),
        }
    })
}

/// Made with mode 0600, and its directory with it, when it is missing.
fn open_to_append(path: &Utf8Path) -> Result<File, HostError> {
    let parent = parent_of(path);
    fs::create_dir_all(parent).map_err(|error| failed("make", parent, error))?;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|error| failed("open", path, error))
}

fn parent_of(path: &Utf8Path) -> &Utf8Path {
    path.parent().unwrap_or(Utf8Path::new("/"))
}

fn sync_directory(directory: &Utf8Path) -> Result<(), HostError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(|error| failed("sync", directory, error))
}

/// Fills a temporary file beside `path`, then renames it into place. On an error the temporary file is removed.
fn replace(path: &Utf8Path, mode: u32, fill: impl FnOnce(&mut File) -> Result<(), HostError>) -> Result<(), HostError> {
    let parent = parent_of(path);
    fs::create_dir_all(parent).map_err(|error| failed("make", parent, error))?;
    let temporary = Utf8PathBuf::from(format!("{parent}/.{}.new", path.file_name().unwrap_or("file")));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove", &temporary, error)),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .map_err(|error| failed("make", &temporary, error))?;
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(|error| failed("set the mode of", &temporary, error))?;
        fill(&mut file)?;
        file.sync_all().map_err(|error| failed("sync", &temporary, error))?;
        fs::rename(&temporary, path).map_err(|error| failed("rename into place", path, error))
    })();
    if written.is_err() {
        // The first error is the one to report; a leftover is removed by the next attempt.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(parent)
}

enum Line {
    Out(Vec<u8>),
    Err(Vec<u8>),
    /// A pipe was closed.
    Closed,
    Fed(u64),
    Medium(String),
    Failed(HostError),
}

pub(super) fn run(
    command: &Command,
    reader: Option<medium::Reader>,
    watch: &mut dyn FnMut(Heard),
) -> Result<Output, HostError> {
    let started = Instant::now();
    let mut process = std::process::Command::new(&command.program);
    process
        .args(&command.arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .stdin(match (&command.stdin, &reader) {
            (Some(input), _) => in_memory(input).map_err(|source| start_failed(command, source))?.into(),
            (None, Some(_)) => Stdio::piped(),
            (None, None) => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C or a hang-up of our terminal is for us to hear; it must not end a command in the middle of its work.
        .process_group(0);
    let mut child = process.spawn().map_err(|source| start_failed(command, source))?;
    let (sender, receiver) = mpsc::channel();
    let out = child.stdout.take().map(|pipe| forward(pipe, sender.clone(), Line::Out));
    let err = child.stderr.take().map(|pipe| forward(pipe, sender.clone(), Line::Err));
    let waits = Arc::new(Waits::default());
    if let (Some(pipe), Some(reader)) = (child.stdin.take(), reader) {
        let waits = Arc::clone(&waits);
        // It ends with the medium, or when the command does not read any more.
        std::thread::spawn(move || feed(reader, pipe, &sender, &waits));
    }
    let left = || waits.left(command.limit, started);
    let stop = |child: &mut std::process::Child| {
        // Killing fails only when it has ended by now.
        let _ = child.kill();
        let _ = child.wait();
    };

    let mut output = Output { status: -1, stdout: Zeroizing::new(Vec::new()), stderr: String::new() };
    let mut last = String::new();
    let mut timed_out = false;
    let mut open = 2;
    while open > 0 {
        match receiver.recv_timeout(left()) {
            Ok(line) => {
                if let Line::Out(bytes) | Line::Err(bytes) = &line
                    && !command.secret_output
                {
                    let text = String::from_utf8_lossy(bytes);
                    let text = text.trim_end();
                    if !text.is_empty() {
                        watch(Heard::Line(text));
                        text.clone_into(&mut last);
                    }
                }
                match line {
                    Line::Closed => open -= 1,
                    Line::Fed(bytes) => watch(Heard::Bytes(bytes)),
                    Line::Medium(text) => watch(Heard::Medium(&text)),
                    Line::Failed(error) => {
                        stop(&mut child);
                        return Err(error);
                    }
                    Line::Out(bytes) => {
                        let room = STDOUT_LIMIT.saturating_sub(output.stdout.len());
                        output.stdout.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    }
                    Line::Err(bytes) => {
                        output.stderr.push_str(&String::from_utf8_lossy(&bytes));
                        if output.stderr.len() > STDERR_KEPT {
                            let mut cut = output.stderr.len() - STDERR_KEPT;
                            while !output.stderr.is_char_boundary(cut) {
                                cut += 1;
                            }
                            output.stderr.drain(..cut);
                        }
                    }
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) if left().is_zero() => {
                timed_out = true;
                break;
            }
            // While the medium was waited for, the limit moved.
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    // Both pipes are closed: the command has ended, or went on as a daemon; wait no longer than the limit.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if timed_out || left().is_zero() => break None,
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(source) => return Err(HostError::Start { program: command.program.clone(), source }),
        }
    };
    let Some(status) = status else {
        stop(&mut child);
        return Err(HostError::TimedOut { command: command.to_string(), seconds: command.limit.as_secs(), last });
    };
    for reader in [out, err].into_iter().flatten() {
        // The readers end with their pipes; they do not panic.
        let _ = reader.join();
    }
    output.status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(output)
}

/// A file without a name that exists in memory only. Not a pipe: systemd-cryptenroll 252 seeks in what it reads a key from.
fn in_memory(content: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("cofferdam-stdin", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

fn start_failed(command: &Command, source: std::io::Error) -> HostError {
    HostError::Start { program: command.program.clone(), source }
}

fn forward(
    pipe: impl Read + Send + 'static,
    sender: mpsc::Sender<Line>,
    wrap: fn(Vec<u8>) -> Line,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        loop {
            let mut line = Vec::new();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    if sender.send(wrap(line)).is_err() {
                        break;
                    }
                }
            }
        }
        // Nobody waits for it once the command was killed.
        let _ = sender.send(Line::Closed);
    })
}

/// How long a command's medium was waited for, which its limit does not count: the medium has one of its own.
#[derive(Default)]
struct Waits {
    is_waiting: AtomicBool,
    milliseconds: AtomicU64,
}

impl Waits {
    fn left(&self, limit: Duration, started: Instant) -> Duration {
        let waited = Duration::from_millis(self.milliseconds.load(Ordering::Relaxed));
        let left = limit.saturating_add(waited).saturating_sub(started.elapsed());
        if self.is_waiting.load(Ordering::Relaxed) { left.max(Duration::from_secs(1)) } else { left }
    }

    fn during<T>(&self, wait: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        self.is_waiting.store(true, Ordering::Relaxed);
        let result = wait();
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.milliseconds.fetch_add(milliseconds, Ordering::Relaxed);
        self.is_waiting.store(false, Ordering::Relaxed);
        result
    }
}

/// Hands a medium to a command.
fn feed(mut reader: medium::Reader, mut pipe: ChildStdin, sender: &mpsc::Sender<Line>, waits: &Waits) {
    // What cannot be sent is heard by nobody: the command has ended.
    let tell = |line| drop(sender.send(line));
    let mut told = Instant::now();
    loop {
        match waits.during(|| reader.next(&mut |text| tell(Line::Medium(text.to_owned())))) {
            // A command that reads no more says why on stderr.
            Ok(Some(bytes)) if pipe.write_all(&bytes).is_err() => return,
            Ok(Some(_)) if told.elapsed() < FED_PAUSE => {}
            Ok(Some(_)) => {
                told = Instant::now();
                tell(Line::Fed(reader.offset()));
            }
            Ok(None) => return tell(Line::Fed(reader.offset())),
            Err(error) => return tell(Line::Failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Command, run};

    /// A pipe would give its content once only, and could not be sought in.
    #[test]
    fn input_is_a_file_from_its_beginning() {
        let command = Command::new("cat").args(["-", "/dev/stdin", "/dev/stdin"]).stdin("key");
        assert_eq!(run(&command, None, &mut |_| {}).unwrap().text(), "keykeykey");
        let deaf = Command::new("true").stdin(vec![0; 1 << 20]);
        assert_eq!(run(&deaf, None, &mut |_| {}).unwrap().status, 0);
    }
}
