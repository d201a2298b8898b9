//! Each page at 80×24, 120×40 and in basic mode, with good, warning and failing content.

use super::{Fixture, Operator, answered, text};
use crate::config::Page;
use crate::facts::network::Name;
use crate::facts::{Probed, Probed::Known};
use crate::prepare::{Refusal, code};
use crate::ui::answers::CertificateMode;
use crate::ui::dialog::Dialog;
use crate::ui::field::{Field, page_name};
use crate::ui::machine::Judged;
use crate::ui::theme::Mode;
use crate::ui::update::Message;
use ratatui::crossterm::event::KeyCode;

/// Everything as it should be.
pub(super) fn good() -> Operator {
    answered()
}

/// It works, with drawbacks.
pub(super) fn warning() -> Operator {
    let mut machine = Fixture::new();
    machine.facts.machine.virtualisation = Known("kvm".to_owned());
    machine.facts.machine.clock_synchronised = Known(false);
    machine.facts.machine.time_source = Known(None);
    machine.facts.network.time_servers[0].time = Probed::unknown("no answer within 3 s");
    machine.facts.machine.firmware.secure_boot = Known(false);
    machine.facts.machine.tpm2.present = Known(false);
    machine.facts.network.reverse = Known(None);
    if let Known(adapters) = &mut machine.facts.network.adapters {
        adapters[0].speed = Probed::unknown("the adapter's driver does not tell");
        adapters[0].mtu = 1450;
    }
    if let Known(disks) = &mut machine.facts.disks {
        disks[1].contents =
            vec!["GPT partition table".to_owned(), "part sdb1: ext4 filesystem \"old-data\", 894.2 GiB".to_owned()];
        disks[1].size_bytes = 8 << 30;
    }
    machine.judged.findings = vec![certs::Finding {
        id: "cert.days-left",
        severity: certs::Severity::Warn,
        message: "CN=mgmt.rack7.example.com ends in 41 days, at 2027-01-03T12:00:00Z".to_owned(),
        hint: Some("plan its renewal now".to_owned()),
    }];
    let mut operator = Operator::at(machine, Mode::Colour);
    let answers = &mut operator.model.answers;
    answers.fqdn = "mgmt.rack7.example.com".to_owned();
    answers.certificate_mode = CertificateMode::Import;
    answers.certificate = "/media/tls/chain.pem".to_owned();
    answers.key = "/media/tls/key.pem".to_owned();
    answers.roots = "/media/tls/root.pem".to_owned();
    answers.make_administrator = true;
    answers.administrator = "operator".to_owned();
    answers.password_hash = Some(format!("$2b$12${}", "a".repeat(53)));
    operator.tell(Message::Tick);
    operator
}

/// It cannot work.
pub(super) fn failing() -> Operator {
    let mut machine = Fixture::new();
    machine.facts.machine.systemd = Known(false);
    machine.facts.machine.memory_bytes = Known(1 << 30);
    if let Known(disks) = &mut machine.facts.disks {
        disks[1].in_use = Some("sdb1 is part of an LVM volume group".to_owned());
    }
    machine.facts.network.address_taken = Known(true);
    if let Known(time) = &mut machine.facts.network.time_servers[0].time {
        time.offset_microseconds = -4_200_000;
    }
    machine.facts.network.fqdn = Some(Name { name: String::new(), addresses: Known(Vec::new()) });
    if let Known(routes) = &mut machine.facts.network.routes {
        routes[0].destination = "10.96.0.0/16".to_owned();
    }
    machine.head = Err(Refusal::new(
        code::BUNDLE,
        "the bundle is not trusted: it was signed by the key 1122334455667788, and trusted is only 7EA64BA51A4C7734",
        "get the public key from the publisher by another way than the bundle, and pass it with --trust",
    ));
    machine.judged = Judged {
        findings: vec![certs::Finding {
            id: "cert.san",
            severity: certs::Severity::Fail,
            message: "the certificate is for portal.example.com, not for mgmt.rack7.example.com".to_owned(),
            hint: Some("ask for a certificate with the name mgmt.rack7.example.com".to_owned()),
        }],
        summary: Vec::new(),
    };
    let mut operator = Operator::at(machine, Mode::Colour);
    let answers = &mut operator.model.answers;
    answers.fqdn = "mgmt.rack7.example.com".to_owned();
    answers.vip = "192.0.2.300".to_owned();
    answers.certificate_mode = CertificateMode::Import;
    answers.certificate = "/media/tls/chain.pem".to_owned();
    answers.key = "/media/tls/key.pem".to_owned();
    answers.roots = "/media/tls/root.pem".to_owned();
    answers.pod_cidr = "192.0.2.0/24".to_owned();
    answers.make_administrator = true;
    answers.administrator = "root".to_owned();
    for character in "aaaaaaaa".chars() {
        operator.model.password.push(character);
    }
    operator.model.tried = Page::ALL.into();
    operator.tell(Message::Tick);
    operator
}

#[test]
fn pages() {
    let mut count = 0;
    for (content, make) in [("good", good as fn() -> Operator), ("warning", warning), ("failing", failing)] {
        let mut operator = make();
        for page in Page::ALL {
            operator.open(page);
            for (size, look) in [((80, 24), Mode::Colour), ((120, 40), Mode::Colour), ((80, 24), Mode::Basic)] {
                operator.model.look = look;
                let word = if look == Mode::Basic { "basic".to_owned() } else { format!("{}x{}", size.0, size.1) };
                let name = format!("{}-{content}-{word}", page_name(page).to_lowercase());
                let seen = text(&operator.picture(size.0, size.1));
                if look == Mode::Basic {
                    assert!(seen.is_ascii(), "{name}\n{seen}");
                }
                insta::assert_snapshot!(name, seen);
                count += 1;
            }
            operator.model.look = Mode::Colour;
        }
    }
    assert_eq!(count, 90);
}

#[test]
fn the_network_of_an_appliance() {
    let mut operator = Operator::at(Fixture::appliance(), Mode::Colour);
    operator.open(Page::Network);
    insta::assert_snapshot!("appliance-network-dhcp", text(&operator.picture(80, 24)));
    operator.go_to(Field::OwnNetwork(true));
    operator.press(KeyCode::Char(' '));
    operator.go_to(Field::Adapter(1));
    operator.press(KeyCode::Char(' '));
    operator.go_to(Field::Addresses);
    operator.write("192.0.2.11/24");
    operator.go_to(Field::Gateways);
    operator.write("192.0.2.1");
    insta::assert_snapshot!("appliance-network-own", text(&operator.picture(120, 40)));
    insta::assert_snapshot!("appliance-network-own-80x24", text(&operator.picture(80, 24)));
    operator.open(Page::Disks);
    insta::assert_snapshot!("appliance-disks", text(&operator.picture(80, 24)));
}

#[test]
fn the_passphrase_of_the_disk() {
    let mut operator = good();
    operator.open(Page::Disks);
    operator.go_to(Field::UsePassphrase);
    operator.press(KeyCode::Char(' '));
    operator.go_to(Field::Passphrase);
    operator.write("correct horse battery");
    operator.go_to(Field::PassphraseAgain);
    operator.write("correct");
    insta::assert_snapshot!("disks-passphrase", text(&operator.picture(80, 24)));
}

#[test]
fn what_opens_over_a_page() {
    let mut operator = good();
    operator.open(Page::Review);
    operator.control('n');
    operator.write("23");
    insta::assert_snapshot!("dialog-begin", text(&operator.picture(80, 24)));
    operator.press(KeyCode::Esc);
    operator.control('o');
    insta::assert_snapshot!("dialog-save", text(&operator.picture(80, 24)));
    operator.press(KeyCode::Esc);
    operator.control('c');
    insta::assert_snapshot!("dialog-quit", text(&operator.picture(80, 24)));
    operator.press(KeyCode::Esc);
    operator.control('g');
    insta::assert_snapshot!("dialog-help", text(&operator.picture(80, 24)));
    operator.press(KeyCode::Esc);
    operator.open(Page::Certificates);
    operator.model.dialog =
        Some(Dialog::Paste(crate::ui::field::Pem::Certificate, crate::ui::secret::Secret::with_limit(9)));
    insta::assert_snapshot!("dialog-paste", text(&operator.picture(80, 24)));

    let mut machine = Fixture::new();
    machine.facts.swap =
        Known(vec![crate::facts::disk::Swap { path: "/dev/sda2".to_owned(), encrypted: Known(false) }]);
    let mut operator = Operator::at(machine, Mode::Colour);
    operator.open(Page::Host);
    operator.go_to(Field::Finding(0));
    operator.enter();
    insta::assert_snapshot!("dialog-accept", text(&operator.picture(80, 24)));
}

#[test]
fn too_small() {
    let mut operator = good();
    insta::assert_snapshot!("too-small-40x10", text(&operator.picture(40, 10)));
    for (width, height) in [(1, 1), (5, 2), (79, 24), (80, 23)] {
        let seen = text(&operator.picture(width, height));
        assert!(!seen.contains("Welcome"), "{width}×{height}");
    }
    let answers = operator.model.answers.clone();
    operator.tell(Message::Size(40, 10));
    operator.enter();
    operator.write("unseen");
    assert_eq!(
        (operator.model.page, &operator.model.answers),
        (Page::Welcome, &answers),
        "what is not seen is not changed"
    );
}

#[test]
fn work_in_the_background_turns_and_can_be_stopped() {
    let mut model = crate::ui::model::Model::new(Mode::Colour);
    let effects = crate::ui::update::update(&mut model, Message::Tick);
    assert_eq!(effects.len(), 2, "media and host");
    model.page = Page::Host;
    (0..40).for_each(|_| drop(crate::ui::update::update(&mut model, Message::Tick)));
    let operator = Operator { machine: Fixture::new(), model, started: None, left: false, presses: 0 };
    insta::assert_snapshot!("host-busy", text(&operator.picture(80, 24)));
    let mut model = operator.model;
    let escape = Message::Key(ratatui::crossterm::event::KeyEvent::from(KeyCode::Esc));
    let effects = crate::ui::update::update(&mut model, escape.clone());
    assert!(effects.iter().any(|effect| matches!(effect, crate::ui::update::Effect::Cancel(_))));
    assert_eq!(model.page, Page::Host, "Esc stops first");
    crate::ui::update::update(&mut model, escape);
    assert_eq!(model.page, Page::Welcome);
    // Without an answer it is given up.
    model.tasks.probe.forget();
    model.page = Page::Host;
    (0..1300).for_each(|_| drop(crate::ui::update::update(&mut model, Message::Tick)));
    assert!(model.tasks.probe.broken().is_some() && model.tasks.probe.running().is_none());
}
