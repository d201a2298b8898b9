//! Processes that belong to a machine: QEMU and its TPM. Each ends when its value is dropped.

use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

/// Clock ticks per second in `/proc/PID/stat`: fixed by Linux's user interface on all architectures that Debian 12 runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that is killed when this value is dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    log: Utf8PathBuf,
    last_cpu_seconds: Option<f64>,
}

impl Child {
    /// Starts `program` with standard error in the file `log`, which is emptied before.
    pub(super) fn start(program: &str, arguments: &[String], log: &Utf8Path) -> Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("cannot create {log}"))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("cannot share a log file")?)
            .stderr(file)
            .spawn()
            .with_context(|| {
                format!("cannot start {program}\nhint: install its Debian package (qemu-system-x86, qemu-utils, swtpm)")
            })?;
        Ok(Self { process: child, log: log.to_owned(), last_cpu_seconds: None })
    }

    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait().context("cannot ask after a process")?.is_some())
    }

    /// SIGKILL; returns when the process is gone.
    pub(super) fn kill(&mut self) -> Result<()> {
        // An error means that it has ended by itself.
        let _ = self.process.kill();
        self.process.wait().context("cannot wait for a process that was killed")?;
        Ok(())
    }

    /// User and system time so far; the last known value once the process has ended.
    pub(super) fn cpu_seconds(&mut self) -> Option<f64> {
        let now = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))
            .ok()
            .and_then(|stat| parse_cpu_seconds(&stat));
        now.filter(|seconds| *seconds > 0.0).or(self.last_cpu_seconds)
    }

    pub(super) fn remember_cpu_seconds(&mut self, seconds: f64) {
        self.last_cpu_seconds = Some(seconds);
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Fields 14 and 15 of proc(5)'s `stat`, counted behind the command name, which may hold anything but is in parentheses.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

/// A TPM 2.0 in a process of its own (swtpm). It ends by itself when QEMU closes the connection.
#[derive(Debug)]
pub(super) struct SoftwareTpm(Child);

impl SoftwareTpm {
    /// `state` is the TPM's memory, kept between runs; `socket` is where QEMU finds it.
    pub(super) fn start(state: &Utf8Path, socket: &Utf8Path) -> Result<Self> {
        std::fs::create_dir_all(state).with_context(|| format!("cannot create {state}"))?;
        let arguments = [
            "socket".to_owned(),
            "--tpm2".to_owned(),
            "--tpmstate".to_owned(),
            format!("dir={state}"),
            "--ctrl".to_owned(),
            format!("type=unixio,path={socket}"),
            "--flags".to_owned(),
            "startup-clear".to_owned(),
            "--terminate".to_owned(),
        ];
        let mut child = Child::start("swtpm", &arguments, &state.join("swtpm.log"))?;
        let end = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            if child.has_ended()? || Instant::now() > end {
                bail!("swtpm did not start: {}", child.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self(child))
    }

    /// Waits for its own end after QEMU's. Killing it could cut a write of its state in half, which no real TPM does.
    pub(super) fn wait_until_saved(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.0.has_ended()? {
            if Instant::now() > end {
                bail!("swtpm did not end with its machine: {}", self.0.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Connects to a socket that `server` is about to open.
pub(super) fn connect(socket: &Utf8Path, server: &mut Child) -> Result<UnixStream> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if server.has_ended()? => bail!("the machine ended at once ({error}): {}", server.said()),
            Err(error) if Instant::now() > end => bail!("cannot connect to {socket}: {error}: {}", server.said()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A path as QEMU's comma-separated options want it.
pub(super) fn quoted(path: &Utf8Path) -> String {
    path.as_str().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cpu_seconds_are_read_behind_a_hostile_name() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10 0";
        assert!((parse_cpu_seconds(stat).unwrap() - 3.0).abs() < f64::EPSILON);
        assert!(parse_cpu_seconds("12 (a").is_none());
    }
}
