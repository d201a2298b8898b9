//! The medium for servers: from a USB stick onto an `NVMe` disk, reached over a bond in a VLAN. A medium that stalls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::time::Duration;

use tests::appliance::{self, ADDRESS, ApplianceMedium, Bench, bare_machine};
use tests::encrypted_site::{EncryptedSite, VOLUME};
use tests::sample;
use tests::virtual_machine::{Bus, MachineOptions, Network, VirtualMachine, Wire};

const MINUTE: Duration = Duration::from_mins(1);
/// The kernel for servers has many drivers to look at, and the development machine may have other things to do.
const BOOT_LIMIT: Duration = Duration::from_mins(20);
const ADAPTERS: [&str; 2] = ["52:54:00:12:00:0a", "52:54:00:12:00:0b"];
const PEER: &str = "52:54:00:12:00:0c";

/// Debian's kernel for servers boots the medium from a USB stick and installs it onto an `NVMe` disk. The site is reached in its
/// VLAN and not outside of it, by either adapter of its bond.
#[test]
#[ignore = "slow: ten minutes in a processor made in software"]
fn slow_a_stick_installs_a_server_with_a_bond_in_a_vlan() {
    let bench = Bench::new().unwrap();
    let sample = sample::make(bench.path.join("sample").as_std_path()).unwrap();
    let [first, second] = ADAPTERS;
    let network =
        format!("{{adapters: [\"{first}\", \"{second}\"], bond: active-backup, vlan: 120, addresses: [{ADDRESS}/24]}}");
    let medium = ApplianceMedium::build_on_network(&sample, &bench.path, &network, &["--kernel", "generic"]).unwrap();
    bench.say(&format!("the medium is built, {} MB", medium.image.metadata().unwrap().len() / 1_000_000));

    let wire = Wire::new().unwrap();
    let (mut machine, disk) = bare_machine(&medium, &bench.path).unwrap();
    let options = machine.options_mut();
    options.sticks = std::mem::take(&mut options.media);
    options.data_disks = vec![disk.on(Bus::Nvme)];
    let adapters = ADAPTERS.map(str::to_owned).to_vec();
    options.network = Network::Wired { wire: wire.clone(), end: 0, adapters };
    appliance::start_within(&mut machine, BOOT_LIMIT).unwrap();
    bench.note(&mut machine, "started from the stick");
    appliance::watch_installation(&mut machine, &mut |text| eprint!("{text}")).unwrap();
    bench.note(&mut machine, "installed");

    appliance::start_within(&mut machine, BOOT_LIMIT).unwrap();
    bench.note(&mut machine, "started from the disk");
    let serves = appliance::follow_until(appliance::SERVES);
    eprintln!("{}", machine.run_ok(&serves, 20 * MINUTE).unwrap());
    let looks = format!(
        "set -e
        uname -r | grep -v cloud
        test \"$(findmnt -no SOURCE /var)\" = {VOLUME}
        lsblk --noheadings --output NAME,TYPE,PARTLABEL | grep nvme0n1p
        ip -brief address | grep -w '^vlan120@bond0 .*{ADDRESS}/24'
        cat /proc/net/bonding/bond0
        systemctl --failed --no-legend
        systemctl show --property=ActiveEnterTimestampMonotonic,InactiveExitTimestampMonotonic cofferdam-continue.service
        grep -qw 'Bonding Mode: fault-tolerance (active-backup)' /proc/net/bonding/bond0
        test \"$(grep -c 'Slave Interface' /proc/net/bonding/bond0)\" = 2
        test \"$(systemctl --failed --no-legend | wc -l)\" = 0"
    );
    eprintln!("{}", machine.run_ok(&looks, 5 * MINUTE).unwrap());
    bench.note(&mut machine, "registry and containerd serve, the bond is in its VLAN");

    let mut options = MachineOptions::new(bench.path.join("peer"));
    options.name = "peer".to_owned();
    options.memory = 512;
    options.processors = 1;
    options.network = Network::Wired { wire, end: 1, adapters: vec![PEER.to_owned()] };
    let mut peer = VirtualMachine::new(options).unwrap();
    peer.power_on().unwrap();
    peer.wait_until_up(BOOT_LIMIT).unwrap();
    bench.note(&mut peer, "the peer is up");

    // Untagged there is nothing: with an address of the same network the peer does not even learn the site's MAC address.
    let untagged = format!(
        "link=$(basename $(grep -l {PEER} /sys/class/net/*/address | head -n 1 | xargs dirname))
        systemctl stop systemd-networkd.socket systemd-networkd.service
        ip address flush dev $link; ip address add 10.0.2.30/24 dev $link; ip link set $link up
        ! arping -c 5 -w 10 -I $link {ADDRESS}"
    );
    peer.run_ok(&untagged, 5 * MINUTE).unwrap();
    let tagged = format!(
        "set -e
        link=$(basename $(grep -l {PEER} /sys/class/net/*/address | head -n 1 | xargs dirname))
        ip address flush dev $link
        ip link add link $link name tagged type vlan id 120
        ip address add 10.0.2.30/24 dev tagged; ip link set tagged up"
    );
    peer.run_ok(&tagged, 5 * MINUTE).unwrap();
    reached(&mut peer);
    bench.note(&mut machine, "the peer reaches the site in the VLAN, and not outside of it");

    // Each adapter alone carries the site.
    let monitor = machine.monitor().unwrap();
    for (out, left) in [(0, 1), (1, 0)] {
        monitor.plug(left, true).unwrap();
        monitor.plug(out, false).unwrap();
        let wait = format!(
            "link=$(grep -l {} /sys/class/net/*/bonding_slave/perm_hwaddr | xargs dirname | xargs dirname | xargs basename)
            until grep -qw \"Currently Active Slave: $link\" /proc/net/bonding/bond0; do sleep 1; done",
            ADAPTERS[left]
        );
        machine.run_ok(&wait, 5 * MINUTE).unwrap();
        reached(&mut peer);
        bench.note(&mut machine, &format!("the peer reaches it with adapter {out} unplugged"));
    }
}

/// The registry answers the peer.
fn reached(peer: &mut VirtualMachine) {
    let ask = format!(
        "curl -sS --fail --insecure --max-time 20 --retry 10 --retry-all-errors --retry-delay 2 https://{ADDRESS}:5000/readyz"
    );
    eprintln!("{}", peer.run_ok(&ask, 5 * MINUTE).unwrap());
}

/// The medium stops to answer, as the virtual CD of a management controller does whose browser window hangs. While the bundle is
/// verified: the installation says so twice and goes on when it answers again. While the bundle is loaded: it is stopped, and
/// resumed when the medium is back.
#[test]
#[ignore = "slow: five minutes in a processor made in software"]
fn slow_a_medium_that_stalls_is_waited_for() {
    let bench = Bench::new().unwrap();
    let sample = sample::make(bench.path.join("sample").as_std_path()).unwrap();
    let mut site = EncryptedSite::bare(&sample, &bench.path).unwrap();
    let monitor = site.machine.monitor().unwrap();
    bench.note(&mut site.machine, "the medium is in the machine");

    // Nothing of it is in the machine's memory.
    site.machine.run_ok("echo 3 >/proc/sys/vm/drop_caches", MINUTE).unwrap();
    let mut said = String::new();
    let (mut is_stalled, mut is_released) = (false, false);
    site.start("install --config /root/install.yaml").unwrap();
    let mut watch = |text: &str| {
        eprint!("{text}");
        said.push_str(text);
        if !is_stalled && said.contains("] Verify the whole bundle") {
            monitor.stall_medium(0).unwrap();
            is_stalled = true;
        }
        if !is_released && said.matches(SILENT).count() >= 2 {
            monitor.release_medium(0).unwrap();
            is_released = true;
        }
    };
    site.watch_until_step("bundle.verify", 20 * MINUTE, &mut watch).unwrap();
    assert!(is_released && said.contains("the medium answers again after "), "{said}");
    bench.note(&mut site.machine, "it stalled, and was verified to its end");

    // The bundle alone: the program lies on the medium too, and has to stay where it can say something.
    site.machine.run_ok("dd if=/media/bundle.tar.zst iflag=nocache count=0 status=none", MINUTE).unwrap();
    monitor.stall_medium(0).unwrap();
    let ask = format!(
        "until grep -A9 '] Load the bundle' /root/install.log | grep '{SILENT}'; do
            systemctl is-active --quiet test-install.service || exit 1
            sleep 1
        done
        systemctl kill --kill-whom=main --signal=INT test-install.service
        while systemctl is-active --quiet test-install.service; do sleep 1; done
        tail -n 3 /root/install.log"
    );
    let end = site.machine.run_ok(&ask, 20 * MINUTE).unwrap();
    assert!(end.contains("Stopped before the step bundle.load"), "{end}");
    bench.note(&mut site.machine, "it stalled again, and the installation was stopped");

    monitor.release_medium(0).unwrap();
    site.start("resume").unwrap();
    site.watch_until_step("bundle.load", 20 * MINUTE, &mut |text| eprint!("{text}")).unwrap();
    bench.note(&mut site.machine, "the bundle is loaded");
}

const SILENT: &str = "the medium has not answered for ";
