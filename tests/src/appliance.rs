//! The appliance on a bare virtual machine: the medium is made by the product, boots by UEFI, installs without a question,
//! and leaves. Called by `tests/tests/appliance*.rs`, `server_medium.rs` and `hardening.rs`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use crate::encrypted_site::{FQDN, SERIAL, VOLUME, make_identity, piped};
use crate::sample::{self, Release, Sample};
use crate::virtual_machine::{BOOT_LIMIT, CommandOutput, DataDisk, Firmware, MachineOptions, VirtualMachine};

const NODE: &str = "node-a";
/// The machine's address; of QEMU's user network, but not what it gives by DHCP.
pub const ADDRESS: &str = "10.0.2.20";
/// Of QEMU's first adapter.
const MAC: &str = "52:54:00:12:34:56";
/// Where the live system has the medium.
const MEDIUM: &str = "/run/cofferdam/medium/cofferdam";
const DISK_BYTES: u64 = 16 << 30;
/// Of a machine's folder: its disk, the medium that it is installed from, and what opens its escrow.
const DISK: &str = "disk.img";
const IMAGE: &str = "appliance.iso";
const IDENTITY: &str = "escrow-identity.txt";

/// A folder for one story about an appliance, which tells on standard error what happened when.
#[derive(Debug)]
pub struct Bench {
    _directory: tempfile::TempDir,
    /// Where the story's files lie; they are gone with it.
    pub path: Utf8PathBuf,
    began: Instant,
}

impl Bench {
    /// An empty folder, and a clock at zero.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned());
        let path = path.map_err(|path| anyhow::anyhow!("{} is no UTF-8", path.display()))?;
        Ok(Self { _directory: directory, path, began: Instant::now() })
    }

    /// A medium with the sample bundle; `more` as for [`ApplianceMedium::build`].
    pub fn medium(&self, more: &[&str]) -> Result<ApplianceMedium> {
        let sample = sample::make(self.path.join("sample").as_std_path())?;
        let medium = ApplianceMedium::build(&sample, &self.path, more)?;
        self.say(&format!("the medium is built, {} MB", medium.image.metadata()?.len() / 1_000_000));
        Ok(medium)
    }

    /// [`install`], told.
    pub fn install(&self, machine: &mut VirtualMachine) -> Result<()> {
        install(machine, &mut pass_on)?;
        self.note(machine, "installed");
        Ok(())
    }

    /// Tells that something happened, with the time since the beginning.
    #[allow(clippy::print_stderr, reason = "stories of many minutes are watched")]
    pub fn say(&self, what: &str) {
        eprintln!("{:4.0} s: {what}", self.began.elapsed().as_secs_f64());
    }

    /// The same with what the machine cost until now.
    pub fn note(&self, machine: &mut VirtualMachine, what: &str) {
        let (spent, how) = (machine.cpu_seconds(), machine.accelerator());
        self.say(&format!("{what}; {spent:.0} s of processor time, {how:?}"));
    }
}

#[allow(clippy::print_stderr, reason = "stories of many minutes are watched")]
fn pass_on(text: &str) {
    eprint!("{text}");
}

/// Moments at which the power goes: others in each run, since the number of the process is their seed.
#[derive(Debug)]
pub struct Moments(u64);

impl Default for Moments {
    fn default() -> Self {
        Self(u64::from(std::process::id()))
    }
}

impl Moments {
    /// The next one, evenly in the next so many milliseconds.
    pub fn next_below(&mut self, milliseconds: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((self.0 >> 33) % milliseconds)
    }
}

/// A medium, and what belongs to it.
#[derive(Debug, Clone)]
pub struct ApplianceMedium {
    /// The ISO image.
    pub image: Utf8PathBuf,
    /// The identity that opens the escrow.
    pub identity: Utf8PathBuf,
    /// The public key that the system trusts.
    pub trust: Utf8PathBuf,
}

impl ApplianceMedium {
    /// Builds a medium with the small kernel (unless `more` has another), the bundle, answers and the harness's agent. `more` are further arguments of
    /// `cofferdam iso build`.
    pub fn build(sample: &Sample, folder: &Utf8Path, more: &[&str]) -> Result<Self> {
        let network = format!("{{adapters: [\"{MAC}\"], addresses: [{ADDRESS}/24]}}");
        Self::build_on_network(sample, folder, &network, more)
    }

    /// The same with another `network:` in its answers; it has [`ADDRESS`].
    pub fn build_on_network(sample: &Sample, folder: &Utf8Path, network: &str, more: &[&str]) -> Result<Self> {
        let identity = folder.join(IDENTITY);
        let recipient = make_identity(&identity)?;
        let config = folder.join("install.yaml");
        std::fs::write(&config, answers(&recipient, network)).context("the answers")?;
        Self::make(sample, folder, identity, &[&["--config", config.as_str()], more].concat())
    }

    /// The same without answers: somebody is at a console.
    pub fn build_without_answers(sample: &Sample, folder: &Utf8Path) -> Result<Self> {
        Self::make(sample, folder, folder.join("no-identity"), &[])
    }

    /// A medium with another system, for upgrades, in a folder of its own.
    pub fn build_next(sample: &Sample, folder: &Utf8Path, version: &str, more: &[&str]) -> Result<Self> {
        let folder = folder.join(format!("medium-{version}"));
        std::fs::create_dir(&folder)?;
        Self::make(sample, &folder, folder.join("no-identity"), &[&["--image-version", version], more].concat())
    }

    fn make(sample: &Sample, folder: &Utf8Path, identity: Utf8PathBuf, more: &[&str]) -> Result<Self> {
        let program = folder.join("cofferdam");
        std::fs::copy(sample::cofferdam()?, &program).context("the program")?;
        // A debug build carries tables that the machine would only read.
        piped("strip", &[program.as_str()], b"")?;
        let agent = agent_tree(folder)?;
        let key = Utf8PathBuf::from_path_buf(sample.folder.join("keys/signing.key"));
        let key = key.map_err(|path| anyhow::anyhow!("{} is no UTF-8", path.display()))?;
        let trust = key.with_file_name("signing.pub");
        let bundle = sample.bundle.to_str().context("the bundle's path is no UTF-8")?;
        let image = folder.join(IMAGE);
        let mut arguments = vec!["iso", "build", "--sign-key", key.as_str(), "--trust", trust.as_str()];
        if !more.contains(&"--kernel") {
            arguments.extend(["--kernel", "cloud"]);
        }
        arguments.extend(["--bundle", bundle, "--program", program.as_str()]);
        arguments.extend(["--extra-tree", agent.as_str(), "-o", image.as_str()]);
        arguments.extend(more);
        cofferdam(&arguments)?;
        Ok(Self { image, identity, trust })
    }
}

/// A data medium with a delta bundle on the sample: `release`, and the system of another boot medium.
pub fn next_release(
    sample: &Sample,
    folder: &Utf8Path,
    release: &Release,
    medium: &ApplianceMedium,
) -> Result<Utf8PathBuf> {
    let version = release.bundle;
    let name = format!("next-{version}");
    let system = folder.join(format!("system-{version}"));
    let (image, trust) = (medium.image.as_str(), medium.trust.as_str());
    cofferdam(&["iso", "system", image, "--trust", trust, "-o", system.as_str()])?;
    let definition = sample::define(&sample.folder, &name, release)?;
    let mut text = std::fs::read_to_string(&definition)?;
    text.push_str(&format!(
        "  - name: system\n    version: {version}\n    layer: os\n    description: The operating system of the appliance\n    \
         system: {system}\n"
    ));
    std::fs::write(&definition, text)?;
    let bundle = sample::create(&sample.folder, &name, &definition, Some(&sample.bundle))?;
    let bundle = bundle.to_str().context("the bundle's path is no UTF-8")?;
    let data = folder.join(format!("{name}.iso"));
    cofferdam(&["iso", "build", "--data-only", "--bundle", bundle, "--trust", trust, "-o", data.as_str()])?;
    Ok(data)
}

/// Runs the product on this machine; it must succeed. Gives what it wrote to standard output.
pub fn cofferdam(arguments: &[&str]) -> Result<String> {
    let output = Command::new(sample::cofferdam()?).args(arguments).output().context("cannot start cofferdam")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cofferdam {arguments:?}: {}\n{error}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The harness's hand as files of the system.
fn agent_tree(folder: &Utf8Path) -> Result<Utf8PathBuf> {
    let tree = folder.join("agent");
    let source = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("machines/tree");
    let (program, place) = (source.join("usr/local/lib/test-machine/agent"), "/usr/lib/test-machine/agent");
    let unit = std::fs::read_to_string(source.join("etc/systemd/system/test-machine-agent.service"))?;
    let rules = source.join("etc/udev/rules.d");
    std::fs::create_dir_all(tree.join("usr/lib/test-machine"))?;
    std::fs::create_dir_all(tree.join("usr/lib/systemd/system"))?;
    std::fs::create_dir_all(tree.join("usr/lib/udev/rules.d"))?;
    let to = tree.join(place.trim_start_matches('/'));
    std::fs::copy(program, &to)?;
    std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755))?;
    let unit = unit.replace("/usr/local/lib/test-machine/agent", place);
    std::fs::write(tree.join("usr/lib/systemd/system/test-machine-agent.service"), unit)?;
    for entry in rules.read_dir_utf8().with_context(|| format!("cannot list {rules}"))? {
        let entry = entry?;
        let text = std::fs::read_to_string(entry.path())?;
        if text.contains("test-machine-agent") {
            std::fs::write(tree.join("usr/lib/udev/rules.d").join(entry.file_name()), text)?;
        }
    }
    Ok(tree)
}

/// The answers: the cheapest key derivation, because the processor is made in software.
fn answers(recipient: &str, network: &str) -> String {
    let token = SERIAL.get(SERIAL.len() - 4..).unwrap_or_default();
    format!(
        "schema-version: 1\nsite: {{name: site-a, fqdn: {FQDN}}}\nnode: {{name: {NODE}, address: {ADDRESS}}}\n\
         storage:\n  disk: {{match: [{{serial: {SERIAL}}}], erase: \"{token}\"}}\n  encryption:\n    mode: luks2\n    \
         tpm2: auto\n    escrow-recipients: [{recipient}]\n    key-derivation: {{memory-kib: 32, iterations: 4}}\n\
         bundle: {{path: {MEDIUM}/bundle.tar.zst, trust: [{MEDIUM}/trust.pub]}}\n\
         network: {network}\n"
    )
}

/// A bare machine with an empty disk, a TPM and the medium in its drive; switched off.
pub fn bare_machine(medium: &ApplianceMedium, folder: &Utf8Path) -> Result<(VirtualMachine, DataDisk)> {
    let disk = DataDisk::create(folder.join(DISK), SERIAL, DISK_BYTES)?;
    Ok((machine(medium, folder, &disk)?, disk))
}

/// The medium and the machine that lie in a folder, made there by [`ApplianceMedium::build`] and [`bare_machine`].
pub fn machine_in(folder: &Utf8Path) -> Result<(ApplianceMedium, VirtualMachine, DataDisk)> {
    let medium = ApplianceMedium {
        image: folder.join(IMAGE),
        identity: folder.join(IDENTITY),
        trust: folder.join("sample/keys/signing.pub"),
    };
    let disk = DataDisk::existing(folder.join(DISK), SERIAL)?;
    let machine = machine(&medium, folder, &disk)?;
    Ok((medium, machine, disk))
}

fn machine(medium: &ApplianceMedium, folder: &Utf8Path, disk: &DataDisk) -> Result<VirtualMachine> {
    let mut options = MachineOptions::new(folder.join("machine"));
    NODE.clone_into(&mut options.name);
    options.memory = 4096;
    options.firmware = Some(Firmware::Plain);
    options.data_disks = vec![disk.clone()];
    options.tpm = Some(folder.join("tpm"));
    options.media = vec![medium.image.clone()];
    VirtualMachine::new(options)
}

/// Starts the machine from its medium, which installs it and starts it again: that ends QEMU. `watch` hears what the
/// installer says. The medium stays in its drive: from now on the firmware starts the disk.
pub fn install(machine: &mut VirtualMachine, watch: &mut dyn FnMut(&str)) -> Result<()> {
    start(machine)?;
    watch_installation(machine, watch)
}

/// The rest of [`install`], of a machine that is up.
pub fn watch_installation(machine: &mut VirtualMachine, watch: &mut dyn FnMut(&str)) -> Result<()> {
    let script =
        "journalctl --follow --no-tail --output=cat --unit=cofferdam-seek.service --unit=cofferdam-unattended.service &
        until systemctl is-failed --quiet cofferdam-seek.service cofferdam-unattended.service; do sleep 2; done
        sleep 1; kill $!; exit 1";
    let mut said = String::new();
    let mut hear = |_, bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        watch(&text);
        said.push_str(&text);
    };
    // A machine that starts again takes its agent along.
    let ended = machine.run_streaming(script, b"", INSTALL_LIMIT, &mut hear);
    if let Ok(CommandOutput { code: 1, .. }) = ended {
        let more =
            machine.run("systemctl --failed --no-legend; journalctl -b -p warning -o short-monotonic | tail -n 60");
        let more = more.map(|output| output.stdout).unwrap_or_default();
        bail!("the installation ended with an error:\n{said}\n{more}");
    }
    machine.wait_until_off(OFF_LIMIT)
}

/// True in an installed machine once the volume is open, the registry answers and containerd runs.
pub const SERVES: &str = "systemctl is-active --quiet containerd.service && curl -s --fail --output /dev/null \
    --cacert /etc/cofferdam/tls/site-ca.crt https://localhost:5000/readyz";

/// Whether the TPM opens the volume of the system that asks, which it must not once a system runs.
const TPM_OPENS: &str = "cryptsetup open --test-passphrase --token-only --token-type systemd-tpm2 \
    /dev/disk/by-partlabel/cofferdam-data";

/// A script that shows what the installation says after the first start from the disk, until `condition` holds. The journal
/// moves to the encrypted volume meanwhile, where `--follow` would not go along.
pub fn follow_until(condition: &str) -> String {
    format!(
        "show() {{
            journalctl --boot --quiet --output=cat --cursor-file=/run/follow.cursor --unit=cofferdam-continue.service
        }}
        until {condition}; do
            show
            if systemctl is-failed --quiet cofferdam-continue.service; then exit 1; fi
            sleep 5
        done
        show"
    )
}

/// Switches a machine on and waits for its agent. An emulated processor kills a starting kernel now and then (it patches its own
/// code while another processor runs it); a real firmware would start the machine again, and a new system has three attempts
/// for it.
pub fn start(machine: &mut VirtualMachine) -> Result<()> {
    start_within(machine, BOOT_LIMIT)
}

/// The same with another limit for each attempt.
pub fn start_within(machine: &mut VirtualMachine, limit: Duration) -> Result<()> {
    for _ in 0..2 {
        machine.power_on()?;
        match machine.wait_for_agent(limit) {
            Ok(()) => return Ok(()),
            Err(error) if machine.wait_until_off(Duration::from_secs(5)).is_err() => return Err(error),
            Err(error) => pass_on(&format!("the machine starts again: {error:#}\n")),
        }
    }
    machine.power_on()?;
    machine.wait_for_agent(limit)
}

/// What a site is made for, without the cluster: the volume is open, the registry answers by name over TLS, containerd runs.
/// Gives what there was to see on the way.
pub fn serves(machine: &mut VirtualMachine) -> Result<String> {
    let follow = follow_until(SERVES);
    let script = format!(
        "{follow}
        set -e
        test \"$(findmnt -no SOURCE /var)\" = {VOLUME}
        test \"$(findmnt -no FSTYPE /)\" = squashfs
        if touch /usr/a 2>/dev/null; then exit 1; fi
        test \"$(hostname)\" = node-a
        ip -brief address | grep -w 10.0.2.20/24
        systemctl --failed --no-legend
        test \"$(systemctl --failed --no-legend | wc -l)\" = 0
        test \"$(cofferdam status | grep -c 'slot [0-9]*: ')\" = 2
        grep -qE 'Monitor, read only|Dashboard' /dev/vcs1
        test -z \"$(ss --listening --numeric --no-header 'sport = :5355 or sport = :5353')\"
        test -z \"$(systemctl list-units --no-legend 'sshd-*.socket')\"
        test -z \"$(ls /run/credentials/@system 2>/dev/null)\"
        getent hosts {FQDN}
        journalctl -b -o cat -u systemd-veritysetup@root.service | tail -n 2
        findmnt -no SOURCE /etc
        if tpm2_pcrread sha256:15 | grep -q '0x0*$'; then exit 1; fi
        if {TPM_OPENS}; then exit 1; fi"
    );
    machine.run_ok(&script, Duration::from_mins(8))
}

/// Waits until the installation is finished; gives what it said.
pub fn finished(machine: &mut VirtualMachine) -> Result<String> {
    machine.run_ok(&follow_until("test -e /var/lib/cofferdam/state.json"), Duration::from_mins(45))
}

/// Starts a machine without its TPM, and types the recovery key at its prompt. The volume is open afterwards.
pub fn open_by_recovery_key(machine: &mut VirtualMachine, key: &str) -> Result<()> {
    machine.power_on()?;
    machine.wait_for_console("Type the recovery key of this site", BOOT_LIMIT)?;
    machine.wait_for_console("Please enter", BOOT_LIMIT)?;
    // The prompt takes what is typed a moment after it is shown.
    std::thread::sleep(Duration::from_secs(3));
    machine.console()?.send_line(key)?;
    machine.wait_for_agent(BOOT_LIMIT)?;
    machine.run_ok(&format!("test \"$(findmnt -no SOURCE /var)\" = {VOLUME}"), Duration::from_mins(1)).map(drop)
}

/// The workload answers by the site's name, over TLS with its own authority; after a start, once the control plane runs.
pub fn workload_answers(machine: &mut VirtualMachine) -> Result<()> {
    let ask = format!(
        "curl -sS --fail --retry 240 --retry-all-errors --retry-delay 5 --cacert /etc/cofferdam/tls/site-ca.crt https://{FQDN}/"
    );
    let answer = machine.run_ok(&ask, Duration::from_mins(30))?;
    ensure!(answer.contains("hello"), "{answer}");
    Ok(())
}

/// The recovery key, as the person who holds the escrow identity gets it from the disk's boot partition: with mtools, `age`
/// and `jq`, without this product.
pub fn recovery_key(medium: &ApplianceMedium, disk: &DataDisk) -> Result<String> {
    // The first partition begins at 1 MiB, where sfdisk puts it.
    let boot = format!("{}@@1M", disk.path());
    let sealed = piped("mcopy", &["-n", "-i", &boot, "::cofferdam/escrow/disk.age", "-"], b"")?;
    let opened = piped("age", &["-d", "-i", medium.identity.as_str()], &sealed)?;
    let query = r#".items[] | select(.kind == "recovery-key") | .data"#;
    Ok(String::from_utf8(piped("jq", &["-r", query], &opened)?)?.trim().to_owned())
}

/// How long an installation from the medium may take without KVM on two busy cores.
pub const INSTALL_LIMIT: Duration = Duration::from_mins(30);
/// How long the live system may take to stop.
const OFF_LIMIT: Duration = Duration::from_mins(5);
