//! Upgrades of an appliance in a virtual machine: further releases as deltas with a system of their own, applied through the
//! restarts that belong to them. Called by `tests/tests/appliance.rs` and `tests/tests/appliance_upgrade.rs`.

use std::time::Duration;

use anyhow::{Result, ensure};
use camino::Utf8PathBuf;

use crate::appliance::{ApplianceMedium, Bench, next_release};
use crate::encrypted_site::FQDN;
use crate::outage;
use crate::sample::{Release, Sample};
use crate::virtual_machine::{CommandOutput, VirtualMachine};

const MINUTE: Duration = Duration::from_mins(1);
/// Where the bundles lie on the encrypted volume.
const BUNDLES: &str = "/var/bundles";

/// A release with a system of its own: the arguments are those of the medium that it is taken from.
pub type Next = (Release, &'static [&'static str]);

/// Makes a data medium of each release, with a delta on the sample.
pub fn media(bench: &Bench, sample: &Sample, next: &[Next]) -> Result<Vec<Utf8PathBuf>> {
    let one = |(release, arguments): &Next| {
        let medium = ApplianceMedium::build_next(sample, &bench.path, release.bundle, arguments)?;
        next_release(sample, &bench.path, release, &medium)
    };
    next.iter().map(one).collect()
}

/// Copies the bundles of the media, which are in this order in the drives from `first` on, onto the encrypted volume.
pub fn bring(machine: &mut VirtualMachine, first: usize, next: &[Next]) -> Result<()> {
    for (number, (release, _)) in (first..).zip(next) {
        let (version, to) = (release.bundle, bundle(release));
        let copy = format!(
            "set -e
            mkdir -p /run/next {BUNDLES}
            mount -o ro /dev/sr{number} /run/next
            cp /run/next/cofferdam/bundle.tar.zst {to}
            umount /run/next
            cofferdam bundle inspect {to}"
        );
        let seen = machine.run_ok(&copy, 5 * MINUTE)?;
        ensure!(seen.contains(&format!("pack system {version}:")), "{seen}");
    }
    Ok(())
}

/// Where the bundle of a release lies in the machine.
#[must_use]
pub fn bundle(release: &Release) -> String {
    format!("{BUNDLES}/{}.tar.zst", release.bundle)
}

/// Applies the release until the machine restarts into its system, which ends QEMU; `watch` hears what it says.
pub fn apply(machine: &mut VirtualMachine, release: &Release, watch: &mut dyn FnMut(&str)) -> Result<()> {
    let mut hear = |_, bytes: &[u8]| watch(&String::from_utf8_lossy(bytes));
    let script = format!("cofferdam upgrade apply {}", bundle(release));
    // A machine that starts again takes its agent along.
    if let Ok(CommandOutput { code, .. }) = machine.run_streaming(&script, b"", 20 * MINUTE, &mut hear) {
        ensure!(code == 6, "it did not come to the restart: code {code}");
    }
    machine.wait_until_off(3 * MINUTE)
}

/// Waits until the upgrade that is under way has ended; gives what it said in this start, and the history. A unit that went
/// back counts as failed; one that left its transaction did not get to an end.
pub fn until_over(machine: &mut VirtualMachine) -> Result<String> {
    let script = "until ! test -e /var/lib/cofferdam/upgrade/current.json; do
            if systemctl is-failed --quiet cofferdam-upgrade.service; then
                sleep 5
                ! test -e /var/lib/cofferdam/upgrade/current.json || exit 1
            fi
            sleep 5
        done
        journalctl -b -o cat -u cofferdam-upgrade.service
        cofferdam upgrade history";
    machine.run_ok(script, 20 * MINUTE)
}

/// What there is to see of a site: the workload's answer, the system that runs, the boot menu, the record.
pub fn look(machine: &mut VirtualMachine) -> Result<String> {
    let script = format!(
        "set -e
        curl -sS --fail --retry 60 --retry-all-errors --retry-delay 5 --cacert /etc/cofferdam/tls/site-ca.crt https://{FQDN}/
        cat /proc/cmdline
        grep IMAGE_VERSION /usr/lib/os-release
        mkdir -p /run/boot
        mount -o ro /dev/disk/by-partlabel/cofferdam-boot /run/boot
        ls /run/boot/EFI/Linux
        umount /run/boot
        cofferdam status"
    );
    machine.run_ok(&script, 10 * MINUTE)
}

/// Asks the API server and the workload until the machine goes off. What is seen is kept over restarts.
pub fn probe(machine: &mut VirtualMachine) -> Result<()> {
    let ask = outage::script("10.0.2.20", Duration::from_secs(2));
    machine.write_file("/run/probe", "0700", ask.as_bytes())?;
    let start =
        "systemd-run --quiet --collect --unit=probe --property=StandardOutput=append:/var/probe.log sh /run/probe";
    machine.run_ok(start, MINUTE).map(drop)
}

/// Tells what the probe saw since the last call.
pub fn tell_outages(bench: &Bench, machine: &mut VirtualMachine, what: &str) -> Result<()> {
    let log = machine.run_ok("cat /var/probe.log; : >/var/probe.log", MINUTE)?;
    let (api, web) = outage::outages(&log);
    ensure!(api.asked > 5, "the probe asked {} times only", api.asked);
    let seconds = |time: Duration| time.as_secs();
    let text = format!(
        "{what}: API gone {} s at the longest ({} s in all), workload {} s ({} s)",
        seconds(api.longest),
        seconds(api.total),
        seconds(web.longest),
        seconds(web.total)
    );
    bench.note(machine, &text);
    Ok(())
}
