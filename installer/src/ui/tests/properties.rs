//! Any keys, pastes, sizes and answers in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use zeroize::Zeroizing;

use super::{Fixture, Operator, answered, example};
use crate::config::Page;
use crate::ui::answers::ChosenDisk;
use crate::ui::dialog::{BeginFocus, Dialog};
use crate::ui::field::Field;
use crate::ui::model::Model;
use crate::ui::theme::Mode;
use crate::ui::update::Message;

const TEXT_FIELDS: [Field; 24] = [
    Field::Vlan,
    Field::Mtu,
    Field::Addresses,
    Field::Gateways,
    Field::NameServers,
    Field::SearchDomains,
    Field::TimeServers,
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

/// What is looked at again after a message.
struct Before {
    focus: Option<Field>,
    texts: Vec<Option<String>>,
    edited: BTreeSet<Field>,
    disk: Option<ChosenDisk>,
    pastes: bool,
    /// The next key may start the engine.
    is_confirmed: bool,
}

impl Before {
    fn of(model: &Model) -> Self {
        let confirms = matches!(&model.dialog, Some(Dialog::Begin(begin)) if begin.is_confirmed() && begin.focus == BeginFocus::Yes);
        Self {
            focus: model.focused(),
            texts: TEXT_FIELDS.iter().map(|field| model.text(*field).cloned()).collect(),
            edited: model.edited.clone(),
            disk: model.answers.disk.clone(),
            pastes: matches!(model.dialog, Some(Dialog::Paste(..))),
            is_confirmed: confirms && model.prepared().is_some_and(|prepared| prepared.plan.is_ok()),
        }
    }

    fn takes_file(&self) -> bool {
        matches!(self.focus, Some(Field::ConfigFile(_) | Field::NoConfigFile))
    }

    /// Whether the entry of a field may be another after the message.
    fn may_change(&self, field: Field) -> bool {
        let chooses = matches!((self.focus, field), (Some(Field::Bundle(_)), Field::BundlePath));
        let pastes = self.pastes && matches!(field, Field::Certificate | Field::Key | Field::Roots);
        let follows = !self.edited.contains(&field) && is_derived(field);
        self.focus == Some(field) || self.takes_file() || chooses || pastes || follows
    }
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
            let before = Before::of(&operator.model);
            operator.tell(message(event.clone()));
            let after = &operator.model;
            for (field, text) in TEXT_FIELDS.iter().zip(&before.texts) {
                if after.text(*field) != text.as_ref() {
                    prop_assert!(before.may_change(*field), "{event:?} changed {field:?} with the focus on {:?}", before.focus);
                }
            }
            let chooses = before.takes_file() || matches!(before.focus, Some(Field::Disk(_)));
            prop_assert!(before.disk == after.answers.disk || chooses, "{event:?} chose another disk");
            if let Some(start) = operator.started.take() {
                prop_assert!(before.is_confirmed, "{event:?} began without the confirmation");
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
