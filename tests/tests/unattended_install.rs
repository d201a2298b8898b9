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
    let names: Vec<_> = pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].to_string()).collect();
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

/// Bad input is refused before anything is written, then: install with a power cut in the middle, resume, status, the
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
    let key = "/registry/secrets/hello/root-key";
    let etcd = site.host.shell(&format!(
        "ctr -n k8s.io tasks ls -q | while read t; do ctr -n k8s.io tasks exec --exec-id look$$ $t etcdctl \
         --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt \
         --key /etc/kubernetes/pki/etcd/server.key get {key} 2>/dev/null || true; done | tr -d '\\0' | head -c 300"
    ));
    if let Ok(text) = etcd
        && !text.is_empty()
    {
        assert!(text.contains("k8s:enc:secretbox:v1:key1"), "{text}");
    }
    site.host.shell("! grep -rl 'PRIVATE KEY' /var/lib/cofferdam/*.json* /var/lib/cofferdam/config.yaml").unwrap();

    // A clean reboot: all comes back by itself.
    site.host.reboot().unwrap();
    assert_eq!(wait_for_workload(&site)["secretFingerprint"], answer["secretFingerprint"]);

    // A second run is refused; resume has nothing left to do.
    let second = site.cofferdam(&["install", "--config", "/root/install.yaml"]).unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is installed on this host already"));
    assert!(site.must(&["resume"]).unwrap().contains("nothing is left to do"));
    assert!(steps > 20);
}
