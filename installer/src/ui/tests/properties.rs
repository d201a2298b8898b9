//! Any keys, pastes, sizes and answers in any order.

use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use zeroize::Zeroizing;

use super::{Fixture, Operator, answered, example};
use crate::config::Page;
use crate::ui::dialog::{BeginFocus, Dialog};
use crate::ui::field::Field;
use crate::ui::model::Model;
use crate::ui::theme::Mode;
use crate::ui::update::Message;

const TEXT_FIELDS: [Field; 17] = [
    Field::Recipients,
    Field::EscrowDirectory,
    Field::PlaintextToken,
    Field::NodeName,
    Field::Fqdn,
    Field::SiteName,
    Field::Vip,
    Field::Request,
    Field::Certificate,
    Field::Key,
    Field::Roots,
    Field::BundlePath,
    Field::Trust,
    Field::PodCidr,
    Field::ServiceCidr,
    Field::AccountName,
    Field::SshKeys,
];

#[derive(Debug, Clone)]
enum Event {
    Key(KeyCode),
    Control(char),
    Paste(String),
    Size(u16, u16),
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    let codes = vec![
        KeyCode::Enter,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Esc,
        KeyCode::Char(' '),
        KeyCode::Backspace,
        KeyCode::Delete,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::F(1),
        KeyCode::F(3),
        KeyCode::F(5),
        KeyCode::F(10),
        KeyCode::Insert,
    ];
    prop_oneof![
        8 => prop::sample::select(codes).prop_map(Event::Key),
        3 => prop::sample::select("gtoreynlcuw".chars().collect::<Vec<_>>()).prop_map(Event::Control),
        3 => prop_oneof![any::<char>(), prop::char::range('0', 'z')].prop_map(|letter| Event::Key(KeyCode::Char(letter))),
        1 => prop_oneof![Just("2345".to_owned()), Just("a\r\nb\u{7f}\u{202e}é".to_owned()), ".{0,40}"].prop_map(Event::Paste),
        1 => (0_u16..200, 0_u16..70).prop_map(|(width, height)| Event::Size(width, height)),
        1 => Just(Event::Size(80, 24)),
        1 => Just(Event::Tick),
    ]
}

fn message(event: Event) -> Message {
    match event {
        Event::Key(code) => Message::Key(KeyEvent::new(code, KeyModifiers::NONE)),
        Event::Control(letter) => Message::Key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL)),
        Event::Paste(text) => Message::Paste(Zeroizing::new(text)),
        Event::Size(width, height) => Message::Size(width, height),
        Event::Tick => Message::Tick,
    }
}

/// Whether the next key may start the engine.
fn is_confirmed(model: &Model) -> bool {
    matches!(&model.dialog, Some(Dialog::Begin(begin)) if begin.is_confirmed() && begin.focus == BeginFocus::Yes)
        && model.prepared().is_some_and(|prepared| prepared.plan.is_ok())
}

/// Whether the entry of a field may be another after the next message.
fn may_change(before: &Model, field: Field) -> bool {
    let focus = before.focused();
    let takes_file = matches!(focus, Some(Field::ConfigFile(_) | Field::NoConfigFile));
    let chooses = matches!((focus, field), (Some(Field::Bundle(_)), Field::BundlePath));
    let pastes =
        matches!((&before.dialog, field), (Some(Dialog::Paste(..)), Field::Certificate | Field::Key | Field::Roots));
    focus == Some(field) || takes_file || chooses || pastes || !before.edited.contains(&field) && is_derived(field)
}

/// Fields whose default follows from others until they are edited.
fn is_derived(field: Field) -> bool {
    matches!(field, Field::NodeName | Field::SiteName | Field::BundlePath | Field::Trust | Field::Request)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_is_lost_or_begins_unasked(
        page in prop::sample::select(Page::ALL.to_vec()),
        from_file in any::<bool>(),
        events in prop::collection::vec(event(), 1..24),
    ) {
        let mut operator = if from_file {
            Operator::at(Fixture::new().with_file(&example()), Mode::Basic)
        } else {
            answered()
        };
        operator.open(page);
        for (number, event) in events.into_iter().enumerate() {
            let before = operator.model.clone();
            operator.tell(message(event.clone()));
            let after = &operator.model;
            for field in TEXT_FIELDS {
                if before.text(field) != after.text(field) {
                    prop_assert!(may_change(&before, field), "{event:?} changed {field:?} with the focus on {:?}", before.focused());
                }
            }
            prop_assert!(before.answers.disk == after.answers.disk || matches!(before.focused(), Some(Field::Disk(_) | Field::ConfigFile(_) | Field::NoConfigFile)));
            if let Some(start) = operator.started.take() {
                prop_assert!(is_confirmed(&before), "{event:?} began on {:?}", before.dialog);
                let erase = start.config.storage.disk.map(|disk| disk.erase).unwrap_or_default();
                prop_assert!(start.plan.destroys.iter().all(|disk| disk.serial.ends_with(&erase) && erase.len() >= 4));
            }
            // Drawing is slow without optimisation; most pictures are like the one before.
            if number % 4 == 0 {
                let (width, height) = operator.model.size;
                operator.picture(width, height);
            }
        }
    }
}
