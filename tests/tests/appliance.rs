//! The appliance on a bare virtual machine: installed from its medium without a question, restarted without it, opened by
//! the TPM; tampered with; without its TPM.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use tests::appliance::{self, ApplianceMedium, Bench, INSTALL_LIMIT, bare_machine, cofferdam, recovery_key};
use tests::encrypted_site::{FQDN, SERIAL, VOLUME, asked_groups, recovery_groups};
use tests::sample;
use tests::terminal::key;
use tests::virtual_machine::{BOOT_LIMIT, DataDisk, Firmware, VirtualMachine, plaintext_search};

const MINUTE: Duration = Duration::from_mins(1);

/// One install from the medium, which stays in its drive; a start from the disk; nothing readable on it; a start without the
/// TPM; one byte of each root flipped. Six minutes without KVM.
#[test]
fn a_bare_machine_becomes_an_appliance_that_notices_tampering() {
    let bench = Bench::new().unwrap();
    let medium = bench.medium(&[]).unwrap();
    let report = cofferdam(&["iso", "inspect", medium.image.as_str(), "--trust", medium.trust.as_str()]).unwrap();
    assert!(report.contains("which is trusted") && report.contains("install.yaml"), "{report}");
    let (mut machine, disk) = bare_machine(&medium, &bench.path).unwrap();
    bench.install(&mut machine).unwrap();

    // The TPM opens the volume, the installation goes on from its journal.
    appliance::start(&mut machine).unwrap();
    machine.run_ok("! grep -w cofferdam.live /proc/cmdline", MINUTE).unwrap();
    bench.note(&mut machine, "started from the disk, opened by the TPM");
    eprintln!("{}", appliance::serves(&mut machine).unwrap());
    bench.note(&mut machine, "registry and containerd serve");
    machine.power_cut().unwrap();
    keeps_its_secrets(&bench, &medium, &mut machine, &disk);
}

/// Of a machine that is switched off: nothing readable is on its disk, it opens without its TPM, it does not start once it was
/// tampered with.
fn keeps_its_secrets(bench: &Bench, medium: &ApplianceMedium, machine: &mut VirtualMachine, disk: &DataDisk) {
    // Nothing readable is on the disk outside of the boot partition and the verified roots.
    let key = recovery_key(medium, disk).unwrap();
    let markers = ["10-cofferdam.conflist", "cofferdam-registry.service", key.as_str(), "PRIVATE KEY"];
    let hits = plaintext_search(disk.path(), &markers).unwrap();
    eprintln!("{hits:?}");
    for secret in [key.as_str(), "10-cofferdam.conflist"] {
        assert_eq!(hits.hits[secret], 0, "{secret:?} lies readable on the disk");
    }

    // Without its TPM: a clear prompt, and the recovery key opens.
    let tpm = machine.options_mut().tpm.take();
    appliance::open_by_recovery_key(machine, &key).unwrap();
    bench.note(machine, "opened by the recovery key");
    machine.power_cut().unwrap();
    machine.options_mut().tpm = tpm;

    // The superblock of a root, which each boot reads, has one byte flipped, in both slots: no system comes up.
    let image = File::options().read(true).write(true).open(disk.path()).unwrap();
    for root in roots(disk) {
        let mut byte = [0];
        image.read_exact_at(&mut byte, root + 96).unwrap();
        image.write_all_at(&[byte[0] ^ 1], root + 96).unwrap();
    }
    machine.power_on().unwrap();
    machine.wait_until_off(BOOT_LIMIT).unwrap();
    bench.note(machine, "the tampered system did not come up");
}

/// Where the roots begin on the disk, in bytes.
fn roots(disk: &DataDisk) -> Vec<u64> {
    let output = std::process::Command::new("sfdisk").args(["--json", disk.path().as_str()]).output().unwrap();
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap();
    let is_root = |partition: &&serde_json::Value| partition["name"].as_str().unwrap().contains("root");
    let roots: Vec<_> = partitions.iter().filter(is_root).map(|root| root["start"].as_u64().unwrap() * 512).collect();
    assert_eq!(roots.len(), 2, "{table}");
    roots
}

/// The board gets another TPM: the recovery key opens, and `disk rebind` makes an end of the prompt. The installation goes on
/// afterwards.
#[test]
#[ignore = "slow: ten minutes in a processor made in software"]
fn slow_another_tpm_opens_an_appliance_after_rebind() {
    let bench = Bench::new().unwrap();
    let medium = bench.medium(&[]).unwrap();
    let (mut machine, disk) = bare_machine(&medium, &bench.path).unwrap();
    bench.install(&mut machine).unwrap();
    let key = recovery_key(&medium, &disk).unwrap();
    machine.options_mut().tpm = Some(bench.path.join("another-tpm"));
    appliance::open_by_recovery_key(&mut machine, &key).unwrap();
    bench.note(&mut machine, "another TPM does not open it, the recovery key does");
    let rebind = format!("printf %s {key} | cofferdam disk rebind --key-file -");
    // The installation, which has just gone on, holds the lock that `rebind` needs.
    machine.run_ok("systemctl stop cofferdam-continue.service", 5 * MINUTE).unwrap();
    eprintln!("{}", machine.run_ok(&rebind, 5 * MINUTE).unwrap());
    machine.power_off().unwrap();
    appliance::start(&mut machine).unwrap();
    machine.run_ok(&format!("test \"$(findmnt -no SOURCE /var)\" = {VOLUME}"), MINUTE).unwrap();
    bench.note(&mut machine, "opened by the other TPM");
    eprintln!("{}", appliance::serves(&mut machine).unwrap());
}

/// Somebody at the serial console: every page, a fixed address, the recovery key written down; the machine starts from its
/// disk with what was typed.
#[test]
#[ignore = "slow: seven minutes in a processor made in software"]
fn slow_a_person_installs_an_appliance_at_the_serial_console() {
    let bench = Bench::new().unwrap();
    let sample = sample::make(bench.path.join("sample").as_std_path()).unwrap();
    let medium = ApplianceMedium::build_without_answers(&sample, &bench.path).unwrap();
    let (mut machine, _disk) = bare_machine(&medium, &bench.path).unwrap();
    machine.power_on().unwrap();
    let within = |minutes: u32| Instant::now() + minutes * MINUTE;
    let console = machine.console().unwrap();
    let next = key::control('n');
    let welcome = console.wait_for_screen("[Welcome] Host Disks", Instant::now() + BOOT_LIMIT).unwrap();
    assert!(welcome.is_ascii(), "a serial line begins in basic mode: {welcome}");
    console.wait_for_screen("cofferdam-sample", within(2)).unwrap();
    console.send(&next).unwrap();
    console.wait_for_screen("2 of 10", within(1)).unwrap();
    console.send(&next).unwrap();
    let disks = console.wait_for_screen("Which disk becomes the appliance?", within(2)).unwrap();
    assert!(disks.contains(SERIAL), "{disks}");
    console.send(&next).unwrap();

    console.wait_for_screen("How is this machine known on the network?", within(1)).unwrap();
    for (field, text) in [("> Node name", "node-a"), ("> Addresses", "10.0.2.20/24"), ("> Gateway", "10.0.2.2")] {
        console.press_until(key::TAB, field).unwrap();
        console.send(&key::control('u')).unwrap();
        console.send(text).unwrap();
        if text == "node-a" {
            console.press_until(key::TAB, "> ( ) As set up here").unwrap();
            console.send(" ").unwrap();
        }
    }
    console.press_until(key::TAB, "> [ Set up now ]").unwrap();
    console.send(key::ENTER).unwrap();
    console.wait_for_screen("the network is set up", within(2)).unwrap();
    bench.note(&mut machine, "the network is set up");
    let console = machine.console().unwrap();
    console.send(&next).unwrap();
    console.wait_for_screen("Under which name", within(1)).unwrap();
    console.press_until(key::TAB, "> FQDN").unwrap();
    console.send(FQDN).unwrap();
    console.send(&next).unwrap();
    console.wait_for_screen("6 of 10", within(1)).unwrap();
    console.send(&next).unwrap();
    console.wait_for_screen("7 of 10", within(1)).unwrap();
    console.send(&next).unwrap();
    console.wait_for_screen("8 of 10", within(1)).unwrap();
    console.send(&next).unwrap();
    console.wait_for_screen("Who looks after this machine?", within(1)).unwrap();
    for (field, text) in [("> Name", "keeper"), ("> Password", PASSWORD), ("> Password again", PASSWORD)] {
        console.press_until(key::TAB, field).unwrap();
        console.send(text).unwrap();
    }
    assert!(!console.screen().contains(PASSWORD), "a password is never drawn");
    console.send(&next).unwrap();
    let plan = console.wait_for_screen("This will be done", within(3)).unwrap();
    assert!(plan.contains("ERASES"), "{plan}");
    bench.note(&mut machine, "the plan");
    let console = machine.console().unwrap();
    console.send(&next).unwrap();
    console.wait_for_screen("type the last characters of its serial number: 0001", within(2)).unwrap();
    for keys in ["0001", key::TAB, key::TAB, key::ENTER] {
        console.send(keys).unwrap();
    }
    let shown = console.wait_for_screen("Write the recovery key down now", within(10)).unwrap();
    let groups = recovery_groups(&shown);
    assert_eq!(groups.len(), 8, "{shown}");
    console.send(key::ENTER).unwrap();
    let fields = console.wait_for_screen("Type two groups back", within(2)).unwrap();
    for group in asked_groups(&fields) {
        console.send(&groups[group - 1]).unwrap();
        console.send(key::ENTER).unwrap();
    }
    console.wait_for_screen("Installing site", within(2)).unwrap();
    bench.note(&mut machine, "the recovery key is written down");
    machine.wait_until_off(INSTALL_LIMIT).unwrap();
    bench.note(&mut machine, "the machine restarts");

    machine.options_mut().media.clear();
    appliance::start(&mut machine).unwrap();
    eprintln!("{}", appliance::serves(&mut machine).unwrap());
    let looks = "set -e
        if ip -brief address | grep -w 10.0.2.15/24; then exit 1; fi
        ip route | grep 'default via 10.0.2.2 '
        cat /etc/systemd/network/50-cofferdam-site-adapter0.network
        getent passwd keeper
        systemctl is-active ssh.service
        ss --listening --tcp --numeric --no-header";
    eprintln!("{}", machine.run_ok(looks, MINUTE).unwrap());
    eprintln!("{}", machine.run_ok("fold -w 80 /dev/vcs1", MINUTE).unwrap());
    bench.note(&mut machine, "it serves with the addresses that were typed");
    machine.power_cut().unwrap();
    let tpm = machine.options_mut().tpm.take();
    appliance::open_by_recovery_key(&mut machine, &groups.join("-")).unwrap();
    machine.options_mut().tpm = tpm;
    bench.note(&mut machine, "what was written down opens it");
}

/// Long enough for the policy.
const PASSWORD: &str = "correct horse battery";

/// Everything twice, down to Debian's packages: the same image, byte for byte.
#[test]
#[ignore = "slow: two builds from nothing, some four minutes"]
fn slow_two_builds_give_the_same_bytes() {
    let bench = Bench::new().unwrap();
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

/// A firmware that trusts only our certificate: it is enrolled from the medium, the medium boots, a changed image does not; an
/// installation binds the volume to the keys that the firmware trusts, too.
#[test]
#[ignore = "slow: five boots, an installation"]
fn slow_secure_boot_refuses_what_is_not_signed() {
    let bench = Bench::new().unwrap();
    let (key, certificate) = (bench.path.join("sb.key"), bench.path.join("sb.crt"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Cofferdam test", "-days", "3650"])
        .args(["-keyout", key.as_str(), "-out", certificate.as_str()])
        .output()
        .unwrap();
    assert!(made.status.success());
    let medium =
        bench.medium(&["--secure-boot-key", key.as_str(), "--secure-boot-cert", certificate.as_str()]).unwrap();
    let no_answers = bench.path.join("plain.iso");
    cofferdam(&["iso", "customize", medium.image.as_str(), "-o", no_answers.as_str(), "--reset"]).unwrap();
    let (mut machine, _disk) = bare_machine(&medium, &bench.path).unwrap();
    machine.options_mut().firmware = Some(Firmware::SecureBoot);
    machine.options_mut().media = vec![no_answers.clone()];
    // systemd-boot enrols the keys and starts the machine again.
    machine.power_on().unwrap();
    machine.wait_until_off(BOOT_LIMIT).unwrap();
    bench.note(&mut machine, "the certificate is enrolled");
    appliance::start(&mut machine).unwrap();
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
    machine.wait_for_console("cofferdam_0.1.0.efi: Access denied", BOOT_LIMIT).unwrap();
    assert!(machine.wait_for_agent(Duration::from_secs(30)).is_err(), "a tampered image was booted");
    bench.note(&mut machine, "the tampered image is refused");
    machine.power_cut().unwrap();

    machine.options_mut().media = vec![medium.image.clone()];
    bench.install(&mut machine).unwrap();
    appliance::start(&mut machine).unwrap();
    eprintln!("{}", appliance::serves(&mut machine).unwrap());
    let header = "cryptsetup luksDump --dump-json-metadata /dev/disk/by-partlabel/cofferdam-data";
    let header: serde_json::Value = serde_json::from_str(&machine.run_ok(header, MINUTE).unwrap()).unwrap();
    let mut tokens = header["tokens"].as_object().unwrap().values();
    let token = tokens.find(|token| token["type"] == "systemd-tpm2").unwrap();
    assert_eq!(token["tpm2-pcrs"], serde_json::json!([7, 15]), "{token}");
    bench.note(&mut machine, "an installation with Secure Boot serves");
}
