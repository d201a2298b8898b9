//! The recovery key's ceremony: the key is shown, then hidden, and two of its groups are typed back.
//!
//! Invariant: what is typed stands in memory that is wiped; the page is left only with an answer. Pure; called by
//! `session.rs`.

use ratatui::crossterm::event::{KeyCode, KeyEvent};
use zeroize::{Zeroize as _, Zeroizing};

use crate::engine::question::{Answer, RecoveryKeyShown};
use crate::ui::keymap::Command;

/// A group with blanks and hyphens between its letters; never moved while it grows.
const TYPED_LIMIT: usize = 24;

/// The ceremony.
#[derive(Debug)]
pub struct Ceremony {
    /// The question.
    pub shown: RecoveryKeyShown,
    /// Which half of it.
    pub phase: Phase,
    /// What the keys act on: a button while the key is shown; a field, or a button behind the fields, while it is typed.
    pub focus: usize,
    /// Why what was typed is not right.
    pub mistake: Option<String>,
    typed: [Zeroizing<String>; 2],
}

/// The halves of the ceremony.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The key is on the screen.
    Shown,
    /// It is not; two groups are asked for.
    TypedBack,
}

impl Ceremony {
    /// Begins with the key on the screen.
    pub fn new(shown: RecoveryKeyShown) -> Self {
        let field = || Zeroizing::new(String::with_capacity(TYPED_LIMIT));
        Self { shown, phase: Phase::Shown, focus: 0, mistake: None, typed: [field(), field()] }
    }

    /// What stands in the two fields.
    pub fn typed(&self) -> [&str; 2] {
        [&self.typed[0], &self.typed[1]]
    }

    /// The labels of the buttons.
    pub fn buttons(&self) -> Vec<&'static str> {
        match self.phase {
            Phase::Shown if self.shown.is_escrowed => vec!["I have written it down", "Leave it to the escrow"],
            Phase::Shown => vec!["I have written it down"],
            Phase::TypedBack => vec!["Check", "Show the key again"],
        }
    }

    fn places(&self) -> usize {
        self.buttons().len() + if self.phase == Phase::TypedBack { 2 } else { 0 }
    }

    /// A key; gives the answer when there is one.
    pub fn command(&mut self, command: Command) -> Option<Answer> {
        let places = self.places();
        match (command, self.phase, self.focus) {
            (Command::Next, ..) => self.focus = (self.focus + 1) % places,
            (Command::Previous, ..) => self.focus = (self.focus + places - 1) % places,
            (Command::Back, Phase::TypedBack, _) | (Command::Enter, Phase::TypedBack, 3) => self.turn(Phase::Shown),
            (Command::Enter, Phase::Shown, 0) | (Command::Continue, Phase::Shown, _) => self.turn(Phase::TypedBack),
            (Command::Enter, Phase::Shown, 1) if self.shown.is_escrowed => return Some(Answer::LeftToEscrow),
            (Command::Enter, Phase::TypedBack, 0) => self.focus = 1,
            (Command::Enter | Command::Continue, Phase::TypedBack, _) => return self.check(),
            _ => {}
        }
        None
    }

    /// A character for the field in focus.
    pub fn key(&mut self, key: &KeyEvent) {
        let Some(field) = self.typed.get_mut(self.focus).filter(|_| self.phase == Phase::TypedBack) else { return };
        match key.code {
            KeyCode::Char(letter) if letter.is_ascii() && field.len() < TYPED_LIMIT => field.push(letter),
            KeyCode::Backspace => {
                field.pop();
            }
            _ => return,
        }
        self.mistake = None;
    }

    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.focus = 0;
        self.mistake = None;
        for field in &mut self.typed {
            // Wiped in place; the room stays as it is.
            field.as_mut_str().zeroize();
            field.clear();
        }
    }

    fn check(&mut self) -> Option<Answer> {
        if let Some(written) = self.shown.confirm(self.typed()) {
            return Some(Answer::WrittenDown(written));
        }
        let [first, second] = self.shown.asked();
        self.mistake =
            Some(format!("that is not group {first} and group {second} of this key; compare with what you wrote"));
        self.focus = 0;
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ratatui::crossterm::event::KeyModifiers;

    use super::*;

    const KEY: &str = "cccbcdce-cfcgchci-cjckclcn-crctcucv-bcbbbdbe-bfbgbhbi-bjbkblbn-brbtbubv";

    fn ceremony(escrowed: bool) -> Ceremony {
        let key = certs::RecoveryKey::parse(KEY).unwrap();
        Ceremony::new(RecoveryKeyShown::new(key, "/dev/sdb", escrowed).unwrap())
    }

    fn write(ceremony: &mut Ceremony, text: &str) {
        for letter in text.chars() {
            ceremony.key(&KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE));
        }
    }

    #[test]
    fn two_groups_typed_back_are_the_answer() {
        let mut ceremony = ceremony(false);
        let group = |number: usize| KEY.split('-').nth(number - 1).unwrap();
        let [first, second] = ceremony.shown.asked();
        write(&mut ceremony, "nothing is typed while the key is shown");
        assert!(ceremony.command(Command::Enter).is_none());
        assert_eq!((ceremony.phase, ceremony.typed()), (Phase::TypedBack, ["", ""]));
        write(&mut ceremony, "ccccccccx");
        ceremony.key(&KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
        assert_eq!(ceremony.typed()[0], "cccccccc");
        assert!(ceremony.command(Command::Enter).is_none());
        write(&mut ceremony, group(second));
        assert!(ceremony.command(Command::Enter).is_none());
        assert!(ceremony.mistake.as_ref().unwrap().contains(&format!("group {first}")));
        // The key can be looked at again; what was typed is gone then.
        assert!(ceremony.command(Command::Back).is_none());
        assert_eq!((ceremony.phase, ceremony.typed()), (Phase::Shown, ["", ""]));
        ceremony.command(Command::Enter);
        write(&mut ceremony, group(first));
        ceremony.command(Command::Enter);
        write(&mut ceremony, &group(second).to_uppercase());
        assert!(matches!(ceremony.command(Command::Enter), Some(Answer::WrittenDown(_))));
    }

    #[test]
    fn only_what_is_escrowed_can_be_left_to_the_escrow() {
        for escrowed in [true, false] {
            let mut ceremony = ceremony(escrowed);
            ceremony.command(Command::Next);
            let answer = ceremony.command(Command::Enter);
            assert_eq!(matches!(answer, Some(Answer::LeftToEscrow)), escrowed);
        }
    }

    #[test]
    fn fields_do_not_grow_without_end() {
        let mut ceremony = ceremony(false);
        ceremony.command(Command::Enter);
        write(&mut ceremony, &"c".repeat(1000));
        assert_eq!(ceremony.typed()[0].len(), TYPED_LIMIT);
    }
}
