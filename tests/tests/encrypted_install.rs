//! The product on an encrypted data volume, for real: LUKS2 that a TPM opens at boot, in a virtual machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::time::{Duration, Instant};

use camino::Utf8Path;
use serde_json::Value;
use tests::encrypted_site::{ASK_REGISTRY, EncryptedSite, FQDN, PASSPHRASE, VOLUME, asked_groups, recovery_groups};
use tests::sample;
use tests::terminal::key;
use tests::virtual_machine::{BOOT_LIMIT, LuksHeader, plaintext_search};

const MINUTE: Duration = Duration::from_mins(1);
/// Stands as it is in a file of the bundle that the registry's store holds.
const BUNDLE_MARKER: &str = "10-cofferdam.conflist";

fn note(site: &mut EncryptedSite, began: Instant, what: &str) {
    let (spent, how) = (site.machine.cpu_seconds(), site.machine.accelerator());
    eprintln!(
        "{what}: {:.0} s after the start, {spent:.0} s of processor time, {how:?}",
        began.elapsed().as_secs_f64()
    );
}

/// The volume is open and mounted, the state folders lie on it, the registry serves over TLS, containerd pulls from it.
fn all_is_served_from_the_volume(site: &mut EncryptedSite) {
    let machine = &mut site.machine;
    let source = machine.run_ok("findmnt -no SOURCE /var/lib/cofferdam/data", MINUTE).unwrap();
    assert_eq!(source.trim(), VOLUME);
    for (place, folder) in [
        ("/var/lib/containerd", "containerd"),
        ("/var/lib/etcd", "etcd"),
        ("/etc/kubernetes", "kubernetes"),
        ("/var/log/journal", "log/journal"),
    ] {
        let source = machine.run_ok(&format!("findmnt -no SOURCE {place}"), MINUTE).unwrap();
        assert_eq!(source.trim(), format!("{VOLUME}[/{folder}]"), "{place}");
    }
    machine.run_ok(ASK_REGISTRY, 2 * MINUTE).unwrap();
    machine
        .run_ok(
            "set -e
            image=$(ctr -n k8s.io images ls -q | grep /pause: | head -n1)
            ctr -n k8s.io images rm --sync $image
            ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d $image",
            2 * MINUTE,
        )
        .unwrap();
}

/// What was pulled just before a power cut is whole: a container of the largest image starts.
fn pulled_images_are_whole(site: &mut EncryptedSite) {
    let script = "image=$(ctr -n k8s.io images ls -q | grep /kube-apiserver: | head -n1)
        ctr -n k8s.io run --rm $image probe kube-apiserver --version";
    let said = site.machine.run_ok(script, 2 * MINUTE).unwrap();
    assert!(said.starts_with("Kubernetes v"), "{said}");
}

/// Install with a power cut in the middle; the TPM opens the volume, and what a thief reads of the disk says nothing. Five
/// minutes without KVM.
#[test]
fn the_volume_opens_by_the_tpm_and_its_disk_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let began = Instant::now();
    let mut site = EncryptedSite::bare(&sample, path).unwrap();
    note(&mut site, began, "booted");
    site.start("install --config /root/install.yaml").unwrap();
    site.wait_for_step("data.bind", 20 * MINUTE).unwrap();
    note(&mut site, began, "encrypted");
    site.wait_for_step("images.pull", 20 * MINUTE).unwrap();
    note(&mut site, began, "images pulled");
    eprintln!("{}", site.machine.run_ok("grep -F ' ok, ' -B3 /root/install.log", MINUTE).unwrap());

    site.power_cut().unwrap();
    note(&mut site, began, "unlocked by the TPM after a power cut");
    assert!(!has_asked(&mut site), "it asked although the TPM is there");
    pulled_images_are_whole(&mut site);
    all_is_served_from_the_volume(&mut site);
    note(&mut site, began, "registry and containerd serve");
    the_passphrase_opens(&mut site);
    // The markers that are looked for on the disk below are in the volume's files.
    site.machine.run_ok("grep -rqF 'PRIVATE KEY' /var/lib/cofferdam/data/keystore", MINUTE).unwrap();
    site.machine.run_ok(&format!("grep -rqF {BUNDLE_MARKER} /var/lib/cofferdam/data/registry"), 2 * MINUTE).unwrap();
    let subject = site
        .machine
        .run_ok("openssl x509 -noout -subject -nameopt multiline -in /etc/cofferdam/tls/site-ca.crt", MINUTE)
        .unwrap();
    let subject = subject.lines().find_map(|line| line.trim().strip_prefix("commonName")).unwrap();
    let subject = subject.trim_start_matches([' ', '=']).to_owned();
    let key = site.recovery_key().unwrap();
    site.machine.power_off().unwrap();

    // The thief's view.
    let found =
        plaintext_search(site.disk.path(), &["PRIVATE KEY", BUNDLE_MARKER, &subject, &key, PASSPHRASE]).unwrap();
    assert!(found.scanned_bytes > 200_000_000, "the data never reached the disk: {found:?}");
    assert!(found.hits.values().all(|hits| *hits == 0), "{found:?}");
    let header = LuksHeader::read(site.disk.path(), 0).unwrap();
    assert!(header.opens_with(key.as_bytes()).unwrap());
    assert!(!header.opens_with(b"wrong").unwrap());
    assert!(header.opens_with(PASSPHRASE.as_bytes()).unwrap());
    // The site's mark, and what says which slot is the passphrase's.
    slots_and_tokens(&header, 2);
}

/// The passphrase opens its slot in the machine, and `status` says which slot that is.
fn the_passphrase_opens(site: &mut EncryptedSite) {
    let script = format!(
        "set -e
        printf %s '{PASSPHRASE}' | cryptsetup open --test-passphrase --key-slot 2 --key-file - /dev/vdb
        if grep -rF '{PASSPHRASE}' /var/lib/cofferdam/*.json* /var/lib/cofferdam/config.yaml /root/*.jsonl; then exit 1; fi
        /usr/local/bin/cofferdam status | grep -F 'slot 2: passphrase (argon2id)'"
    );
    site.machine.run_ok(&script, 2 * MINUTE).unwrap();
}

/// Whether the console was asked for a key in this boot.
fn has_asked(site: &mut EncryptedSite) -> bool {
    site.machine.console().unwrap().has_said("Please enter passphrase")
}

/// One slot for the TPM, one for the recovery key and one for the passphrase, and so many tokens of ours.
fn slots_and_tokens(header: &LuksHeader, ours: usize) {
    let metadata = header.metadata().unwrap();
    assert_eq!(metadata["keyslots"].as_object().unwrap().len(), 3, "{metadata}");
    let kinds: Vec<_> =
        metadata["tokens"].as_object().unwrap().values().map(|token| token["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "systemd-tpm2").count(), 1, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "cofferdam").count(), ours, "{kinds:?}");
    assert_eq!(metadata["segments"]["0"]["encryption"], "aes-xts-plain64", "{metadata}");
}

/// With another TPM the recovery key opens the volume; `disk rebind` binds it to that TPM, `disk rotate-recovery` changes the
/// key. Five minutes without KVM.
#[test]
#[ignore = "slow: four boots; the appliance's test has a start without TPM in each run"]
fn slow_another_tpm_is_bound_and_the_recovery_key_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let began = Instant::now();
    let mut site = EncryptedSite::bare(&sample, path).unwrap();
    site.start("install --config /root/install.yaml").unwrap();
    site.wait_for_step("images.pull", 20 * MINUTE).unwrap();
    note(&mut site, began, "images pulled");
    let old_key = site.recovery_key().unwrap();
    site.power_cut().unwrap();
    site.machine.power_off().unwrap();

    site.machine.options_mut().tpm = Some(path.join("another-tpm"));
    site.machine.power_on().unwrap();
    site.machine.wait_for_console("Please enter passphrase for disk", BOOT_LIMIT).unwrap();
    note(&mut site, began, "another TPM: asked for the recovery key");
    site.machine.wait_for_agent(MINUTE).unwrap();
    assert_eq!(site.machine.run("findmnt /var/lib/cofferdam/data").unwrap().code, 1, "mounted without a key");
    site.machine.console().unwrap().send_line(&old_key).unwrap();
    site.machine.wait_until_up(BOOT_LIMIT).unwrap();
    all_is_served_from_the_volume(&mut site);
    note(&mut site, began, "the recovery key opened it");

    // The firmware's change is for good: the volume is bound to the TPM of now, and no prompt is left.
    site.disk_command("rebind --key-file -", &old_key).unwrap();
    site.machine.power_off().unwrap();
    site.machine.power_on().unwrap();
    site.machine.wait_until_up(BOOT_LIMIT).unwrap();
    assert!(!has_asked(&mut site), "it asked after `disk rebind`");
    all_is_served_from_the_volume(&mut site);
    note(&mut site, began, "the other TPM opens it");

    site.disk_command("rotate-recovery --key-file -", &old_key).unwrap();
    let key = site.recovery_key().unwrap();
    assert_ne!(key, old_key);
    site.machine.power_off().unwrap();
    let header = LuksHeader::read(site.disk.path(), 0).unwrap();
    assert!(header.opens_with(key.as_bytes()).unwrap());
    assert!(!header.opens_with(old_key.as_bytes()).unwrap(), "the old recovery key still opens");
    // A rotation says by a token of its own which slot is the recovery key's.
    assert!(header.opens_with(PASSPHRASE.as_bytes()).unwrap(), "a rotation leaves the passphrase");
    slots_and_tokens(&header, 3);
    note(&mut site, began, "the recovery key is another one");
}

/// The whole: the cluster comes up on the encrypted volume, and says so. Without KVM some 15 minutes.
#[test]
#[ignore = "a whole cluster in a processor made in software; make test-slow runs it"]
fn slow_a_cluster_comes_up_on_the_encrypted_volume() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let began = Instant::now();
    let mut site = EncryptedSite::bare(&sample, path).unwrap();
    site.start("install --config /root/install.yaml").unwrap();
    site.wait_for_step("finished", 40 * MINUTE).unwrap();
    note(&mut site, began, "installed");
    let status = site.machine.run_ok("/media/cofferdam status --json", 2 * MINUTE).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["fqdn"], FQDN);
    assert_eq!(status["encryption"], "luks2", "{status}");
    assert_eq!(status["data-volume"]["key-slots"].as_array().unwrap().len(), 3, "{status}");
    assert_eq!(status["nodes"][0]["ready"], true, "{status}");
}

/// A person at the serial console: the plan is looked at, the disk is confirmed by its serial number, the recovery key is
/// written down and two groups of it are typed back, and the site comes up. Without KVM some 15 minutes.
#[test]
#[ignore = "a whole cluster in a processor made in software; make test-slow runs it"]
fn slow_a_person_at_the_serial_console_writes_the_key_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let began = Instant::now();
    let mut site = EncryptedSite::bare_for_a_person(&sample, path).unwrap();
    let refused = site.machine.run("/media/cofferdam install --config /root/install.yaml </dev/null").unwrap();
    assert_eq!(refused.code, 2, "nobody is there: {}", refused.stderr);

    let within = |minutes: u32| Instant::now() + minutes * MINUTE;
    let console = site.machine.console().unwrap();
    console.send_line("clear; TERM=vt220 /media/cofferdam install --config /root/install.yaml").unwrap();
    let plan = console.wait_for_screen("This will be done", within(6)).unwrap();
    assert!(plan.contains("ERASES") && plan.is_ascii(), "{plan}");
    console.send(&key::control('n')).unwrap();
    console.wait_for_screen("type the last characters of its serial number: 0001", within(2)).unwrap();
    for keys in ["0001", key::TAB, key::TAB, key::ENTER] {
        console.send(keys).unwrap();
    }
    let shown = console.wait_for_screen("Write the recovery key down now", within(10)).unwrap();
    let groups = recovery_groups(&shown);
    assert_eq!(groups.len(), 8, "{shown}");
    console.send(key::ENTER).unwrap();
    let fields = console.wait_for_screen("Type two groups back", within(2)).unwrap();
    assert!(groups.iter().all(|group| !fields.contains(group.as_str())), "the key is still shown: {fields}");
    let asked = asked_groups(&fields);
    assert_eq!(asked.len(), 2, "{fields}");
    // A mistake is told; nothing goes on before both are right.
    for keys in ["cccccccc", key::ENTER, "cccccccc", key::ENTER] {
        console.send(keys).unwrap();
    }
    console.wait_for_screen("compare with what you wrote", within(2)).unwrap();
    let delete = "\u{7f}".repeat(8);
    for group in &asked {
        console.send(&delete).unwrap();
        console.send(&groups[group - 1]).unwrap();
        console.send(key::ENTER).unwrap();
    }
    console.wait_for_screen("Installing site site-a", within(2)).unwrap();
    note(&mut site, began, "the key was written down");

    let console = site.machine.console().unwrap();
    console.wait_for_screen("Site site-a is ready", within(40)).unwrap();
    note(&mut site, began, "installed");
    site.machine.console().unwrap().send("q").unwrap();
    site.machine.console().unwrap().wait_for_screen("kubeconfig: /etc/kubernetes/admin.conf", within(2)).unwrap();
    let text = groups.join("-");
    let open = format!("printf %s {text} | cryptsetup open --test-passphrase --key-file - /dev/vdb");
    site.machine.run_ok(&open, 2 * MINUTE).unwrap();
    for group in &groups {
        let trace =
            format!("grep -rlF {group} /var/lib/cofferdam/*.json* /var/lib/cofferdam/config.yaml /run/cofferdam");
        assert_eq!(site.machine.run(&trace).unwrap().stdout, "", "the key left a trace");
    }
    let status = site.machine.run_ok("/media/cofferdam status --json", 2 * MINUTE).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["encryption"], "luks2", "{status}");
    assert_eq!(status["nodes"][0]["ready"], true, "{status}");
}
