//! The virtual machine test bed itself. On two cores without KVM a boot takes 12 to 25 s.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use tests::virtual_machine::{BOOT_LIMIT, DataDisk, MachineOptions, VirtualMachine};

const MINUTE: Duration = Duration::from_mins(1);
const SERIAL: &str = "COFFERDAMDATA1";

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
