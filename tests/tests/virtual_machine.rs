//! The virtual machine test bed itself, and what the product builds on: LUKS2 on a data disk that a TPM unlocks at boot.
//!
//! One machine per test, on two cores without KVM: a boot takes 12 to 25 s, all tests together about two and a half minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use tests::virtual_machine::{BOOT_LIMIT, DataDisk, LuksHeader, MachineOptions, VirtualMachine, plaintext_search};

const MINUTE: Duration = Duration::from_mins(1);
const SERIAL: &str = "COFFERDAMDATA1";
const MARKER: &str = "plaintext-marker-4711";
const RECOVERY_KEY: &str = "recovery-key-of-the-test";

struct Bench {
    _directory: tempfile::TempDir,
    path: Utf8PathBuf,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    Bench { _directory: directory, path }
}

fn note(machine: &mut VirtualMachine, began: Instant, what: &str) {
    let spent = machine.cpu_seconds();
    eprintln!(
        "{what}: {:.0} s after the start, {spent:.0} s of processor time, {:?}",
        began.elapsed().as_secs_f64(),
        machine.accelerator()
    );
}

/// All that the bed promises, with one power cut: two boots, about a minute without KVM.
#[test]
fn a_machine_has_what_it_was_given_and_survives_a_power_cut() {
    let bench = bench();
    let began = Instant::now();
    let mut options = MachineOptions::new(bench.path.join("machine"));
    options.name = "host-a".to_owned();
    options.data_disks = vec![DataDisk::create(bench.path.join("data.img"), SERIAL, 64 << 20).unwrap()];
    options.tpm = Some(bench.path.join("tpm"));
    options.media = vec![medium(&bench)];
    let mut machine = VirtualMachine::boot(options).unwrap();
    note(&mut machine, began, "booted");

    assert_eq!(machine.run_ok("hostname", MINUTE).unwrap(), "host-a\n");
    // Output, errors and the exit code come back exact.
    let output = machine.run("printf 'out\\n\\n'; printf err >&2; exit 7").unwrap();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n\n", "err"));
    assert_eq!(machine.run("kill -9 $$").unwrap().code, 137);
    // A daemon that is left behind does not hold the answer back, and lives on.
    let asked = Instant::now();
    machine.run_ok("sleep 3600 & echo $! >/run/left-behind", MINUTE).unwrap();
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    machine.run_ok("kill -0 $(cat /run/left-behind)", MINUTE).unwrap();
    // Bytes go in as they are.
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    machine.write_file("/var/lib/test/bytes", "0640", &bytes).unwrap();
    let digest = machine.run_ok("sha256sum </var/lib/test/bytes; stat -c %a /var/lib/test/bytes", MINUTE).unwrap();
    assert_eq!(digest, format!("{}  -\n640\n", sha256(&bytes)));
    // A command that takes too long is killed, and the next one works.
    assert!(
        machine
            .run_for("echo begun; sleep 3600", Duration::from_secs(3))
            .unwrap_err()
            .chain()
            .any(|error| error.to_string().contains("begun"))
    );
    assert_eq!(machine.run("echo again").unwrap().stdout, "again\n");

    // Hardware.
    let disk = machine.run_ok(&format!("blockdev --getsize64 /dev/disk/by-id/virtio-{SERIAL}"), MINUTE).unwrap();
    assert_eq!(disk.trim(), (64 << 20).to_string());
    machine
        .run_ok("test -c /dev/tpmrm0 && systemd-cryptenroll --tpm2-device=list | grep -q /dev/tpmrm0", MINUTE)
        .unwrap();
    // The network leads nowhere: not to the development machine either.
    machine.run_ok("! timeout 5 curl -sS http://10.0.2.2:22/ 2>/run/curl; ip route get 10.0.2.2", MINUTE).unwrap();

    // The medium is a read-only disc.
    machine.run_ok("mkdir /run/medium && mount -o ro /dev/disk/by-label/MEDIUM /run/medium", MINUTE).unwrap();
    assert_eq!(machine.run_ok("cat /run/medium/hello", MINUTE).unwrap(), "from the medium\n");
    assert_eq!(machine.run_ok("blockdev --getro /dev/sr0", MINUTE).unwrap(), "1\n");

    // A power cut keeps what was synced, and no more.
    machine.run_ok("echo synced >/var/lib/test/synced; sync", MINUTE).unwrap();
    machine.run_ok("echo late >/var/lib/test/late", MINUTE).unwrap();
    machine.power_cut().unwrap();
    machine.power_on().unwrap();
    machine.wait_until_up(BOOT_LIMIT).unwrap();
    note(&mut machine, began, "up again");
    assert_eq!(machine.run_ok("cat /var/lib/test/synced", MINUTE).unwrap(), "synced\n");
    assert_ne!(
        machine.run("cat /var/lib/test/late").unwrap().stdout,
        "late\n",
        "the guest's memory outlived a power cut"
    );
    assert_eq!(machine.run("test -e /run/left-behind").unwrap().code, 1);
}

/// An image with a file in it.
fn medium(bench: &Bench) -> Utf8PathBuf {
    let content = bench.path.join("content");
    std::fs::create_dir(&content).unwrap();
    std::fs::write(content.join("hello"), "from the medium\n").unwrap();
    let medium = bench.path.join("medium.iso");
    let made = std::process::Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-R", "-V", "MEDIUM", "-o", medium.as_str(), content.as_str()])
        .output()
        .expect("xorriso is missing: apt-get install --no-install-recommends xorriso");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    medium
}

/// The installer's building blocks, by hand: three boots, 70 to 140 s without KVM.
#[test]
fn a_data_volume_is_unlocked_by_the_tpm_and_by_the_recovery_key() {
    let bench = bench();
    let began = Instant::now();
    let disk = DataDisk::create(bench.path.join("data.img"), SERIAL, 1 << 30).unwrap();
    let mut options = MachineOptions::new(bench.path.join("machine"));
    options.data_disks = vec![disk.clone()];
    options.tpm = Some(bench.path.join("tpm"));
    let mut machine = VirtualMachine::boot(options).unwrap();

    // The key comes on standard input only, which the agent makes a file in memory: systemd-cryptenroll refuses a pipe.
    let format = "cryptsetup luksFormat -q --type luks2 --cipher aes-xts-plain64 --key-size 512 --pbkdf argon2id --pbkdf-memory 32 \
                  --pbkdf-parallel 1 --pbkdf-force-iterations 4 --key-file -";
    let device = format!("/dev/disk/by-id/virtio-{SERIAL}");
    machine.run_ok_with_input(&format!("{format} {device}"), RECOVERY_KEY.as_bytes(), 2 * MINUTE).unwrap();
    machine
        .run_ok_with_input(
            &format!("systemd-cryptenroll --unlock-key-file=/dev/stdin --tpm2-device=auto --tpm2-pcrs=7 {device}"),
            RECOVERY_KEY.as_bytes(),
            2 * MINUTE,
        )
        .unwrap();
    machine
        .run_ok(
            &format!(
                "set -e
                uuid=$(cryptsetup luksUUID {device})
                printf 'cofferdam-data UUID=%s none luks,tpm2-device=auto,timeout=0\\n' $uuid >/etc/crypttab
                systemctl daemon-reload
                systemctl start systemd-cryptsetup@cofferdam\\\\x2ddata.service
                mkfs.ext4 -q -L cofferdam-data /dev/mapper/cofferdam-data
                mkdir -p /var/lib/cofferdam/data
                cat >/etc/systemd/system/var-lib-cofferdam-data.mount <<'UNIT'
[Unit]
Description=Data volume

[Mount]
What=/dev/mapper/cofferdam-data
Where=/var/lib/cofferdam/data
Type=ext4
Options=nodev,nosuid

[Install]
RequiredBy=local-fs.target
UNIT
                systemctl daemon-reload
                systemctl enable --now var-lib-cofferdam-data.mount
                yes {MARKER} | head -n 200000 >/var/lib/cofferdam/data/marker || true
                sync"
            ),
            3 * MINUTE,
        )
        .unwrap();
    note(&mut machine, began, "encrypted and mounted");

    // With its TPM the machine unlocks by itself.
    machine.reboot().unwrap();
    note(&mut machine, began, "unlocked by the TPM");
    let mounted = "findmnt -no SOURCE /var/lib/cofferdam/data && tail -n1 /var/lib/cofferdam/data/marker";
    assert_eq!(machine.run_ok(mounted, MINUTE).unwrap(), format!("/dev/mapper/cofferdam-data\n{MARKER}\n"));
    assert!(!machine.console().unwrap().has_said("Please enter passphrase"), "it asked although the TPM is there");
    machine.power_off().unwrap();

    // In another machine, which is the same with another TPM, it asks; the recovery key opens it.
    machine.options_mut().tpm = Some(bench.path.join("another-tpm"));
    machine.power_on().unwrap();
    machine.wait_for_console("Please enter passphrase for disk", BOOT_LIMIT).unwrap();
    note(&mut machine, began, "asked for the passphrase");
    machine.wait_for_agent(MINUTE).unwrap();
    assert_eq!(machine.run("findmnt /var/lib/cofferdam/data").unwrap().code, 1, "mounted without a key");
    machine.console().unwrap().send_line(RECOVERY_KEY).unwrap();
    machine.wait_until_up(BOOT_LIMIT).unwrap();
    note(&mut machine, began, "unlocked by the recovery key");
    assert_eq!(machine.run_ok(mounted, MINUTE).unwrap(), format!("/dev/mapper/cofferdam-data\n{MARKER}\n"));
    machine.power_off().unwrap();
    note(&mut machine, began, "switched off");

    // The thief's view.
    let found = plaintext_search(disk.path(), &[MARKER, RECOVERY_KEY]).unwrap();
    assert!(found.scanned_bytes > 4_000_000, "the data never reached the disk: {found:?}");
    assert!(found.hits.values().all(|hits| *hits == 0), "{found:?}");
    let header = LuksHeader::read(disk.path(), 0).unwrap();
    assert!(header.opens_with(RECOVERY_KEY.as_bytes()).unwrap());
    assert!(!header.opens_with(b"wrong").unwrap());
    let metadata = header.metadata().unwrap();
    assert_eq!(metadata["keyslots"].as_object().unwrap().len(), 2, "{metadata}");
    assert_eq!(metadata["tokens"]["0"]["type"], "systemd-tpm2", "{metadata}");
}

fn sha256(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}
