//! Answers to the questions of packs: they survive an upgrade, come back with a rollback, and are asked for once.
//!
//! The host is simulated; plans, engine, steps, transaction and conversation are the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]
#![allow(dead_code, reason = "the simulated host serves other tests, too")]
#![allow(clippy::case_sensitive_file_extension_comparisons, reason = "our own names, all in lower case")]

mod simulated;

use installer::check::Outcome;
use installer::config::{self, Answers};
use installer::engine::Stop;
use installer::host::HostExt;
use installer::layout;
use installer::upgrade::answers;
use installer::upgrade::run::{self, Ended};
use installer::upgrade::transaction::Transaction;
use installer::upgrade::{CURRENT, UpgradePlan};
use serde_json::{Value, json};
use simulated::asking::{asking, portal};
use simulated::release::Variant;
use simulated::site::{Bench, answers as example, is_clean, look_back, same};
use simulated::{Crash, SimulatedHost};

fn said(yaml: &str) -> Answers {
    config::answers::parse(yaml).unwrap()
}

/// A site that stands in rack 7, with the rest by default.
fn bench() -> Bench {
    let mut config = example();
    config.answers = said("portal: {place: rack7}");
    Bench::of(config, asking(Variant::First), asking(Variant::Second))
}

fn given(yaml: &str) -> Bench {
    Bench { answers: said(yaml), ..bench() }
}

fn stored(host: &SimulatedHost) -> Value {
    let text = host.read_text(layout::CONFIG.into()).unwrap().unwrap();
    serde_json::to_value(config::parse(&text).unwrap().answers).unwrap()
}

/// What the portal says in the cluster.
fn data(host: &SimulatedHost, place: &str) -> Option<Value> {
    let state = host.state.borrow();
    state.objects.get(&format!("configmap/portal/at-{place}")).map(|(_, object)| object["data"].clone())
}

fn changes(plan: &UpgradePlan) -> Vec<String> {
    let shown = |value: &Option<bundle::question::Value>| value.as_ref().map_or("-".to_owned(), ToString::to_string);
    let line = |change: &answers::AnswerChange| {
        let default = if change.by_default { " by default" } else { "" };
        let (before, after) = (shown(&change.before), shown(&change.after));
        format!("{}.{} {} {before} {after}{default}", change.pack, change.name, change.change)
    };
    plan.answers.iter().map(line).collect()
}

fn problem(bench: &Bench, host: &SimulatedHost) -> (String, String) {
    let (_, plan) = bench.plan(host);
    let finding = plan.findings.iter().find(|finding| finding.id == answers::FINDING).unwrap();
    assert_eq!(finding.outcome, Outcome::Fail, "{finding:?}");
    assert!(finding.blocks && finding.hard, "nobody can let it pass");
    (finding.measured.clone(), finding.hint.clone().unwrap())
}

#[test]
fn an_installation_stores_every_answer_and_says_it() {
    let bench = bench();
    let host = bench.host();
    assert_eq!(stored(&host), json!({"portal": {"greeting": "Hello", "old": true, "place": "rack7"}}));
    assert_eq!(data(&host, "rack7").unwrap(), json!({"greeting": "Hello", "old": "true"}));
    assert_eq!(host.seen_text("/etc/portal.conf"), "old true\n");
}

#[test]
fn what_is_stored_survives_and_what_is_new_is_the_default_or_the_files() {
    let bench = given("portal: {contact: 'me: \"now\" # \\'}");
    let host = bench.host();
    let (_, plan) = bench.plan(&host);
    let expected = [
        "portal.replicas added - 2 by default",
        "portal.contact added - me: \"now\" # \\",
        "portal.old removed true -",
    ];
    assert_eq!(changes(&plan), expected);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["answers"][0]["text"], "How many");
    assert_eq!(json["plan"]["answers"]["portal"]["place"], "rack7");
    assert_eq!(bench.apply(&host).unwrap(), Ended::Committed);
    is_clean(&host);
    let after = json!({"greeting": "Hello", "place": "rack7", "replicas": 2, "contact": "me: \"now\" # \\"});
    assert_eq!(stored(&host), json!({"portal": after}));
    let shown = json!({"greeting": "Hello", "replicas": 2, "contact": "me: \"now\" # \\"});
    assert_eq!(data(&host, "rack7").unwrap(), shown);
    assert_eq!(host.seen_text("/etc/portal.conf"), "replicas 2\n");

    // The rollback brings the old ones back.
    let undo = run::begin_undo(&host, "tester").unwrap().unwrap();
    assert_eq!(bench.go_on(&host, undo).unwrap(), Ended::Undone);
    same(&look_back(&bench.installed), &look_back(&host.state.borrow()), "back");
    assert_eq!(stored(&host), json!({"portal": {"greeting": "Hello", "old": true, "place": "rack7"}}));
}

#[test]
fn the_file_goes_before_what_is_stored() {
    let bench = given("portal: {contact: me, place: hall, replicas: 3}");
    let host = bench.host();
    let (_, plan) = bench.plan(&host);
    let expected = [
        "portal.place changed rack7 hall",
        "portal.replicas added - 3",
        "portal.contact added - me",
        "portal.old removed true -",
    ];
    assert_eq!(changes(&plan), expected);
    assert_eq!(bench.apply(&host).unwrap(), Ended::Committed);
    assert_eq!(data(&host, "hall").unwrap()["replicas"], 3);
    assert_eq!(data(&host, "rack7"), None, "the object with the old answer in its name is gone");
    let undo = run::begin_undo(&host, "tester").unwrap().unwrap();
    assert_eq!(bench.go_on(&host, undo).unwrap(), Ended::Undone);
    assert_eq!(data(&host, "hall"), None);
    assert_eq!(data(&host, "rack7").unwrap(), json!({"greeting": "Hello", "old": "true"}));
}

#[test]
fn an_upgrade_that_fails_leaves_the_old_answers() {
    let bench = given("portal: {contact: me, place: hall}");
    for fault in ["rehearsal", "pack"] {
        let host = bench.host();
        host.state.borrow_mut().fault = Some(fault);
        assert!(matches!(bench.apply(&host).unwrap(), Ended::WentBack { .. }), "{fault}");
        same(&look_back(&bench.installed), &look_back(&host.state.borrow()), fault);
    }
}

/// The pack is the same in both releases; only what the site says is another thing.
#[test]
fn another_answer_alone_applies_the_pack_anew() {
    let (first, (mut next, blobs)) = (asking(Variant::First), asking(Variant::Second));
    let mut old = first.0.clone();
    portal(&mut next).clone_from(portal(&mut old));
    let mut config = example();
    config.answers = said("portal: {place: rack7}");
    let mut bench = Bench::of(config, first, (next, blobs));
    let (_, plan) = bench.plan(&bench.host());
    assert!(changes(&plan).is_empty());
    assert!(!plan.plan.steps.iter().any(|step| step.id.ends_with(":portal") || step.id == "upgrade.answers"));
    bench.answers = said("portal: {place: hall, old: false}");
    let host = bench.host();
    assert_eq!(bench.apply(&host).unwrap(), Ended::Committed);
    assert_eq!(data(&host, "hall").unwrap(), json!({"greeting": "Hello", "old": "false"}));
    assert_eq!(data(&host, "rack7"), None);
    assert_eq!(host.seen_text("/etc/portal.conf"), "old false\n");
    let undo = run::begin_undo(&host, "tester").unwrap().unwrap();
    assert_eq!(bench.go_on(&host, undo).unwrap(), Ended::Undone);
    same(&look_back(&bench.installed), &look_back(&host.state.borrow()), "back");
}

#[test]
fn what_nobody_answered_and_what_does_not_fit_stands_against_it() {
    let open = bench();
    let host = open.host();
    let (measured, hint) = problem(&open, &host);
    let expected = "answers.portal.contact: is not answered: Whom to ask (one line of at most 256 characters)";
    assert_eq!(measured, expected);
    assert!(hint.contains("--answers FILE") && hint.contains("{portal: {contact: …}}"), "{hint}");
    assert!(open.plan(&host).1.lacks_answers_only());

    let wrong = given("{portal: {contact: me, replicas: 12, colour: red}, door: {open: true}}");
    let (measured, _) = problem(&wrong, &host);
    for says in [
        "answers.portal.replicas: 12 is not a whole number from 1 to 9",
        "answers.portal.colour: the pack does not ask that; it asks greeting, place, replicas, contact",
        "answers.door: the bundle cofferdam 1.1.0 has no pack door",
    ] {
        assert!(measured.contains(says), "{says}: {measured}");
    }
    assert!(!wrong.plan(&host).1.lacks_answers_only(), "nobody is asked while a file has to be mended");

    // The next release takes shorter names only; the file can say another one.
    let (mut next, blobs) = asking(Variant::Second);
    portal(&mut next).descriptor.questions[1].max_length = Some(3);
    let mut config = example();
    config.answers = said("portal: {place: rack7}");
    let mut short = Bench::of(config, asking(Variant::First), (next, blobs));
    short.answers = said("portal: {contact: me}");
    let host = short.host();
    let (measured, hint) = problem(&short, &host);
    let expected = "answers.portal.place: the stored answer does not fit any more: has more than 3 characters";
    assert_eq!(measured, expected);
    assert!(hint.contains("{portal: {place: …}}"), "{hint}");
    short.answers = said("portal: {contact: me, place: r7}");
    assert_eq!(short.apply(&host).unwrap(), Ended::Committed);
}

/// As `apply` does it on a terminal: what was typed is in the transaction, so whatever happens nobody is asked again.
#[test]
fn what_is_asked_on_the_terminal_is_asked_once() {
    let mut bench = bench();
    let (_, plan) = bench.plan(&bench.host());
    let open = answers::open(&plan.answers, &bench.next);
    assert_eq!(
        open.iter().map(|(pack, question)| (*pack, question.name.as_str())).collect::<Vec<_>>(),
        [("portal", "contact")]
    );
    let mut output = Vec::new();
    let typed = answers::ask(&open, &mut "\nthe desk\n".as_bytes(), &mut output).unwrap().unwrap();
    assert!(String::from_utf8(output).unwrap().contains("portal: Whom to ask"));
    bench.answers = answers::joined(&bench.answers, typed);

    let host = bench.host();
    bench.apply(&host).unwrap();
    let effects = host.state.borrow().effects;
    let mut resumed = 0;
    // Each seventh effect: all of them are the test of upgrades.
    for effect in (1..=effects).step_by(7) {
        let host = bench.host();
        host.crash_at(effect, Crash::PowerAfter);
        assert!(bench.apply(&host).is_err());
        host.come_back();
        let Some(transaction) = Transaction::read(&host, CURRENT).unwrap() else { continue };
        resumed += 1;
        assert_eq!(transaction.forward.answers["portal"]["contact"].to_string(), "the desk");
        let ended = run::go_on(&host, transaction, "tester", &Stop::default(), &mut |_| {}).unwrap();
        assert_eq!(ended, Ended::Committed, "effect {effect}");
        assert_eq!(stored(&host)["portal"]["contact"], "the desk", "effect {effect}");
        assert_eq!(data(&host, "rack7").unwrap()["contact"], "the desk");
    }
    assert!(resumed > 5, "{resumed}");
}
