//! A network for hosts: a bridge in a network namespace without a name, with no way out.
//!
//! Every LAN has the same addresses, 10.77.0.0/24, and none sees another: tests that run at once cannot collide.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::scripts::{lock, runs, script, sweep, wait_until};

/// A network segment 10.77.0.0/24 with this machine's end at [`Lan::GATEWAY`].
///
/// The network goes when the LAN and all of its hosts were dropped, in whatever order that happens.
#[derive(Debug)]
pub struct Lan {
    segment: Arc<Segment>,
}

/// What the LAN and its hosts own together.
#[derive(Debug)]
pub(super) struct Segment {
    folder: PathBuf,
    process: Child,
    _lock: File,
}

impl Lan {
    /// The address of the LAN's own end: gateway (that leads nowhere) and, with [`Lan::with_names`], name server.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    /// Creates a LAN without a name server.
    pub fn create() -> Result<Self> {
        Self::with_names(&[])
    }

    /// Creates a LAN whose [`Lan::GATEWAY`] is a name server (dnsmasq) for exactly these names. Hosts started on it ask it.
    pub fn with_names(names: &[(Ipv4Addr, &str)]) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let runs = runs()?;
        sweep(&runs)?;
        let folder = runs.join(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let held = lock(&folder)?;
        if !names.is_empty() {
            let records: Vec<_> = names.iter().map(|(address, name)| format!("{address} {name}")).collect();
            fs::write(folder.join("records"), records.join("\n"))?;
        }
        let process = Command::new("unshare")
            .args(["--net", "--"])
            .arg(script("lan.sh"))
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run unshare (util-linux)")?;
        let mut segment = Segment { folder, process, _lock: held };
        let ready = segment.folder.join("ready");
        wait_until("the bridge of the LAN (tests/hosts/lan.sh)", Duration::from_secs(10), || {
            if let Some(status) = segment.process.try_wait()? {
                anyhow::bail!("tests/hosts/lan.sh ended with {status}; this bed needs root");
            }
            Ok(ready.exists())
        })?;
        Ok(Self { segment: Arc::new(segment) })
    }

    /// A command of this machine that runs in the LAN's network: it reaches every host by its address.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.segment.process.id())).arg("--").arg(program);
        command
    }

    /// Runs a command of this machine in the LAN's network and waits for it. Any exit code is an `Ok`.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        let (program, arguments) = argv.split_first().context("no command given")?;
        self.command(program).args(arguments).output().with_context(|| format!("cannot run {program} in the LAN"))
    }

    /// Keeps the network and the folder for as long as the caller lives.
    pub(super) fn segment(&self) -> Arc<Segment> {
        Arc::clone(&self.segment)
    }

    /// A process in the LAN's network namespace.
    pub(super) fn process(&self) -> u32 {
        self.segment.process.id()
    }

    pub(super) fn has_names(&self) -> bool {
        self.segment.folder.join("records").exists()
    }

    /// The folder of this machine that holds the folders of the hosts; a place for files that go with the LAN.
    pub fn folder(&self) -> &Path {
        &self.segment.folder
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // The end of its standard input ends the script, and the namespace with it.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
