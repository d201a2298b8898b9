//! A virtual machine with Debian 12, an empty data disk and a TPM: the test bed for what needs a kernel of its own.
//!
//! Invariant: everything that a [`VirtualMachine`] started ends with it, and what it wrote lies in the directory of its options.
//! A machine has no way out: its network is QEMU's user network with `restrict=on`.
//!
//! Called by the tests in `tests/tests/virtual_machine.rs` and by the demo. See `tests/machines/debian.sh` for what is inside.
//!
//! What a power cut is here: QEMU is killed. What the guest had not flushed from its memory is lost; what it had handed to the
//! disk is kept, also without a flush, because the file lies in the development machine's page cache.

mod agent;
mod console;
mod disk;
mod image;
mod monitor;
mod network;
mod process;

pub use agent::{CommandOutput, Stream};
pub use console::Console;
pub use disk::{Bus, DataDisk, LuksHeader, MarkerHits, plaintext_search};
pub use image::{Accelerator, MachineImage};
pub use monitor::Monitor;
pub use network::{Network, Wire};

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use agent::Agent;
use process::{Child, SoftwareTpm, connect, quoted};

/// Upper bound for a boot until all units have started, without KVM on two busy cores. Measured: 16 s alone.
pub const BOOT_LIMIT: Duration = Duration::from_mins(15);
/// Upper bound for an orderly shutdown.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(150);

/// What a machine is made of. Between two boots the caller may change it, as a person may open the case.
#[derive(Debug, Clone)]
pub struct MachineOptions {
    /// Host name without domain. The FQDN is the test's business (`/etc/hosts`).
    pub name: String,
    /// Memory in MiB.
    pub memory: u32,
    /// Number of virtual processors.
    pub processors: u32,
    /// Where the machine lives: `root.qcow2` (made when it is not there, kept when it is), `console.log`, `qemu.log`.
    pub directory: Utf8PathBuf,
    /// Disks besides the root disk, in this order `vdb`, `vdc` … in the guest; found by their serial number.
    pub data_disks: Vec<DataDisk>,
    /// The state of the TPM, a directory that is made when it is not there. `None`: the machine has no TPM.
    pub tpm: Option<Utf8PathBuf>,
    /// Image files put in as read-only optical discs: `sr0`, `sr1` …
    pub media: Vec<Utf8PathBuf>,
    /// Image files put in as read-only USB sticks: `sda`, `sdb` …
    pub sticks: Vec<Utf8PathBuf>,
    /// Where the machine's adapters lead.
    pub network: Network,
    /// More arguments for the kernel.
    pub kernel_arguments: Vec<String>,
    /// The machine boots by itself, by UEFI, from its disks and media; it has no root disk and no kernel of the bed's.
    pub firmware: Option<Firmware>,
}

/// UEFI of a machine (OVMF). What it remembers lies in the machine's directory, `uefi.fd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// Secure Boot is not compiled in.
    Plain,
    /// Secure Boot, in setup mode until keys are enrolled.
    SecureBoot,
}

impl MachineOptions {
    /// A machine with 1 GiB, two processors and nothing but its root disk.
    pub fn new(directory: impl Into<Utf8PathBuf>) -> Self {
        Self {
            name: "machine".to_owned(),
            memory: 1024,
            processors: 2,
            directory: directory.into(),
            data_disks: Vec::new(),
            tpm: None,
            media: Vec::new(),
            sticks: Vec::new(),
            network: Network::Nowhere,
            kernel_arguments: Vec::new(),
            firmware: None,
        }
    }
}

/// A machine, running or not. Dropping it cuts its power.
#[derive(Debug)]
pub struct VirtualMachine {
    options: MachineOptions,
    image: MachineImage,
    accelerator: Accelerator,
    powered: Option<Powered>,
    spent_cpu_seconds: f64,
}

#[derive(Debug)]
struct Powered {
    // Dropped in this order: QEMU before the TPM that it talks to.
    qemu: Child,
    tpm: Option<SoftwareTpm>,
    console: Console,
    agent: Agent,
    monitor: Monitor,
    /// Unix sockets have short names, so they cannot lie in the machine's directory.
    _sockets: tempfile::TempDir,
}

impl VirtualMachine {
    /// A machine that is switched off. Builds the image when it is not in the cache yet (about a minute).
    pub fn new(options: MachineOptions) -> Result<Self> {
        let image = MachineImage::find_or_build()?;
        let accelerator = Accelerator::detect(&image)?;
        Ok(Self { options, image, accelerator, powered: None, spent_cpu_seconds: 0.0 })
    }

    /// A machine that has booted: [`Self::new`], [`Self::power_on`] and [`Self::wait_until_up`].
    pub fn boot(options: MachineOptions) -> Result<Self> {
        let mut machine = Self::new(options)?;
        machine.power_on()?;
        machine.wait_until_up(BOOT_LIMIT)?;
        Ok(machine)
    }

    /// What the machine is made of.
    pub fn options(&self) -> &MachineOptions {
        &self.options
    }

    /// Open for change while the machine is off; a change takes effect at the next [`Self::power_on`].
    pub fn options_mut(&mut self) -> &mut MachineOptions {
        &mut self.options
    }

    /// How the machine's processor is made.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// Switches the machine on and returns at once; the boot goes on behind the caller's back.
    pub fn power_on(&mut self) -> Result<()> {
        if self.powered.is_some() {
            bail!("{}: is on already", self.options.name);
        }
        let options = &self.options;
        std::fs::create_dir_all(&options.directory).with_context(|| format!("cannot create {}", options.directory))?;
        let sockets =
            tempfile::Builder::new().prefix("machine-").tempdir().context("cannot create a directory for sockets")?;
        let socket_directory =
            Utf8Path::from_path(sockets.path()).context("the temporary directory has no UTF-8 name")?;
        let tpm =
            options.tpm.as_deref().map(|state| SoftwareTpm::start(state, &socket_directory.join("tpm"))).transpose()?;
        let arguments = self.qemu_arguments(socket_directory)?;
        let mut qemu = Child::start("qemu-system-x86_64", &arguments, &options.directory.join("qemu.log"))?;
        let console = Console::new(connect(&socket_directory.join("console"), &mut qemu)?)?;
        let agent = Agent::new(connect(&socket_directory.join("agent"), &mut qemu)?);
        let monitor = Monitor::new(connect(&socket_directory.join("monitor"), &mut qemu)?)?;
        self.powered = Some(Powered { qemu, tpm, console, agent, monitor, _sockets: sockets });
        Ok(())
    }

    fn qemu_arguments(&self, sockets: &Utf8Path) -> Result<Vec<String>> {
        let options = &self.options;
        let root = options.directory.join("root.qcow2");
        if options.firmware.is_none() && !root.exists() {
            disk::create_overlay(&self.image.root(), &root)?;
        }
        let variables = options.directory.join("uefi.fd");
        if options.firmware.is_some() && !variables.exists() {
            std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)
                .context("cannot copy OVMF's variables\nhint: apt-get install --no-install-recommends ovmf")?;
        }
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |words: &str| arguments.extend(words.split(' ').map(str::to_owned));
        add("-no-user-config -nodefaults -display none -no-reboot");
        match options.firmware {
            Some(Firmware::SecureBoot) => {
                add("-machine q35,usb=off,vmport=off,smm=on -global driver=cfi.pflash01,property=secure,value=on");
            }
            _ => add("-machine q35,usb=off,vmport=off"),
        }
        add(self.accelerator.qemu_arguments());
        add(&format!("-smp {} -m {}", options.processors, options.memory));
        add("-object rng-random,id=random,filename=/dev/urandom -device virtio-rng-pci,rng=random");
        options.network.arguments().iter().for_each(|words| add(words));
        add("-device virtio-serial-pci -device virtio-scsi-pci,id=scsi");
        if !options.sticks.is_empty() {
            add("-device qemu-xhci,id=usb");
        }
        let mut pair = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        if let Some(firmware) = options.firmware {
            // What somebody with a hand on the firmware plants: an appliance leaves it alone.
            pair("-smbios", "type=11,value=io.systemd.credential:planted=1".to_owned());
            let code = match firmware {
                Firmware::Plain => "/usr/share/OVMF/OVMF_CODE_4M.fd",
                Firmware::SecureBoot => "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
            };
            // The kernel of Debian 13 clears and copies memory with `rep` where these are there, which is very slow in software.
            if self.accelerator == Accelerator::Tcg {
                pair("-cpu", "max,-erms,-fsrm".to_owned());
            }
            pair("-drive", format!("if=pflash,format=raw,readonly=on,file={code}"));
            pair("-drive", format!("if=pflash,format=raw,file={}", quoted(&variables)));
        } else {
            pair("-kernel", self.image.kernel().into_string());
            pair("-initrd", self.image.initramfs().into_string());
            let mut append =
                format!("console=ttyS0 quiet loglevel=4 systemd.show_status=1 systemd.hostname={}", options.name);
            for argument in &options.kernel_arguments {
                append.push(' ');
                append.push_str(argument);
            }
            pair("-append", append);
        }
        let log = options.directory.join("console.log");
        pair(
            "-chardev",
            format!(
                "socket,id=console,path={},server=on,wait=off,logfile={},logappend=on",
                quoted(&sockets.join("console")),
                quoted(&log)
            ),
        );
        pair("-serial", "chardev:console".to_owned());
        pair("-chardev", format!("socket,id=agent,path={},server=on,wait=off", quoted(&sockets.join("agent"))));
        pair("-device", "virtserialport,chardev=agent,name=cofferdam.agent".to_owned());
        if options.firmware.is_none() {
            pair("-drive", format!("if=none,id=root,format=qcow2,discard=unmap,file={}", quoted(&root)));
            pair("-device", "virtio-blk-pci,drive=root".to_owned());
        }
        for (number, disk) in options.data_disks.iter().enumerate() {
            pair("-drive", format!("if=none,id=data{number},format=raw,discard=unmap,file={}", quoted(disk.path())));
            pair("-device", format!("{},drive=data{number},serial={}", disk.bus().device(), disk.serial()));
        }
        for (number, medium) in options.media.iter().enumerate() {
            pair(
                "-drive",
                format!("if=none,id=medium{number},media=cdrom,readonly=on,format=raw,file={}", quoted(medium)),
            );
            pair("-device", format!("scsi-cd,bus=scsi.0,drive=medium{number}"));
        }
        for (number, stick) in options.sticks.iter().enumerate() {
            pair("-drive", format!("if=none,id=stick{number},readonly=on,format=raw,file={}", quoted(stick)));
            pair("-device", format!("usb-storage,bus=usb.0,drive=stick{number},removable=on"));
        }
        pair("-chardev", format!("socket,id=monitor,path={},server=on,wait=off", quoted(&sockets.join("monitor"))));
        pair("-mon", "chardev=monitor,mode=control".to_owned());
        if options.tpm.is_some() {
            pair("-chardev", format!("socket,id=tpm,path={}", quoted(&sockets.join("tpm"))));
            pair("-tpmdev", "emulator,id=tpm,chardev=tpm".to_owned());
            pair("-device", "tpm-tis,tpmdev=tpm".to_owned());
        }
        Ok(arguments)
    }

    fn powered(&mut self) -> Result<&mut Powered> {
        let name = &self.options.name;
        self.powered.as_mut().with_context(|| format!("{name}: is switched off"))
    }

    /// Waits until the agent inside answers, which is early in the boot: other units may still wait for something.
    pub fn wait_for_agent(&mut self, limit: Duration) -> Result<()> {
        let powered = self.powered()?;
        let result = powered.agent.wait_until_there(Instant::now() + limit);
        result.map_err(|error| self.explain(error, "the machine did not come up"))
    }

    /// Waits until systemd has started all units and udev knows all devices. A unit that failed is an error that names it.
    pub fn wait_until_up(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        self.wait_for_agent(limit)?;
        let rest = end.saturating_duration_since(Instant::now());
        // udev goes on with devices that no unit waits for, such as an optical drive.
        let state = self.run_for("systemctl is-system-running --wait; udevadm settle", rest)?;
        if state.stdout.trim() != "running" {
            let failed = self
                .run("systemctl --no-legend --plain list-units --failed; journalctl -b -p err --no-pager | tail -20")?;
            return Err(self.explain(
                anyhow::anyhow!("systemd says {:?}: {}", state.stdout.trim(), failed.stdout),
                "the machine did not come up whole",
            ));
        }
        Ok(())
    }

    /// The serial console, for what has no shell yet, such as the prompt for a passphrase.
    pub fn console(&mut self) -> Result<&mut Console> {
        Ok(&mut self.powered()?.console)
    }

    /// What a person in front of the machine can do to it while it runs; a handle of its own, also for a watcher's use.
    pub fn monitor(&mut self) -> Result<Monitor> {
        Ok(self.powered()?.monitor.clone())
    }

    /// Waits for `text` on the console, at or after the place where the last wait ended.
    pub fn wait_for_console(&mut self, text: &str, limit: Duration) -> Result<()> {
        let result = self.powered()?.console.wait_for(text, Instant::now() + limit);
        result.map_err(|error| self.explain(error, "the console did not say it"))
    }

    /// Runs a script in bash as root, for at most two minutes; see [`Self::run_streaming`].
    pub fn run(&mut self, script: &str) -> Result<CommandOutput> {
        self.run_for(script, Duration::from_mins(2))
    }

    /// Runs a script in bash as root.
    pub fn run_for(&mut self, script: &str, limit: Duration) -> Result<CommandOutput> {
        self.run_streaming(script, b"", limit, &mut |_, _| ())
    }

    /// Runs a script that has to end with 0; gives what it wrote to standard output.
    pub fn run_ok(&mut self, script: &str, limit: Duration) -> Result<String> {
        self.run_ok_with_input(script, b"", limit)
    }

    /// The same with bytes for its standard input.
    pub fn run_ok_with_input(&mut self, script: &str, input: &[u8], limit: Duration) -> Result<String> {
        let output = self.run_streaming(script, input, limit, &mut |_, _| ())?;
        if output.code != 0 {
            let error = anyhow::anyhow!("code {}\n{}{}", output.code, output.stdout, output.stderr);
            return Err(self.explain(error, &format!("a command failed in the machine: {script}")));
        }
        Ok(output.stdout)
    }

    /// Runs a script in bash as root with `input` as its standard input; `on_output` sees what it writes as it comes.
    ///
    /// The script is killed, with its process group, when `limit` is over; that and a machine that went away are errors.
    pub fn run_streaming(
        &mut self,
        script: &str,
        input: &[u8],
        limit: Duration,
        on_output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<CommandOutput> {
        let end = Instant::now() + limit;
        if !self.powered()?.agent.is_there() {
            self.wait_for_agent(limit)?;
        }
        let result = self.powered()?.agent.run(script, input, end, on_output);
        result.map_err(|error| self.explain(error, &format!("a command did not end in the machine: {script}")))
    }

    /// Writes a file in the guest. `mode` is as chmod takes it, such as "0600".
    pub fn write_file(&mut self, path: &str, mode: &str, bytes: &[u8]) -> Result<()> {
        let script = format!("install -D -m {mode} /dev/stdin '{path}'");
        self.run_ok_with_input(&script, bytes, Duration::from_mins(5)).map(drop)
    }

    /// Pulls the plug.
    pub fn power_cut(&mut self) -> Result<()> {
        let mut powered = self.powered.take().with_context(|| format!("{}: is switched off", self.options.name))?;
        self.spent_cpu_seconds += powered.qemu.cpu_seconds().unwrap_or(0.0);
        powered.qemu.kill()?;
        if let Some(tpm) = powered.tpm.as_mut() {
            tpm.wait_until_saved()?;
        }
        Ok(())
    }

    /// Shuts down in order and waits until the power is off.
    pub fn power_off(&mut self) -> Result<()> {
        // A fast machine is gone before its agent has told the command's end; what counts is that it goes off.
        let asked = self.run_ok("systemctl --no-block poweroff", Duration::from_secs(30));
        self.wait_until_off(SHUTDOWN_LIMIT).map_err(|off| asked.err().unwrap_or(off))
    }

    /// Waits until the machine has switched itself off, or would have started again (`reboot` in the guest ends QEMU too).
    pub fn wait_until_off(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let powered = self.powered()?;
            // Asked first: a process that has ended has no times any more.
            let spent = powered.qemu.cpu_seconds();
            if powered.qemu.has_ended()? {
                break;
            }
            if let Some(spent) = spent {
                powered.qemu.remember_cpu_seconds(spent);
            }
            if Instant::now() > end {
                return Err(
                    self.explain(anyhow::anyhow!("still on after {limit:?}"), "the machine did not switch itself off")
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.power_cut()
    }

    /// Shuts down in order and boots again.
    pub fn reboot(&mut self) -> Result<()> {
        self.power_off()?;
        self.power_on()?;
        self.wait_until_up(BOOT_LIMIT)
    }

    /// Processor seconds that this machine has cost the development machine, over all its boots.
    pub fn cpu_seconds(&mut self) -> f64 {
        let now = self.powered.as_mut().and_then(|powered| powered.qemu.cpu_seconds()).unwrap_or(0.0);
        self.spent_cpu_seconds + now
    }

    /// Adds what the console said last, and what QEMU said, to an error.
    fn explain(&mut self, error: anyhow::Error, what: &str) -> anyhow::Error {
        let directory = self.options.directory.clone();
        let qemu = std::fs::read_to_string(directory.join("qemu.log")).unwrap_or_default();
        let console = self.powered.as_ref().map(|powered| powered.console.tail(60)).unwrap_or_default();
        error.context(format!(
            "{}: {what}\n--- qemu.log\n{qemu}--- last lines of {directory}/console.log\n{console}\n---",
            self.options.name
        ))
    }
}
