//! An upgrade for real: two releases from the same Kubernetes source, a workload with a migration, in a fast host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::appliance::Moments;
use tests::fast_site::FastSite;
use tests::outage::Probe;
use tests::sample::{self, Release, Sample};

const SECOND: Release = Release { kubernetes: "v1.20.3", bundle: "1.1.0", hello: "1.1.0" };
const BROKEN: Release = Release { kubernetes: "v1.20.3", bundle: "1.2.0", hello: "1.9.0" };

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What must be so of a site that runs this release.
#[track_caller]
fn runs(site: &FastSite, release: &Release, secret: &str) {
    let status = json(&site.must(&["status", "--json"]).unwrap());
    assert_eq!(status["version"], release.bundle, "{status}");
    assert_eq!(status["nodes"][0]["version"], release.kubernetes, "{status}");
    assert_eq!(status["nodes"][0]["ready"], true, "{status}");
    let kubectl = "kubectl --kubeconfig=/etc/kubernetes/admin.conf";
    let version = json(&site.host.shell(&format!("{kubectl} get --raw /version")).unwrap());
    assert_eq!(version["gitVersion"], release.kubernetes);
    let image = site.host.shell(&format!(
        "{kubectl} get deployment hello -n hello -o jsonpath='{{.spec.template.spec.containers[0].image}}'"
    ));
    assert_eq!(image.unwrap(), format!("cofferdam.example/hello:{}", release.hello));
    let schema = site
        .host
        .shell(&format!("{kubectl} get configmap hello-schema -n hello -o jsonpath='{{.data.version}}' || true"));
    let expected: &[&str] = if release.hello == "1.0.0" { &["", "1"] } else { &["2"] };
    assert!(expected.contains(&schema.unwrap().trim()));
    assert_eq!(answer(site)["secretFingerprint"], secret, "the generated secret survived");
}

/// What the workload says, by the answer to its pack's question; the first release asks none.
#[track_caller]
fn greets(site: &FastSite, greeting: &str, is_stored: bool) {
    let message = answer(site)["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with(&format!("{greeting} from ")), "{message}");
    let stored = site.host.shell("grep -A2 ^answers: /var/lib/cofferdam/config.yaml || true").unwrap();
    assert_eq!(stored.contains("greeting: "), is_stored, "{stored}");
}

fn answer(site: &FastSite) -> Value {
    let began = Instant::now();
    loop {
        match site.ask_workload() {
            Ok(answer) => return json(&answer),
            Err(error) if began.elapsed() > Duration::from_mins(2) => panic!("the workload does not answer: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// A site with the first release; gives the fingerprint of its generated secret.
fn installed(sample: &Sample) -> (FastSite, String) {
    let site = FastSite::bare(sample).unwrap();
    site.must(&["install", "--config", "/root/install.yaml"]).unwrap();
    let secret = answer(&site)["secretFingerprint"].as_str().unwrap().to_owned();
    runs(&site, &Release::default(), &secret);
    (site, secret)
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn told(what: &str, site: &FastSite, arguments: &[&str]) {
    let probe = Probe::start(&site.lan, "10.77.0.11").unwrap();
    let began = Instant::now();
    site.must(arguments).unwrap();
    let took = began.elapsed();
    let (api, web) = probe.stop().unwrap();
    eprintln!(
        "{what}: {:.0} s, API {:.1} s at the longest ({:.1} s in all), workload {:.1} s ({:.1} s), asked {} times",
        took.as_secs_f32(),
        api.longest.as_secs_f32(),
        api.total.as_secs_f32(),
        web.longest.as_secs_f32(),
        web.total.as_secs_f32(),
        api.asked
    );
}

/// Up by a delta, back on demand, up again through a power cut.
#[test]
fn up_back_and_up_again_through_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let delta = sample::release(folder.path(), "delta", &SECOND, Some(&sample.bundle)).unwrap();
    eprintln!("the first bundle has {} bytes, the delta {}", size(&sample.bundle), size(&delta));
    assert!(size(&delta) < size(&sample.bundle), "containerd, etcd and the network plugins are left out");
    let (mut site, secret) = installed(&sample);

    // The plan changes nothing, and is the same twice.
    let bundle = "/media/releases/delta.tar.zst";
    let look = "cd /var/lib/cofferdam && find . -path ./data -prune -o -type f -print0 | sort -z | xargs -0 sha256sum";
    let before = site.host.shell(look).unwrap();
    let plan = json(&site.must(&["upgrade", "plan", bundle, "--json"]).unwrap());
    let again = json(&site.must(&["upgrade", "plan", bundle, "--json"]).unwrap());
    assert_eq!(plan["plan"], again["plan"]);
    assert_eq!(plan["back"], again["back"]);
    assert_eq!(site.host.shell(look).unwrap(), before);
    assert_eq!(plan["hops"], serde_json::json!(["1.20.3"]));
    let bad: Vec<_> = plan["findings"].as_array().unwrap().iter().filter(|finding| finding["blocks"] == true).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let unknown = plan["findings"].as_array().unwrap().iter().filter(|finding| finding["outcome"] == "unknown");
    assert_eq!(unknown.count(), 0, "{plan}");

    // A bundle that leads nowhere is refused with the reason.
    let refused = site.cofferdam(&["upgrade", "plan", "/media/bundle.tar.zst"]).unwrap();
    assert_eq!(refused.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("installed already"));

    assert_eq!(plan["answers"][0]["name"], "greeting", "{plan}");
    assert_eq!((&plan["answers"][0]["after"], &plan["answers"][0]["by-default"]), (&"Good day".into(), &true.into()));

    told("up", &site, &["upgrade", "apply", bundle]);
    runs(&site, &SECOND, &secret);
    greets(&site, "Good day", true);
    told("back", &site, &["upgrade", "rollback"]);
    runs(&site, &Release::default(), &secret);
    greets(&site, "Hello", false);
    let nothing = site.cofferdam(&["upgrade", "rollback"]).unwrap();
    assert_eq!(nothing.status.code(), Some(3));

    // Up again, with an answer of our own; the power goes when the control plane is being exchanged.
    site.host.shell("echo \"hello: {greeting: 'Hi, \\\"you\\\": # all'}\" > /root/answers.yaml").unwrap();
    let arguments = ["/root/cofferdam", "upgrade", "apply", bundle, "--answers", "/root/answers.yaml"];
    let mut apply = site.host.spawn(&arguments).unwrap();
    let changed = ["grep", "-q", "kube-apiserver:v1.20.3", "/etc/kubernetes/manifests/kube-apiserver.yaml"];
    if let Err(error) = site.host.wait_for(&changed, Duration::from_mins(4)) {
        let _ = apply.kill();
        panic!("{error:#}\n{}", String::from_utf8_lossy(&apply.wait_with_output().unwrap().stderr));
    }
    site.host.kill().unwrap();
    let _ = apply.wait();
    site.host.power_on().unwrap();
    // Nobody does anything: the site ends the upgrade by itself.
    let over = ["test", "!", "-e", "/var/lib/cofferdam/upgrade/current.json"];
    if let Err(error) = site.host.wait_for(&over, Duration::from_mins(6)) {
        panic!("{error:#}\n{}", site.host.shell("journalctl -u cofferdam-upgrade").unwrap());
    }
    runs(&site, &SECOND, &secret);
    greets(&site, "Hi, \"you\": # all", true);

    let history = json(&site.must(&["upgrade", "history", "--json"]).unwrap());
    let ends: Vec<_> =
        history["records"].as_array().unwrap().iter().map(|record| record["action"].as_str().unwrap()).collect();
    let expected =
        ["upgrade.apply", "upgrade.commit", "upgrade.rollback", "upgrade.rollback", "upgrade.apply", "upgrade.commit"];
    assert_eq!(ends, expected, "{history}");
    site.must(&["audit", "verify"]).unwrap();
    site.host.shell("sed -i s/upgrade.commit/upgrade.comnit/ /var/lib/cofferdam/audit.jsonl").unwrap();
    assert!(!site.cofferdam(&["audit", "verify"]).unwrap().status.success());
}

/// A gate that does not open: the site is as before, by itself.
#[test]
#[ignore = "a second whole site; run it with --run-ignored"]
fn slow_a_workload_that_never_becomes_ready_is_undone_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(folder.path()).unwrap();
    sample::release(folder.path(), "broken", &BROKEN, None).unwrap();
    let (site, secret) = installed(&sample);
    let probe = Probe::start(&site.lan, "10.77.0.11").unwrap();
    let began = Instant::now();
    let output = site.cofferdam(&["upgrade", "apply", "/media/releases/broken.tar.zst"]).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert!(stderr.contains("gate deployment-available hello/hello"), "{stderr}");
    runs(&site, &Release::default(), &secret);
    let (api, web) = probe.stop().unwrap();
    let history = json(&site.must(&["upgrade", "history", "--json"]).unwrap());
    let when = |action: &str, result: &str| -> jiff::Timestamp {
        let records = history["records"].as_array().unwrap();
        let found = records.iter().find(|record| record["action"] == action && record["result"] == result);
        found.unwrap_or_else(|| panic!("{action} {result}: {history}"))["time"].as_str().unwrap().parse().unwrap()
    };
    let back = when("upgrade.rollback", "done").duration_since(when("upgrade.apply", "failed"));
    eprintln!(
        "failed and undone: {} s, of which {} s from the failed gate on; API {api:?}, workload {web:?}",
        began.elapsed().as_secs(),
        back.as_secs()
    );
    let history = site.must(&["upgrade", "history"]).unwrap();
    assert!(history.contains("failed") && history.contains("upgrade.rollback"), "{history}");
    site.must(&["audit", "verify"]).unwrap();
}

/// The power goes at twenty moments of upgrades and of rollbacks. Nobody does anything but switch it on again: each operation
/// ends with the old release or the new one, whole, and the site serves.
#[test]
#[ignore = "slow: twenty power cuts, half an hour"]
fn slow_power_cuts_at_any_moment_leave_one_of_two_releases() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(folder.path()).unwrap();
    sample::release(folder.path(), "delta", &SECOND, Some(&sample.bundle)).unwrap();
    let (mut site, secret) = installed(&sample);
    let mut moments = Moments::default();
    let (mut cuts, mut is_new, mut ends) = (0, false, [0, 0]);
    while cuts < 20 {
        let command: &[&str] =
            if is_new { &["upgrade", "rollback"] } else { &["upgrade", "apply", "/media/releases/delta.tar.zst"] };
        let mut running = site.host.spawn(&[&["/root/cofferdam"], command].concat()).unwrap();
        let mut here = 0;
        loop {
            // Some cuts come while the cluster comes up again, most come later: each start waits for the API server first.
            let patience = moments.next_below(120_000);
            let (began, rest) = (Instant::now(), moments.next_below(40_000));
            let mut goes_on = None;
            loop {
                let has_ended = running.try_wait().unwrap().is_some() && is_over(&site);
                if has_ended || goes_on.map_or(began.elapsed() > patience, |since: Instant| since.elapsed() > rest) {
                    break;
                }
                if goes_on.is_none() && !last(&site).contains("upgrade.api") {
                    goes_on = Some(Instant::now());
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            if is_over(&site) && running.try_wait().unwrap().is_some() || cuts == 20 {
                break;
            }
            let last = last(&site);
            site.host.kill().unwrap();
            let _ = running.wait();
            (cuts, here) = (cuts + 1, here + 1);
            eprintln!("power cut {cuts}, the {here}. of `{}`, at {}", command[1], last.trim());
            site.host.power_on().unwrap();
        }
        let ended = site.host.wait_for(&["test", "!", "-e", CURRENT], Duration::from_mins(10));
        if let Err(error) = ended {
            panic!("{error:#}\n{}", site.host.shell("journalctl -u cofferdam-upgrade").unwrap());
        }
        let _ = running.wait();
        let was_new = is_new;
        is_new = json(&site.must(&["status", "--json"]).unwrap())["version"] == SECOND.bundle;
        settled(&site);
        runs(&site, &if is_new { SECOND } else { Release::default() }, &secret);
        ends[usize::from(is_new != was_new)] += 1;
        eprintln!("`{}` ended with the {} release", command[1], if is_new { "next" } else { "first" });
    }
    eprintln!("{cuts} power cuts; {} operations went to their end, {} were undone", ends[1], ends[0]);
    site.must(&["audit", "verify"]).unwrap();
    site.must(&["registry", "fsck"]).unwrap();
}

/// There as long as an upgrade is under way.
const CURRENT: &str = "/var/lib/cofferdam/upgrade/current.json";

fn is_over(site: &FastSite) -> bool {
    site.host.run(&["test", "-e", CURRENT]).is_ok_and(|output| !output.status.success())
}

/// The last line of the journal.
fn last(site: &FastSite) -> String {
    site.host.shell("tail -n 1 /var/lib/cofferdam/journal.jsonl").unwrap()
}

/// A power cut in an upgrade's last moments leaves a cluster that is just coming up.
fn settled(site: &FastSite) {
    let ready = ["sh", "-c", "/root/cofferdam status | grep -qw Ready"];
    site.host.wait_for(&ready, Duration::from_mins(5)).unwrap();
}
