//! What the tests of these pages share, and the session as a whole: no key does what was not confirmed.
#![allow(clippy::unwrap_used, clippy::panic)]

use certs::RecoveryKey;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::model::{Failure, Outcome};
use super::session::{Choice, Dialog, Effect, Input, May, Page, Session};
use super::view;
use crate::config::KeyDerivation;
use crate::engine::event::{Event, Progress};
use crate::engine::question::{Answer, RecoveryKeyShown};
use crate::plan::{Action, Disk, Plan, Proof, ServerCertificate, Step, Volume};
use crate::ui::theme::Mode;

pub(super) const KEY: &str = "cccbcdce-cfcgchci-cjckclcn-crctcucv-bcbbbdbe-bfbgbhbi-bjbkblbn-brbtbubv";

/// A plan with every kind of step that the pages tell apart.
pub(super) fn sample_plan() -> Plan {
    let disk = Disk {
        path: "/dev/sdb".to_owned(),
        serial: "S6CTNX0T512345".to_owned(),
        model: "PM9A3".to_owned(),
        size: 960_000_000_000,
        contents: Vec::new(),
    };
    let derivation = KeyDerivation::default();
    let steps = [
        ("host.prepare", "Prepare the host", 2, Action::PrepareHost { modules: Vec::new(), sysctls: Vec::new() }),
        (
            "disk.encrypt",
            "Encrypt /dev/sdb and prove that it opens",
            20,
            Action::EncryptDisk {
                disk: disk.clone(),
                tpm2: true,
                pcrs: vec![7],
                signed_pcrs: Vec::new(),
                key_derivation: derivation,
                escrow_recipients: Vec::new(),
                escrow_directory: None,
                show_recovery_key: true,
                passphrase: None,
            },
        ),
        (
            "data.mount",
            "Mount the data volume",
            3,
            Action::MountData { volume: Volume::Encrypted { tpm2: true, discards: false } },
        ),
        ("data.bind", "Bind the state folders to the data volume", 1, Action::BindState),
        (
            "certificates.issue",
            "Make keys and certificates",
            2,
            Action::IssueCertificates {
                algorithm: "ecdsa-p256".to_owned(),
                server: ServerCertificate::Issued,
                names: Vec::new(),
            },
        ),
        (
            "bundle.load",
            "Load the bundle into the registry's store",
            57,
            Action::LoadBundle { path: "/media/bundle.tar.zst".into(), bytes: 4_700_000_000 },
        ),
        ("registry.start", "Start the registry", 2, Action::StartRegistry { address: "192.0.2.11".parse().unwrap() }),
        (
            "pack.files:kubernetes",
            "Install the files of pack kubernetes 1.35.0",
            3,
            Action::InstallFiles { pack: "kubernetes".to_owned() },
        ),
        ("images.pull", "Pull the images of the control plane", 20, Action::PullImages { images: Vec::new() }),
        (
            "kubeadm.certs",
            "Kubernetes: certificates of the control plane",
            3,
            Action::KubeadmPhase { phase: "certs all".to_owned(), proof: Proof::File("/x".into()) },
        ),
        ("kubernetes.api", "Wait until the API server answers", 30, Action::WaitForApi),
        ("pack.apply:network", "Apply pack network 1.0.0", 10, Action::ApplyPack { pack: "network".to_owned() }),
        ("kubernetes.node", "Wait until the node is Ready", 10, Action::WaitForNode),
        (
            "rehearsal",
            "Rehearse: TLS by FQDN, a pull through containerd",
            3,
            Action::Rehearse { image: "registry.k8s.io/pause:3.10".to_owned(), workload: false },
        ),
        ("site.record", "Record the site", 1, Action::RecordSite),
    ];
    let step = |(id, title, weight, action): (&str, &str, u32, Action)| Step {
        id: id.to_owned(),
        title: title.to_owned(),
        weight,
        limit: 60,
        attempts: 1,
        action,
    };
    Plan {
        schema_version: 1,
        site: "rack7".to_owned(),
        fqdn: "mgmt.rack7.example.com".to_owned(),
        bundle: "cofferdam 1.0.0".to_owned(),
        index: "sha256:00".to_owned(),
        destroys: vec![disk],
        answers: crate::config::Answers::new(),
        steps: steps.into_iter().map(step).collect(),
    }
}

/// 14:00 on some day, and so many seconds.
pub(super) fn clock(seconds: i64) -> Timestamp {
    "2026-11-25T14:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

pub(super) fn session(mode: Mode) -> Session {
    Session::new(sample_plan(), mode, May { change_settings: true, open_shell: true }, clock(0))
}

/// Lets a session hear that the steps before this one were done, one in seven seconds, and that this one began; gives the
/// clock.
pub(super) fn bring_to(session: &mut Session, id: &str) -> i64 {
    let mut now = 0;
    let plan = session.plan.clone();
    session.update(Input::Heard(
        clock(now),
        Event::Started { site: plan.site.clone(), steps: plan.steps.len(), weight: 0 },
    ));
    for (position, step) in plan.steps.iter().enumerate() {
        let (id_of_it, title, number) = (step.id.clone(), step.title.clone(), position + 1);
        let began = Event::StepStarted { id: id_of_it.clone(), title: title.clone(), number, of: plan.steps.len() };
        session.update(Input::Heard(clock(now), began));
        if id_of_it == id {
            return now;
        }
        now += 7;
        let ended = Event::StepFinished { id: id_of_it, title, number, milliseconds: 7000 };
        session.update(Input::Heard(clock(now), ended));
    }
    session.update(Input::Heard(clock(now), Event::Finished { site: plan.site }));
    now
}

pub(super) fn note(session: &mut Session, seconds: i64, id: &str, text: &str) {
    let progress = Progress::Note { text: text.to_owned() };
    session.update(Input::Heard(clock(seconds), Event::StepProgress { id: id.to_owned(), progress }));
}

pub(super) fn shown(escrowed: bool) -> RecoveryKeyShown {
    RecoveryKeyShown::new(RecoveryKey::parse(KEY).unwrap(), "/dev/sdb", escrowed).unwrap()
}

pub(super) fn fail(session: &mut Session, seconds: i64, id: &str, error: &str) -> Vec<Effect> {
    let title = session.plan.steps.iter().find(|step| step.id == id).unwrap().title.clone();
    session.update(Input::Heard(
        clock(seconds),
        Event::StepFailed {
            id: id.to_owned(),
            title,
            code: "command-failed".to_owned(),
            error: error.to_owned(),
            hint: Some("`journalctl -u kubelet -u containerd` on this host tells more".to_owned()),
            attempt: 1,
            again: false,
        },
    ))
}

pub(super) fn press(session: &mut Session, code: KeyCode) -> Vec<Effect> {
    session.update(Input::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

pub(super) fn control(session: &mut Session, letter: char) -> Vec<Effect> {
    session.update(Input::Key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL)))
}

/// The picture as lines without the blanks at their ends.
pub(super) fn picture(session: &Session, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(session, frame.area(), frame.buffer_mut())).unwrap();
    text_of(&terminal)
}

/// A page that no session draws, as snapshots at 80×24, at 120×40 and in basic mode.
pub(super) fn in_three_looks(name: &str, draw: impl Fn(Mode, Rect, &mut Buffer)) {
    let drawn = |mode, width, height| {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(mode, frame.area(), frame.buffer_mut())).unwrap();
        text_of(&terminal)
    };
    insta::assert_snapshot!(format!("{name}-80x24"), drawn(Mode::Colour, 80, 24));
    insta::assert_snapshot!(format!("{name}-120x40"), drawn(Mode::Colour, 120, 40));
    let basic = drawn(Mode::Basic, 80, 24);
    assert!(basic.is_ascii(), "{name}: {basic}");
    insta::assert_snapshot!(format!("{name}-basic"), basic);
    assert!(drawn(Mode::Colour, 40, 10).contains("too small"));
}

pub(super) fn text_of(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(buffer.area.width.into());
    rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned() + "\n")
        .collect()
}

#[test]
fn an_abort_begins_on_no_and_stops_only_when_confirmed() {
    let mut session = session(Mode::Colour);
    bring_to(&mut session, "disk.encrypt");
    assert!(control(&mut session, 'c').is_empty());
    assert_eq!(session.dialog, Some(Dialog::Abort { yes: false }));
    assert!(press(&mut session, KeyCode::Enter).is_empty());
    assert_eq!(session.dialog, None);
    control(&mut session, 'c');
    press(&mut session, KeyCode::Right);
    let effects = press(&mut session, KeyCode::Enter);
    assert!(matches!(effects[..], [Effect::Stop]), "{effects:?}");
    // The step comes to its end; then the engine says that it stopped.
    assert_eq!(session.page(), Page::Progress);
    let effects = session.update(Input::Heard(clock(60), Event::Stopped { next: "data.mount".to_owned() }));
    assert!(matches!(effects[..], [Effect::Leave]), "{effects:?}");
}

#[test]
fn stopping_at_the_question_answers_it() {
    let mut session = session(Mode::Colour);
    bring_to(&mut session, "disk.encrypt");
    session.update(Input::Asked(shown(false)));
    assert_eq!(session.page(), Page::RecoveryKey);
    control(&mut session, 'c');
    press(&mut session, KeyCode::Tab);
    let effects = press(&mut session, KeyCode::Enter);
    assert!(matches!(effects[..], [Effect::Stop, Effect::Answer(Answer::Stop), Effect::Redraw]), "{effects:?}");
    // Asked to stop before the question came.
    let effects = session.update(Input::Asked(shown(false)));
    assert!(matches!(effects[..], [Effect::Answer(Answer::Stop)]), "{effects:?}");
}

#[test]
fn neither_log_nor_shell_opens_over_the_key() {
    let mut session = session(Mode::Colour);
    bring_to(&mut session, "disk.encrypt");
    session.update(Input::Asked(shown(false)));
    for letter in ['e', 't'] {
        assert!(control(&mut session, letter).is_empty());
        assert_eq!(session.log, None);
    }
    assert!(picture(&session, 80, 24).contains("cjckclcn"));
    press(&mut session, KeyCode::Enter);
    assert!(
        KEY.split('-').all(|group| !picture(&session, 80, 24).contains(group)),
        "the key is hidden while it is typed"
    );
}

#[test]
fn a_failure_offers_what_can_be_done_and_nothing_else() {
    let mut session = session(Mode::Colour);
    let now = bring_to(&mut session, "disk.encrypt");
    fail(&mut session, now + 1, "disk.encrypt", "no");
    let choices = [Choice::Retry, Choice::Settings, Choice::Support, Choice::Shell, Choice::Leave, Choice::PowerOff];
    assert_eq!(session.choices(), choices);
    // Back to the settings as long as nothing depends on them.
    press(&mut session, KeyCode::Down);
    assert!(matches!(press(&mut session, KeyCode::Enter)[..], [Effect::BackToSettings]));
    let effects = control(&mut session, 'r');
    assert!(matches!(effects[..], [Effect::Retry]), "{effects:?}");
    assert_eq!(session.page(), Page::Progress);

    let mut later = self::session(Mode::Colour);
    let now = bring_to(&mut later, "bundle.load");
    fail(&mut later, now + 1, "bundle.load", "no");
    assert!(!later.choices().contains(&Choice::Settings), "certificates were made for the FQDN");
    // A support bundle: the place is typed.
    press(&mut later, KeyCode::Down);
    press(&mut later, KeyCode::Enter);
    for letter in "/x".chars() {
        press(&mut later, KeyCode::Char(letter));
    }
    let effects = press(&mut later, KeyCode::Enter);
    assert!(matches!(&effects[..], [Effect::Save(place)] if place == "/media/x"), "{effects:?}");
    later.update(Input::Saved(Ok("/media/x/support.tar.zst".into())));
    assert!(later.notice.contains("/media/x/support.tar.zst"));
    // Off only after a question whose focus is on No.
    press(&mut later, KeyCode::Up);
    press(&mut later, KeyCode::Up);
    assert!(press(&mut later, KeyCode::Enter).is_empty());
    assert_eq!(later.dialog, Some(Dialog::PowerOff { yes: false }));
    assert!(press(&mut later, KeyCode::Enter).is_empty());
}

#[test]
fn the_countdown_ends_at_the_dashboard_and_any_key_stops_it() {
    let mut session = session(Mode::Colour);
    press(&mut session, KeyCode::F(5));
    let now = bring_to(&mut session, "");
    assert_eq!((session.page(), session.countdown()), (Page::Done, Some(60)));
    session.update(Input::Tick(clock(now + 59)));
    assert_eq!((session.page(), session.countdown()), (Page::Done, Some(1)));
    session.update(Input::Tick(clock(now + 60)));
    assert_eq!(session.page(), Page::Dashboard);
    let mut session = self::session(Mode::Colour);
    bring_to(&mut session, "");
    press(&mut session, KeyCode::Char('x'));
    session.update(Input::Tick(clock(now + 600)));
    assert_eq!((session.page(), session.countdown()), (Page::Done, None));
    assert!(matches!(press(&mut session, KeyCode::Char('q'))[..], [Effect::Leave]));
}

fn any_input() -> impl Strategy<Value = u8> {
    0..30_u8
}

/// A key, a word of the engine or a new size, by number.
fn feed(session: &mut Session, number: u8, now: i64) -> Vec<Effect> {
    let keys = [
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::PageUp,
        KeyCode::Home,
        KeyCode::Char('c'),
        KeyCode::Char('q'),
        KeyCode::Backspace,
        KeyCode::F(1),
        KeyCode::F(5),
    ];
    match number {
        0..15 => press(session, keys[usize::from(number)]),
        15 => control(session, 'c'),
        16 => control(session, 'r'),
        17 => control(session, 'y'),
        18 => control(session, 'n'),
        19 => session.update(Input::Paste("a\u{1b}b\n".repeat(100))),
        20 => session.update(Input::Asked(shown(now % 2 == 0))),
        21 => fail(session, now, "disk.encrypt", &"long ".repeat(200)),
        22 => fail(session, now, "images.pull", "x"),
        23 => session.update(Input::Heard(clock(now), Event::Started { site: String::new(), steps: 0, weight: 0 })),
        24 => {
            let began = Event::StepStarted { id: "bundle.load".to_owned(), title: String::new(), number: 0, of: 0 };
            session.update(Input::Heard(clock(now), began))
        }
        25 => session.update(Input::Heard(clock(now), Event::Finished { site: String::new() })),
        26 => session.update(Input::Saved(Err("no".to_owned()))),
        27 => session.update(Input::Broke(Failure {
            step: "engine".to_owned(),
            title: "the engine".to_owned(),
            code: "journal".to_owned(),
            error: String::new(),
            hint: None,
        })),
        _ => session.update(Input::Tick(clock(now))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_keys_stop_answer_or_switch_off_by_accident(
        inputs in prop::collection::vec(any_input(), 1..80),
        sizes in prop::collection::vec((1..130_u16, 1..45_u16), 80),
        basic in any::<bool>(),
    ) {
        let mut session = session(if basic { Mode::Basic } else { Mode::Colour });
        for ((number, (width, height)), now) in inputs.into_iter().zip(sizes).zip(0..) {
            let (dialog, page, choice) = (session.dialog.clone(), session.page(), session.choice);
            let choices = session.choices();
            for effect in feed(&mut session, number, now) {
                match effect {
                    Effect::Stop => prop_assert_eq!(&dialog, &Some(Dialog::Abort { yes: true })),
                    Effect::PowerOff => prop_assert_eq!(&dialog, &Some(Dialog::PowerOff { yes: true })),
                    Effect::BackToSettings => prop_assert_eq!(choices.get(choice), Some(&Choice::Settings)),
                    Effect::Retry => prop_assert_eq!(page, Page::Failure),
                    // What the groups are is not known here: only the escrow can take a key that nobody typed.
                    Effect::Answer(Answer::WrittenDown(_)) => prop_assert!(false, "confirmed by chance"),
                    Effect::Answer(Answer::LeftToEscrow) => prop_assert_eq!(page, Page::RecoveryKey),
                    _ => {}
                }
            }
            // A question that is open is on the screen, or the run has ended.
            if session.ceremony.is_some() {
                let is_over = matches!(session.run.outcome, Outcome::Failed(_) | Outcome::Finished);
                prop_assert!(session.page() == Page::RecoveryKey || is_over);
            }
            picture(&session, width, height);
        }
    }
}
