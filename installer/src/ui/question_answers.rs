//! The questions of a bundle's packs, with what is typed and chosen. Until a bundle is known, the answers of a file are
//! kept as they are.
//!
//! Invariant: what is typed stays when the pack is left out and taken again, and when another bundle asks the same.

use std::collections::BTreeSet;

use bundle::index::{Index, Layer};
use bundle::question::{Question, QuestionKind};

use crate::config::{Answers, Problem};

/// A question, and what is typed or chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The pack that asks.
    pub pack: String,
    /// The pack can be left out.
    pub is_optional: bool,
    /// What it asks.
    pub question: Question,
    /// As typed; of a choice, what is chosen; empty while there is nothing.
    pub text: String,
    /// What stood there first.
    initial: String,
}

impl Asked {
    /// What can be chosen; empty where something is typed.
    pub fn options(&self) -> Vec<String> {
        match self.question.kind {
            QuestionKind::Text | QuestionKind::Integer => Vec::new(),
            QuestionKind::Boolean => ["true", "false"].map(str::to_owned).to_vec(),
            QuestionKind::Choice => self.question.choices.clone(),
        }
    }

    /// `PACK.NAME`
    fn name(&self) -> String {
        format!("{}.{}", self.pack, self.question.name)
    }

    /// Chooses the next or the previous of the options.
    pub fn turn(&mut self, forward: bool) {
        let options = self.options();
        let count = options.len().max(1);
        let at = options.iter().position(|option| *option == self.text);
        let to = match (at, forward) {
            (None, true) => 0,
            (None, false) => count - 1,
            (Some(at), true) => (at + 1) % count,
            (Some(at), false) => (at + count - 1) % count,
        };
        if let Some(option) = options.get(to) {
            self.text.clone_from(option);
        }
    }
}

/// All questions, and the answers that came with a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuestionAnswers {
    given: Answers,
    /// Digest of the index that asks.
    asked_by: Option<String>,
    all: Vec<Asked>,
    /// Answers of the file that this bundle does not ask for, `PACK.NAME`.
    left_out: Vec<String>,
}

impl QuestionAnswers {
    /// The answers of a file.
    pub fn from_config(given: &Answers) -> Self {
        Self { given: given.clone(), ..Self::default() }
    }

    /// Whether this bundle's questions are there.
    pub fn is_of(&self, digest: &str) -> bool {
        self.asked_by.as_deref() == Some(digest)
    }

    /// Takes the questions of a bundle; filled in is what was typed, else what the file says, else the default.
    pub fn ask(&mut self, digest: &str, index: &Index) {
        let before = std::mem::take(&mut self.all);
        for pack in &index.packs {
            for question in &pack.questions {
                let given = self.given.get(&pack.name).and_then(|answers| answers.get(&question.name));
                let initial = given.or(question.default.as_ref()).map(ToString::to_string).unwrap_or_default();
                let same = |asked: &&Asked| asked.pack == pack.name && asked.question.name == question.name;
                let typed = before.iter().find(same).filter(|asked| asked.text != asked.initial);
                self.all.push(Asked {
                    pack: pack.name.clone(),
                    is_optional: pack.layer >= Layer::Storage,
                    question: question.clone(),
                    text: typed.map_or_else(|| initial.clone(), |asked| asked.text.clone()),
                    initial,
                });
            }
        }
        let given =
            self.given.iter().flat_map(|(pack, answers)| answers.keys().map(move |name| format!("{pack}.{name}")));
        self.left_out = given.filter(|name| !self.all.iter().any(|asked| asked.name() == *name)).collect();
        self.asked_by = Some(digest.to_owned());
    }

    /// The questions of the packs that are installed, with their numbers. `packs`: those of the upper layers, all if `None`.
    pub fn shown<'a>(&'a self, packs: Option<&'a BTreeSet<String>>) -> impl Iterator<Item = (usize, &'a Asked)> {
        let all = self.all.iter().enumerate();
        all.filter(move |(_, asked)| !asked.is_optional || packs.is_none_or(|packs| packs.contains(&asked.pack)))
    }

    /// Answers of the file that this bundle does not ask for.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// A question by its number.
    pub fn get(&self, number: usize) -> Option<&Asked> {
        self.all.get(number)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut Asked> {
        self.all.get_mut(number)
    }

    /// The answers, and what is wrong with them or missing.
    pub fn draft(&self, packs: Option<&BTreeSet<String>>, problems: &mut Vec<Problem>) -> Answers {
        if self.asked_by.is_none() {
            return self.given.clone();
        }
        let mut answers = Answers::new();
        for (_, asked) in self.shown(packs) {
            match asked.question.read(&asked.text) {
                Ok(value) => {
                    answers.entry(asked.pack.clone()).or_default().insert(asked.question.name.clone(), value);
                }
                Err(_) if asked.text.is_empty() => {
                    problems.push(Problem { key: "answers", message: format!("{} is still empty", asked.name()) });
                }
                Err(why) => problems.push(Problem { key: "answers", message: format!("{} {why}", asked.name()) }),
            }
        }
        answers
    }

    /// The problem of one question among those of all.
    pub fn problem_of<'p>(&self, number: usize, problems: &'p [Problem]) -> Option<&'p Problem> {
        let begins = format!("{} ", self.get(number)?.name());
        problems.iter().find(|problem| problem.key == "answers" && problem.message.starts_with(&begins))
    }
}
