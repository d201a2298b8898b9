//! The terminal installer from the moment the engine starts: the real program in a pseudo terminal on a fast host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::fast_site::FastSite;
use tests::sample;
use tests::terminal::{Terminal, key};

const SOON: Duration = Duration::from_mins(1);
/// A cluster comes up in two minutes on an idle machine.
const LONG: Duration = Duration::from_mins(10);

fn terminal(site: &FastSite, arguments: &[&str], term: &str) -> Terminal {
    let mut command = site.host.command("/root/cofferdam").unwrap();
    command.args(arguments);
    Terminal::start(&command, term).unwrap()
}

fn lines(site: &FastSite, path: &str) -> Vec<Value> {
    let text = String::from_utf8(site.host.read_file(path).unwrap()).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn journal_has(site: &FastSite, step: &str, result: &str) -> bool {
    site.host.run(&["test", "-e", "/var/lib/cofferdam/journal.jsonl"]).unwrap().status.success()
        && lines(site, "/var/lib/cofferdam/journal.jsonl")
            .iter()
            .any(|record| record["step"] == step && record["result"] == result)
}

fn wait_for_journal(site: &FastSite, step: &str, result: &str) {
    for _ in 0..1200 {
        if journal_has(site, step, result) {
            return;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    panic!("the journal has no {result} of {step}");
}

/// The installer, not the registry, which is the same program at another place.
const INSTALLER: &str = "^/root/cofferdam ";

fn is_running(site: &FastSite) -> bool {
    site.host.run(&["pgrep", "-f", INSTALLER]).unwrap().status.success()
}

/// A process that is killed loses its name first and its lock after that.
fn wait_for_process_end(site: &FastSite) {
    let is_free = |site: &FastSite| {
        site.host.run(&["flock", "--nonblock", "--shared", "/var/lib/cofferdam/lock", "true"]).unwrap().status.success()
    };
    for _ in 0..600 {
        if !is_running(site) && is_free(site) {
            return;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    panic!("cofferdam is still running");
}

/// Begins an installation without a terminal and kills it, with all that it started, once this step has begun.
fn begin_and_kill(site: &FastSite, config: &str, step: &str) {
    let mut install = site.host.spawn(&["/root/cofferdam", "install", "--config", config]).unwrap();
    while !journal_has(site, step, "started") {
        if install.try_wait().unwrap().is_some() {
            let output = install.wait_with_output().unwrap();
            panic!("the installation ended before {step}: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    kill(site);
    let _ = install.wait();
}

/// What is inside a support bundle, as one text.
fn unpacked(archive: &[u8]) -> String {
    let mut child =
        std::process::Command::new("zstd").args(["-dcq"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let archive = archive.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&archive));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// From Welcome to the running installation, as a person who knows the FQDN and reads each page.
fn begin_by_keys(site: &FastSite) -> Terminal {
    // Neither answers nor a second bundle are found.
    site.host.check(&["rm", "/root/install.yaml"]).unwrap();
    site.host.check(&["umount", "/media/releases"]).unwrap();
    let mut screen = terminal(site, &["install"], "xterm-256color");
    let on = key::control('n');
    let page = |screen: &mut Terminal, text: &str, keys: &[&str]| {
        screen.wait_for(text, SOON).unwrap();
        for key in keys {
            screen.send(key).unwrap();
        }
    };
    page(&mut screen, "signed by the trusted key", &[&on]);
    // Its kernel has no dm-crypt: a site without encryption needs its token spelled out.
    page(&mut screen, "missing: dm_crypt", &[&on]);
    page(&mut screen, "Where shall the site keep its data?", &[key::TAB, key::DOWN, " "]);
    page(&mut screen, "To allow it, type", &[key::TAB, "store-secrets-unencrypted", &on]);
    page(&mut screen, "10.77.0.11  on eth0", &[&on]);
    page(&mut screen, "Under which name will people reach", &["mgmt.site.test", key::TAB]);
    page(&mut screen, "Site name            mgmt", &[&"\u{7f}".repeat("mgmt".len()), "site-a"]);
    page(&mut screen, "Lookups", &[&on]);
    page(&mut screen, "Generate: the site makes its own authority", &[&on]);
    page(&mut screen, "is this the id that you were", &[&on]);
    page(&mut screen, "always: containerd", &[&on]);
    page(&mut screen, "The accounts that are there already", &[&on]);
    // The host is looked at again; a disk that was busy for a moment is asked once more.
    for _ in 0..5 {
        let seen = |text: &str| text.contains("This will be done") || text.contains("against an installation");
        if screen.wait_until("the plan", SOON, seen).unwrap().contains("This will be done") {
            break;
        }
        screen.send(&key::control('r')).unwrap();
        std::thread::sleep(Duration::from_secs(5));
    }
    let plan = screen.wait_for("This will be done", SOON).unwrap();
    assert!(plan.contains("NOT ENCRYPTED") && plan.contains("site-a at mgmt.site.test"), "{plan}");
    page(&mut screen, "This will be done", &[&on]);
    // Half a name begins nothing.
    page(&mut screen, "type the node's name: node-a", &["node", key::TAB, key::TAB, key::ENTER]);
    screen.wait_for("▸  node ", SOON).unwrap();
    assert!(!site.host.run(&["test", "-e", "/var/lib/cofferdam/journal.jsonl"]).unwrap().status.success());
    page(&mut screen, "Begin the installation?", &["-a", key::TAB, key::TAB, key::ENTER]);
    screen
}

/// Kills the installer with all that it started.
fn kill(site: &FastSite) {
    site.host.check(&["pkill", "-9", "-x", "cofferdam"]).unwrap();
    wait_for_process_end(site);
}

/// By keys from Welcome; kill -9 in the middle; `cofferdam install` offers to go on; a second console watches; windows
/// change their size; the end is a dashboard, and the workload answers.
#[test]
fn an_install_by_keys_is_killed_offered_again_and_ends_at_the_dashboard() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let site = FastSite::bare(&sample).unwrap();
    let mut screen = begin_by_keys(&site);
    screen.wait_for("Installing site site-a", SOON).unwrap();
    wait_for_journal(&site, "bundle.load", "started");
    kill(&site);
    drop(screen);

    let mut screen = terminal(&site, &["install"], "xterm-256color");
    screen.wait_for("An installation was interrupted on this host", SOON).unwrap();
    screen.wait_for("Load the bundle into the registry's store", SOON).unwrap();
    screen.send(key::ENTER).unwrap();
    screen.wait_for("Installing site site-a", SOON).unwrap();
    assert!(screen.is_on_second_screen());

    // The log comes and goes, and an abort that was not meant changes nothing.
    screen.send(key::F5).unwrap();
    screen.wait_for("┌─ Log", SOON).unwrap();
    screen.send(&key::control('e')).unwrap();
    screen.wait_until("no log", SOON, |text| !text.contains("┌─ Log")).unwrap();
    screen.send(&key::control('c')).unwrap();
    screen.wait_for("Stop the installation?", SOON).unwrap();
    screen.send(key::ENTER).unwrap();
    screen.wait_until("no dialog", SOON, |text| !text.contains("Stop the installation?")).unwrap();

    // Another size, too small a one, and back.
    screen.resize(40, 132).unwrap();
    let is_wide = |text: &str| text.lines().any(|line| line.chars().count() > 100) && text.lines().count() > 30;
    screen.wait_until("a wide screen", SOON, is_wide).unwrap();
    screen.resize(10, 40).unwrap();
    screen.wait_for("too small: 40×10", SOON).unwrap();
    screen.resize(24, 80).unwrap();
    screen.wait_for("Installing site site-a", SOON).unwrap();

    // A second console shows the same and changes nothing; a second run is refused.
    let mut watcher = terminal(&site, &["monitor"], "vt100");
    watcher.wait_for("Monitor, read only", SOON).unwrap();
    watcher.wait_for("Installing site site-a", SOON).unwrap();
    let refused = site.cofferdam(&["resume"]).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cofferdam monitor"));

    screen.wait_for("Site site-a is ready", LONG).unwrap();
    screen.wait_for("https://mgmt.site.test:6443", SOON).unwrap();
    watcher.wait_for("The site is installed", SOON).unwrap();
    assert!(watcher.screen().is_ascii(), "{}", watcher.screen());
    watcher.send("q").unwrap();
    assert!(watcher.wait_for_end(SOON).unwrap().success());
    let status = site.must(&["status", "--json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let fingerprint = status["ca-fingerprint"].as_str().unwrap();
    screen.wait_until("the fingerprint", SOON, |text| text.contains(&fingerprint[..30])).unwrap();
    screen.send(key::ENTER).unwrap();
    screen.wait_for("node-a Ready", SOON).unwrap();
    screen.wait_for("Certificates, days left", SOON).unwrap();
    assert!(site.ask_workload().unwrap().contains("site-a"));
    screen.send("q").unwrap();
    let ended = screen.wait_for_end(SOON).unwrap();
    assert!(ended.success(), "{ended:?}\n{}", screen.screen());
    assert!(!screen.is_on_second_screen() && screen.has_cursor());
    assert!(screen.screen().contains("Site site-a is ready."), "{}", screen.screen());

    // The console of the running site, and what support is given.
    let mut dashboard = terminal(&site, &["dashboard"], "linux");
    dashboard.wait_for("node-a Ready", SOON).unwrap();
    dashboard.send(&key::control('c')).unwrap();
    assert!(dashboard.wait_for_end(SOON).unwrap().success());
    let path = site.must(&["support-bundle", "--output", "/root"]).unwrap();
    let inside = unpacked(&site.host.read_file(path.trim()).unwrap());
    assert!(inside.contains("\"step\":\"site.record\"") && inside.contains("node-a"), "{} bytes", inside.len());
    let secrets = site
        .host
        .shell(
            "cat /var/lib/cofferdam/data/keystore/*.key /etc/kubernetes/pki/ca.key | grep -v -- -----
             sed -n 's/.*secret: //p' /etc/kubernetes/cofferdam/encryption.yaml
             sed -n 's/.*client-key-data: //p' /etc/kubernetes/admin.conf",
        )
        .unwrap();
    let secrets: Vec<&str> = secrets.lines().filter(|line| line.len() > 20).collect();
    assert!(secrets.len() > 10, "{} secrets", secrets.len());
    assert!(secrets.iter().all(|secret| !inside.contains(secret)), "the support bundle holds a secret");
}

/// A step fails, support gets its bundle, the cause is mended, Retry goes on; a stop has its exit code; a line that drops
/// and a SIGTERM leave nothing half done.
#[test]
fn a_failed_step_is_retried_and_a_lost_line_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample::make(folder.path()).unwrap();
    let site = FastSite::bare(&sample).unwrap();
    site.host.check(&["cp", "/media/bundle.tar.zst", "/root/bundle.tar.zst"]).unwrap();
    let answers = tests::fast_site::answers().replace("/media/bundle.tar.zst", "/root/bundle.tar.zst");
    site.host.write_file("/root/install.yaml", answers, 0o600).unwrap();
    begin_and_kill(&site, "/root/install.yaml", "bundle.load");
    site.host.check(&["mv", "/root/bundle.tar.zst", "/root/taken-away"]).unwrap();

    let mut screen = terminal(&site, &["resume"], "vt100");
    screen.wait_for("The installation stopped", SOON).unwrap();
    let failed = screen.wait_for("code bundle.load/file", SOON).unwrap();
    assert!(failed.is_ascii() && failed.contains("/root/bundle.tar.zst"), "{failed}");
    assert!(!failed.contains("Back to settings"), "keys and certificates were made by now: {failed}");
    screen.send(key::DOWN).unwrap();
    screen.send(key::ENTER).unwrap();
    screen.wait_for("Save support bundle", SOON).unwrap();
    screen.send(&"\u{7f}".repeat("/media".len())).unwrap();
    screen.send("/root").unwrap();
    screen.send(key::ENTER).unwrap();
    screen.wait_for("written: /root/cofferdam-support-site-a-", SOON).unwrap();

    site.host.check(&["mv", "/root/taken-away", "/root/bundle.tar.zst"]).unwrap();
    screen.send(&key::control('r')).unwrap();
    screen.wait_for("Installing site site-a", SOON).unwrap();
    wait_for_journal(&site, "bundle.load", "finished");
    screen.send(&key::control('c')).unwrap();
    screen.wait_for("Stop the installation?", SOON).unwrap();
    screen.send(key::TAB).unwrap();
    screen.send(key::ENTER).unwrap();
    let ended = screen.wait_for_end(LONG).unwrap();
    assert_eq!(ended.exit_code(), 6, "{}", screen.screen());
    assert!(!screen.is_on_second_screen() && screen.has_cursor());
    assert!(screen.screen().contains("stopped before the step"), "{}", screen.screen());
    let done = |site: &FastSite| {
        let records = lines(site, "/var/lib/cofferdam/journal.jsonl");
        records.iter().filter(|record| record["result"] == "finished").count()
    };
    let events = lines(&site, "/var/lib/cofferdam/events.jsonl");
    assert_eq!(events.last().unwrap()["event"], "stopped");

    // The line drops: the installation goes on.
    let mut screen = terminal(&site, &["resume"], "vt100");
    screen.wait_for("Installing site site-a", SOON).unwrap();
    let before = done(&site);
    drop(screen);
    for _ in 0..1200 {
        if done(&site) >= before + 2 {
            break;
        }
        assert!(is_running(&site), "the lost line ended the installation");
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(done(&site) >= before + 2, "nothing went on");
    site.host.check(&["pkill", "-TERM", "-f", INSTALLER]).unwrap();
    wait_for_process_end(&site);
    let records = lines(&site, "/var/lib/cofferdam/journal.jsonl");
    assert_eq!(records.last().unwrap()["result"], "finished", "a step was cut off: {:?}", records.last());
    assert_eq!(lines(&site, "/var/lib/cofferdam/events.jsonl").last().unwrap()["event"], "stopped");
    // The log is a root's business.
    let mode = site.host.check(&["stat", "-c", "%a", "/var/lib/cofferdam/events.jsonl"]).unwrap();
    assert_eq!(mode.trim(), "600");
}
