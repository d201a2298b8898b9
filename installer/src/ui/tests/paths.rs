//! What an operator does, from the first page to the plan.

use ratatui::crossterm::event::KeyCode;
use zeroize::Zeroizing;

use super::{Fixture, Operator, answered, example, text};
use crate::check::Outcome;
use crate::config::{self, Page};
use crate::facts::Probed;
use crate::facts::Questions;
use crate::prepare;
use crate::ui::answers::CertificateMode;
use crate::ui::dialog::Dialog;
use crate::ui::field::{Field, Pem};
use crate::ui::machine::Machine as _;
use crate::ui::theme::Mode;
use crate::ui::update::Message;

/// From the first page to the plan with defaults; only the FQDN is typed.
pub(super) fn to_the_plan() -> Operator {
    let mut operator = Operator::at(Fixture::new(), Mode::Colour);
    for _ in 0..40 {
        if operator.model.page == Page::Review {
            break;
        }
        if operator.model.focused() == Some(Field::Fqdn) && operator.model.answers.fqdn.is_empty() {
            operator.write("mgmt.rack7.example.com");
        }
        operator.enter();
    }
    assert_eq!(operator.model.page, Page::Review);
    operator
}

#[test]
fn the_way_to_the_plan_is_short() {
    let operator = to_the_plan();
    assert!(operator.model.prepared().unwrap().plan.is_ok(), "{}", text(&operator.picture(80, 60)));
    assert!(operator.presses <= 25, "{} keys besides typed text", operator.presses);
    // The number is told in docs/installer.md.
    assert_eq!(operator.presses, 12);
}

#[test]
fn an_appliance_gets_its_network_before_its_page_is_left() {
    let mut operator = Operator::at(Fixture::appliance(), Mode::Colour);
    operator.open(Page::Network);
    operator.go_to(Field::OwnNetwork(true));
    operator.press(KeyCode::Char(' '));
    assert_eq!(operator.model.answers.network.adapters, ["eth0"], "the adapter with a link");
    operator.go_to(Field::Addresses);
    operator.write("192.0.2.11/33");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Network, "what does not parse is not set up");
    assert!(operator.machine.network.lock().unwrap().is_none());
    operator.press(KeyCode::Backspace);
    operator.press(KeyCode::Backspace);
    operator.write("24");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Identity, "{:?}", operator.model.notice);
    let set_up = operator.machine.network.lock().unwrap().clone().unwrap();
    assert_eq!(set_up.addresses, ["192.0.2.11/24".parse().unwrap()]);
    assert_eq!(operator.model.answers.address, "192.0.2.11", "the node has the first of them");
    assert_eq!(operator.model.answers.draft().0.network, Some(set_up));
    // Its time servers are asked as soon as their field is left.
    operator.open(Page::Network);
    operator.go_to(Field::TimeServers);
    operator.write("ntp.example.com 192.0.2.124");
    assert!(operator.model.questions().time_servers.len() == 2 && !asked_for_time(&operator), "still typed into");
    operator.press(KeyCode::Tab);
    assert!(asked_for_time(&operator));
    let seen = text(&operator.picture(100, 70));
    for words in ["ntp.example.com: +0.8 ms, stratum 2", "192.0.2.124: +0.8 ms", "time.skew"] {
        assert!(seen.contains(words), "{seen}");
    }
    operator.control('n');
    assert_eq!(operator.model.page, Page::Identity, "{:?}", operator.model.notice);
    // Nothing changed: the page is left at once.
    operator.machine.set_up = Err("it was set up again".to_owned());
    operator.open(Page::Network);
    operator.control('n');
    assert_eq!(operator.model.page, Page::Identity);
    // A cable that is not in is said, and the page stays.
    operator.machine.set_up = Err("192.0.2.12/24 did not come up on eth0".to_owned());
    operator.open(Page::Network);
    operator.go_to(Field::Addresses);
    operator.press(KeyCode::End);
    (0..4).for_each(|_| operator.press(KeyCode::Backspace));
    operator.write("2/24");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Network);
    assert!(text(&operator.picture(80, 60)).contains("did not come up"), "{}", text(&operator.picture(80, 60)));
    // Back to DHCP is a setting, too.
    operator.machine.set_up = Ok(());
    operator.go_to(Field::OwnNetwork(false));
    operator.press(KeyCode::Char(' '));
    operator.control('n');
    assert!(operator.machine.network.lock().unwrap().is_none());
}

/// Whether what is known is about the time servers of the answers.
fn asked_for_time(operator: &Operator) -> bool {
    operator.model.tasks.probe.answer(&operator.model.questions()).is_some()
}

#[test]
fn nothing_begins_without_the_typed_confirmation() {
    let mut operator = to_the_plan();
    operator.enter();
    assert!(matches!(operator.model.dialog, Some(Dialog::Begin(_))));
    // The focus is on No.
    operator.enter();
    assert!(operator.model.dialog.is_none() && operator.started.is_none());
    operator.enter();
    operator.write("2344");
    operator.enter();
    operator.enter();
    assert!(operator.started.is_none(), "another disk's serial number");
    operator.enter();
    for wrong in ["345", "", "S6CTNX0T51234"] {
        operator.press(KeyCode::Esc);
        operator.enter();
        operator.write(wrong);
        operator.press(KeyCode::Tab);
        operator.press(KeyCode::Tab);
        operator.enter();
        assert!(operator.started.is_none(), "{wrong:?}");
    }
    operator.press(KeyCode::Esc);
    operator.enter();
    operator.write("2345");
    operator.enter();
    operator.enter();
    let start = operator.started.as_ref().unwrap();
    assert_eq!(start.config.storage.disk.as_ref().unwrap().erase, "2345");
    assert_eq!(start.plan.destroys[0].serial, "S6CTNX0T512345");
    assert!(!start.resumes);
}

/// Invariant 8 of the design: the same answers give the same plan, byte for byte.
#[test]
fn by_keys_and_by_file_the_plan_is_the_same() {
    let mut operator = to_the_plan();
    operator.control('o');
    operator.enter();
    let (path, saved) = operator.machine.kept.lock().unwrap().last().cloned().unwrap();
    assert_eq!(path, "/media/cofferdam/install.yaml");
    let saved = String::from_utf8(saved).unwrap();
    assert!(!saved.contains("Still open"), "{saved}");
    operator.enter();
    operator.write("2345");
    operator.enter();
    operator.enter();
    let start = operator.started.unwrap();

    let config = config::parse(&saved).unwrap();
    assert_eq!(config, start.config);
    let facts = operator.machine.probe(&Questions::of(&config));
    let prepared = prepare::judge(&crate::host::real::RealHost, &config, &start.signed, &facts);
    let by_file = serde_json::to_string_pretty(&prepared.plan.unwrap()).unwrap();
    assert_eq!(by_file, serde_json::to_string_pretty(&start.plan).unwrap());
}

#[test]
fn an_unfinished_file_says_what_is_open_and_no_token_if_not_wanted() {
    let mut operator = Operator::at(Fixture::new(), Mode::Colour);
    operator.control('o');
    operator.press(KeyCode::Up);
    operator.press(KeyCode::Up);
    operator.press(KeyCode::Char(' '));
    operator.control('n');
    let (_, saved) = operator.machine.kept.lock().unwrap().last().cloned().unwrap();
    let saved = String::from_utf8(saved).unwrap();
    assert!(saved.contains("# Still open: site.fqdn"), "{saved}");
    assert!(saved.contains("erase: ''"), "{saved}");
}

#[test]
fn entries_survive_going_back() {
    let mut operator = to_the_plan();
    let answers = operator.model.answers.clone();
    for _ in 0..9 {
        operator.press(KeyCode::Esc);
    }
    assert_eq!(operator.model.page, Page::Welcome);
    assert_eq!(operator.model.answers, answers);
    operator.press(KeyCode::Esc);
    assert_eq!(operator.model.dialog, Some(Dialog::Abort(false)), "the focus is on staying");
    operator.enter();
    assert!(!operator.left);
}

#[test]
fn a_file_fills_the_pages_and_the_own_answers_come_back() {
    let mut config = example();
    config.interactive = vec![Page::Identity];
    let mut operator = Operator::at(Fixture::new().with_file(&config), Mode::Colour);
    operator.model.answers.fqdn = "own.rack9.example.com".to_owned();
    operator.go_to(Field::ConfigFile(0));
    operator.press(KeyCode::Char(' '));
    assert_eq!(operator.model.answers.fqdn, "mgmt.rack7.example.com");
    operator.go_to(Field::NoConfigFile);
    operator.press(KeyCode::Char(' '));
    assert_eq!(operator.model.answers.fqdn, "own.rack9.example.com");
    operator.go_to(Field::ConfigFile(0));
    operator.press(KeyCode::Char(' '));
    operator.control('n');
    assert_eq!(operator.model.page, Page::Identity, "the only page on which it stops");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Review);
    assert_eq!(operator.model.answers.config().unwrap(), config);
}

/// `interactive:` without `review`: the plan is shown, and begins by the file's own token unless a key is pressed.
#[test]
fn a_file_may_begin_by_itself_but_not_on_another_disk() {
    let mut config = example();
    config.interactive = vec![Page::Identity];
    let on_review = |machine: Fixture| {
        let mut operator = Operator::at(machine, Mode::Colour);
        crate::ui::update::take_config(&mut operator.model, &config, None);
        operator.tell(Message::Tick);
        operator.control('n');
        assert_eq!(operator.model.page, Page::Review);
        operator
    };
    let mut operator = on_review(Fixture::new());
    (0..120).for_each(|_| operator.tell(Message::Tick));
    let start = operator.started.expect("the file's token counts");
    assert_eq!(start.config, config);

    let mut operator = on_review(Fixture::new());
    operator.press(KeyCode::Down);
    (0..200).for_each(|_| operator.tell(Message::Tick));
    assert!(operator.started.is_none(), "a key stops it");

    let mut machine = Fixture::new();
    if let Probed::Known(disks) = &mut machine.facts.disks {
        disks[1].serial = Some("ANOTHER".to_owned());
    }
    let mut operator = on_review(machine);
    (0..200).for_each(|_| operator.tell(Message::Tick));
    assert!(operator.started.is_none(), "the file's disk is not there");
}

#[test]
fn a_failing_check_is_let_pass_in_two_steps() {
    let mut machine = Fixture::new();
    machine.facts.swap =
        Probed::Known(vec![crate::facts::disk::Swap { path: "/dev/sda2".to_owned(), encrypted: Probed::Known(false) }]);
    let mut operator = Operator::at(machine, Mode::Colour);
    operator.open(Page::Host);
    let findings = operator.model.findings(Page::Host);
    assert_eq!((findings[0].id.as_str(), findings[0].outcome), ("swap", Outcome::Fail), "what fails comes first");
    operator.go_to(Field::Finding(0));
    operator.enter();
    operator.enter();
    assert!(operator.model.answers.accept.is_empty(), "the focus is on No");
    operator.enter();
    for is_done in [false, true] {
        operator.press(KeyCode::Tab);
        operator.enter();
        assert_eq!(operator.model.answers.accept.contains("swap"), is_done);
    }
    assert!(operator.model.findings(Page::Host).iter().any(|finding| finding.accepted));
    assert_eq!(operator.model.answers.draft().0.accept, ["swap"]);
}

#[test]
fn a_hard_failure_cannot_be_let_pass() {
    let mut machine = Fixture::new();
    machine.facts.machine.systemd = Probed::Known(false);
    let mut operator = Operator::at(machine, Mode::Colour);
    operator.open(Page::Host);
    operator.go_to(Field::Finding(0));
    operator.enter();
    assert!(operator.model.dialog.is_none());
    assert!(operator.model.notice.as_ref().unwrap().text.contains("cannot be let pass"));
}

#[test]
fn several_free_disks_are_never_chosen_between() {
    let mut machine = Fixture::new();
    if let Probed::Known(disks) = &mut machine.facts.disks {
        let mut other = disks[1].clone();
        other.path = "/dev/sdd".to_owned();
        other.serial = Some("OTHER00099".to_owned());
        disks.push(other);
    }
    let mut operator = Operator::at(machine, Mode::Colour);
    assert_eq!(operator.model.answers.disk, None);
    operator.open(Page::Disks);
    operator.control('n');
    assert_eq!(operator.model.page, Page::Disks, "a disk has to be chosen");
    operator.go_to(Field::Disk(3));
    operator.press(KeyCode::Char(' '));
    assert_eq!(operator.model.answers.disk.as_ref().unwrap().token, "0099");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Network);
}

#[test]
fn a_disk_that_was_freed_is_seen_when_looked_at_again() {
    let mut machine = Fixture::new();
    let taken = |machine: &mut Fixture, why: Option<String>| {
        let Probed::Known(disks) = &mut machine.facts.disks else { panic!("known") };
        disks[1].in_use = why;
    };
    taken(&mut machine, Some("sdb1 is mounted at /srv".to_owned()));
    let mut operator = Operator::at(machine, Mode::Colour);
    operator.open(Page::Disks);
    assert_eq!(operator.model.answers.disk, None);
    taken(&mut operator.machine, None);
    operator.control('r');
    assert_eq!(operator.model.answers.disk.as_ref().unwrap().path, "/dev/sdb");
}

#[test]
fn a_disk_with_a_short_serial_number_or_none_has_a_token() {
    for (serial, token, wrong) in [(Some("X1"), "X1", "1"), (None, "/dev/sdb", "sdb")] {
        let mut machine = Fixture::new();
        let Probed::Known(disks) = &mut machine.facts.disks else { panic!("known") };
        disks[1].serial = serial.map(str::to_owned);
        let mut operator = Operator::at(machine, Mode::Colour);
        operator.model.answers.fqdn = "mgmt.rack7.example.com".to_owned();
        operator.open(Page::Review);
        for (typed, begins) in [(wrong, false), (token, true)] {
            operator.press(KeyCode::Esc);
            operator.open(Page::Review);
            operator.control('n');
            operator.write(typed);
            operator.enter();
            operator.enter();
            assert_eq!(operator.started.is_some(), begins, "{typed}: {}", text(&operator.picture(80, 30)));
        }
        assert_eq!(operator.started.unwrap().config.storage.disk.unwrap().erase, token);
    }
}

#[test]
fn without_encryption_its_token_and_the_name_of_the_node_are_typed() {
    let mut operator = answered();
    operator.open(Page::Disks);
    operator.go_to(Field::Encrypt(false));
    operator.enter();
    operator.control('n');
    assert_eq!(operator.model.page, Page::Disks, "the token is missing");
    operator.write("store-secrets-unencrypted");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Network);
    operator.open(Page::Review);
    assert!(text(&operator.picture(80, 24)).contains("NOT ENCRYPTED"));
    operator.control('n');
    operator.write("rack7-b");
    operator.enter();
    operator.enter();
    assert!(operator.started.is_none() && operator.model.dialog.is_none());
    operator.control('n');
    operator.write("rack7-a");
    operator.enter();
    operator.enter();
    let start = operator.started.unwrap();
    assert_eq!(start.config.storage.disk, None);
    assert!(start.plan.destroys.is_empty());
}

#[test]
fn a_pasted_key_is_kept_and_never_drawn() {
    let mut operator = answered();
    operator.open(Page::Certificates);
    operator.go_to(Field::Certificates(CertificateMode::Import));
    operator.press(KeyCode::Char(' '));
    operator.go_to(Field::Paste(Pem::Key));
    operator.enter();
    let pem = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0c2VjcmV0\n-----END PRIVATE KEY-----\n";
    operator.tell(Message::Paste(Zeroizing::new(pem.replace('\n', "\r"))));
    let seen = text(&operator.picture(80, 24));
    assert!(seen.contains("3 lines so far") && !seen.contains("c2VjcmV0"), "{seen}");
    operator.control('n');
    assert_eq!(operator.model.answers.key, "/run/cofferdam/pasted/key.pem");
    let kept = operator.machine.kept.lock().unwrap().last().cloned().unwrap();
    assert_eq!(kept, ("/run/cofferdam/pasted/key.pem".into(), pem.as_bytes().to_vec()));
    assert!(!text(&operator.picture(120, 40)).contains("c2VjcmV0"));
}

#[test]
fn a_password_becomes_a_hash_and_is_never_drawn() {
    let mut operator = answered();
    operator.open(Page::Administrator);
    operator.go_to(Field::Administrator(true));
    operator.enter();
    operator.go_to(Field::AccountName);
    operator.write("operator");
    operator.enter();
    operator.write("short");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Administrator);
    assert!(operator.model.notice.as_ref().unwrap().is_bad);
    operator.go_to(Field::Password);
    operator.control('u');
    operator.write("a long enough passphrase");
    operator.enter();
    operator.write("a long enough passphrase");
    let seen = text(&operator.picture(80, 40));
    assert!(!seen.contains("passphrase") && seen.contains("••••"), "{seen}");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Review);
    let hash = operator.model.answers.password_hash.clone().unwrap();
    assert!(bcrypt::verify("a long enough passphrase", &hash).unwrap());
    assert!(operator.model.password.is_empty() && operator.model.password_again.is_empty());
    let plan = operator.model.prepared().unwrap().plan.clone().unwrap();
    assert!(plan.steps.iter().any(|step| step.id == "admin.account"));
    assert!(!serde_json::to_string(&plan).unwrap().contains(&hash), "no hash in the plan");
}

/// Types a passphrase of the disk twice.
pub(super) fn type_passphrase(operator: &mut Operator, text: &str) {
    operator.open(Page::Disks);
    if !operator.model.answers.use_passphrase {
        operator.go_to(Field::UsePassphrase);
        operator.press(KeyCode::Char(' '));
    }
    for field in [Field::Passphrase, Field::PassphraseAgain] {
        operator.go_to(field);
        operator.control('u');
        operator.write(text);
    }
}

#[test]
fn a_passphrase_is_kept_in_memory_and_never_drawn_or_saved() {
    let mut operator = answered();
    operator.open(Page::Disks);
    operator.go_to(Field::UsePassphrase);
    operator.enter();
    operator.control('n');
    assert_eq!(operator.model.page, Page::Disks, "it is asked for, and empty");
    for weak in ["short", "aaaaaaaaaaaaaaaaaaaaa", "grüne Wiese hinter dem Deich"] {
        type_passphrase(&mut operator, weak);
        operator.control('n');
        assert_eq!(operator.model.page, Page::Disks, "{weak}");
        assert!(operator.model.notice.as_ref().unwrap().is_bad && operator.machine.kept.lock().unwrap().is_empty());
    }
    type_passphrase(&mut operator, "correct horse battery");
    operator.write("x");
    operator.control('n');
    assert!(operator.model.notice.as_ref().unwrap().text.contains("twice the same"), "{:?}", operator.model.notice);
    operator.go_to(Field::PassphraseAgain);
    operator.press(KeyCode::Backspace);
    let seen = text(&operator.picture(80, 60));
    assert!(!seen.contains("horse") && seen.contains("••••"), "{seen}");
    operator.control('n');
    assert_eq!(operator.model.page, Page::Network, "{:?}", operator.model.notice);
    let kept = operator.machine.kept.lock().unwrap().clone();
    assert_eq!(kept, [("/run/cofferdam/pasted/passphrase".into(), b"correct horse battery".to_vec())]);
    assert!(operator.model.passphrase.is_empty() && operator.model.passphrase_again.is_empty());
    assert!(!format!("{:?}", operator.model).contains("horse"));

    operator.open(Page::Review);
    let prepared = operator.model.prepared().unwrap();
    let plan = prepared.plan.clone().unwrap_or_else(|refusal| panic!("{refusal}"));
    assert!(plan.steps.iter().any(|step| step.title.contains("(passphrase)")), "{}", plan.to_text());
    assert!(!serde_json::to_string(&plan).unwrap().contains("horse"));
    operator.control('o');
    operator.enter();
    let (_, saved) = operator.machine.kept.lock().unwrap().last().cloned().unwrap();
    let saved = String::from_utf8(saved).unwrap();
    assert!(saved.contains("file: /run/cofferdam/pasted/passphrase") && saved.contains("was typed"), "{saved}");
    assert!(!saved.contains("horse") && !saved.contains("Still open"), "{saved}");

    // By file it is the same plan.
    let config = config::parse(&saved).unwrap();
    let signed = operator.model.signed().cloned().unwrap();
    assert_eq!(operator.machine.prepare(&config, &signed).plan.unwrap(), plan);
    // A file that is not there any more, as after a restart.
    operator.machine.kept.lock().unwrap().clear();
    let refusal = operator.machine.prepare(&config, &signed).plan.unwrap_err();
    assert_eq!(refusal.code, prepare::code::PREFLIGHT);
    assert!(refusal.message.contains("there is no file"), "{refusal}");
    operator.control('r');
    assert!(text(&operator.picture(80, 40)).contains("[ Disks ]"), "{}", text(&operator.picture(80, 40)));

    // Typed anew it replaces the one that was set; without it the slot is not asked for.
    type_passphrase(&mut operator, "battery staple horse");
    operator.control('n');
    let (_, kept) = operator.machine.kept.lock().unwrap().last().cloned().unwrap();
    assert_eq!(kept, b"battery staple horse");
    operator.open(Page::Disks);
    operator.go_to(Field::UsePassphrase);
    operator.press(KeyCode::Char(' '));
    assert_eq!(operator.model.answers.config().unwrap().passphrase_file(), None);
}

#[test]
fn a_request_is_made_and_its_answer_is_loaded_later() {
    let mut operator = answered();
    operator.open(Page::Certificates);
    operator.go_to(Field::Certificates(CertificateMode::Request));
    operator.press(KeyCode::Char(' '));
    assert_eq!(operator.model.answers.request, "/media/cofferdam/mgmt.rack7.example.com.csr");
    operator.go_to(Field::MakeRequest);
    operator.enter();
    assert!(text(&operator.picture(80, 24)).contains("BEGIN CERTIFICATE REQUEST"));
    operator.press(KeyCode::Esc);
    operator.go_to(Field::Certificate);
    operator.write("/media/cofferdam/answer.pem");
    operator.go_to(Field::Roots);
    operator.write("/media/cofferdam/root.pem");
    operator.go_to(Field::Continue);
    assert!(text(&operator.picture(80, 40)).contains("This certificate can be used"));
    assert!(matches!(operator.model.answers.config().unwrap().certificates, config::Certificates::Request { .. }));
}

#[test]
fn help_log_look_and_abort() {
    let mut operator = answered();
    for page in Page::ALL {
        operator.open(page);
        operator.control('g');
        let seen = text(&operator.picture(80, 24));
        assert!(seen.contains("Help:") && seen.contains("F1 ^G"), "{seen}");
        operator.press(KeyCode::Esc);
        assert!(operator.model.dialog.is_none());
    }
    operator.control('e');
    assert!(text(&operator.picture(80, 24)).contains("the host was looked at"));
    operator.control('y');
    assert_eq!(operator.model.look, Mode::Basic);
    operator.press(KeyCode::Esc);
    operator.control('c');
    operator.press(KeyCode::Tab);
    operator.enter();
    assert!(operator.left);
}

#[test]
fn only_checking_the_host_ends_after_it() {
    let mut operator = Operator::at(Fixture::new(), Mode::Colour);
    operator.go_to(Field::Mode(crate::ui::field::Mode::Check));
    operator.press(KeyCode::Char(' '));
    operator.control('n');
    assert_eq!(operator.model.page, Page::Host);
    operator.control('n');
    assert!(operator.left && operator.started.is_none());
}
