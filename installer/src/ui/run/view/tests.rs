//! Each page at 80×24, at 120×40 and in basic mode, with good, warning and failing content.
#![allow(clippy::unwrap_used)]

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;

use super::{draw_dashboard, qr};
use crate::engine::event::{Count, Event, Progress};
use crate::site::{Expiry, Node, Overview, Registry, Volume};
use crate::step::State;
use crate::ui::run::ceremony::Ceremony;
use crate::ui::run::session::{Input, Session};
use crate::ui::run::tests::{bring_to, clock, control, fail, note, picture, press, session, shown, text_of};
use crate::ui::theme::{Mode, Theme};

/// The three looks of a page.
fn looks(name: &str, make: impl Fn(Mode) -> Session) {
    for (look, mode, width, height) in
        [("80x24", Mode::Colour, 80, 24), ("120x40", Mode::Colour, 120, 40), ("basic", Mode::Basic, 80, 24)]
    {
        let drawn = picture(&make(mode), width, height);
        if mode == Mode::Basic {
            assert!(drawn.is_ascii(), "{name}: {drawn}");
        }
        insta::assert_snapshot!(format!("{name}-{look}"), drawn);
    }
    assert!(picture(&make(Mode::Colour), 40, 10).contains("too small"));
}

fn loading(mode: Mode) -> Session {
    let mut session = session(mode);
    let now = bring_to(&mut session, "bundle.load");
    for second in 0..=12_u32 {
        let blobs = Some(Count { done: 20 * second as usize, total: 612 });
        let progress = Progress::Bytes { done: u64::from(second) * 161_000_000, total: 4_700_000_000, blobs };
        let event = Event::StepProgress { id: "bundle.load".to_owned(), progress };
        session.update(Input::Heard(clock(now + i64::from(second)), event));
    }
    session.update(Input::Tick(clock(now + 12)));
    session
}

#[test]
fn progress() {
    looks("progress-bytes", loading);
    looks("progress-silent", |mode| {
        let mut session = session(mode);
        let now = bring_to(&mut session, "kubernetes.api");
        note(&mut session, now + 2, "kubernetes.api", "The connection to the server 192.0.2.11:6443 was refused");
        session.update(Input::Tick(clock(now + 135)));
        session
    });
    looks("progress-log", |mode| {
        let mut session = loading(mode);
        press(&mut session, KeyCode::F(5));
        session
    });
    looks("progress-abort", |mode| {
        let mut session = loading(mode);
        control(&mut session, 'c');
        session
    });
    looks("progress-help", |mode| {
        let mut session = loading(mode);
        press(&mut session, KeyCode::F(1));
        session
    });
}

#[test]
fn failure() {
    looks("failure-early", |mode| {
        let mut session = session(mode);
        let now = bring_to(&mut session, "disk.encrypt");
        let error = "`cryptsetup luksFormat --batch-mode --type luks2 /dev/sdb` ended with status 5: Device /dev/sdb is in use. Cannot proceed with format operation.";
        fail(&mut session, now + 3, "disk.encrypt", error);
        session
    });
    looks("failure-late", |mode| {
        let mut session = session(mode);
        let now = bring_to(&mut session, "kubernetes.api");
        fail(&mut session, now + 900, "kubernetes.api", &"the API server is not ready after 900 s; ".repeat(20));
        session
    });
    looks("failure-save", |mode| {
        let mut session = session(mode);
        let now = bring_to(&mut session, "bundle.load");
        fail(&mut session, now + 9, "bundle.load", "the bundle was refused: blob sha256:ab… is damaged");
        press(&mut session, KeyCode::Down);
        press(&mut session, KeyCode::Enter);
        session
    });
}

/// A session at the question, whose groups are not drawn at random.
fn asked(mode: Mode, escrowed: bool) -> Session {
    let mut session = session(mode);
    bring_to(&mut session, "disk.encrypt");
    let question = std::iter::repeat_with(|| shown(escrowed)).find(|shown| shown.asked() == [3, 7]).unwrap();
    session.ceremony = Some(Ceremony::new(question));
    session
}

#[test]
fn recovery_key() {
    looks("recovery-shown", |mode| asked(mode, false));
    looks("recovery-escrowed", |mode| asked(mode, true));
    looks("recovery-wrong", |mode| {
        let mut session = asked(mode, false);
        press(&mut session, KeyCode::Enter);
        for letter in "cjckclcn".chars() {
            press(&mut session, KeyCode::Char(letter));
        }
        press(&mut session, KeyCode::Enter);
        press(&mut session, KeyCode::Char('c'));
        press(&mut session, KeyCode::Enter);
        session
    });
    // A serial console that is tall enough has the code too.
    let tall = picture(&asked(Mode::Basic, false), 80, 56);
    let code = qr::lines(crate::ui::run::tests::KEY, Mode::Basic).unwrap();
    assert!(code.iter().all(|line| tall.contains(line.trim_end())), "{tall}");
}

fn overview(good: bool) -> Overview {
    let state = serde_json::json!({
        "schema-version": 1, "site": "rack7", "fqdn": "mgmt.rack7.example.com", "node": "rack7-a",
        "installed": "2026-11-25T14:20:00Z", "bundle": "cofferdam", "version": "1.0.0", "index": "sha256:00",
        "encryption": if good { "luks2" } else { "none" }, "disk": "/dev/sdb",
        "ca-fingerprint": (0..32).map(|byte| format!("{:02X}", byte * 7)).collect::<Vec<_>>().join(":"),
        "accepted": if good { vec![] } else { vec!["disk.fsync"] }, "packs": [],
    });
    let state: State = serde_json::from_value(state).unwrap();
    let days = |days: i64| if good { Ok(days) } else { Ok(days - 400) };
    Overview {
        time: clock(1300),
        volume: Volume {
            encryption: state.encryption.clone(),
            opened: good,
            cipher: Some("aes-xts-plain64".to_owned()),
            key_slots: vec!["slot 1: TPM 2.0 (pbkdf2)".to_owned()],
        },
        registry: Registry {
            is_ready: good,
            text: if good { "ready on port 5000, TLSv1_3" } else { "NOT READY: /readyz answered 503" }.to_owned(),
        },
        nodes: if good {
            Ok(vec![Node { name: "rack7-a".to_owned(), ready: true, version: "v1.35.0".to_owned() }])
        } else {
            Err("net/http: TLS handshake timeout".to_owned())
        },
        certificates: vec![
            Expiry { name: "site CA", days: days(3650) },
            Expiry { name: "server", days: days(396) },
            Expiry { name: "registry", days: days(420) },
            Expiry { name: "node", days: if good { Ok(420) } else { Err("there is no file".to_owned()) } },
        ],
        state,
    }
}

#[test]
fn done_and_dashboard() {
    let finished = |mode| {
        let mut session = session(mode);
        bring_to(&mut session, "");
        session
    };
    looks("done", |mode| {
        let mut session = finished(mode);
        session.update(Input::Site(Box::new(overview(true))));
        session
    });
    for (name, good) in [("dashboard-good", true), ("dashboard-bad", false)] {
        looks(name, |mode| {
            let mut session = finished(mode);
            session.update(Input::Site(Box::new(overview(good))));
            press(&mut session, KeyCode::Enter);
            session
        });
    }
}

/// What did not change is not written again: a refresh of the same site sends no cell to the terminal.
#[test]
fn a_refresh_writes_only_what_changed() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let theme = Theme::new(Mode::Colour);
    let mut draw = |site: &Overview| {
        terminal.draw(|frame| draw_dashboard(Some(site), theme, frame.area(), frame.buffer_mut())).unwrap();
        text_of(&terminal)
    };
    let (first, mut later) = (overview(true), overview(true));
    later.time = clock(1330);
    let (one, other) = (draw(&first), draw(&later));
    let different: Vec<_> = one.lines().zip(other.lines()).filter(|(one, other)| one != other).collect();
    assert_eq!(different.len(), 1, "{different:?}");
}
