//! A fast host's life: power on, power cut, power off, reboot. What runs inside is in `guest`.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::lan::{Lan, Segment};
use super::options::{Access, HostOptions};
use super::scripts::{script, tree, wait_until};

/// How long a boot or a clean end may take on a loaded machine; it takes half a second on an idle one.
const POWER_LIMIT: Duration = Duration::from_mins(1);

/// A throw-away Debian 12 host with systemd as PID 1. Dropping it is a power cut, and its disk is deleted.
#[derive(Debug)]
pub struct FastHost {
    folder: PathBuf,
    options: HostOptions,
    /// `tests/hosts/host.sh`, while the host is on; its standard input is the power cable.
    supervisor: Option<Child>,
    /// Last, so that it goes after the host: the host lies in the LAN's folder.
    _segment: Arc<Segment>,
}

impl FastHost {
    /// Creates a host with an empty disk on the LAN and boots it until systemd says `running` or `degraded`.
    ///
    /// The caller looks at [`FastHost::failed_units`] if units that fail matter to it.
    pub fn start(lan: &Lan, options: HostOptions) -> Result<Self> {
        let folder = lan.folder().join(&options.name);
        let mut host = Self { folder, options, supervisor: None, _segment: lan.segment() };
        host.install(lan).with_context(|| format!("cannot set up the fast host {}", host.name()))?;
        host.power_on()?;
        Ok(host)
    }

    /// Boots a host that is off, with the disk as it was left, and waits for systemd as [`FastHost::start`] does.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(!self.is_on()?, "{} is on already", self.name());
        // An old cable is pulled for good, or its watcher would wait for ever.
        self.supervisor = None;
        let _ = fs::remove_file(self.folder.join("ended"));
        let supervisor = Command::new(script("host.sh"))
            .arg(&self.folder)
            .arg(tree()?)
            .stdin(Stdio::piped())
            // A group of its own: a Ctrl-C at the terminal ends the test process, and the script sees that by its pipe.
            .process_group(0)
            .spawn()
            .context("cannot run tests/hosts/host.sh")?;
        self.supervisor = Some(supervisor);
        self.wait_for_boot()
    }

    /// The power cut: every process of the host is gone at once, nothing is told to stop, nothing is synced.
    pub fn kill(&mut self) -> Result<()> {
        let supervisor = self.supervisor.as_mut().with_context(|| format!("{} is off", self.options.name))?;
        drop(supervisor.stdin.take());
        self.wait_for_end("killed")
    }

    /// Shuts down cleanly (`systemctl poweroff`) and waits for the end.
    pub fn power_off(&mut self) -> Result<()> {
        self.check(&["systemctl", "--no-block", "poweroff"])?;
        self.wait_for_end("power-off")
    }

    /// Reboots cleanly (`systemctl reboot`) and waits until systemd is up again.
    pub fn reboot(&mut self) -> Result<()> {
        let before = self.leader()?;
        self.check(&["systemctl", "--no-block", "reboot"])?;
        wait_until("the end of the old boot", POWER_LIMIT, || Ok(self.leader().is_ok_and(|leader| leader != before)))?;
        self.wait_for_boot()
    }

    /// Whether the host runs. A host that shut itself down is off.
    pub fn is_on(&mut self) -> Result<bool> {
        Ok(match &mut self.supervisor {
            None => false,
            Some(supervisor) => supervisor.try_wait()?.is_none(),
        })
    }

    /// The host's short name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The host's address in the LAN.
    pub fn address(&self) -> Ipv4Addr {
        self.options.address
    }

    /// The folder of this machine that holds the host: `upper/` (what it changed), `state/` (what lies on a real filesystem),
    /// `console.log`. Tests may read it, and tamper with it while the host is off.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The id, on this machine, of the host's PID 1.
    pub fn leader(&self) -> Result<u32> {
        let text = fs::read_to_string(self.folder.join("leader")).with_context(|| format!("{} is off", self.name()))?;
        text.trim().parse().context("not a process id in the leader file")
    }

    /// Writes the disk of a host that was just installed.
    fn install(&self, lan: &Lan) -> Result<()> {
        let options = &self.options;
        let valid_name =
            !options.name.is_empty() && options.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        ensure!(valid_name, "{:?} is not a short host name", options.name);
        let etc = self.folder.join("upper/etc");
        fs::create_dir_all(&etc)?;
        let mut hosts =
            format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n{} {}\n", options.address, options.name);
        for (address, name) in &options.names {
            writeln!(hosts, "{address} {name}")?;
        }
        fs::write(etc.join("hosts"), hosts)?;
        fs::write(etc.join("hostname"), format!("{}\n", options.name))?;
        if lan.has_names() {
            fs::write(etc.join("resolv.conf"), format!("nameserver {}\n", Lan::GATEWAY))?;
        }
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.replace('-', "");
        fs::write(etc.join("machine-id"), id)?;

        let mut shares = String::new();
        for (machine, guest, access) in &options.shares {
            let machine = machine.canonicalize().with_context(|| format!("cannot share {}", machine.display()))?;
            let mode = if *access == Access::ReadOnly { "ro" } else { "rw" };
            writeln!(shares, "{mode}\t{}\t{guest}", machine.display())?;
        }
        fs::write(self.folder.join("shares"), shares)?;
        let spec = format!(
            "address={}\nlan={}\nfolders_on_disk='{}'\n",
            options.address,
            lan.process(),
            options.folders_on_disk.join(" ")
        );
        fs::write(self.folder.join("spec"), spec)?;
        Ok(())
    }

    fn wait_for_boot(&mut self) -> Result<()> {
        wait_until(&format!("systemd of {}", self.name()), POWER_LIMIT, || {
            if !self.is_on()? {
                let ended = fs::read_to_string(self.folder.join("ended")).unwrap_or_default();
                bail!("{} ended in its boot: {}\n{}", self.name(), ended.trim(), self.console());
            }
            if self.leader().is_err() {
                return Ok(false);
            }
            // Before systemd listens the command itself fails, with nothing on its standard output.
            let state = self.run(&["systemctl", "is-system-running", "--wait"])?;
            Ok(matches!(state.stdout.trim_ascii(), b"running" | b"degraded"))
        })
    }

    fn wait_for_end(&mut self, wanted: &str) -> Result<()> {
        wait_until(&format!("the end of {}", self.name()), POWER_LIMIT, || Ok(!self.is_on()?))?;
        self.supervisor = None;
        let ended = fs::read_to_string(self.folder.join("ended")).context("host.sh ended without saying how")?;
        ensure!(
            ended.trim() == wanted,
            "{} ended as {:?}, not as {wanted:?}\n{}",
            self.name(),
            ended.trim(),
            self.console()
        );
        Ok(())
    }

    /// What PID 1 and the boot script printed.
    fn console(&self) -> String {
        fs::read_to_string(self.folder.join("console.log")).unwrap_or_default()
    }
}

impl Drop for FastHost {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            let _ = supervisor.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
