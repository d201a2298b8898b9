//! The spine of the product, for real: a signed bundle goes in, a running cluster comes out, in a fast host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::fast_site::{FQDN, FastSite};
use tests::sample;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn pods_are_running(site: &FastSite) {
    let ask = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "get", "pods", "-A", "-o", "json"];
    let pods = json(&site.host.check(&ask).unwrap());
    let names: Vec<_> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].to_string()).collect();
    assert!(names.iter().any(|name| name.contains("kube-apiserver")), "{names:?}");
    assert!(names.iter().any(|name| name.contains("hello")), "{names:?}");
}

fn wait_for_workload(site: &FastSite) -> Value {
    let began = Instant::now();
    loop {
        match site.ask_workload() {
            Ok(answer) => return json(&answer),
            Err(error) if began.elapsed() > Duration::from_mins(4) => panic!("the workload does not answer: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
    }
}

/// What an operator may get wrong: exit code, what the error names, and that nothing was written.
#[test]
fn bad_input_is_refused_with_a_hint_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let site = FastSite::bare(&sample).unwrap();
    let foreign = folder.path().join("foreign");
    let made =
        std::process::Command::new(sample::cofferdam().unwrap()).args(["bundle", "keygen"]).arg(&foreign).output();
    assert!(made.unwrap().status.success());
    site.host.copy_in(&foreign.join("signing.pub"), "/root/foreign.pub", 0o644).unwrap();
    site.must(&["certs", "generate", "--fqdn", "other.site.test", "--output", "/root/other"]).unwrap();
    let mut cut = std::fs::read(&sample.bundle).unwrap();
    let middle = cut.len() / 2;
    cut[200] ^= 1;
    cut.truncate(middle);
    site.host.write_file("/root/cut.tar.zst", &cut, 0o644).unwrap();

    let good = tests::fast_site::answers();
    let import = "certificates: {mode: import, certificate: /root/other/server.crt, key: {file: KEY}, roots: /root/other/site-ca.crt}\n";
    let none = "storage:\n  encryption: {mode: none, token: store-secrets-unencrypted}\n";
    let luks = |disk: &str| {
        format!(
            "storage:\n  {disk}\n  encryption: {{mode: luks2, escrow-recipients: \
             [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]}}\n"
        )
    };
    assert!(good.contains(none));
    let table: Vec<(&str, String, i32, &str)> = vec![
        ("an unknown key", format!("{good}colour: blue\n"), 2, "unknown field `colour`"),
        ("a wrong type", good.replace("schema-version: 1", "schema-version: one"), 2, "invalid type"),
        ("a missing token", good.replace("store-secrets-unencrypted", "yes"), 2, "store-secrets-unencrypted"),
        ("a name that does not resolve", good.replace(FQDN, "nobody.site.test"), 3, "dns.forward"),
        ("an address of another host", good.replace("10.77.0.11", "10.77.0.12"), 3, "net.address"),
        ("a missing bundle", good.replace("bundle.tar.zst", "nothing.tar.zst"), 2, "/media/nothing.tar.zst"),
        ("a damaged bundle", good.replace("/media/bundle.tar.zst", "/root/cut.tar.zst"), 4, "bundle"),
        ("a foreign key", good.replace("/media/trust.pub", "/root/foreign.pub"), 4, "not trusted"),
        (
            "a missing secret file",
            format!("{good}{}", import.replace("KEY", "/root/nothing.key")),
            3,
            "/root/nothing.key",
        ),
        (
            "a certificate for another name",
            format!("{good}{}", import.replace("KEY", "/root/other/server.key")),
            3,
            "cert.san",
        ),
        ("encryption without dm-crypt", good.replace(none, &luks("disk: {erase: \"0001\"}")), 3, "kernel.modules"),
        ("encryption without a disk", good.replace(none, &luks("")), 2, "storage.disk"),
    ];
    for (what, answers, code, expected) in table {
        site.host.write_file("/root/bad.yaml", &answers, 0o600).unwrap();
        let output = site.cofferdam(&["install", "--config", "/root/bad.yaml"]).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
        assert!(stderr.contains(expected) && stderr.contains("hint: "), "{what}: {stderr}");
        assert_eq!(site.host.shell("ls -A /var/lib/cofferdam").unwrap(), "", "{what}");
    }
}

/// Install with a power cut in the middle, resume, status, the
/// workload by FQDN, a reboot, a second run.
#[test]
fn a_bundle_becomes_a_cluster_and_survives_power_cuts() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let mut site = FastSite::bare(&sample).unwrap();

    // --plan-only twice: the same bytes, and nothing is written.
    let plan = site.must(&["install", "--config", "/root/install.yaml", "--plan-only", "--json"]).unwrap();
    assert_eq!(plan, site.must(&["install", "--config", "/root/install.yaml", "--plan-only", "--json"]).unwrap());
    assert_eq!(site.host.shell("ls -A /var/lib/cofferdam").unwrap(), "");
    let steps = json(&plan)["steps"].as_array().unwrap().len();

    // Power cut in the middle: when the control plane's manifests are there.
    let mut install = site.host.spawn(&["/root/cofferdam", "install", "--config", "/root/install.yaml"]).unwrap();
    let cut = site.host.wait_for(&["test", "-e", "/etc/kubernetes/manifests/etcd.yaml"], Duration::from_mins(5));
    if let Err(error) = cut {
        let _ = install.kill();
        let output = install.wait_with_output().unwrap();
        panic!("{error:#}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    site.host.kill().unwrap();
    let _ = install.wait();
    site.host.power_on().unwrap();

    let refused = site.cofferdam(&["install", "--config", "/root/install.yaml"]).unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cofferdam resume"));
    site.must(&["resume", "--events", "/root/events.jsonl"]).unwrap();
    let events = site.host.read_file("/root/events.jsonl").unwrap();
    let events: Vec<Value> = String::from_utf8(events).unwrap().lines().map(json).collect();
    assert!(events.iter().any(|event| event["event"] == "step-skipped" && event["id"] == "bundle.load"));
    assert_eq!(events.last().unwrap()["event"], "finished");

    // What the site says, and what its users see.
    let status = json(&site.must(&["status", "--json"]).unwrap());
    assert_eq!(status["fqdn"], FQDN);
    assert_eq!(status["encryption"], "none");
    assert_eq!(status["nodes"][0]["ready"], true, "{status}");
    assert!(status["registry"].as_str().unwrap().starts_with("ready"), "{status}");
    pods_are_running(&site);
    let answer = wait_for_workload(&site);
    assert_eq!(answer["secretFingerprint"].as_str().unwrap().len(), 16, "{answer}");

    // Secrets are encrypted at rest, and stand in nothing that the installer wrote outside of the keystore.
    let encrypted = "grep -raq k8s:enc:secretbox:v1:key1: /var/lib/etcd
        value=$(kubectl --kubeconfig=/etc/kubernetes/admin.conf get secret root-key -n hello -o jsonpath='{.data.root-key}' | base64 -d)
        test ${#value} = 44
        ! grep -raqF -e \"$value\" /var/lib/etcd";
    site.host.shell(encrypted).unwrap();
    site.host.shell("! grep -rl 'PRIVATE KEY' /var/lib/cofferdam/*.json* /var/lib/cofferdam/config.yaml").unwrap();

    // A start with what a power cut may leave of files that nobody synced: all comes back by itself.
    let lost = "systemctl stop kubelet containerd
        truncate --size 0 --no-create /var/lib/kubelet/cpu_manager_state /var/lib/kubelet/pki/kubelet.* /var/lib/cni/results/*
        find /var/lib/cni/results /var/lib/kubelet -maxdepth 1 -type f -empty | grep -q .";
    site.host.shell(lost).unwrap();
    site.host.reboot().unwrap();
    assert_eq!(wait_for_workload(&site)["secretFingerprint"], answer["secretFingerprint"]);

    // A second run is refused; resume has nothing left to do.
    let second = site.cofferdam(&["install", "--config", "/root/install.yaml"]).unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is installed on this host already"));
    assert!(site.must(&["resume"]).unwrap().contains("nothing is left to do"));
    assert!(steps > 20);
}

/// Damage behind the signed index is found before a disk is touched: exit code 4, no data volume, and another attempt
/// with a good copy is not refused.
#[test]
fn damage_inside_the_bundle_is_found_before_anything_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let site = FastSite::bare(&sample).unwrap();
    let mut bytes = std::fs::read(&sample.bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    site.host.write_file("/root/damaged.tar.zst", &bytes, 0o644).unwrap();
    let answers = tests::fast_site::answers().replace("/media/bundle.tar.zst", "/root/damaged.tar.zst");
    site.host.write_file("/root/damaged.yaml", &answers, 0o600).unwrap();
    let output = site.cofferdam(&["install", "--config", "/root/damaged.yaml"]).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("damaged") && stderr.contains("hint: "), "{stderr}");
    let journal = String::from_utf8(site.host.read_file("/var/lib/cofferdam/journal.jsonl").unwrap()).unwrap();
    let begun: Vec<Value> = journal.lines().filter(|line| !line.is_empty()).map(json).collect();
    assert_eq!(begun.last().unwrap()["step"], "bundle.verify", "{journal}");
    site.host.shell("! test -e /var/lib/cofferdam/data").unwrap();
    site.must(&["install", "--config", "/root/install.yaml", "--plan-only"]).unwrap();
}
