//! The answers of a site to the questions of the next release: what is given for this upgrade first, then what is stored,
//! then the default. What changes by it, what stands against it, and the conversation that asks for the rest. Pure but for
//! the conversation, which reads and writes lines.

use std::io::{self, BufRead, Write};

use bundle::index::{Index, Pack};
use bundle::question::{Question, Value};
use schemars::JsonSchema;
use serde::Serialize;

use crate::check::{Finding, Outcome};
use crate::config::{AnswerProblem, Answers, PackAnswers, answers};

/// The id of the finding about answers.
pub const FINDING: &str = "upgrade.answers";

/// An answer that is another one after the upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AnswerChange {
    /// The pack.
    pub pack: String,
    /// The question.
    pub name: String,
    /// What it asks.
    pub text: String,
    /// `added` for a new question, `removed` for one that is gone, else `changed`.
    pub change: String,
    /// The value of before; null for a new question.
    pub before: Option<Value>,
    /// The value of afterwards; null for a question that is gone, and for one that nobody has answered yet.
    pub after: Option<Value>,
    /// It is the default of the release.
    pub by_default: bool,
}

/// The answers before and after.
#[derive(Debug, Clone, Default)]
pub(super) struct Answered {
    /// To the questions of the installed packs.
    pub(super) old: Answers,
    /// To the questions of the next ones.
    pub(super) new: Answers,
    /// How many questions the next ones ask.
    asked: usize,
    /// What stands against it.
    problems: Vec<AnswerProblem>,
    /// What changes.
    pub(super) changes: Vec<AnswerChange>,
}

/// Judges what is stored and what is given by what both releases ask.
pub(super) fn answered(stored: &Answers, given: &Answers, next: &Index, old: &[&Pack], new: &[&Pack]) -> Answered {
    let mut merged = Answers::new();
    let mut problems = answers::wrong(given, next);
    for pack in new {
        for question in &pack.questions {
            let value = |from: &Answers| from.get(&pack.name)?.get(&question.name).cloned();
            let kept = value(stored);
            if let (None, Some(kept)) = (value(given), &kept)
                && let Err(why) = question.check(kept)
            {
                let why = format!("the stored answer does not fit any more: {why}");
                problems.push(AnswerProblem {
                    pack: pack.name.clone(),
                    name: question.name.clone(),
                    why,
                    is_open: false,
                });
            }
            if let Some(value) = value(given).or(kept) {
                merged.entry(pack.name.clone()).or_default().insert(question.name.clone(), value);
            }
        }
    }
    let (before, _) = answers::complete(stored, old.iter().copied());
    let (after, open) = answers::complete(&merged, new.iter().copied());
    problems.extend(open);
    let changes = changes((old, &before), (new, &after), &merged);
    let asked = new.iter().map(|pack| pack.questions.len()).sum();
    Answered { old: before, new: after, asked, problems, changes }
}

fn changes(
    (old, before): (&[&Pack], &Answers),
    (new, after): (&[&Pack], &Answers),
    explicit: &Answers,
) -> Vec<AnswerChange> {
    let value = |from: &Answers, pack: &Pack, question: &Question| from.get(&pack.name)?.get(&question.name).cloned();
    let mut all = Vec::new();
    let mut change = |pack: &Pack, question: &Question, change: &str, before, after, by_default| {
        all.push(AnswerChange {
            pack: pack.name.clone(),
            name: question.name.clone(),
            text: question.text.clone(),
            change: change.to_owned(),
            before,
            after,
            by_default,
        });
    };
    for pack in new {
        for question in &pack.questions {
            let (before, after) = (value(before, pack, question), value(after, pack, question));
            let by_default = after.is_some() && value(explicit, pack, question).is_none();
            let word = if before.is_none() { "added" } else { "changed" };
            if before != after || after.is_none() {
                change(pack, question, word, before, after, by_default);
            }
        }
    }
    for pack in old {
        let next = new.iter().find(|other| other.name == pack.name);
        for question in &pack.questions {
            if next.is_none_or(|next| answers::question(next, &question.name).is_none()) {
                change(pack, question, "removed", value(before, pack, question), None, false);
            }
        }
    }
    all
}

impl Answered {
    /// Whether the answers to a pack's questions are other ones afterwards.
    pub(super) fn differ(&self, pack: &str) -> bool {
        self.old.get(pack) != self.new.get(pack)
    }

    /// The installed release's answers to a pack.
    pub(super) fn old_of(&self, pack: &str) -> PackAnswers {
        self.old.get(pack).cloned().unwrap_or_default()
    }

    /// The next release's answers to a pack.
    pub(super) fn new_of(&self, pack: &str) -> PackAnswers {
        self.new.get(pack).cloned().unwrap_or_default()
    }

    /// Nothing is wrong but that somebody has to answer.
    pub(super) fn is_open_only(&self) -> bool {
        self.problems.iter().all(|problem| problem.is_open)
    }

    /// What stands against the upgrade; `None` when nothing is asked and nothing was said.
    pub(super) fn finding(&self) -> Option<Finding> {
        if self.asked == 0 && self.problems.is_empty() {
            return None;
        }
        let threshold = "an answer to every question of the packs";
        if self.problems.is_empty() {
            let defaults = self.changes.iter().filter(|change| change.by_default).count();
            let measured = match defaults {
                0 => format!("{} answered", self.asked),
                _ => format!("{} answered, {defaults} of them by a new default", self.asked),
            };
            return Some(Finding::new(FINDING, Outcome::Pass, measured, threshold, ""));
        }
        let list: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        let form = answers::form("", &self.problems);
        let hint = format!("write the answers to a file and add `--answers FILE`; its form: {form}");
        Some(Finding::new(FINDING, Outcome::Fail, list.join("; "), threshold, &hint).hard())
    }
}

/// The questions that nobody has answered, with their packs, in order.
pub fn open<'a>(changes: &[AnswerChange], next: &'a Index) -> Vec<(&'a str, &'a Question)> {
    let open = changes.iter().filter(|change| change.after.is_none() && change.change != "removed");
    open.filter_map(|change| {
        let pack = next.pack(&change.pack)?;
        Some((pack.name.as_str(), answers::question(pack, &change.name)?))
    })
    .collect()
}

/// Asks line by line; an answer that does not fit is asked for again. `None` when somebody leaves, by "quit" or by the end of
/// the input.
pub fn ask(open: &[(&str, &Question)], input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<Option<Answers>> {
    let mut all = Answers::new();
    writeln!(output, "\nThe release asks what nobody has answered yet. \"quit\" leaves, and nothing is changed.")?;
    for (pack, question) in open {
        writeln!(output, "\n{pack}: {}\n  {}", question.text, question.wanted())?;
        loop {
            write!(output, "{}: ", question.name)?;
            output.flush()?;
            let mut line = String::new();
            if io::Read::take(&mut *input, LINE_MOST).read_line(&mut line)? == 0 || line.trim() == "quit" {
                return Ok(None);
            }
            match question.read(line.trim_end_matches(['\n', '\r'])) {
                Ok(value) => {
                    all.entry((*pack).to_owned()).or_default().insert(question.name.clone(), value);
                    break;
                }
                Err(why) => writeln!(output, "  {why}")?,
            }
        }
    }
    Ok(Some(all))
}

/// Bytes of a typed line: more than any answer has.
const LINE_MOST: u64 = 64 << 10;

/// What was typed goes before what a file says.
pub fn joined(file: &Answers, typed: Answers) -> Answers {
    let mut all = file.clone();
    for (pack, answers) in typed {
        all.entry(pack).or_default().extend(answers);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::ask;
    use bundle::question::Question;

    #[test]
    fn what_is_open_is_asked_line_by_line() {
        let questions: Vec<Question> = serde_yaml::from_str(
            "[{name: greeting, text: What it says, kind: text}, {name: replicas, text: How many, kind: integer, max: 9}]",
        )
        .unwrap();
        let open: Vec<_> = questions.iter().map(|question| ("hello", question)).collect();
        let talk = |typed: &str| {
            let mut said = Vec::new();
            let answers = ask(&open, &mut typed.as_bytes(), &mut said).unwrap();
            (answers.map(|answers| serde_json::to_string(&answers).unwrap()), String::from_utf8(said).unwrap())
        };
        let (answers, said) = talk("\nHi: there\r\nmany\n10\n2\n");
        assert_eq!(answers.unwrap(), r#"{"hello":{"greeting":"Hi: there","replicas":2}}"#);
        for says in ["hello: What it says", "is empty", "\"many\" is not", "10 is not a whole number up to 9"] {
            assert!(said.contains(says), "{says}: {said}");
        }
        assert_eq!(talk("Hi\n").0, None, "the end of the input leaves");
        assert_eq!(talk("quit\n2\n").0, None);
    }
}
