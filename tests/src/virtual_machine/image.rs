//! The disk image that machines start from, and whether this development machine has a KVM that works.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

/// With KVM the probe takes well under 3 s, and so it does without; a KVM that needs longer is none.
const PROBE_LIMIT: Duration = Duration::from_secs(12);

/// A directory that `tests/machines/debian.sh` made.
#[derive(Debug, Clone)]
pub struct MachineImage {
    directory: Utf8PathBuf,
}

impl MachineImage {
    /// Finds the image in the cache, or builds it there (about a minute; the script tells its progress on standard error).
    pub fn find_or_build() -> Result<Self> {
        let script = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("machines/debian.sh");
        let output = Command::new(&script)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {script}"))?;
        let directory = String::from_utf8(output.stdout).context("the image's directory has no UTF-8 name")?;
        if !output.status.success() {
            bail!("{script} failed ({}); the lines above have the reason", output.status);
        }
        Ok(Self { directory: Utf8PathBuf::from(directory.trim()) })
    }

    /// The root filesystem, raw.
    pub fn root(&self) -> Utf8PathBuf {
        self.directory.join("root.img")
    }

    /// The kernel.
    pub fn kernel(&self) -> Utf8PathBuf {
        self.directory.join("vmlinuz")
    }

    /// The initramfs.
    pub fn initramfs(&self) -> Utf8PathBuf {
        self.directory.join("initramfs")
    }
}

/// How QEMU makes a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor's own virtualisation.
    Kvm,
    /// In software, some ten times slower.
    Tcg,
}

impl Accelerator {
    /// KVM where it works, found out by trying: `/dev/kvm` may be there and still run no Debian kernel, as in some clouds'
    /// nested guests. The answer is kept until the development machine boots again.
    pub fn detect(image: &MachineImage) -> Result<Self> {
        if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return Ok(Self::Tcg);
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read the boot id")?;
        let known = image.directory.join(format!("accelerator-{}", boot.trim()));
        match std::fs::read_to_string(&known).as_deref() {
            Ok("kvm") => return Ok(Self::Kvm),
            Ok("tcg") => return Ok(Self::Tcg),
            _ => {}
        }
        let found = if kvm_boots(image)? { Self::Kvm } else { Self::Tcg };
        // Two tests may try at once: each writes the same word in one go.
        std::fs::write(&known, if found == Self::Kvm { "kvm" } else { "tcg" })
            .with_context(|| format!("cannot write {known}"))?;
        Ok(found)
    }

    pub(super) fn qemu_arguments(self) -> &'static str {
        match self {
            Self::Kvm => "-accel kvm -cpu host",
            // All features that TCG can make, AES instructions among them. Not one less: with `svm=off` QEMU 7.2 runs wrong.
            Self::Tcg => "-accel tcg,thread=multi -cpu max",
        }
    }
}

/// Boots the machines' kernel just far enough to say a word.
fn kvm_boots(image: &MachineImage) -> Result<bool> {
    let mut child = Command::new("qemu-system-x86_64")
        .args("-no-user-config -nodefaults -display none -no-reboot -machine q35 -m 512 -serial stdio".split(' '))
        .args(Accelerator::Kvm.qemu_arguments().split(' '))
        .args(["-kernel", image.kernel().as_str(), "-initrd", image.initramfs().as_str()])
        .args(["-append", "console=ttyS0 quiet panic=-1 machine.probe"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64\nhint: apt-get install --no-install-recommends qemu-system-x86")?;
    let end = Instant::now() + PROBE_LIMIT;
    while child.try_wait().context("cannot ask after QEMU")?.is_none() {
        if Instant::now() > end {
            // An error means that it has ended just now.
            let _ = child.kill();
            child.wait().context("cannot wait for QEMU")?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.as_mut() {
        stdout.read_to_end(&mut said).context("cannot read what QEMU said")?;
    }
    Ok(String::from_utf8_lossy(&said).contains("machine alive"))
}
