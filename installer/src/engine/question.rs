//! What the engine asks while it runs, and who answers: a person at a terminal, or the policy of the configuration.
//!
//! Invariant: a question's secret stands in memory that is wiped and goes to whoever answers, by value and on a channel of
//! its own; it is no part of an [`Event`](super::event::Event), the journal, a log or a file. That the recovery key was
//! written down cannot be claimed: a [`WrittenDown`] comes only out of [`RecoveryKeyShown::confirm`].
//! Asked by `step/disk.rs`; answered by `ui/run/` and [`Unattended`].

use certs::RecoveryKey;
use zeroize::Zeroizing;

use crate::step::StepError;

/// Asked by a step; the step waits for the answer.
#[derive(Debug)]
pub enum Question {
    /// The recovery key of the data volume is shown once and typed back in part.
    RecoveryKey(RecoveryKeyShown),
}

/// What is said to a question.
#[derive(Debug)]
pub enum Answer {
    /// The recovery key was written down.
    WrittenDown(WrittenDown),
    /// The recovery key is not written down here, since the escrow has it. Refused when there is no escrow.
    LeftToEscrow,
    /// Stop the run here.
    Stop,
    /// Nobody is there who could answer.
    Nobody,
}

/// Who answers. It is called from the engine's thread and may take as long as a person takes.
pub trait Answers {
    /// Answers a question.
    fn ask(&self, question: Question) -> Answer;
}

/// The recovery key with the two groups that have to be typed back.
pub struct RecoveryKeyShown {
    key: RecoveryKey,
    /// The volume's disk, for example `/dev/sdb`.
    pub disk: String,
    /// Whether the escrow has the key as well.
    pub is_escrowed: bool,
    groups: [usize; 2],
}

/// That the recovery key was written down: two of its groups were typed back.
#[derive(Debug)]
pub struct WrittenDown(());

impl RecoveryKeyShown {
    /// A question about this key; which groups it asks for is drawn at random.
    pub fn new(key: RecoveryKey, disk: &str, is_escrowed: bool) -> Result<Self, StepError> {
        let drawn = certs::random_bytes::<2>()
            .map_err(|error| StepError::Certificates { what: "recovery key", reason: error.to_string() })?;
        let first = usize::from(drawn[0]) % RecoveryKey::GROUPS;
        let other = (first + 1 + usize::from(drawn[1]) % (RecoveryKey::GROUPS - 1)) % RecoveryKey::GROUPS;
        let groups = [first.min(other), first.max(other)];
        Ok(Self { key, disk: disk.to_owned(), is_escrowed, groups })
    }

    /// The key as it is shown and as it opens the volume, eight groups joined by hyphens.
    pub fn text(&self) -> Zeroizing<String> {
        self.key.expose()
    }

    /// The numbers, from 1, of the two groups that are typed back.
    pub fn asked(&self) -> [usize; 2] {
        self.groups.map(|group| group + 1)
    }

    /// Judges what was typed, in the order of [`asked`](Self::asked).
    pub fn confirm(&self, typed: [&str; 2]) -> Option<WrittenDown> {
        let right = self.groups.iter().zip(typed).all(|(group, typed)| self.key.confirms(*group, typed));
        right.then_some(WrittenDown(()))
    }
}

impl std::fmt::Debug for RecoveryKeyShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecoveryKeyShown(for {})", self.disk)
    }
}

/// The answers of a run with nobody at a terminal: what the escrow has need not be shown.
#[derive(Debug, Clone, Copy)]
pub struct Unattended;

impl Answers for Unattended {
    fn ask(&self, question: Question) -> Answer {
        match question {
            Question::RecoveryKey(shown) if shown.is_escrowed => Answer::LeftToEscrow,
            Question::RecoveryKey(_) => Answer::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY: &str = "cccbcdce-cfcgchci-cjckclcn-crctcucv-bcbbbdbe-bfbgbhbi-bjbkblbn-brbtbubv";

    fn shown(escrowed: bool) -> RecoveryKeyShown {
        RecoveryKeyShown::new(RecoveryKey::parse(KEY).unwrap(), "/dev/sdb", escrowed).unwrap()
    }

    #[test]
    fn only_the_two_groups_in_their_order_confirm() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let shown = shown(false);
            let [first, second] = shown.asked();
            assert!(first < second && (1..=8).contains(&first) && second <= 8);
            seen.insert((first, second));
            let group = |number: usize| KEY.split('-').nth(number - 1).unwrap();
            assert!(shown.confirm([group(first), &group(second).to_uppercase()]).is_some());
            assert!(shown.confirm([group(second), group(first)]).is_none());
            assert!(shown.confirm([group(first), ""]).is_none());
            assert!(shown.confirm([KEY, KEY]).is_none());
        }
        assert_eq!(seen.len(), 28, "every pair of groups is asked for at times");
    }

    #[test]
    fn nobody_claims_to_have_seen_the_key() {
        assert!(matches!(Unattended.ask(Question::RecoveryKey(shown(true))), Answer::LeftToEscrow));
        assert!(matches!(Unattended.ask(Question::RecoveryKey(shown(false))), Answer::Nobody));
    }

    #[test]
    fn a_question_does_not_print_its_secret() {
        assert_eq!(format!("{:?}", Question::RecoveryKey(shown(true))), "RecoveryKey(RecoveryKeyShown(for /dev/sdb))");
    }
}
