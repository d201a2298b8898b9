//! A site that is installed without a question onto a virtual machine with an empty data disk and a TPM: the scenario
//! for disk encryption. The bundle and the program lie on a read-only disc, as in the field.
//!
//! Called by `tests/tests/encrypted_install.rs`. Processor time without KVM is what it costs; see the tests.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use crate::sample::{self, Sample};
use crate::virtual_machine::{BOOT_LIMIT, DataDisk, MachineOptions, VirtualMachine};

/// The FQDN of the site.
pub const FQDN: &str = "mgmt.site.test";
/// The serial number of the data disk.
pub const SERIAL: &str = "COFFERDAM0001";
/// Where the opened volume is.
pub const VOLUME: &str = "/dev/mapper/cofferdam";
/// Asks the registry in the machine whether it is ready, over TLS with the site CA.
pub const ASK_REGISTRY: &str = "curl -sS --fail --retry 10 --retry-connrefused --cacert /etc/cofferdam/tls/site-ca.crt https://localhost:5000/readyz";

/// The groups of the recovery key that a screen shows, in the alphabet of systemd-cryptenroll(1).
pub fn recovery_groups(screen: &str) -> Vec<String> {
    let is_group = |word: &&str| word.len() == 8 && word.chars().all(|letter| "cbdefghijklnrtuv".contains(letter));
    screen.split_whitespace().filter(is_group).map(str::to_owned).collect()
}

/// The numbers, from 1, of the groups that a screen wants typed back.
pub fn asked_groups(screen: &str) -> Vec<usize> {
    let number = |line: &str| line.trim().strip_prefix("Group ")?.split_whitespace().next()?.parse().ok();
    screen.lines().filter_map(number).collect()
}

/// The passphrase of the volume, and where the machine has it until it is installed.
pub const PASSPHRASE: &str = "correct horse battery staple";
const PASSPHRASE_FILE: &str = "/root/passphrase";

const NODE: &str = "node-a";
/// What QEMU's user network gives the machine, see `machines/tree/etc/systemd/network`.
const ADDRESS: &str = "10.0.2.15";
const EVENTS: &str = "/root/events.jsonl";
const MINUTE: Duration = Duration::from_mins(1);
const DISK_BYTES: u64 = 8 << 30;

/// A machine with the medium in it, and the identity that opens its escrow.
#[derive(Debug)]
pub struct EncryptedSite {
    /// The machine.
    pub machine: VirtualMachine,
    /// Its data disk.
    pub disk: DataDisk,
    identity: Utf8PathBuf,
}

impl EncryptedSite {
    /// A booted machine: the medium mounted at `/media`, the answers in `/root/install.yaml`. The recovery key goes into
    /// the escrow, and a passphrase opens the volume, too.
    pub fn bare(sample: &Sample, folder: &Utf8Path) -> Result<Self> {
        let identity = folder.join("escrow-identity.txt");
        let recipient = make_identity(&identity)?;
        let keys = format!("escrow-recipients: [{recipient}]\n    passphrase: {{file: {PASSPHRASE_FILE}}}");
        let mut site = Self::boot(sample, folder, identity, &answers(&keys))?;
        site.machine.write_file(PASSPHRASE_FILE, "0600", format!("{PASSPHRASE}\n").as_bytes())?;
        Ok(site)
    }

    /// The same, but the recovery key leaves by the screen alone, and the plan is looked at by a person.
    pub fn bare_for_a_person(sample: &Sample, folder: &Utf8Path) -> Result<Self> {
        let answers = answers("show-recovery-key: true") + "interactive: [review]\n";
        Self::boot(sample, folder, folder.join("no-identity"), &answers)
    }

    fn boot(sample: &Sample, folder: &Utf8Path, identity: Utf8PathBuf, answers: &str) -> Result<Self> {
        let disk = DataDisk::create(folder.join("data.img"), SERIAL, DISK_BYTES)?;
        let mut options = MachineOptions::new(folder.join("machine"));
        NODE.clone_into(&mut options.name);
        options.memory = 4096;
        options.data_disks = vec![disk.clone()];
        options.tpm = Some(folder.join("tpm"));
        options.media = vec![make_medium(sample, folder)?];
        let machine = VirtualMachine::boot(options)?;
        let mut site = Self { machine, disk, identity };
        site.machine.run_ok("mount -o ro /dev/disk/by-label/COFFERDAM /media", MINUTE)?;
        let hosts = format!("127.0.0.1 localhost\n{ADDRESS} {FQDN} {NODE}\n");
        site.machine.write_file("/etc/hosts", "0644", hosts.as_bytes())?;
        site.machine.write_file("/root/install.yaml", "0600", answers.as_bytes())?;
        Ok(site)
    }

    /// Starts `cofferdam` with these arguments as a unit of its own, which goes on when this returns.
    pub fn start(&mut self, arguments: &str) -> Result<()> {
        let script = format!(
            "systemd-run --quiet --collect --unit=test-install --property=StandardError=file:/root/install.log \
             --property=StandardOutput=file:/root/install.out /media/cofferdam {arguments} --events {EVENTS}"
        );
        self.machine.run_ok(&script, MINUTE).map(drop)
    }

    /// Waits until this step is finished, or until the whole is with the name `finished`. Fails as soon as the program ends without it.
    pub fn wait_for_step(&mut self, step: &str, limit: Duration) -> Result<()> {
        self.watch_until_step(step, limit, &mut |_| {})
    }

    /// The same; what the program says for people is handed on as it comes.
    pub fn watch_until_step(&mut self, step: &str, limit: Duration, watch: &mut dyn FnMut(&str)) -> Result<()> {
        let end = Instant::now() + limit;
        let mut heard = 0;
        loop {
            let said = self.machine.run(&format!("tail -c +{} /root/install.log 2>/dev/null", heard + 1))?.stdout;
            heard += said.len();
            watch(&said);
            let script = format!("cat {EVENTS} 2>/dev/null; echo; systemctl is-active test-install.service");
            let seen = self.machine.run(&script)?.stdout;
            let mut events = seen.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if events.any(|event| event["event"] == "step-finished" && event["id"] == step || event["event"] == step) {
                return Ok(());
            }
            if !seen.trim_end().ends_with("\nactive") || Instant::now() > end {
                let said = self.machine.run("tail -n 60 /root/install.out /root/install.log")?.stdout;
                bail!("{step} was not reached within {limit:?}:\n{said}");
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// Runs `cofferdam disk` with these arguments and the key on its standard input. The medium is mounted if it is not.
    pub fn disk_command(&mut self, arguments: &str, key: &str) -> Result<String> {
        let script = format!(
            "findmnt -n /media >/dev/null || mount -o ro /dev/disk/by-label/COFFERDAM /media
             printf %s {key} | /media/cofferdam disk {arguments}"
        );
        self.machine.run_ok(&script, 5 * MINUTE)
    }

    /// Cuts the power and boots again.
    pub fn power_cut(&mut self) -> Result<()> {
        self.machine.power_cut()?;
        self.machine.power_on()?;
        self.machine.wait_until_up(BOOT_LIMIT)
    }

    /// The recovery key, as the person who holds the escrow identity gets it: with `age` and `jq` and without this product.
    pub fn recovery_key(&mut self) -> Result<String> {
        let sealed = self.machine.run_ok("cat /var/lib/cofferdam/escrow/disk.age", MINUTE)?;
        let opened = piped("age", &["-d", "-i", self.identity.as_str()], sealed.as_bytes())?;
        let query = r#".items[] | select(.kind == "recovery-key") | .data"#;
        Ok(piped("jq", &["-r", query], &opened).map(String::from_utf8)??.trim().to_owned())
    }
}

/// The answers for the virtual machine: the cheapest key derivation, because the processor is made in software.
fn answers(keys: &str) -> String {
    let token = SERIAL.get(SERIAL.len() - 4..).unwrap_or_default();
    format!(
        "schema-version: 1\nsite: {{name: site-a, fqdn: {FQDN}}}\nnode: {{name: {NODE}, address: {ADDRESS}}}\n\
         storage:\n  disk: {{match: [{{serial: {SERIAL}}}], erase: \"{token}\"}}\n  encryption:\n    mode: luks2\n    \
         tpm2: require\n    {keys}\n    key-derivation: {{memory-kib: 32, iterations: 4}}\n\
         bundle: {{path: /media/bundle.tar.zst, trust: [/media/trust.pub]}}\n\
         # What a processor made in software cannot reach.\naccept: [disk.fsync]\n"
    )
}

/// Makes an age identity with `age-keygen`; gives its recipient.
pub(crate) fn make_identity(path: &Utf8Path) -> Result<String> {
    piped("age-keygen", &["-o", path.as_str()], b"")?;
    let recipient = piped("age-keygen", &["-y", path.as_str()], b"")?;
    Ok(String::from_utf8(recipient)?.trim().to_owned())
}

/// A disc with the bundle, the public key and the program.
fn make_medium(sample: &Sample, folder: &Utf8Path) -> Result<Utf8PathBuf> {
    let content = folder.join("medium");
    std::fs::create_dir_all(&content)?;
    let program = content.join("cofferdam");
    for (from, to) in [
        (&sample.bundle, content.join("bundle.tar.zst")),
        (&sample.trust, content.join("trust.pub")),
        (&sample::cofferdam()?, program.clone()),
    ] {
        std::fs::copy(from, &to).with_context(|| format!("cannot copy {} to {to}", from.display()))?;
    }
    // A debug build carries tables that the machine would only read.
    piped("strip", &[program.as_str()], b"")?;
    let medium = folder.join("medium.iso");
    let make = ["-as", "mkisofs", "-quiet", "-R", "-V", "COFFERDAM", "-o", medium.as_str(), content.as_str()];
    piped("xorriso", &make, b"")?;
    std::fs::remove_dir_all(&content)?;
    Ok(medium)
}

/// Runs a program of this machine, which must succeed, with `input` as its standard input; gives its standard output.
pub(crate) fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}\nhint: `make setup` installs what the tests need"))?;
    let stdin = child.stdin.take();
    // Written on the side: a program that answers while it reads would wait for us, and we for it.
    let output = std::thread::scope(|scope| {
        // One that ends before it has read all says why by its status.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output()
    })?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
