//! The fast host is a host: it boots, keeps its state, sees its neighbours, runs sandboxed units, and leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::items_after_statements)]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::fast_host::{Access, FastHost, HostOptions, Lan};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);

fn host(lan: &Lan, name: &str) -> FastHost {
    FastHost::start(lan, HostOptions::new(name, FIRST)).unwrap()
}

#[test]
fn boots_to_running_with_no_failed_unit() {
    let lan = Lan::create().unwrap();
    // The tree may have to be built first.
    drop(host(&lan, "warm"));
    let began = Instant::now();
    let host = host(&lan, "boots");
    let took = began.elapsed();
    assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());
    assert_eq!(host.check(&["systemctl", "is-system-running"]).unwrap(), "running\n");
    assert_eq!(host.check(&["hostname"]).unwrap(), "boots\n");
    assert_eq!(host.check(&["cat", "/proc/1/comm"]).unwrap(), "systemd\n");
    assert!(host.check(&["ip", "route"]).unwrap().starts_with("default via 10.77.0.1 dev eth0"));
    assert!(took < Duration::from_secs(20), "a boot takes half a second, this one took {took:?}");
}

#[test]
fn state_survives_a_power_cut_a_power_off_and_a_reboot() {
    let lan = Lan::create().unwrap();
    let mut host = host(&lan, "keeps");
    let boot = |host: &FastHost| host.check(&["cat", "/proc/sys/kernel/random/boot_id"]).unwrap();
    let mut boots = vec![boot(&host)];
    host.write_file("/etc/on-overlay", "one", 0o600).unwrap();
    host.write_file("/var/lib/cofferdam/on-disk", "two", 0o640).unwrap();
    host.write_file("/run/in-memory", "three", 0o644).unwrap();
    type Cycle = fn(&mut FastHost);
    let ends: [(&str, Cycle); 3] = [
        ("power cut", |host| {
            host.kill().unwrap();
            assert!(!host.is_on().unwrap());
            host.power_on().unwrap();
        }),
        ("power-off", |host| {
            host.power_off().unwrap();
            assert!(!host.is_on().unwrap());
            host.power_on().unwrap();
        }),
        ("reboot", |host| host.reboot().unwrap()),
    ];
    for (end, cycle) in ends {
        cycle(&mut host);
        assert_eq!(host.read_file("/etc/on-overlay").unwrap(), b"one", "after {end}");
        assert_eq!(host.read_file("/var/lib/cofferdam/on-disk").unwrap(), b"two", "after {end}");
        assert_eq!(host.check(&["stat", "-c", "%a", "/etc/on-overlay"]).unwrap(), "600\n", "after {end}");
        assert!(host.read_file("/run/in-memory").is_err(), "memory is empty after {end}");
        boots.push(boot(&host));
    }
    boots.sort();
    boots.dedup();
    assert_eq!(boots.len(), 4, "each boot has an id of its own");
}

#[test]
fn hosts_see_one_another_and_the_lan_sees_them() {
    let lan = Lan::with_names(&[(FIRST, "one.example.test"), (SECOND, "two.example.test")]).unwrap();
    let mut one = FastHost::start(&lan, HostOptions::new("one", FIRST)).unwrap();
    let two = FastHost::start(&lan, HostOptions::new("two", SECOND).name(FIRST, "neighbour.example.test")).unwrap();
    let ping = |host: &FastHost, name: &str| host.check(&["ping", "-c", "1", "-W", "5", name]);
    ping(&one, "two.example.test").unwrap();
    ping(&two, "neighbour.example.test").unwrap();
    let answer = "EXEC:/usr/local/bin/answer";
    let script = "#!/bin/sh\nread -r request\nprintf 'HTTP/1.0 200 OK\\r\\n\\r\\nfrom two'\n";
    two.write_file("/usr/local/bin/answer", script, 0o755).unwrap();
    two.check(&["systemd-run", "--unit=answers", "socat", "TCP-LISTEN:8080,fork,reuseaddr", answer]).unwrap();
    two.wait_for(&["sh", "-c", "ss -ltn | grep -q :8080"], Duration::from_secs(5)).unwrap();
    let seen = lan.run(&["curl", "-sS", "http://10.77.0.12:8080/"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "from two", "{}", String::from_utf8_lossy(&seen.stderr));
    // A neighbour that comes back is seen at once: same hardware address, new link.
    one.kill().unwrap();
    assert!(ping(&two, "one.example.test").is_err(), "a dead host does not answer");
    one.power_on().unwrap();
    ping(&two, "one.example.test").unwrap();
    // No way out: the address is one that no host has.
    assert!(one.check(&["ping", "-c", "1", "-W", "1", "192.0.2.1"]).is_err());

    // Another LAN with the same addresses is another world.
    let elsewhere = Lan::create().unwrap();
    let stranger = FastHost::start(&elsewhere, HostOptions::new("stranger", Ipv4Addr::new(10, 77, 0, 13))).unwrap();
    assert!(stranger.check(&["ping", "-c", "1", "-W", "1", "10.77.0.12"]).is_err());
}

#[test]
fn shares_are_read_only_when_they_say_so() {
    let lan = Lan::create().unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "shared").unwrap();
    let options = HostOptions::new("shares", FIRST)
        .share(folder.path(), "/media/ro", Access::ReadOnly)
        .share(folder.path(), "/media/rw", Access::ReadWrite)
        .share(folder.path().join("file"), "/opt/one-file", Access::ReadOnly);
    let host = FastHost::start(&lan, options).unwrap();
    assert_eq!(host.read_file("/media/ro/file").unwrap(), b"shared");
    assert_eq!(host.read_file("/opt/one-file").unwrap(), b"shared");
    assert!(host.write_file("/media/ro/other", "x", 0o644).is_err());
    host.write_file("/media/rw/other", "written inside", 0o644).unwrap();
    assert_eq!(fs::read(folder.path().join("other")).unwrap(), b"written inside");
    host.copy_in(&folder.path().join("file"), "/usr/local/bin/copied", 0o755).unwrap();
    assert_eq!(host.check(&["stat", "-c", "%a", "/usr/local/bin/copied"]).unwrap(), "755\n");
}

#[test]
fn sandboxed_unit_with_a_credential_runs() {
    let lan = Lan::create().unwrap();
    let host = host(&lan, "sandbox");
    host.write_file("/etc/probe.secret", "for the unit only", 0o600).unwrap();
    let unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nDynamicUser=yes\nStateDirectory=probe\n\
        LoadCredential=secret:/etc/probe.secret\nProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nPrivateDevices=yes\n\
        ProtectKernelTunables=yes\nProtectControlGroups=yes\nNoNewPrivileges=yes\nCapabilityBoundingSet=\n\
        RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\nSystemCallFilter=@system-service\nMemoryMax=64M\n\
        ExecStart=/bin/sh -euc 'id -u >$STATE_DIRECTORY/uid; cat $CREDENTIALS_DIRECTORY/secret >$STATE_DIRECTORY/seen; \
        if touch /etc/broken-out || cat /etc/probe.secret; then exit 1; fi'\n";
    host.write_file("/etc/systemd/system/probe.service", unit, 0o644).unwrap();
    host.check(&["systemctl", "daemon-reload"]).unwrap();
    host.check(&["systemctl", "start", "probe.service"]).unwrap();
    assert_eq!(host.read_file("/var/lib/probe/seen").unwrap(), b"for the unit only");
    let uid: u32 = String::from_utf8(host.read_file("/var/lib/probe/uid").unwrap()).unwrap().trim().parse().unwrap();
    assert!((61184..=65519).contains(&uid), "{uid} is not a dynamic user");
    // The limit reached the kernel, in the host's own cgroup.
    assert_eq!(host.check(&["systemctl", "show", "-P", "MemoryMax", "probe.service"]).unwrap(), "67108864\n");
}

/// Proven by the capability sets only: trying it would set the machine's clock where the bed fails.
#[test]
fn the_machines_clock_modules_and_log_are_out_of_reach() {
    let lan = Lan::create().unwrap();
    let host = host(&lan, "powerless");
    let set = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let by_unit = "systemd-run --quiet --wait --pipe cat /proc/self/status";
    for shell in ["cat /proc/self/status", "cat /proc/1/status", by_unit, "setsid sh -c 'cat /proc/self/status'"] {
        let status = host.shell(shell).unwrap();
        for (capability, bit) in [("sys_module", 16), ("sys_rawio", 17), ("sys_time", 25), ("syslog", 34)] {
            for name in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
                assert_eq!(set(&status, name) >> bit & 1, 0, "{capability} is in {name} of {shell}");
            }
        }
        assert_eq!(set(&status, "CapEff:") >> 21 & 1, 1, "root can do the rest: sys_admin");
    }
}

#[test]
fn a_service_with_children_stops_at_once() {
    let lan = Lan::create().unwrap();
    let host = host(&lan, "stops");
    host.check(&["systemd-run", "--unit=family", "sh", "-c", "sleep 1000 & sleep 1000 & wait"]).unwrap();
    let began = Instant::now();
    host.check(&["systemctl", "stop", "family.service"]).unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "systemd did not see the cgroup become empty");
}

#[test]
fn bind_mount_units_and_a_persistent_journal_work() {
    let lan = Lan::create().unwrap();
    let mut host = host(&lan, "mounts");
    let mounts = [("var-lib-etcd", "/var/lib/etcd", "etcd"), ("var-log-journal", "/var/log/journal", "log")];
    for (unit, path, folder) in mounts {
        let what = format!("/var/lib/cofferdam/data/{folder}");
        host.check(&["mkdir", "-p", &what, path]).unwrap();
        let text = format!(
            "[Unit]\nBefore=systemd-journal-flush.service\n[Mount]\nWhat={what}\nWhere={path}\nType=none\nOptions=bind\n\
             [Install]\nWantedBy=local-fs.target\n"
        );
        host.write_file(&format!("/etc/systemd/system/{unit}.mount"), text, 0o644).unwrap();
        host.check(&["systemctl", "daemon-reload"]).unwrap();
        host.check(&["systemctl", "enable", "--now", &format!("{unit}.mount")]).unwrap();
        host.check(&["mountpoint", "-q", path]).unwrap();
    }
    host.write_file("/var/lib/etcd/member", "kept", 0o600).unwrap();
    assert_eq!(host.read_file("/var/lib/cofferdam/data/etcd/member").unwrap(), b"kept");
    host.reboot().unwrap();
    assert_eq!(host.read_file("/var/lib/etcd/member").unwrap(), b"kept");
    host.check(&["logger", "a line for the journal"]).unwrap();
    host.check(&["journalctl", "--sync"]).unwrap();
    host.kill().unwrap();
    host.power_on().unwrap();
    assert!(host.check(&["journalctl", "--boot=-1", "--output=cat"]).unwrap().contains("a line for the journal"));
    assert!(!host.shell("ls /var/lib/cofferdam/data/log").unwrap().is_empty());
    assert_eq!(host.failed_units().unwrap(), Vec::<String>::new());
}

#[test]
fn users_modules_and_sysctls_behave_as_on_a_server() {
    let lan = Lan::create().unwrap();
    let host = host(&lan, "server");
    let kernel = "/proc/sys/kernel/panic";
    let outside = fs::read_to_string(kernel).unwrap();
    let works = [
        "useradd --system --no-create-home --shell /usr/sbin/nologin by-useradd && id by-useradd",
        "mkdir -p /etc/sysusers.d && echo 'u by-sysusers - \"A user\"' >/etc/sysusers.d/t.conf && systemd-sysusers && id by-sysusers",
        "sysctl -w net.ipv4.ip_forward=1 && test \"$(cat /proc/sys/net/ipv4/ip_forward)\" = 1",
        "echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables",
        "echo 10 >/proc/sys/kernel/panic && test \"$(sysctl -n kernel.panic)\" = 10",
        "sysctl -w vm.overcommit_memory=1 kernel.panic_on_oops=1 kernel.keys.root_maxkeys=1000000",
        "modprobe overlay && modprobe -a br_netfilter nf_conntrack",
        "iptables -t nat -N probe && iptables -t nat -A probe -j MASQUERADE && nft list ruleset | grep -q probe",
        "timedatectl show && hostnamectl hostname && loginctl list-users",
        "systemctl is-active dbus.service && busctl list | grep -q org.freedesktop.systemd1",
    ];
    for line in works {
        host.shell(line).unwrap();
    }
    // Looked at, never tried: a write that this bed failed to stop would change the machine itself, its clock first.
    host.shell("findmnt --noheadings --output OPTIONS /proc/sys | grep -qw ro").unwrap();
    let bounding = host.shell("grep CapBnd: /proc/self/status | cut -f2").unwrap();
    let bounding = u64::from_str_radix(bounding.trim(), 16).unwrap();
    for (capability, bit) in [("SYS_MODULE", 16), ("SYS_RAWIO", 17), ("SYS_TIME", 25), ("SYSLOG", 34)] {
        assert_eq!(bounding >> bit & 1, 0, "a command in the host must not hold {capability}");
    }
    // All of them answer to what the machine shares with the host.
    let refused = ["modprobe there_is_no_such_module", "mkdir /sys/kernel/mm/probe"];
    for line in refused {
        assert!(host.shell(line).is_err(), "{line}");
    }
    // A node for a disk of the machine can be made, as root can on any host; behind it is nothing.
    let disks: Vec<_> = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path()).collect();
    let disks: Vec<_> =
        disks.iter().filter(|disk| fs::read_to_string(disk.join("size")).unwrap().trim() != "0").collect();
    assert!(!disks.is_empty());
    for disk in disks {
        let number = fs::read_to_string(disk.join("dev")).unwrap().trim().replace(':', " ");
        host.shell(&format!("rm -f /dev/probe; mknod /dev/probe b {number}")).unwrap();
        let read = host.run(&["head", "-c", "1", "/dev/probe"]).unwrap();
        assert!(
            String::from_utf8_lossy(&read.stderr).contains("Operation not permitted"),
            "{}: {read:?}",
            disk.display()
        );
    }
    assert_eq!(fs::read_to_string(kernel).unwrap(), outside, "the machine's own value is untouched");
}

/// All cgroups, mounts and processes of this machine that carry the host's mark.
fn traces(mark: &str) -> Vec<String> {
    let cgroups =
        Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{mark}*")]).output().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found: Vec<String> = String::from_utf8(cgroups.stdout).unwrap().lines().map(str::to_owned).collect();
    found.extend(mounts.lines().filter(|line| line.contains(mark)).map(str::to_owned));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        // A zombie has no command line: the machine's PID 1 may reap late.
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains(mark) && !line.contains("find") {
            found.push(line.replace('\0', " "));
        }
    }
    found
}

#[test]
fn a_lan_that_is_dropped_first_stays_until_its_hosts_are_gone() {
    let lan = Lan::create().unwrap();
    let first = host(&lan, "outlives");
    let second = FastHost::start(&lan, HostOptions::new("outlives-too", SECOND)).unwrap();
    let folder = first.folder().parent().unwrap().to_path_buf();
    drop(lan);
    first.check(&["ping", "-c", "1", "-W", "5", "10.77.0.12"]).unwrap();
    drop(first);
    assert!(folder.exists());
    drop(second);
    assert!(!folder.exists());
    assert_eq!(traces("outlives"), Vec::<String>::new());
}

#[test]
fn a_host_whose_folder_was_deleted_under_it_still_goes() {
    let lan = Lan::create().unwrap();
    let host = host(&lan, "undermined");
    fs::remove_dir_all(host.folder()).unwrap();
    drop(host);
    let began = Instant::now();
    while !traces("undermined").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "left behind: {:?}", traces("undermined"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn nothing_is_left_behind() {
    let lan = Lan::create().unwrap();
    let first = host(&lan, "traceless");
    let folder = first.folder().to_path_buf();
    let namespaces: Vec<_> = ["net", "mnt", "pid", "uts", "ipc", "cgroup"]
        .iter()
        .map(|kind| fs::read_link(format!("/proc/{}/ns/{kind}", first.leader().unwrap())).unwrap())
        .collect();
    assert!(!traces("traceless").is_empty(), "the search finds a host that is there");
    first.check(&["systemd-run", "--unit=orphan", "sleep", "1000"]).unwrap();
    let mut command_on_its_way = first.spawn(&["sleep", "1000"]).unwrap();
    drop(first);
    assert!(!command_on_its_way.wait().unwrap().success());
    assert_eq!(traces("traceless"), Vec::<String>::new());
    assert!(!folder.exists());
    drop(lan);
    assert!(!folder.parent().unwrap().exists());
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for kind in ["net", "mnt", "pid"] {
            if let Ok(namespace) = fs::read_link(process.path().join("ns").join(kind)) {
                assert!(
                    !namespaces.contains(&namespace),
                    "{} lives in {}",
                    process.path().display(),
                    namespace.display()
                );
            }
        }
    }
}

/// Not a test of its own: `a_killed_test_process_takes_its_hosts_along` runs it in a process that it kills.
#[test]
#[ignore = "a helper of another test"]
fn helper_that_waits_to_be_killed() {
    let lan = Lan::create().unwrap();
    let host = host(&lan, "orphaned");
    let file = std::env::var_os("FAST_HOST_HELPER").expect("started by the other test");
    fs::write(file, host.folder().to_str().unwrap()).unwrap();
    std::thread::sleep(Duration::from_mins(10));
}

#[test]
fn a_killed_test_process_takes_its_hosts_along() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("where");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_waits_to_be_killed", "--ignored"])
        .env("FAST_HOST_HELPER", &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < Duration::from_mins(2), "the helper's host did not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!traces("orphaned").is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    while !traces("orphaned").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "left behind: {:?}", traces("orphaned"));
        std::thread::sleep(Duration::from_millis(50));
    }
    // Its folder is swept by the next LAN, of this test or of one beside it.
    let left = fs::read_to_string(&file).unwrap();
    drop(Lan::create().unwrap());
    assert!(!Path::new(&left).exists());
}
