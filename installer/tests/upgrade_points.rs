//! An upgrade that is cut off at any of its effects ends, resumed, in the new release or in the old one, whole; each gate
//! that fails leads back by itself; an upgrade that was committed can be undone.
//!
//! The host is simulated; plans, engine, steps, transaction and audit log are the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]
#![allow(dead_code, reason = "the simulated host serves another test, too")]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "our own names, all in lower case")]

mod simulated;

use std::collections::BTreeMap;

use bundle::index::Index;
use bundle::oci::Digest;
use installer::engine::Stop;
use installer::host::HostExt;
use installer::layout;
use installer::upgrade::plan::Incoming;
use installer::upgrade::run::{self, Ended};
use installer::upgrade::site::Site;
use installer::upgrade::{CURRENT, PREVIOUS, audit};
use simulated::appliance::{BOOT, MEDIUM_ROOT, NEXT_ROOT, THIRD_ROOT};
use simulated::release::Variant;
use simulated::site::{Bench, difference, is_clean, look, look_back, same};
use simulated::{Crash, SimulatedHost, State};

#[test]
fn up_and_back_and_up_again() {
    for variant in [Variant::Second, Variant::Irreversible, Variant::TwoHops] {
        let bench = Bench::new(variant);
        let host = bench.host();
        assert_eq!(bench.apply(&host).unwrap(), Ended::Committed, "{variant:?}");
        is_clean(&host);
        let up = look(&host.state.borrow());
        let text = |name: &str| up.get(name).cloned().unwrap_or_default();
        let version = if variant == Variant::TwoHops { "v1.30.2" } else { "v1.28.1" };
        assert!(text("/var/lib/cofferdam/data/kubernetes/manifests/kube-apiserver.yaml").contains(version));
        assert!(text("object daemonset/kube-system/kube-proxy").contains(version));
        assert!(text("object configmap/kube-system/kubeadm-config").contains(version));
        assert!(text(layout::STATE).contains("\"version\":\"1.1.0\"") && text(layout::STATE).contains("extra"));
        assert!(up.contains_key("object configmap/portal/new-settings"));
        assert!(up.contains_key("object deployment/portal/extra"));
        assert!(up.contains_key("object job/portal/migrate"));
        assert!(!up.contains_key("object configmap/portal/old-settings"), "what the release lacks is removed");
        assert!(!up.contains_key("/etc/site.conf") && up.contains_key("/etc/site/site.conf"));
        assert!(host.state.borrow().commands.iter().all(|command| !command.contains("drain")), "a single node");

        let undo = run::begin_undo(&host, "tester").unwrap().unwrap();
        assert_eq!(
            run::go_on(&host, undo, "tester", &Stop::default(), &mut |_| {}).unwrap(),
            Ended::Undone,
            "{variant:?}"
        );
        is_clean(&host);
        same(&look_back(&bench.installed), &look_back(&host.state.borrow()), "back");
        let restored = host.state.borrow().commands.iter().any(|command| command.contains("snapshot restore"));
        assert_eq!(restored, variant != Variant::Second, "{variant:?}: etcd goes back only when its schema moved");
        let undone = host.state.borrow().objects.contains_key("job/portal/undo");
        // A migration that declares its undo is undone; where etcd goes back it never was.
        assert_eq!(undone, variant != Variant::Irreversible, "{variant:?}");
        assert!(run::begin_undo(&host, "tester").unwrap().is_none(), "it can be undone once");

        assert_eq!(bench.apply(&host).unwrap(), Ended::Committed, "{variant:?}");
        let mut again = look(&host.state.borrow());
        again.retain(|name, _| up.contains_key(name));
        same(&up, &again, "up again");
    }
}

#[test]
fn hops_go_one_after_another() {
    let bench = Bench::new(Variant::TwoHops);
    let host = bench.host();
    let (_, plan) = bench.plan(&host);
    assert_eq!(plan.hops, ["1.29.1", "1.30.2"]);
    let ids: Vec<_> = plan.plan.steps.iter().map(|step| step.id.as_str()).collect();
    let place = |id: &str| ids.iter().position(|found| *found == id).unwrap_or_else(|| panic!("{id}: {ids:?}"));
    assert!(place("kubernetes.kubelet:1.29.1") < place("kubernetes.control-plane:1.30.2"));
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    assert!(plan.back.steps.iter().any(|step| step.id == "back.etcd"));
}

#[test]
fn a_plan_changes_nothing_and_is_the_same_twice() {
    let bench = Bench::new(Variant::Second);
    let host = bench.host();
    let before = look(&host.state.borrow());
    let (_, plan) = bench.plan(&host);
    let (_, again) = bench.plan(&host);
    assert_eq!(host.state.borrow().effects, 0);
    same(&before, &look(&host.state.borrow()), "the plan");
    assert_eq!(serde_json::to_string(&plan).unwrap(), serde_json::to_string(&again).unwrap());
    assert!(plan.differences.iter().any(|file| file.lines.iter().any(|line| line == "+kubernetesVersion: v1.28.1")));
    assert!(plan.differences.iter().any(|file| file.path == "/etc/site.conf" && file.change == "removed"));
    assert!(plan.packs.iter().any(|pack| pack.name == "portal" && pack.migrations == ["data"]));
    assert!(plan.downtime.iter().any(|cost| cost.step == "kubernetes.control-plane:1.28.1" && cost.api_seconds > 0));
}

const WAYS: [Crash; 3] = [Crash::PowerBefore, Crash::PowerAfter, Crash::KilledAfter];

/// Which crashes are tried at an effect.
type Ways = fn(usize) -> &'static [Crash];

/// One at each effect, in turn: what the everyday tests have time for.
fn in_turn(effect: usize) -> &'static [Crash] {
    &WAYS[effect % 3..][..1]
}

/// All three.
fn all_ways(_: usize) -> &'static [Crash] {
    &WAYS
}

/// Where an upgrade that is cut off has to end.
struct End {
    expected: BTreeMap<String, String>,
    look: fn(&State) -> BTreeMap<String, String>,
    is_it: fn(&Ended) -> bool,
    fault: Option<&'static str>,
}

impl End {
    fn new_release(bench: &Bench) -> Self {
        let host = bench.host();
        bench.apply(&host).unwrap();
        let expected = look(&host.state.borrow());
        Self { expected, look, is_it: |ended| *ended == Ended::Committed, fault: None }
    }

    fn old_release(bench: &Bench) -> Self {
        let is_it = |ended: &Ended| matches!(ended, Ended::WentBack { .. });
        Self { expected: look_back(&bench.installed), look: look_back, is_it, fault: Some("rehearsal") }
    }
}

fn every_crash_point(bench: &Bench, end: &End, ways: Ways) {
    let host = bench.host();
    host.state.borrow_mut().fault = end.fault;
    bench.apply(&host).unwrap();
    let effects = host.state.borrow().effects;
    let mut problems = Vec::new();
    let mut tried = 0;
    for effect in 1..=effects {
        for crash in ways(effect) {
            tried += 1;
            let host = bench.host();
            host.state.borrow_mut().fault = end.fault;
            host.crash_at(effect, *crash);
            let error = bench.apply(&host).expect_err("the host lost power");
            let last = host.state.borrow().commands.last().cloned().unwrap_or_default();
            let place = format!("{crash:?} at effect {effect} of {effects}, last command `{last}`");
            assert!(error.to_string().contains("lost power"), "{place}: {error}");
            host.come_back();
            match bench.resume(&host) {
                Ok(ended) if (end.is_it)(&ended) => {
                    let found = (end.look)(&host.state.borrow());
                    if found != end.expected {
                        problems.push(format!("{place}:\n{}", difference(&end.expected, &found)));
                    }
                    is_clean(&host);
                }
                Ok(ended) => problems.push(format!("{place}: {ended:?}")),
                Err(error) => problems.push(format!("{place}: {error}")),
            }
        }
    }
    eprintln!("{tried} crashes tried at {effects} effects");
    assert!(effects > 80, "only {effects} effects");
    assert!(problems.is_empty(), "{} crashes end elsewhere:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn a_crash_at_every_effect_of_an_upgrade_ends_in_the_new_release() {
    let bench = Bench::new(Variant::Second);
    every_crash_point(&bench, &End::new_release(&bench), in_turn);
}

#[test]
fn a_crash_at_every_effect_of_an_upgrade_that_fails_ends_in_the_old_release() {
    let bench = Bench::new(Variant::Second);
    every_crash_point(&bench, &End::old_release(&bench), in_turn);
}

#[test]
fn an_appliance_gets_the_next_system_and_goes_back_to_the_one_before() {
    let bench = Bench::appliance(Variant::System);
    let host = bench.host();
    let (site, plan) = bench.plan(&host);
    assert_eq!(site.slots.as_ref().and_then(|slots| slots.known()).unwrap().version, "1.0.0");
    let finding = plan.findings.iter().find(|finding| finding.id == "upgrade.system").unwrap();
    assert_eq!(finding.measured, "1.0.0 -> 2.0.0");
    assert!(plan.downtime.iter().any(|cost| cost.step == "system.switch" && cost.workload_seconds > 0));
    assert_eq!(bench.apply(&host).unwrap(), Ended::Committed);
    is_clean(&host);
    let running = |host: &SimulatedHost| host.state.borrow().appliance.clone().unwrap().running;
    let images = |host: &SimulatedHost| {
        let folder = format!("{BOOT}/EFI/Linux/");
        let state = host.state.borrow();
        state.nodes.keys().filter_map(|path| path.strip_prefix(&folder)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(running(&host), NEXT_ROOT);
    assert_eq!(images(&host), ["cofferdam_1.0.0.efi", "cofferdam_2.0.0.efi"]);
    assert_eq!(host.seen_text(&format!("{BOOT}/EFI/BOOT/BOOTX64.EFI")), "the next loader");
    assert_eq!(host.seen_text(layout::PROGRAM), "the program of system 2.0.0");

    let undo = run::begin_undo(&host, "tester").unwrap().unwrap();
    assert_eq!(bench.go_on(&host, undo).unwrap(), Ended::Undone);
    is_clean(&host);
    assert_eq!((running(&host).as_str(), images(&host)), (MEDIUM_ROOT, vec!["cofferdam_1.0.0.efi".to_owned()]));
    assert_eq!(host.seen_text(layout::PROGRAM), "the program");
    same(&look_back(&bench.installed), &look_back(&host.state.borrow()), "back");
    assert_eq!(bench.apply(&host).unwrap(), Ended::Committed);
    assert_eq!(running(&host), NEXT_ROOT);
}

#[test]
fn a_system_that_does_not_come_up_leads_back_by_itself() {
    let bench = Bench::appliance(Variant::System);
    let host = bench.host();
    host.state.borrow_mut().fault = Some(NEXT_ROOT);
    let Ended::WentBack { reason, .. } = bench.apply(&host).unwrap() else { panic!("it was committed") };
    assert!(reason.contains("system 2.0.0 was started 3 times and did not come up"), "{reason}");
    is_clean(&host);
    same(&look_back(&bench.installed), &look_back(&host.state.borrow()), "back");
    assert_eq!(host.state.borrow().appliance.as_ref().unwrap().boots[NEXT_ROOT], 3);
    // The mended system goes in.
    host.state.borrow_mut().fault = None;
    assert_eq!(bench.apply(&host).unwrap(), Ended::Committed);
}

/// A boot menu in which another system is chosen each time is not asked for ever: the upgrade goes back.
#[test]
fn a_machine_that_starts_another_system_is_not_restarted_for_ever() {
    let bench = Bench::appliance(Variant::System);
    let host = bench.host();
    host.state.borrow_mut().appliance.as_mut().unwrap().chosen = Some("1.0.0");
    let Ended::WentBack { reason, .. } = bench.apply(&host).unwrap() else { panic!("it was committed") };
    assert!(reason.contains("restarted 10 times, and another system than 2.0.0 came up"), "{reason}");
    is_clean(&host);
    same(&look_back(&bench.installed), &look_back(&host.state.borrow()), "back");
}

/// The slot that an undo would restart into is written: from then on there is nothing to undo, and nothing offers it.
#[test]
fn an_upgrade_whose_slot_is_written_again_cannot_be_undone() {
    let bench = Bench::appliance(Variant::System);
    let first = bench.host();
    assert_eq!(bench.apply(&first).unwrap(), Ended::Committed);
    let next = Bench::appliance(Variant::NextSystem);
    let host = next.host();
    *host.state.borrow_mut() = first.state.borrow().clone();
    host.state.borrow_mut().fault = Some(THIRD_ROOT);
    let Ended::WentBack { reason, .. } = next.apply(&host).unwrap() else { panic!("it was committed") };
    assert!(reason.contains("system 3.0.0 was started 3 times"), "{reason}");
    assert_eq!(host.state.borrow().appliance.as_ref().unwrap().running, NEXT_ROOT);
    assert!(run::begin_undo(&host, "tester").unwrap().is_none(), "the system 1.0.0 is gone");
    is_clean(&host);
    host.state.borrow_mut().fault = None;
    assert_eq!(next.apply(&host).unwrap(), Ended::Committed);
    let undo = run::begin_undo(&host, "tester").unwrap().unwrap();
    assert_eq!(next.go_on(&host, undo).unwrap(), Ended::Undone);
    assert_eq!(host.state.borrow().appliance.as_ref().unwrap().running, NEXT_ROOT);
}

/// The pack with the system.
fn system(index: &mut Index) -> &mut bundle::index::PackDescriptor {
    &mut index.packs.iter_mut().find(|pack| pack.system.is_some()).unwrap().descriptor
}

#[test]
fn a_system_that_does_not_fit_the_site_is_refused() {
    let bench = Bench::appliance(Variant::System);
    let host = bench.host();
    let finding = |change: &dyn Fn(&mut Index)| {
        let mut next = bench.next.clone();
        change(&mut next);
        let site = Site::survey(&host, &next, 4.0).unwrap();
        let incoming = Incoming { index: &next, ..bench.incoming() };
        let plan = installer::upgrade::plan::plan(&site, &incoming).unwrap();
        plan.findings.into_iter().find(|finding| finding.id == "upgrade.system").unwrap()
    };
    let older = finding(&|index| system(index).system.as_mut().unwrap().version = "0.9.0".to_owned());
    assert!(older.blocks && older.measured.contains("not higher"), "{older:?}");
    let large = finding(&|index| system(index).files[0].size = 2 << 30);
    assert!(large.blocks && large.measured.contains("/dev/sdb4"), "{large:?}");
    let image = finding(&|index| system(index).files[2].size = 300 << 20);
    assert!(image.blocks && image.measured.contains("boot partition"), "{image:?}");
    let foreign = finding(&|index| system(index).system.as_mut().unwrap().pcr_key = Digest::sha256_of(b"another"));
    assert!(foreign.blocks && !foreign.hard && foreign.hint.as_ref().unwrap().contains("--pcr-key"), "{foreign:?}");
    let same = finding(&|index| system(index).system.as_mut().unwrap().root_hash = MEDIUM_ROOT.to_owned());
    assert!(!same.blocks && same.measured.contains("runs already"), "{same:?}");
    let none = finding(&|index| system(index).system = None);
    assert!(!none.blocks && none.measured == "1.0.0 stays", "{none:?}");
}

#[test]
fn a_crash_at_every_effect_of_an_upgrade_of_the_system_ends_whole() {
    let bench = Bench::appliance(Variant::System);
    every_crash_point(&bench, &End::new_release(&bench), in_turn);
    let end = End { fault: Some(NEXT_ROOT), ..End::old_release(&bench) };
    every_crash_point(&bench, &end, in_turn);
}

#[test]
#[ignore = "each effect in three ways, and the way back with etcd; run it with --run-ignored"]
fn slow_every_way_to_crash_at_every_effect() {
    for variant in [Variant::Second, Variant::Irreversible, Variant::TwoHops] {
        let bench = Bench::new(variant);
        every_crash_point(&bench, &End::new_release(&bench), all_ways);
        every_crash_point(&bench, &End::old_release(&bench), all_ways);
    }
}

#[test]
fn every_gate_that_fails_leads_back_by_itself() {
    let bench = Bench::new(Variant::Second);
    for (fault, says) in [
        ("api", "gate api"),
        ("control-plane", "the control plane does not run 1.28.1"),
        ("etcd", "gate etcd"),
        ("nodes", "gate nodes"),
        ("pods", "gate pods"),
        // The portal that runs is not ready any more: the gate after the control plane says so.
        ("pack", "deployment/portal/portal"),
        ("registry", "gate registry"),
        ("rehearsal", "connection refused"),
    ] {
        let host = bench.host();
        host.state.borrow_mut().fault = Some(fault);
        let Ended::WentBack { reason, refused } = bench.apply(&host).unwrap() else {
            panic!("{fault}: it was committed")
        };
        assert!(reason.contains(says) && !refused, "{fault}: {reason}");
        is_clean(&host);
        same(&look_back(&bench.installed), &look_back(&host.state.borrow()), fault);
        assert!(host.seen(PREVIOUS).is_none(), "{fault}: there is nothing to undo");
        let records = audit::records(&host).unwrap();
        let ends: Vec<_> = records.iter().map(|record| (record.action.as_str(), record.result.as_str())).collect();
        let expected = [("upgrade.apply", "begun"), ("upgrade.apply", "failed"), ("upgrade.rollback", "done")];
        assert_eq!(ends, expected, "{fault}");
        assert!(records[1].detail.contains(says), "{fault}");

        // What made it fail was mended: the same bundle goes in.
        host.state.borrow_mut().fault = None;
        assert_eq!(bench.apply(&host).unwrap(), Ended::Committed, "{fault}");
    }
}

#[test]
fn an_api_server_that_kubeadm_left_starting_is_waited_for() {
    let bench = Bench::new(Variant::Second);
    let host = bench.host();
    host.state.borrow_mut().fault = Some("kubeadm");
    assert_eq!(bench.apply(&host).unwrap(), Ended::Committed);
    is_clean(&host);
    same(&End::new_release(&bench).expected, &look(&host.state.borrow()), "up");
}

#[test]
fn neither_plan_nor_transaction_nor_audit_log_holds_a_secret() {
    let bench = Bench::new(Variant::Second);
    let host = bench.host();
    bench.apply(&host).unwrap();
    let state = host.state.borrow();
    let mut secrets = Vec::new();
    for (path, node) in &state.nodes {
        let text = String::from_utf8_lossy(node.content.as_deref().unwrap_or_default()).into_owned();
        if path.ends_with(".key") && path.contains("/keystore/") {
            secrets.extend(text.lines().filter(|line| !line.starts_with('-')).skip(1).map(str::to_owned));
        }
        if path.ends_with("encryption.yaml") {
            secrets.extend(text.lines().find_map(|line| line.trim().strip_prefix("secret: ")).map(str::to_owned));
        }
    }
    assert!(secrets.len() >= 5, "{}", secrets.len());
    for (path, node) in state.nodes.iter().filter(|(path, _)| !path.starts_with(layout::DATA)) {
        let text = String::from_utf8_lossy(node.content.as_deref().unwrap_or_default());
        assert!(secrets.iter().all(|secret| !text.contains(secret.as_str())), "{path} holds a secret");
    }
    assert!(host.seen(PREVIOUS).is_some());
    let commands = state.commands.join("\n");
    assert!(secrets.iter().all(|secret| !commands.contains(secret.as_str())));
}

#[test]
fn keys_rotate_by_the_installed_index() {
    let mut bench = Bench::new(Variant::Second);
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    bench.next.trust.next_keys = vec![key.to_owned()];
    bench.bytes = serde_json::to_vec(&bench.next).unwrap();
    bench.digest = Digest::sha256_of(&bench.bytes).to_string();
    bench.medium.index.clone_from(&bench.bytes);
    let host = bench.host();
    let before = Site::trust(&host).unwrap();
    assert_ne!(before, [key]);
    bench.apply(&host).unwrap();
    assert_eq!(Site::trust(&host).unwrap(), [key], "from this bundle on only the new key counts");
    let undo = run::begin_undo(&host, "tester").unwrap().unwrap();
    run::go_on(&host, undo, "tester", &Stop::default(), &mut |_| {}).unwrap();
    assert_eq!(Site::trust(&host).unwrap(), before);
}

#[test]
fn findings_stand_against_an_upgrade() {
    let bench = Bench::new(Variant::Second);
    let blocking = |host: &SimulatedHost, next: &Index| {
        let site = Site::survey(host, next, 4.0).unwrap();
        let incoming = Incoming { index: next, ..bench.incoming() };
        let plan = installer::upgrade::plan::plan(&site, &incoming).unwrap();
        plan.blocking().iter().map(|finding| finding.id.clone()).collect::<Vec<_>>()
    };
    let host = bench.host();
    assert!(blocking(&host, &bench.next).is_empty());
    let mut next = bench.next.clone();
    next.held.push(bundle::delta::HeldBlob { digest: Digest::sha256_of(b"nobody has it"), size: 7 });
    assert_eq!(blocking(&host, &next), ["upgrade.complete"]);
    let mut next = bench.next.clone();
    next.blobs[0].size = 1 << 40;
    assert_eq!(blocking(&host, &next), ["upgrade.space"]);
    let mut next = bench.next.clone();
    next.upgrade_from = Some(">=1.0.5".to_owned());
    assert_eq!(blocking(&host, &next), ["upgrade.version"]);
    let mut next = bench.next.clone();
    next.created = Some("2999-01-01T00:00:00Z".to_owned());
    assert_eq!(blocking(&host, &next), ["time.sane"]);
    host.state.borrow_mut().objects.remove("daemonset/network/network");
    assert_eq!(blocking(&host, &bench.next), ["cluster.nodes"]);
    let host = bench.host();
    host.state.borrow_mut().active.remove("kubelet.service");
    assert_eq!(blocking(&host, &bench.next), ["cluster.nodes", "cluster.etcd"], "what cannot be asked is no pass");
    let host = bench.host();
    let (site, plan) = bench.plan(&host);
    run::begin(&host, &plan, &bench.incoming(), (&bench.bytes, b""), site.sequence, "tester").unwrap();
    assert_eq!(blocking(&host, &bench.next), ["upgrade.unfinished"]);
    assert!(host.read_text(CURRENT.into()).unwrap().is_some());
}
