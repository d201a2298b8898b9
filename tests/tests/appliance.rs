//! The appliance on a bare virtual machine: installed from its medium without a question, restarted without it, opened by
//! the TPM; tampered with; without its TPM.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use tests::appliance::{self, ApplianceMedium, INSTALL_LIMIT, bare_machine, cofferdam, recovery_key};
use tests::encrypted_site::{FQDN, VOLUME};
use tests::sample;
use tests::virtual_machine::{BOOT_LIMIT, Firmware, VirtualMachine, plaintext_search};

const MINUTE: Duration = Duration::from_mins(1);

struct Bench {
    _directory: tempfile::TempDir,
    path: Utf8PathBuf,
    began: Instant,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        Self { _directory: directory, path, began: Instant::now() }
    }

    fn medium(&self, more: &[&str]) -> ApplianceMedium {
        let sample = sample::make(self.path.join("sample").as_std_path()).unwrap();
        let medium = ApplianceMedium::build(&sample, &self.path, more).unwrap();
        eprintln!("{:4.0} s: the medium is built, {} MB", self.began.elapsed().as_secs_f64(), size(&medium.image));
        medium
    }

    fn note(&self, machine: &mut VirtualMachine, what: &str) {
        let (spent, how) = (machine.cpu_seconds(), machine.accelerator());
        eprintln!("{:4.0} s: {what}; {spent:.0} s of processor time, {how:?}", self.began.elapsed().as_secs_f64());
    }
}

fn size(path: &Utf8Path) -> u64 {
    path.metadata().unwrap().len() / 1_000_000
}

fn install(bench: &Bench, machine: &mut VirtualMachine) {
    appliance::install(machine, &mut |text| eprint!("{text}")).unwrap();
    bench.note(machine, "installed");
}

/// What a site is made for, without the cluster: the volume is open, the registry answers by name over TLS, containerd runs.
fn serves(machine: &mut VirtualMachine) {
    let follow = appliance::follow_until(appliance::SERVES);
    let script = format!(
        "{follow}
        set -e
        test \"$(findmnt -no SOURCE /var)\" = {VOLUME}
        test \"$(findmnt -no FSTYPE /)\" = squashfs
        ! touch /usr/a 2>/dev/null
        test \"$(hostname)\" = node-a
        getent hosts {FQDN}
        journalctl -b -o cat -u systemd-veritysetup@root.service | tail -n 2
        findmnt -no SOURCE /etc"
    );
    eprintln!("{}", machine.run_ok(&script, Duration::from_mins(8)).unwrap());
}

/// One install from the medium, a restart without it, one start without the TPM, one byte of the root flipped. Ten minutes
/// without KVM.
#[test]
fn a_bare_machine_becomes_an_appliance_that_notices_tampering() {
    let bench = Bench::new();
    let medium = bench.medium(&[]);
    let report = cofferdam(&["iso", "inspect", medium.image.as_str(), "--trust", medium.trust.as_str()]).unwrap();
    assert!(report.contains("which is trusted") && report.contains("install.yaml"), "{report}");
    let (mut machine, disk) = bare_machine(&medium, &bench.path).unwrap();
    install(&bench, &mut machine);

    // Without the medium: the TPM opens the volume, the installation goes on from its journal.
    machine.power_on().unwrap();
    machine.wait_for_agent(BOOT_LIMIT).unwrap();
    bench.note(&mut machine, "started from the disk, opened by the TPM");
    serves(&mut machine);
    bench.note(&mut machine, "registry and containerd serve");
    machine.power_cut().unwrap();

    // Nothing readable is on the disk outside of the boot partition and the verified roots.
    let key = recovery_key(&medium, &disk).unwrap();
    let markers = ["10-cofferdam.conflist", "cofferdam-registry.service", key.as_str(), "PRIVATE KEY"];
    let hits = plaintext_search(disk.path(), &markers).unwrap();
    eprintln!("{hits:?}");
    for secret in [key.as_str(), "10-cofferdam.conflist"] {
        assert_eq!(hits.hits[secret], 0, "{secret:?} lies readable on the disk");
    }

    // Without its TPM: a clear prompt, and the recovery key opens.
    let tpm = machine.options_mut().tpm.take();
    machine.power_on().unwrap();
    machine.wait_for_console("Type the recovery key of this site", BOOT_LIMIT).unwrap();
    machine.wait_for_console("Please enter", BOOT_LIMIT).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    machine.console().unwrap().send_line(&key).unwrap();
    machine.wait_for_agent(BOOT_LIMIT).unwrap();
    machine.run_ok(&format!("test \"$(findmnt -no SOURCE /var)\" = {VOLUME}"), MINUTE).unwrap();
    bench.note(&mut machine, "opened by the recovery key");
    machine.power_cut().unwrap();
    machine.options_mut().tpm = tpm;

    // The superblock of the root, which each boot reads, has one byte flipped: no system comes up.
    let image = File::options().read(true).write(true).open(disk.path()).unwrap();
    let root = (1 + 512) * (1 << 20) + 96;
    let mut byte = [0];
    image.read_exact_at(&mut byte, root).unwrap();
    image.write_all_at(&[byte[0] ^ 1], root).unwrap();
    machine.power_on().unwrap();
    machine.wait_until_off(BOOT_LIMIT).unwrap();
    bench.note(&mut machine, "the tampered system did not come up");
}

/// From the medium to the workload's answer, the medium gone after the first restart. Twenty minutes without KVM.
#[test]
#[ignore = "slow: a whole cluster in a processor made in software"]
fn slow_a_bare_machine_becomes_a_cluster_that_answers() {
    let bench = Bench::new();
    let medium = bench.medium(&[]);
    let (mut machine, _disk) = bare_machine(&medium, &bench.path).unwrap();
    install(&bench, &mut machine);
    machine.power_on().unwrap();
    machine.wait_for_agent(BOOT_LIMIT).unwrap();
    let finished = appliance::follow_until("test -e /var/lib/cofferdam/state.json");
    eprintln!("{}", machine.run_ok(&finished, 45 * MINUTE).unwrap());
    bench.note(&mut machine, "the installation is finished");
    let status = machine.run_ok("cofferdam status --json", 2 * MINUTE).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["encryption"], "luks2", "{status}");
    assert_eq!(status["nodes"][0]["ready"], true, "{status}");
    let ask = format!(
        "curl -sS --fail --retry 60 --retry-all-errors --retry-delay 5 --cacert /etc/cofferdam/tls/site-ca.crt https://{FQDN}/"
    );
    let answer = machine.run_ok(&ask, 10 * MINUTE).unwrap();
    assert!(answer.contains("hello"), "{answer}");
    bench.note(&mut machine, "the workload answers over TLS by its name");
    eprintln!("{}", machine.run_ok("cofferdam status; systemctl --failed --no-legend", 2 * MINUTE).unwrap());
}

/// Everything twice, down to Debian's packages: the same image, byte for byte.
#[test]
#[ignore = "slow: two builds from nothing, some four minutes"]
fn slow_two_builds_give_the_same_bytes() {
    let bench = Bench::new();
    let sample = sample::make(bench.path.join("sample").as_std_path()).unwrap();
    let key = bench.path.join("sample/keys/signing.key");
    let trust = bench.path.join("sample/keys/signing.pub");
    let mut images = Vec::new();
    for name in ["one", "two"] {
        let image = bench.path.join(format!("{name}.iso"));
        let status = std::process::Command::new(sample::cofferdam().unwrap())
            .args(["iso", "build", "--kernel", "cloud", "--sign-key", key.as_str(), "--trust", trust.as_str()])
            .args(["--bundle", sample.bundle.to_str().unwrap(), "-o", image.as_str()])
            .env("XDG_CACHE_HOME", bench.path.join(name))
            .status()
            .unwrap();
        assert!(status.success());
        images.push(std::fs::read(image).unwrap());
    }
    let first = images[0].iter().zip(&images[1]).position(|(one, two)| one != two);
    assert!(
        images[0] == images[1],
        "they differ from byte {first:?} on; {} and {} bytes",
        images[0].len(),
        images[1].len()
    );
}

/// QEMU is killed at twenty moments of an installation; booting the medium again goes on or starts clean, and in the end
/// there is a system like any other.
#[test]
#[ignore = "slow: twenty boots of the medium, an hour without KVM"]
fn slow_power_cuts_during_an_installation_do_no_harm() {
    let bench = Bench::new();
    let medium = bench.medium(&[]);
    let (mut machine, _disk) = bare_machine(&medium, &bench.path).unwrap();
    let mut seed = u64::from(std::process::id());
    let mut cuts = 0;
    while cuts < 20 {
        machine.power_on().unwrap();
        assert!(machine.wait_for_agent(BOOT_LIMIT).is_ok(), "after {cuts} power cuts nothing boots");
        // Once the disk is bootable the firmware takes it, and the live part is over.
        if machine.run("grep -qw cofferdam.live /proc/cmdline").unwrap().code != 0 {
            break;
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = Duration::from_millis((seed >> 33) % 60_000);
        if machine.wait_until_off(wait).is_ok() {
            break;
        }
        machine.power_cut().unwrap();
        cuts += 1;
        bench.note(&mut machine, &format!("power cut {cuts}, {} s after the live system came up", wait.as_secs()));
    }
    assert!(cuts > 0, "no power was cut");
    let _ = machine.power_cut();
    let mut left = 3;
    loop {
        machine.power_on().unwrap();
        machine.wait_for_agent(BOOT_LIMIT).unwrap();
        if machine.run("grep -qw cofferdam.live /proc/cmdline").unwrap().code != 0 {
            break;
        }
        machine.wait_until_off(INSTALL_LIMIT).unwrap();
        left -= 1;
        assert!(left > 0, "the installation does not end");
    }
    serves(&mut machine);
}

/// A firmware that trusts only our certificate: it is enrolled from the medium, the medium boots, a changed image does not.
#[test]
#[ignore = "slow: four boots"]
fn slow_secure_boot_refuses_what_is_not_signed() {
    let bench = Bench::new();
    let (key, certificate) = (bench.path.join("sb.key"), bench.path.join("sb.crt"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Cofferdam test", "-days", "3650"])
        .args(["-keyout", key.as_str(), "-out", certificate.as_str()])
        .output()
        .unwrap();
    assert!(made.status.success());
    let medium = bench.medium(&["--secure-boot-key", key.as_str(), "--secure-boot-cert", certificate.as_str()]);
    let no_answers = bench.path.join("plain.iso");
    cofferdam(&["iso", "customize", medium.image.as_str(), "-o", no_answers.as_str(), "--reset"]).unwrap();
    let (mut machine, _disk) = bare_machine(&medium, &bench.path).unwrap();
    machine.options_mut().firmware = Some(Firmware::SecureBoot);
    machine.options_mut().media = vec![no_answers.clone()];
    // systemd-boot enrols the keys and starts the machine again.
    machine.power_on().unwrap();
    machine.wait_until_off(BOOT_LIMIT).unwrap();
    bench.note(&mut machine, "the certificate is enrolled");
    machine.power_on().unwrap();
    machine.wait_for_agent(BOOT_LIMIT).unwrap();
    let state = machine.run_ok("od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-*", MINUTE).unwrap();
    assert_eq!(state.trim(), "1", "Secure Boot is not enforced");
    bench.note(&mut machine, "the medium boots with Secure Boot");
    machine.power_cut().unwrap();
    // One byte of the unified kernel image.
    let mut bytes = std::fs::read(&no_answers).unwrap();
    let name = b"roothash=";
    let place = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[place + name.len()] ^= 1;
    std::fs::write(&no_answers, bytes).unwrap();
    machine.power_on().unwrap();
    assert!(machine.wait_for_agent(Duration::from_mins(2)).is_err(), "a tampered image was booted");
    bench.note(&mut machine, "the tampered image is refused");
}
