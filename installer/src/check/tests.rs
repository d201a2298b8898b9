//! A machine on which all is well, and one thing wrong at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bundle::index::{Architecture, Index};

use super::{IDS, Outcome, Report, run};
use crate::config::{self, DiskMatch, Encryption, InstallConfig, Tpm2};
use crate::facts::disk::{Disk, Swap};
use crate::facts::kernel::{Cgroup, Feature, Kernel, Presence};
use crate::facts::machine::{Firmware, Machine, Processor, System, TOOLS, Tool, Tpm};
use crate::facts::network::{Adapter, Address, Listener, Name, Network, Route};
use crate::facts::storage::{Filesystem, Space};
use crate::facts::time::{ServerTime, TimeServer};
use crate::facts::{Facts, Installed, Probed, Probed::Known};
use crate::layout;

const GIB: u64 = 1 << 30;

fn good_config() -> InstallConfig {
    config::parse(config::example::EXAMPLE).unwrap()
}

fn good_index() -> Index {
    let digest = format!("sha256:{}", "0".repeat(64));
    let content = serde_json::json!({ "digest": digest, "size": 100 });
    serde_json::from_value(serde_json::json!({
        "schema-version": 1,
        "media-type": "application/vnd.cofferdam.bundle.index.v1+json",
        "name": "cofferdam", "version": "1.0.0", "architecture": "amd64", "created": "2026-10-01T00:00:00Z",
        "packs": [], "images": [],
        "blobs": [{ "digest": digest, "size": GIB, "media-type": "application/octet-stream" }],
        "oci-layout": content, "oci-index": content, "trust": { "next-keys": [] },
    }))
    .unwrap()
}

fn disk(name: &str, serial: Option<&str>, gib: u64) -> Disk {
    Disk {
        name: name.to_owned(),
        path: format!("/dev/{name}"),
        serial: serial.map(str::to_owned),
        wwn: None,
        model: Some("SAMSUNG MZ7L3960".to_owned()),
        bus: Some("sata".to_owned()),
        size_bytes: gib * GIB,
        read_only: false,
        contents: Vec::new(),
        in_use: None,
        is_medium: false,
        site: None,
    }
}

fn filesystem(path: &str, gib: u64) -> Filesystem {
    let space =
        Space { mount: "/".to_owned(), kind: "ext4".to_owned(), size_bytes: gib * GIB, available_bytes: gib * GIB / 2 };
    Filesystem { path: path.to_owned(), space: Known(space) }
}

/// A server that is so many microseconds ahead, or does not answer.
fn server(name: &str, offset: Option<i64>) -> TimeServer {
    let time = |offset_microseconds| ServerTime {
        address: "192.0.2.123".parse().unwrap(),
        stratum: 2,
        offset_microseconds,
        delay_microseconds: 400,
    };
    let time = offset.map_or_else(|| Probed::unknown("no answer within 3 s"), |offset| Known(time(offset)));
    TimeServer { name: name.to_owned(), time }
}

fn good_facts() -> Facts {
    Facts {
        schema_version: 1,
        probed_at: "2026-11-23T12:00:00Z".to_owned(),
        machine: Machine {
            host_name: Known("rack7-a".to_owned()),
            system: Known(System {
                id: "debian".to_owned(),
                version: "12".to_owned(),
                name: "Debian GNU/Linux 12".to_owned(),
                is_appliance: false,
            }),
            architecture: Known(Architecture::Amd64),
            systemd: Known(true),
            virtualisation: Known("none".to_owned()),
            processor: Known(Processor { count: 8, model: "Xeon".to_owned(), missing_for_v2: Vec::new() }),
            memory_bytes: Known(32 * GIB),
            firmware: Firmware { uefi: Known(true), secure_boot: Known(true) },
            tpm2: Tpm { present: Known(true), lockout: Known(false) },
            clock_synchronised: Known(true),
            time_source: Known(Some("192.0.2.123".to_owned())),
        },
        disks: Known(vec![
            Disk { in_use: Some("sda1 is mounted at /".to_owned()), ..disk("sda", Some("S5XBNG0R900001"), 200) },
            disk("sdb", Some("S6CTNX0T512345"), 900),
        ]),
        swap: Known(Vec::new()),
        filesystems: vec![filesystem("/", 200), filesystem(layout::HOME, 200)],
        sync_microseconds: Known(900),
        kernel: Kernel {
            release: Known("6.1.0-40-amd64".to_owned()),
            cgroup: Known(Cgroup {
                version: 2,
                controllers: ["cpu", "cpuset", "memory", "pids"].map(str::to_owned).to_vec(),
            }),
            features: ["overlay", "br_netfilter", "nf_conntrack", "dm_crypt"]
                .map(|name| Feature { name: name.to_owned(), presence: Known(Presence::Loadable) })
                .to_vec(),
        },
        network: Network {
            time_servers: vec![server("192.0.2.123", Some(800))],
            adapters: Known(vec![Adapter {
                is_hardware: true,
                mac: None,
                name: "eth0".to_owned(),
                mtu: 1500,
                is_up: true,
                has_carrier: true,
                is_loopback: false,
                speed: Known(10_000),
                addresses: vec![Address { address: "192.0.2.11".parse().unwrap(), prefix_length: 24 }],
            }]),
            routes: Known(vec![
                Route { destination: "0.0.0.0/0".to_owned(), gateway: None, adapter: Some("eth0".to_owned()) },
                Route { destination: "192.0.2.0/24".to_owned(), gateway: None, adapter: Some("eth0".to_owned()) },
            ]),
            name_servers: Known(vec!["192.0.2.53".to_owned()]),
            listeners: Known(vec![Listener { port: 22, address: "0.0.0.0".parse().unwrap() }]),
            fqdn: Some(Name {
                name: "mgmt.rack7.example.com".to_owned(),
                addresses: Known(vec!["192.0.2.11".parse().unwrap()]),
            }),
            reverse: Known(Some("mgmt.rack7.example.com".to_owned())),
            address_taken: Known(false),
            vip_taken: None,
        },
        tools: TOOLS
            .iter()
            .map(|name| Tool { name: (*name).to_owned(), path: Some(format!("/usr/bin/{name}")) })
            .collect(),
        slowness: 1.0,
        installed: Known(None),
    }
}

fn outcomes(report: &Report, id: &str) -> Vec<Outcome> {
    report.findings.iter().filter(|finding| finding.id == id).map(|finding| finding.outcome).collect()
}

/// Everything that a check looks at.
struct Case {
    config: InstallConfig,
    facts: Facts,
    index: Index,
}

fn good() -> Case {
    Case { config: good_config(), facts: good_facts(), index: good_index() }
}

fn judge(case: &Case) -> Report {
    run(&case.config, &case.facts, Some(&case.index))
}

#[test]
fn a_good_machine_passes_everything() {
    let report = judge(&good());
    for finding in &report.findings {
        assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
        assert!(finding.hint.is_none() && IDS.contains(&finding.id.as_str()), "{finding:?}");
    }
    assert!(report.blocking().is_empty());
    assert!(IDS.is_sorted());
}

fn luks(case: &mut Case, mode: Tpm2) {
    let Encryption::Luks2 { tpm2, .. } = &mut case.config.storage.encryption else {
        panic!("the example is encrypted")
    };
    *tpm2 = mode;
}

fn plaintext(case: &mut Case) {
    case.config.storage.encryption = Encryption::None { token: config::PLAINTEXT_TOKEN.to_owned() };
    case.config.storage.disk = None;
}

fn disks(case: &mut Case) -> &mut Vec<Disk> {
    let Known(disks) = &mut case.facts.disks else { panic!("known in a good machine") };
    disks
}

fn adapter(case: &mut Case) -> &mut Adapter {
    let Known(adapters) = &mut case.facts.network.adapters else { panic!("known in a good machine") };
    &mut adapters[0]
}

/// NTP servers of the host, by what they answer.
fn ntp(case: &mut Case, offsets: &[Option<i64>]) {
    let servers = (1..).zip(offsets).map(|(number, offset)| server(&format!("192.0.2.{number}"), *offset));
    case.facts.network.time_servers = servers.collect();
}

/// So many NTP servers in the configuration, by what they answer.
fn own_ntp(case: &mut Case, offsets: &[Option<i64>], count: u8) {
    ntp(case, offsets);
    case.config.network = Some(config::Network {
        adapters: vec!["eth0".to_owned()],
        bond: config::Bond::default(),
        vlan: None,
        mtu: None,
        addresses: Vec::new(),
        gateways: Vec::new(),
        name_servers: Vec::new(),
        search_domains: Vec::new(),
        time_servers: (1..=count).map(|number| format!("192.0.2.{number}")).collect(),
    });
}

fn feature(case: &mut Case, name: &str, presence: Probed<Presence>) {
    case.facts.kernel.features.iter_mut().find(|feature| feature.name == name).unwrap().presence = presence;
}

fn without_tool(case: &mut Case, name: &str) {
    case.facts.tools.iter_mut().find(|tool| tool.name == name).unwrap().path = None;
}

fn addresses(texts: &[&str]) -> Probed<Vec<std::net::IpAddr>> {
    Known(texts.iter().map(|text| text.parse().unwrap()).collect())
}

type Row = (&'static str, fn(&mut Case), &'static str, Outcome, bool);

/// What is wrong, how, the check that must see it, its outcome, and whether it stands against an installation.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("one processor", |c| if let Known(p) = &mut c.facts.machine.processor { p.count = 1 }, "cpu.count", Outcome::Fail, true),
    ("two processors", |c| if let Known(p) = &mut c.facts.machine.processor { p.count = 2 }, "cpu.count", Outcome::Warn, false),
    ("an old processor", |c| if let Known(p) = &mut c.facts.machine.processor { p.missing_for_v2 = vec!["popcnt".to_owned()] }, "cpu.level", Outcome::Fail, true),
    ("1 GiB of memory", |c| c.facts.machine.memory_bytes = Known(GIB), "memory.total", Outcome::Fail, true),
    ("2 GB sold as 2 GiB", |c| c.facts.machine.memory_bytes = Known(1_950_000_000), "memory.total", Outcome::Warn, false),
    ("memory unknown", |c| c.facts.machine.memory_bytes = Probed::unknown("denied"), "memory.total", Outcome::Unknown, false),
    ("another architecture of the bundle", |c| c.index.architecture = Architecture::Arm64, "bundle.architecture", Outcome::Fail, true),
    ("an unknown architecture", |c| c.facts.machine.architecture = Probed::unknown("riscv64"), "bundle.architecture", Outcome::Unknown, true),
    ("another system", |c| if let Known(s) = &mut c.facts.machine.system { s.id = "fedora".to_owned() }, "host.os", Outcome::Warn, false),
    ("the medium's own system", |c| if let Known(s) = &mut c.facts.machine.system { s.version = "13".to_owned(); s.is_appliance = true }, "host.os", Outcome::Pass, false),
    ("an appliance not named yet", |c| { c.facts.machine.host_name = Known("cofferdam".to_owned()); if let Known(s) = &mut c.facts.machine.system { s.is_appliance = true } }, "host.name", Outcome::Pass, false),
    ("no systemd", |c| c.facts.machine.systemd = Known(false), "host.systemd", Outcome::Fail, true),
    ("localhost", |c| c.facts.machine.host_name = Known("localhost".to_owned()), "host.name", Outcome::Fail, true),
    ("another host name", |c| c.facts.machine.host_name = Known("rack7-b".to_owned()), "host.name", Outcome::Warn, false),
    ("a long host name", |c| c.facts.machine.host_name = Known("a".repeat(54)), "host.name", Outcome::Fail, true),
    ("no conntrack", |c| without_tool(c, "conntrack"), "host.tools", Outcome::Fail, true),
    ("no cryptsetup", |c| without_tool(c, "cryptsetup"), "host.tools", Outcome::Fail, true),
    ("no cryptsetup, not wanted", |c| { without_tool(c, "cryptsetup"); plaintext(c); }, "host.tools", Outcome::Pass, false),
    ("no socat", |c| without_tool(c, "socat"), "host.tools", Outcome::Warn, false),
    ("a virtual machine", |c| c.facts.machine.virtualisation = Known("kvm".to_owned()), "virt", Outcome::Warn, false),
    ("BIOS", |c| c.facts.machine.firmware.uefi = Known(false), "firmware.uefi", Outcome::Warn, false),
    ("no Secure Boot", |c| c.facts.machine.firmware.secure_boot = Known(false), "firmware.secure-boot", Outcome::Warn, false),
    ("no TPM, auto", |c| c.facts.machine.tpm2.present = Known(false), "tpm2.present", Outcome::Warn, false),
    ("no TPM, required", |c| { luks(c, Tpm2::Require); c.facts.machine.tpm2.present = Known(false); }, "tpm2.present", Outcome::Fail, true),
    ("TPM unknown, required", |c| { luks(c, Tpm2::Require); c.facts.machine.tpm2.present = Probed::unknown("denied"); }, "tpm2.present", Outcome::Unknown, true),
    ("TPM locked, required", |c| { luks(c, Tpm2::Require); c.facts.machine.tpm2.lockout = Known(true); }, "tpm2.lockout", Outcome::Fail, true),
    ("TPM not asked", |c| c.facts.machine.tpm2.lockout = Probed::unknown("no tpm2_getcap"), "tpm2.lockout", Outcome::Unknown, false),
    ("no overlay", |c| feature(c, "overlay", Known(Presence::Missing)), "kernel.modules", Outcome::Fail, true),
    ("no dm-crypt", |c| feature(c, "dm_crypt", Known(Presence::Missing)), "kernel.modules", Outcome::Fail, true),
    ("dm-crypt unknown", |c| feature(c, "dm_crypt", Probed::unknown("denied")), "kernel.modules", Outcome::Unknown, true),
    ("no dm-crypt, not wanted", |c| { feature(c, "dm_crypt", Known(Presence::Missing)); plaintext(c); }, "kernel.modules", Outcome::Pass, false),
    ("overlay unknown", |c| feature(c, "overlay", Probed::unknown("denied")), "kernel.modules", Outcome::Unknown, false),
    ("no memory controller", |c| if let Known(g) = &mut c.facts.kernel.cgroup { g.controllers.retain(|name| name != "memory") }, "kernel.cgroup", Outcome::Fail, true),
    ("swap", |c| c.facts.swap = Known(vec![Swap { path: "/dev/sda2".to_owned(), encrypted: Known(false) }]), "swap", Outcome::Fail, true),
    ("a clock of last year", |c| c.facts.probed_at = "2025-11-23T12:00:00Z".to_owned(), "time.sane", Outcome::Fail, true),
    ("a bundle without a date", |c| c.index.created = None, "time.sane", Outcome::Unknown, false),
    ("no time service", |c| {
        c.facts.network.time_servers.clear();
        c.facts.machine.clock_synchronised = Known(false);
    }, "time.skew", Outcome::Warn, false),
    ("a time server that does not answer", |c| ntp(c, &[None]), "time.skew", Outcome::Warn, false),
    ("one of two time servers", |c| ntp(c, &[Some(-900), None]), "time.skew", Outcome::Pass, false),
    ("a clock that is a second behind", |c| ntp(c, &[Some(1_000_001)]), "time.skew", Outcome::Fail, true),
    ("a clock that is an hour ahead", |c| ntp(c, &[Some(200), Some(-3_600_000_000)]), "time.skew", Outcome::Fail, true),
    ("time servers that disagree", |c| ntp(c, &[Some(700_000), Some(-700_000)]), "time.skew", Outcome::Fail, true),
    ("one of two configured time servers", |c| own_ntp(c, &[Some(-900), None], 2), "time.skew", Outcome::Warn, false),
    ("configured time servers", |c| own_ntp(c, &[Some(-900), Some(900)], 2), "time.skew", Outcome::Pass, false),
    ("a configured time server that was not asked", |c| own_ntp(c, &[], 1), "time.skew", Outcome::Unknown, false),
    ("disk in use", |c| disks(c)[1].in_use = Some("sdb1 is mounted at /srv".to_owned()), "disk.in-use", Outcome::Fail, true),
    ("disk with leftovers", |c| disks(c)[1].contents = vec!["ext4 filesystem".to_owned()], "disk.in-use", Outcome::Warn, false),
    ("disk with a finished site", |c| disks(c)[1].site = Some("rack7".to_owned()), "disk.site", Outcome::Fail, true),
    ("disk is the medium", |c| disks(c)[1].is_medium = true, "disk.medium", Outcome::Fail, true),
    ("disk is read-only", |c| disks(c)[1].read_only = true, "disk.in-use", Outcome::Fail, true),
    ("disk is gone", |c| { disks(c).pop(); }, "disk.choice", Outcome::Fail, true),
    ("token of another disk", |c| c.config.storage.disk.as_mut().unwrap().erase = "9999".to_owned(), "disk.choice", Outcome::Fail, true),
    ("disks unknown", |c| c.facts.disks = Probed::unknown("no lsblk"), "disk.choice", Outcome::Unknown, true),
    ("two disks fit", |c| { c.config.storage.disk.as_mut().unwrap().matches.clear(); disks(c).push(disk("sdc", Some("X"), 900)); }, "disk.choice", Outcome::Fail, true),
    ("disk too small", |c| disks(c)[1].size_bytes = 5 * GIB, "disk.size", Outcome::Fail, true),
    ("disk a little small", |c| disks(c)[1].size_bytes = 6 * GIB, "disk.size", Outcome::Warn, false),
    ("root too small", |c| c.facts.filesystems[0] = filesystem("/", 0), "disk.size", Outcome::Fail, true),
    ("root too small for all", |c| { plaintext(c); c.facts.filesystems = vec![filesystem("/", 10), filesystem(layout::HOME, 10)]; }, "disk.size", Outcome::Fail, true),
    ("slow disk", |c| c.facts.sync_microseconds = Known(20_001), "disk.fsync", Outcome::Fail, true),
    ("slowish disk", |c| c.facts.sync_microseconds = Known(10_001), "disk.fsync", Outcome::Warn, false),
    ("not measured", |c| c.facts.sync_microseconds = Probed::unknown("no filesystem yet"), "disk.fsync", Outcome::Unknown, false),
    ("no such address", |c| adapter(c).addresses.clear(), "net.address", Outcome::Fail, true),
    ("no link", |c| adapter(c).has_carrier = false, "net.address", Outcome::Fail, true),
    ("small packets", |c| adapter(c).mtu = 1279, "net.mtu", Outcome::Fail, true),
    ("smaller packets", |c| adapter(c).mtu = 1400, "net.mtu", Outcome::Warn, false),
    ("slow link", |c| adapter(c).speed = Known(100), "net.link", Outcome::Warn, false),
    ("no route", |c| c.facts.network.routes = Known(Vec::new()), "net.route", Outcome::Fail, true),
    ("pods overlap", |c| c.config.cluster.pod_cidr = "192.0.0.0/16".to_owned(), "net.cidr-overlap", Outcome::Fail, true),
    ("port taken", |c| if let Known(l) = &mut c.facts.network.listeners { l[0].port = 6443 }, "net.ports", Outcome::Fail, true),
    ("address taken", |c| c.facts.network.address_taken = Known(true), "net.address-conflict", Outcome::Fail, true),
    ("no arping", |c| c.facts.network.address_taken = Probed::unknown("cannot start arping"), "net.address-conflict", Outcome::Unknown, false),
    ("VIP taken", |c| { c.config.site.vip = Some("192.0.2.10".parse().unwrap()); c.facts.network.vip_taken = Some(Known(true)); }, "net.vip-free", Outcome::Fail, true),
    ("FQDN does not resolve", |c| c.facts.network.fqdn.as_mut().unwrap().addresses = addresses(&[]), "dns.forward", Outcome::Fail, true),
    ("FQDN is 127.0.1.1", |c| c.facts.network.fqdn.as_mut().unwrap().addresses = addresses(&["127.0.1.1"]), "dns.forward", Outcome::Fail, true),
    ("FQDN has two addresses", |c| c.facts.network.fqdn.as_mut().unwrap().addresses = addresses(&["192.0.2.11", "192.0.2.99"]), "dns.forward", Outcome::Warn, false),
    ("FQDN is the VIP", |c| { c.config.site.vip = Some("192.0.2.10".parse().unwrap()); c.facts.network.fqdn.as_mut().unwrap().addresses = addresses(&["192.0.2.10"]); }, "dns.forward", Outcome::Pass, false),
    ("resolver broken", |c| c.facts.network.fqdn.as_mut().unwrap().addresses = Probed::unknown("no getent"), "dns.forward", Outcome::Unknown, true),
    ("no reverse record", |c| c.facts.network.reverse = Known(None), "dns.reverse", Outcome::Warn, false),
    ("second run", |c| c.facts.installed = Known(Some(Installed { site: "rack7".to_owned(), version: "1.0.0".to_owned() })), "site.absent", Outcome::Fail, true),
    ("state not readable", |c| c.facts.installed = Probed::unknown("denied"), "site.absent", Outcome::Unknown, true),
    ("accepts nothing", |c| c.config.accept = vec!["disk.fsink".to_owned()], "accept", Outcome::Warn, false),
];

#[test]
fn one_thing_wrong() {
    for (name, spoil, id, expected, blocks) in TABLE {
        let mut case = good();
        spoil(&mut case);
        let report = judge(&case);
        assert!(
            outcomes(&report, id).contains(expected),
            "{name}: {id} is {:?}\n{}",
            outcomes(&report, id),
            report.to_text()
        );
        assert_eq!(report.blocking().iter().any(|finding| finding.id == *id), *blocks, "{name}\n{}", report.to_text());
        for finding in report.findings.iter().filter(|finding| finding.outcome == Outcome::Fail) {
            assert!(finding.hint.is_some(), "{name}: a failure names its cure: {finding:?}");
        }
        let widest = report.to_text().lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 80, "{name}: {widest} columns\n{}", report.to_text());
    }
}

#[test]
fn a_failing_check_can_be_accepted_but_not_one_that_would_destroy() {
    for (name, spoil, id, expected, blocks) in TABLE.iter().filter(|row| row.4) {
        let mut case = good();
        spoil(&mut case);
        case.config.accept = vec![(*id).to_owned()];
        let report = judge(&case);
        let finding = report.findings.iter().find(|finding| finding.id == *id && finding.outcome == *expected).unwrap();
        assert_eq!(finding.accepted, !finding.hard, "{name}");
        assert_eq!(report.blocking().iter().any(|finding| finding.id == *id), finding.hard && *blocks, "{name}");
        assert_eq!(report.accepted().contains(&(*id).to_owned()), !finding.hard, "{name}");
    }
    for id in ["disk.in-use", "disk.medium", "disk.choice", "bundle.architecture", "site.absent"] {
        let (_, spoil, ..) = TABLE.iter().find(|row| row.2 == id && row.3 == Outcome::Fail).unwrap();
        let mut case = good();
        spoil(&mut case);
        case.config.accept = vec![id.to_owned()];
        assert_eq!(judge(&case).blocking().len(), 1, "{id} is hard");
    }
}

#[test]
fn without_a_bundle_the_rest_is_checked() {
    let report = run(&good_config(), &good_facts(), None);
    assert_eq!(outcomes(&report, "disk.size"), [Outcome::Unknown]);
    assert!(outcomes(&report, "bundle.architecture").is_empty());
    assert!(report.blocking().is_empty(), "{}", report.to_text());
}

#[test]
fn the_first_match_that_fits_one_free_disk_decides() {
    let free = [disk("sdb", Some("AAAA1111"), 100), disk("sdc", Some("BBBB2222"), 500), disk("vdb", None, 500)];
    let by_size = DiskMatch { min_size_gib: Some(200), ..DiskMatch::default() };
    let by_serial = |serial: &str| DiskMatch { serial: Some(serial.to_owned()), ..DiskMatch::default() };
    let table = [
        (vec![by_serial("AAAA1111")], "1111", Ok("sdb")),
        (vec![by_serial("gone"), by_serial("BBBB2222")], "2222", Ok("sdc")),
        (vec![by_size.clone(), by_serial("AAAA1111")], "1111", Ok("sdb")),
        (vec![DiskMatch { max_size_gib: Some(100), ..DiskMatch::default() }], "A1111", Ok("sdb")),
        (
            vec![DiskMatch { serial: None, bus: Some("nvme".to_owned()), ..DiskMatch::default() }],
            "1111",
            Err("no disk fits"),
        ),
        (vec![by_serial("AAAA1111")], "111", Err("does not name")),
        (vec![by_serial("AAAA1111")], "", Err("does not name")),
        (vec![by_size], "2222", Err("more than one")),
    ];
    for (matches, erase, expected) in table {
        let choice = config::DiskChoice { matches: matches.clone(), erase: erase.to_owned() };
        match (crate::facts::choice::choose(&free, &choice), expected) {
            (Ok(disk), Ok(name)) => assert_eq!(disk.name, name, "{matches:?}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{matches:?}: {error}"),
            (found, expected) => panic!("{matches:?} {erase}: {found:?}, not {expected:?}"),
        }
    }
    for (erase, good) in [("vdb", true), ("/dev/vdb", true), ("db", false), ("vdb2", false)] {
        let choice = config::DiskChoice { matches: Vec::new(), erase: erase.to_owned() };
        assert_eq!(crate::facts::choice::choose(&free[2..], &choice).is_ok(), good, "a disk without serial, {erase}");
    }
}

#[test]
fn as_text_and_as_json() {
    let mut case = good();
    feature(&mut case, "dm_crypt", Known(Presence::Missing));
    case.facts.sync_microseconds = Known(31_700);
    case.config.accept = vec!["disk.fsync".to_owned()];
    let report = judge(&case);
    let text = report.to_text();
    for part in [
        "✘ kernel.modules",
        "✘ disk.fsync             p99 31.7 ms",
        "[accepted]",
        "hint: without dm-crypt",
        "2 fail",
        "1 stands against",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema-version"], 1);
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}
