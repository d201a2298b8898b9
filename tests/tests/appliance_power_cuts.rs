//! QEMU is killed while an appliance is installed: in the live system, and while its cluster comes up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::fs::File;
use std::time::Duration;

use tests::appliance::{self, Bench, INSTALL_LIMIT, Moments, bare_machine, recovery_key};
use tests::virtual_machine::{DataDisk, VirtualMachine};

const MINUTE: Duration = Duration::from_mins(1);
const IS_FINISHED: &str = "test -e /var/lib/cofferdam/state.json";

/// Ten moments, as long as the live system runs: starting it again goes on or starts clean, and says which. In the end the disk
/// starts, and serves.
#[test]
#[ignore = "slow: eleven starts and an installation, half an hour without KVM"]
fn slow_power_cuts_of_the_live_system_do_no_harm() {
    let bench = Bench::new().unwrap();
    let medium = bench.medium(&[]).unwrap();
    let (mut machine, disk) = bare_machine(&medium, &bench.path).unwrap();
    let mut moments = Moments::default();
    let mut cuts = 0;
    while cuts < 10 {
        start(&mut machine, cuts);
        let wait = moments.next_below(60_000);
        if !is_live(&mut machine) || machine.wait_until_off(wait).is_ok() {
            bench.note(
                &mut machine,
                "the live system has done its part before the power went: with an empty disk again",
            );
            let _ = machine.power_cut();
            erase(&disk);
            continue;
        }
        cut(&bench, &mut machine, &mut cuts, wait);
    }
    finish_live(&mut machine);
    bench.note(&mut machine, "the live system has done its part");
    eprintln!("{}", appliance::serves(&mut machine).unwrap());
    machine.power_cut().unwrap();
    assert!(recovery_key(&medium, &disk).unwrap().len() > 60, "the escrow holds no recovery key");
    bench.note(&mut machine, &format!("it serves after {cuts} power cuts"));
}

/// Ten moments while the cluster comes up: what is there is kept or made anew, and in the end there is a site like any other.
#[test]
#[ignore = "slow: a whole cluster and eleven starts, an hour without KVM"]
fn slow_power_cuts_while_the_cluster_comes_up_do_no_harm() {
    let bench = Bench::new().unwrap();
    let medium = bench.medium(&[]).unwrap();
    let (mut machine, disk) = bare_machine(&medium, &bench.path).unwrap();
    bench.install(&mut machine).unwrap();
    let mut moments = Moments::default();
    let (mut cuts, mut is_finished) = (0, false);
    while cuts < 10 && !is_finished {
        start(&mut machine, cuts);
        let wait = moments.next_below(120_000);
        assert!(machine.wait_until_off(wait).is_err(), "an installed system restarts");
        is_finished = machine.run(IS_FINISHED).is_ok_and(|output| output.code == 0);
        cut(&bench, &mut machine, &mut cuts, wait);
    }
    assert!(cuts >= 5, "{cuts} cuts: that is not an installation");
    start(&mut machine, cuts);
    eprintln!("{}", appliance::finished(&mut machine).unwrap());
    eprintln!("{}", appliance::serves(&mut machine).unwrap());
    appliance::workload_answers(&mut machine).unwrap();
    eprintln!("{}", machine.run_ok("cofferdam registry fsck && cofferdam status", 5 * MINUTE).unwrap());
    machine.power_off().unwrap();
    assert!(recovery_key(&medium, &disk).unwrap().len() > 60, "the escrow holds no recovery key");
    bench.note(&mut machine, &format!("a site like any other after {cuts} power cuts"));
}

fn start(machine: &mut VirtualMachine, cuts: u32) {
    appliance::start(machine).unwrap_or_else(|error| panic!("after {cuts} power cuts nothing boots: {error:#}"));
}

fn is_live(machine: &mut VirtualMachine) -> bool {
    machine.run("grep -qw cofferdam.live /proc/cmdline").unwrap().code == 0
}

/// The power goes; tells what the installation said last.
fn cut(bench: &Bench, machine: &mut VirtualMachine, cuts: &mut u32, wait: Duration) {
    let said = "journalctl -b -o cat -u cofferdam-unattended.service -u cofferdam-continue.service | \
        grep -E 'is kept:|made anew|^\\[' | tail -n 4";
    let last = machine.run(said).map(|output| output.stdout);
    machine.power_cut().unwrap();
    *cuts += 1;
    bench.note(machine, &format!("power cut {cuts}, {} s after it came up", wait.as_secs()));
    eprintln!("{}", last.unwrap_or_default());
}

fn erase(disk: &DataDisk) {
    let image = File::options().write(true).open(disk.path()).unwrap();
    let bytes = image.metadata().unwrap().len();
    image.set_len(0).unwrap();
    image.set_len(bytes).unwrap();
}

/// Starts the machine until the live system's part is over and the disk has started.
fn finish_live(machine: &mut VirtualMachine) {
    appliance::start(machine).unwrap();
    if is_live(machine) {
        machine.wait_until_off(INSTALL_LIMIT).unwrap();
        appliance::start(machine).unwrap();
    }
    assert!(!is_live(machine), "the medium was started once more");
}
