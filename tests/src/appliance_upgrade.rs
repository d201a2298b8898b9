//! Upgrades of an appliance in a virtual machine: further releases as deltas with a system of their own, applied through the
//! restarts that belong to them. Called by `tests/tests/appliance_life.rs`.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::appliance::{self, ApplianceMedium, Bench, bare_machine, next_release};
use crate::encrypted_site::FQDN;
use crate::finished_site::FinishedSite;
use crate::outage;
use crate::sample::{self, Release};
use crate::virtual_machine::{CommandOutput, DataDisk, VirtualMachine};

const MINUTE: Duration = Duration::from_mins(1);
/// Where the bundles lie on the encrypted volume.
const BUNDLES: &str = "/var/bundles";

/// Waits until the node is ready and the API server has answered for a minute: what starts with it has started. Each question
/// costs a slow machine seconds of the processor that the cluster starts with.
const CALM: &str = "n=0
    until [ $n = 6 ]; do
        if timeout 10 cofferdam status | grep -qw Ready; then n=$((n + 1)); else n=0; sleep 30; fi
        sleep 10
    done";

/// A release with a system of its own: the arguments are those of the medium that it is taken from.
pub type Next = (Release, &'static [&'static str]);

/// A finished site, and later releases for it.
#[derive(Debug)]
pub struct Site {
    /// The medium of the first release, of version 1.0.0, in the first drive.
    pub medium: ApplianceMedium,
    /// Running; the data media of the later releases are in the drives behind the first.
    pub machine: VirtualMachine,
    /// The one that it is installed on.
    pub disk: DataDisk,
}

impl Site {
    /// A site with a finished cluster that has started once more, and media of later releases with a delta on the first, whose
    /// bundles lie on its encrypted volume.
    pub fn finished(bench: &Bench, next: &[Next]) -> Result<Self> {
        let kept = FinishedSite::find()?;
        if kept.bring(&bench.path)? {
            bench.say("a finished site is there");
        } else {
            install_first(bench)?;
            kept.keep(&bench.path)?;
        }
        let (medium, mut machine, disk) = appliance::machine_in(&bench.path)?;
        let sample = sample::made_in(bench.path.join("sample").as_std_path());
        for (release, arguments) in next {
            let system = ApplianceMedium::build_next(&sample, &bench.path, release.bundle, arguments)?;
            machine.options_mut().media.push(next_release(&sample, &bench.path, release, &system)?);
        }
        bench.say("systems and bundles of later releases are made");
        appliance::start(&mut machine)?;
        bring(&mut machine, next)?;
        appliance::workload_answers(&mut machine)?;
        bench.note(&mut machine, "the site is up");
        Ok(Self { medium, machine, disk })
    }
}

/// Installs the first release, up to the finished cluster; the machine is off afterwards.
fn install_first(bench: &Bench) -> Result<()> {
    let medium = bench.medium(&["--image-version", "1.0.0"])?;
    let (mut machine, _) = bare_machine(&medium, &bench.path)?;
    bench.install(&mut machine)?;
    appliance::start(&mut machine)?;
    tell(&appliance::finished(&mut machine)?);
    appliance::workload_answers(&mut machine)?;
    bench.note(&mut machine, "the installation is finished");
    machine.power_off()
}

/// Copies the bundles of the data media onto the encrypted volume.
fn bring(machine: &mut VirtualMachine, next: &[Next]) -> Result<()> {
    for (number, (release, _)) in (1..).zip(next) {
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

/// The whole upgrade of a calm site to a release that brings the system 1.1.0 with the argument `cofferdam.second`.
pub fn into_next(bench: &Bench, machine: &mut VirtualMachine, release: &Release) -> Result<()> {
    machine.run_ok(CALM, 20 * MINUTE)?;
    let plan = machine.run_ok(&format!("cofferdam upgrade plan {}", bundle(release)), 5 * MINUTE)?;
    tell(&plan);
    ensure!(plan.contains("1.0.0 -> 1.1.0") && plan.contains("the machine restarts"), "{plan}");
    probe(machine)?;
    apply(machine, release)?;
    bench.note(machine, "it restarts into the next system");
    appliance::start(machine)?;
    probe(machine)?;
    bench.note(machine, "the next system is up, opened by the TPM");
    tell(&until_over(machine)?);
    let seen = look(machine)?;
    tell(&seen);
    for part in ["hello", "cofferdam.second", "IMAGE_VERSION=1.1.0", "cofferdam-sample 1.1.0"] {
        ensure!(seen.contains(part), "{part} is not in\n{seen}");
    }
    tell_outages(bench, machine, "the site runs the next release")
}

#[allow(clippy::print_stderr, reason = "stories of many minutes are watched")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// Applies the release until the machine restarts into its system, which ends QEMU; what it says is told.
pub fn apply(machine: &mut VirtualMachine, release: &Release) -> Result<()> {
    let mut hear = |_, bytes: &[u8]| tell(String::from_utf8_lossy(bytes).trim_end());
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
    // A TLS handshake of an emulated processor that has other work may take seconds.
    let ask = outage::script(appliance::ADDRESS, Duration::from_secs(2), Duration::from_secs(10));
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
