//! The one door through which an install touches a machine.
//!
//! Invariant: every command, file write and look at the clock of an install goes through [`Host`]. The implementations:
//! [`real::RealHost`] (the machine) and the
//! simulated host of the tests, which can crash at the n-th effect. Called by `facts/`, `engine/` and `step/`.

mod https;
mod medium;
mod ntp;
pub mod real;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

pub use medium::{LIMIT as MEDIUM_LIMIT, Medium};

/// What a host can do for us. All paths are absolute.
pub trait Host {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Waits.
    fn pause(&self, time: Duration);

    /// Runs a command to its end. Each line that it prints on stdout or stderr is given to `watch` as it comes.
    /// A command that ends with another status than 0 is not an error here: see [`Output::success`].
    fn run(&self, command: &Command, watch: &mut dyn FnMut(&str)) -> Result<Output, HostError>;

    /// Runs a command that reads a medium from stdin; it is opened by us, so that the command needs no right to it. A medium
    /// that stalls is waited for, one that gives errors is read again from the same byte, both for [`MEDIUM_LIMIT`] and until
    /// the operator stops. The command's own limit does not count that time.
    fn run_from_medium(
        &self,
        command: &Command,
        medium: &Medium,
        watch: &mut dyn FnMut(Heard),
    ) -> Result<Output, HostError> {
        let _ = medium;
        self.run(command, &mut |line| watch(Heard::Line(line)))
    }

    /// [`Host::read`] of a file on a medium, which is waited for like that; `say` hears of it.
    fn read_from_medium(
        &self,
        medium: &Medium,
        say: &mut dyn FnMut(&str),
    ) -> Result<Option<Zeroizing<Vec<u8>>>, HostError> {
        let _ = say;
        self.read(medium.path())
    }

    /// The content of a file of at most 64 MiB; `None` when there is no such file.
    fn read(&self, path: &Utf8Path) -> Result<Option<Zeroizing<Vec<u8>>>, HostError>;

    /// Whether something is at this path, and what; symbolic links are followed.
    fn look(&self, path: &Utf8Path) -> Result<Option<Entry>, HostError>;

    /// The names in a directory, sorted; empty when there is no such directory.
    fn list(&self, directory: &Utf8Path) -> Result<Vec<String>, HostError>;

    /// Writes a file whole: temporary name with the final mode, fsync, rename, fsync of the directory.
    /// Missing parent directories are made with mode 0755.
    fn write(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Result<(), HostError>;

    /// Appends to a file (made with mode 0600 if it is missing) and fsyncs it.
    fn append(&self, path: &Utf8Path, content: &[u8]) -> Result<(), HostError>;

    /// Takes a lock that ends with this process or when what is given back is dropped; `None` when another process has it.
    /// A host that nobody else can reach has nothing to lock.
    fn lock(&self, path: &Utf8Path) -> Result<Option<Box<dyn Send>>, HostError> {
        let _ = path;
        Ok(Some(Box::new(())))
    }

    /// Whether some process holds the lock.
    fn is_locked(&self, path: &Utf8Path) -> Result<bool, HostError> {
        let _ = path;
        Ok(false)
    }

    /// The same without the fsync, for what may be lost in a crash.
    fn note(&self, path: &Utf8Path, content: &[u8]) -> Result<(), HostError> {
        self.append(path, content)
    }

    /// Makes a directory and its missing parents; sets the mode also when it was there.
    fn make_directory(&self, path: &Utf8Path, mode: u32) -> Result<(), HostError>;

    /// Removes a file; nothing happens when there is none.
    fn remove(&self, path: &Utf8Path) -> Result<(), HostError>;

    /// Copies a file of any size to `target` with the discipline of [`Host::write`]. With a digest, the copy is hashed
    /// on its way and not renamed into place when it differs.
    fn copy(
        &self,
        source: &Utf8Path,
        target: &Utf8Path,
        mode: u32,
        digest: Option<&bundle::oci::Digest>,
    ) -> Result<(), HostError>;

    /// [`Host::copy`] from a medium, which is waited for like that; `say` hears of it.
    fn copy_from_medium(
        &self,
        medium: &Medium,
        target: &Utf8Path,
        mode: u32,
        digest: Option<&bundle::oci::Digest>,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), HostError> {
        let _ = say;
        self.copy(medium.path(), target, mode, digest)
    }

    /// The SHA-256 of a file of any size; `None` when there is none.
    fn digest(&self, path: &Utf8Path) -> Result<Option<bundle::oci::Digest>, HostError>;

    /// How long the disk under `directory` takes to make a small write durable: the 99th percentile of `writes`
    /// (1 to 10,000) fdatasyncs of 2,300 bytes each, the size of etcd's records. The file has no name while it is
    /// measured and nothing is left behind.
    fn measure_sync(&self, directory: &Utf8Path, writes: u32) -> Result<Duration, HostError>;

    /// A GET over TLS with full verification of the server by name; the answer's body is cut at 1 MiB.
    fn https_get(&self, request: &HttpsRequest) -> Result<HttpsAnswer, HostError>;

    /// Asks NTP servers for the time, all at once; the answers stand in the order of the requests. No clock is set.
    fn ask_time(&self, requests: &[TimeRequest]) -> Vec<Result<TimeAnswer, HostError>>;
}

/// What is heard while a command reads a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A line that the command printed.
    Line(&'a str),
    /// So many bytes of the medium were handed to the command.
    Bytes(u64),
    /// The medium is waited for, or answers again.
    Medium(&'a str),
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What kind of thing it is.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// The kinds of [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
    /// A socket, a FIFO or a character device.
    Other,
}

/// A command as data: what is run can be shown, compared and simulated. Secrets go in by [`Command::stdin`] only.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Option<Zeroizing<Vec<u8>>>,
    secret_output: bool,
    limit: Duration,
}

impl Command {
    /// A command without arguments, with nothing on stdin and a time limit of one minute.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            stdin: None,
            secret_output: false,
            limit: Duration::from_mins(1),
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable. The environment is otherwise PATH, HOME and `LC_ALL` only. Never a secret.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the command reads from stdin; may be a secret.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(Zeroizing::new(bytes.into()));
        self
    }

    /// The command's output holds secrets: it is not given to the watcher and not repeated in errors.
    #[must_use]
    pub fn secret_output(mut self) -> Self {
        self.secret_output = true;
        self
    }

    /// How long it may take before it is killed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The program's name or path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Its arguments.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// What goes to stdin.
    pub fn input(&self) -> Option<&[u8]> {
        self.stdin.as_ref().map(|bytes| bytes.as_slice())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        self.arguments.iter().try_for_each(|argument| {
            if argument.is_empty() || argument.contains(|c: char| c.is_whitespace() || "'\"$&|;<>()*?".contains(c)) {
                write!(f, " '{}'", argument.replace('\'', "'\\''"))
            } else {
                write!(f, " {argument}")
            }
        })
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({self}{})", if self.stdin.is_some() { " < (hidden)" } else { "" })
    }
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + n when signal n ended it.
    pub status: i32,
    /// What it printed on stdout; wiped after use, since some commands print keys.
    pub stdout: Zeroizing<Vec<u8>>,
    /// The last lines it printed on stderr, at most 4 KiB.
    pub stderr: String,
}

impl Output {
    /// Status 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Stdout as text, without the white space at its ends.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output(status {}, {} bytes)", self.status, self.stdout.len())
    }
}

/// A GET over TLS.
#[derive(Debug, Clone)]
pub struct HttpsRequest {
    /// The name that is resolved, sent as SNI and verified.
    pub server: String,
    /// TCP port.
    pub port: u16,
    /// Path and query, from `/`.
    pub path: String,
    /// The only certificates that may have issued the server's, PEM.
    pub roots_pem: String,
    /// Client certificate chain and key, PEM.
    pub client: Option<(String, Zeroizing<String>)>,
    /// From connect to the last byte.
    pub limit: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsAnswer {
    /// HTTP status code.
    pub status: u16,
    /// At most 1 MiB.
    pub body: Vec<u8>,
    /// For example `TLSv1_3`.
    pub protocol: String,
}

/// A question to an NTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeRequest {
    /// Name or address.
    pub server: String,
    /// UDP port.
    pub port: u16,
    /// From the first question to the answer.
    pub limit: Duration,
}

/// What an NTP server says of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeAnswer {
    /// The address that answered.
    pub address: IpAddr,
    /// How many servers away from a clock, 1 to 15.
    pub stratum: u8,
    /// How far the server is ahead of this machine.
    pub offset: SignedDuration,
    /// How long question and answer were on their way.
    pub delay: Duration,
}

/// An effect that failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file operation.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was done.
        action: &'static str,
        /// On what.
        path: Utf8PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A copy whose bytes were not the expected ones.
    #[error("{path} is not what the bundle's index says: expected {expected}, found {found}")]
    Digest {
        /// The source of the copy.
        path: Utf8PathBuf,
        /// From the signed index.
        expected: String,
        /// From the bytes.
        found: String,
    },
    /// The program is not there or cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Its name.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The command did not end in time and was killed.
    #[error("`{command}` did not end within {seconds} s{}", last_line(.last))]
    TimedOut {
        /// The command, without what it got on stdin.
        command: String,
        /// Its limit.
        seconds: u64,
        /// The last line that it printed.
        last: String,
    },
    /// The command ended with an error.
    #[error("`{command}` ended with status {status}{}", last_line(.last))]
    Failed {
        /// The command, without what it got on stdin.
        command: String,
        /// Exit status.
        status: i32,
        /// The end of what it printed on stderr.
        last: String,
    },
    /// An exchange over TLS.
    #[error("https://{server}:{port}{path}: {reason}")]
    Https {
        /// Whom we asked.
        server: String,
        /// Port.
        port: u16,
        /// What for.
        path: String,
        /// Why it failed.
        reason: String,
    },
    /// A question for the time.
    #[error("the NTP server {server}: {reason}")]
    Time {
        /// Whom we asked.
        server: String,
        /// Why there is no answer.
        reason: String,
    },
    /// A medium that does not come back.
    #[error("{path} cannot be read {place}: {reason}")]
    Medium {
        /// A file on it, or its device.
        path: Utf8PathBuf,
        /// How far it was read, in words.
        place: String,
        /// What it said last.
        reason: String,
    },
    /// The operator stopped the wait for a medium.
    #[error("stopped while {path} did not answer")]
    Stopped {
        /// A file on the medium, or its device.
        path: Utf8PathBuf,
    },
    /// The simulated host of the tests lost power.
    #[error("the host lost power")]
    PowerLost,
}

impl HostError {
    /// What kind of failure it is: stable, for people who search and for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Digest { .. } => "digest",
            Self::Start { .. } => "command-not-started",
            Self::TimedOut { .. } => "command-timed-out",
            Self::Failed { .. } => "command-failed",
            Self::Https { .. } => "https",
            Self::Time { .. } => "time",
            Self::Medium { .. } => "medium",
            Self::Stopped { .. } => "stopped",
            Self::PowerLost => "power-lost",
        }
    }
}

fn last_line(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(": {}", last.trim_end()) }
}

/// What everybody does with a host; built on [`Host`] alone.
pub trait HostExt: Host {
    /// Runs a command that must end with status 0.
    fn must(&self, command: &Command) -> Result<Output, HostError> {
        self.must_watch(command, &mut |_| {})
    }

    /// The same, with a watcher of its lines.
    fn must_watch(&self, command: &Command, watch: &mut dyn FnMut(&str)) -> Result<Output, HostError> {
        let output = self.run(command, watch)?;
        if output.success() {
            return Ok(output);
        }
        let last = if command.secret_output { String::new() } else { output.stderr.clone() };
        Err(HostError::Failed { command: command.to_string(), status: output.status, last })
    }

    /// The text of a file; `None` when there is none.
    fn read_text(&self, path: &Utf8Path) -> Result<Option<Zeroizing<String>>, HostError> {
        let Some(bytes) = self.read(path)? else { return Ok(None) };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
            Err(error) => Err(HostError::File {
                action: "read as text",
                path: path.to_owned(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
            }),
        }
    }

    /// Writes a file only if its content or mode is another; says whether it did.
    fn ensure(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Result<bool, HostError> {
        if self.holds(path, content, mode)? {
            return Ok(false);
        }
        self.write(path, content, mode)?;
        Ok(true)
    }

    /// Whether a file has this content and mode.
    fn holds(&self, path: &Utf8Path, content: &[u8], mode: u32) -> Result<bool, HostError> {
        Ok(self.look(path)?.is_some_and(|entry| entry.kind == EntryKind::File && entry.mode == mode)
            && self.read(path)?.is_some_and(|present| present.as_slice() == content))
    }
}

impl<H: Host + ?Sized> HostExt for H {}
