//! A finished appliance: the next system in the other slot, one that does not come up, power cuts at any moment of an upgrade; a
//! new recovery key, its medium once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::appliance::{self, ApplianceMedium, Bench, Moments, recovery_key};
use tests::appliance_upgrade::{self as upgrade, Next, Site};
use tests::encrypted_site::FQDN;
use tests::sample::Release;
use tests::virtual_machine::{BOOT_LIMIT, DataDisk, VirtualMachine};

const MINUTE: Duration = Duration::from_mins(1);
/// True as long as no upgrade is under way.
const OVER: &str = "! test -e /var/lib/cofferdam/upgrade/current.json";

/// The next release with its system, by a delta, in the other slot; a system that does not come up leads back to it by itself; the
/// cluster answers all the way.
#[test]
#[ignore = "slow: a whole cluster, three media, two upgrades, three quarters of an hour without KVM"]
fn slow_a_site_lives_through_upgrades_and_a_broken_system() {
    let bench = Bench::new().unwrap();
    let same = Release::default();
    let good: Next = (Release { bundle: "1.1.0", ..same }, &["--kernel-arg", "cofferdam.second"]);
    let broken: Next = (Release { bundle: "1.2.0", ..same }, &["--kernel-arg", "init=/nothing"]);
    let Site { mut machine, .. } = Site::finished(&bench, &[good, broken]).unwrap();
    upgrade::into_next(&bench, &mut machine, &good.0).unwrap();

    upgrade::apply(&mut machine, &broken.0).unwrap();
    let mut starts = 0;
    loop {
        machine.power_on().unwrap();
        starts += 1;
        if machine.wait_for_agent(BOOT_LIMIT).is_ok() {
            break;
        }
        let _ = machine.power_cut();
        assert!(starts < 5, "nothing comes up any more");
    }
    upgrade::probe(&mut machine).unwrap();
    assert_eq!(starts, 4, "three attempts, then the system of before");
    bench.note(&mut machine, "the broken system had its attempts");
    let ended = upgrade::until_over(&mut machine).unwrap();
    eprintln!("{ended}");
    let seen = upgrade::look(&mut machine).unwrap();
    assert!(seen.contains("hello") && seen.contains("IMAGE_VERSION=1.1.0"), "{seen}");
    assert!(seen.contains("cofferdam-sample 1.1.0"), "{seen}");
    assert!(ended.contains("did not come up"), "{ended}");
    upgrade::tell_outages(&bench, &mut machine, "the site runs as before").unwrap();
    let refused = machine.run("cofferdam upgrade rollback").unwrap();
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("hint:"), "{refused:?}");
}

/// A finished site: what it says of itself; a new recovery key; the medium of the installation is started once more.
#[test]
#[ignore = "slow: a whole cluster, half an hour without KVM"]
fn slow_a_site_lives_through_a_new_key_and_its_medium() {
    let bench = Bench::new().unwrap();
    let Site { medium, mut machine, disk } = Site::finished(&bench, &[]).unwrap();
    status_is_good(&mut machine);
    gets_another_recovery_key(&medium, &mut machine, &disk);
    bench.note(&mut machine, "a new recovery key");
    leaves_a_finished_site_alone(&bench, &mut machine);
}

/// The volume is encrypted and the node is ready. An API server that has just started in an emulated processor may take longer
/// for an answer than `status` waits: it is asked again.
fn status_is_good(machine: &mut VirtualMachine) {
    let mut status = Value::Null;
    for _ in 0..10 {
        let text = machine.run_ok("cofferdam status --json", 2 * MINUTE).unwrap();
        status = serde_json::from_str(&text).unwrap();
        if status["nodes-unknown"].is_null() {
            break;
        }
        std::thread::sleep(MINUTE / 4);
    }
    assert_eq!(status["encryption"], "luks2", "{status}");
    assert_eq!(status["nodes"][0]["ready"], true, "{status}");
}

/// Somebody starts the medium of the installation once more: it does not erase a finished site.
fn leaves_a_finished_site_alone(bench: &Bench, machine: &mut VirtualMachine) {
    let medium_once = "set -e
        number=$(efibootmgr | sed -n 's/^Boot\\([0-9A-F]*\\).*CD-ROM.*/\\1/p' | head -n 1)
        efibootmgr --quiet --bootnext \"$number\"";
    machine.run_ok(medium_once, MINUTE).unwrap();
    machine.power_off().unwrap();
    machine.power_on().unwrap();
    machine.wait_for_console("holds the site site-a, which was finished", 2 * BOOT_LIMIT).unwrap();
    bench.note(machine, "the medium leaves the site alone");
    machine.power_off().unwrap();
    appliance::start(machine).unwrap();
    appliance::workload_answers(machine).unwrap();
    bench.note(machine, "the site answers as before");
}

/// A running appliance cannot ask its TPM, so the key of before is needed.
fn gets_another_recovery_key(medium: &ApplianceMedium, machine: &mut VirtualMachine, disk: &DataDisk) {
    let old = recovery_key(medium, disk).unwrap();
    let refused = machine.run("cofferdam disk rotate-recovery </dev/null").unwrap();
    assert!(refused.stderr.contains("a key that opens the data volume is needed"), "{refused:?}");
    let rotate = format!("printf %s {old} | cofferdam disk rotate-recovery --key-file -");
    machine.run_ok(&rotate, 5 * MINUTE).unwrap();
    machine.run_ok("sync", MINUTE).unwrap();
    assert_ne!(recovery_key(medium, disk).unwrap(), old);
}

/// QEMU is killed at ten moments of an upgrade that brings a system, another Kubernetes and a migration: it ends with the old
/// release or the new one, whole, without a hand. What is over sooner is followed by the rollback, and that by an upgrade.
#[test]
#[ignore = "slow: a whole cluster and ten starts, two hours without KVM"]
fn slow_ten_power_cuts_of_an_upgrade_leave_the_old_release_or_the_new_one() {
    ten_power_cuts(false);
}

/// The same, beginning with the rollback of that upgrade.
#[test]
#[ignore = "slow: a whole cluster, an upgrade and ten starts, two hours without KVM"]
fn slow_ten_power_cuts_of_a_rollback_leave_the_old_release_or_the_new_one() {
    ten_power_cuts(true);
}

fn ten_power_cuts(begins_with_rollback: bool) {
    let bench = Bench::new().unwrap();
    let release = Release { kubernetes: "v1.20.3", bundle: "1.1.0", hello: "1.1.0" };
    let mut machine = Site::finished(&bench, &[(release, &["--kernel-arg", "cofferdam.second"])]).unwrap().machine;
    let secret = whole(&mut machine).1;
    let mut moments = Moments::default();
    let (mut cuts, mut ends) = (0, [0, 0]);
    let mut is_new = false;
    let mut most = if begins_with_rollback { 0 } else { 10 };
    loop {
        let command = if is_new { "rollback".to_owned() } else { format!("apply {}", upgrade::bundle(&release)) };
        let started = machine.run(&format!("systemd-run --quiet --unit=operator cofferdam upgrade {command}")).unwrap();
        assert_eq!(started.code, 0, "{started:?}");
        cuts += cut_until_over(&bench, &mut machine, &mut moments, most - cuts);
        let (version, fingerprint) = whole(&mut machine);
        assert_eq!(fingerprint, secret, "the generated secret survived");
        let was_new = is_new;
        is_new = version == release.bundle;
        assert!(is_new || version == Release::default().bundle, "{version}");
        bench.note(&mut machine, &format!("after {cuts} power cuts: `{command}` ended with {version}"));
        if most == 0 {
            assert!(is_new, "an upgrade that nobody cuts off ends in its release");
            most = 10;
            continue;
        }
        ends[usize::from(is_new != was_new)] += 1;
        if cuts == most {
            break;
        }
    }
    bench.note(
        &mut machine,
        &format!(
            "{cuts} power cuts; {} operations went to their end, {} were undone or had not begun",
            ends[1], ends[0]
        ),
    );
    machine.run_ok("cofferdam audit verify && cofferdam registry fsck", 5 * MINUTE).unwrap();
}

/// Cuts the power at random moments, at most `most` times, until no upgrade is under way; gives how often. Restarts of the
/// upgrade's own are none. In a processor made in software the API server may take three minutes and more to come
/// up, in which the upgrade waits for it: every second moment lies in eight minutes, to find it at work, the others in the first.
fn cut_until_over(bench: &Bench, machine: &mut VirtualMachine, moments: &mut Moments, most: usize) -> usize {
    let mut cuts = 0;
    let mut end = Instant::now() + 90 * MINUTE;
    let is_idle = format!("{OVER} && ! systemctl is-active --quiet operator.service cofferdam-upgrade.service");
    loop {
        assert!(Instant::now() < end, "the upgrade does not end");
        let wait = match cuts {
            _ if cuts == most => Duration::from_secs(5),
            _ if cuts % 2 == 0 => moments.next_below(480_000),
            _ => moments.next_below(60_000),
        };
        if machine.wait_until_off(wait).is_ok() {
            bench.note(machine, "it restarts by itself");
        } else {
            match machine.run(&is_idle) {
                Ok(output) if output.code == 0 => return cuts,
                _ if cuts == most => continue,
                _ => {}
            }
            let last =
                machine.run("tail -n 1 /var/lib/cofferdam/journal.jsonl | cut -c 1-200").map(|output| output.stdout);
            let _ = machine.power_cut();
            cuts += 1;
            end = Instant::now() + 90 * MINUTE;
            bench.note(machine, &format!("power cut {cuts}, at {}", last.unwrap_or_default().trim()));
        }
        appliance::start(machine).unwrap();
    }
}

/// Looks at everything that makes a site whole; gives the release that it runs and the fingerprint of the workload's secret.
fn whole(machine: &mut VirtualMachine) -> (String, String) {
    let ask = format!(
        "curl -sS --fail --retry 240 --retry-all-errors --retry-delay 5 --cacert /etc/cofferdam/tls/site-ca.crt https://{FQDN}/"
    );
    let answer: Value = serde_json::from_str(&machine.run_ok(&ask, 30 * MINUTE).unwrap()).unwrap();
    let ready = "until cofferdam status | grep -qw Ready; do sleep 20; done; cofferdam status --json";
    let status: Value = serde_json::from_str(&machine.run_ok(ready, 10 * MINUTE).unwrap()).unwrap();
    let version = status["version"].as_str().unwrap().to_owned();
    let system = machine.run_ok("sed -n 's/^IMAGE_VERSION=//p' /usr/lib/os-release", MINUTE).unwrap();
    assert_eq!(system.trim().trim_matches('"'), version, "the system is another release's: {status}");
    let kubernetes = if version == "1.0.0" { Release::default().kubernetes } else { "v1.20.3" };
    assert_eq!(status["nodes"][0]["version"], kubernetes, "{status}");
    machine.run_ok("cofferdam registry fsck", 5 * MINUTE).unwrap();
    (version, answer["secretFingerprint"].as_str().unwrap().to_owned())
}
