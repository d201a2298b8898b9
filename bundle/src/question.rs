//! What a pack asks of a site: a question in `bundle.yaml` and in the index, and the value that answers it. Never a secret:
//! those are generated ([`crate::index::SecretRequest`]).
//!
//! Invariant: a [`Value`] that [`Question::check`] took is one line without control characters, so that it can be confined
//! to the place in a template where it stands ([`crate::template`]). Called by `create`, by readers of an index and by the
//! installer.

use std::collections::HashSet;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::index::{Layer, PackDescriptor};
use crate::template::VARIABLES;

/// Most questions of a pack.
const QUESTIONS_MOST: usize = 64;
/// Most characters of a question's text.
const TEXT_MOST: usize = 200;
/// Most choices of a question.
const CHOICES_MOST: usize = 64;
/// Characters of a text that says nothing else of its length.
pub const DEFAULT_MAX_LENGTH: u32 = 256;
/// Most characters that a question may allow.
const MAX_LENGTH_MOST: u32 = 4096;

/// Something that a pack wants to know of the site. Its templates say `${NAME}` for the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Question {
    /// A DNS label, unique in the pack; not the name of a built-in variable.
    pub name: String,
    /// One line for people, at most 200 characters.
    pub text: String,
    /// What answers it.
    pub kind: QuestionKind,
    /// Of a choice: what can be chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The answer of a site that says nothing. Left out: every site has to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Of a text: most characters, 256 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// Of an integer: the smallest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Of an integer: the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// What answers a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QuestionKind {
    /// One line of text.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// One of several texts.
    Choice,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// One line of text; a choice, too.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, a whole number, or a text (in quotes if it looks like something else)")
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Boolean(value))
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Integer(value))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
                i64::try_from(value).map(Value::Integer).map_err(|_| E::custom(format!("{value} is too large")))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Scalar).map_err(D::Error::custom)
    }
}

impl Value {
    /// As it stands in a Kubernetes manifest. A text is escaped for double quotes (YAML 1.2, 7.3.1), where alone it may
    /// stand; `create` and every reader of a bundle prove that it does.
    pub fn in_manifest(&self) -> String {
        match self {
            Self::Text(text) => text.replace('\\', "\\\\").replace('"', "\\\""),
            Self::Boolean(_) | Self::Integer(_) => self.to_string(),
        }
    }
}

impl Question {
    /// What an answer looks like, for people: `a whole number from 1 to 9`.
    pub fn wanted(&self) -> String {
        match self.kind {
            QuestionKind::Text => format!("one line of at most {} characters", self.length()),
            QuestionKind::Boolean => "true or false".to_owned(),
            QuestionKind::Choice => format!("one of {}", self.choices.join(", ")),
            QuestionKind::Integer => match (self.min, self.max) {
                (None, None) => "a whole number".to_owned(),
                (Some(min), None) => format!("a whole number from {min} on"),
                (None, Some(max)) => format!("a whole number up to {max}"),
                (Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
            },
        }
    }

    /// What was typed, as an answer. The error is a reason: `"many" is not a whole number from 1 to 9`.
    pub fn read(&self, typed: &str) -> Result<Value, String> {
        let word = typed.trim();
        let value = match self.kind {
            QuestionKind::Text | QuestionKind::Choice => Some(Value::Text(typed.to_owned())),
            QuestionKind::Integer => word.parse().ok().map(Value::Integer),
            QuestionKind::Boolean => match word.to_ascii_lowercase().as_str() {
                "true" | "yes" | "y" => Some(Value::Boolean(true)),
                "false" | "no" | "n" => Some(Value::Boolean(false)),
                _ => None,
            },
        };
        let value = value.ok_or_else(|| format!("{word:?} is not {}", self.wanted()))?;
        self.check(&value).map(|()| value)
    }

    /// Whether a value answers the question. The error is a reason: `12 is not a whole number from 1 to 9`.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let fits = match (self.kind, value) {
            (QuestionKind::Text, Value::Text(text)) => return self.check_text(text),
            (QuestionKind::Text, _) => return Err(format!("{value} is no text; put it in quotes")),
            (QuestionKind::Choice, Value::Text(text)) => self.choices.contains(text),
            (QuestionKind::Boolean, Value::Boolean(_)) => true,
            (QuestionKind::Integer, Value::Integer(value)) => {
                self.min.is_none_or(|min| *value >= min) && self.max.is_none_or(|max| *value <= max)
            }
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let shown = match value {
            Value::Text(text) => format!("{text:?}"),
            Value::Boolean(_) | Value::Integer(_) => value.to_string(),
        };
        Err(format!("{shown} is not {}", self.wanted()))
    }

    fn check_text(&self, text: &str) -> Result<(), String> {
        if text.is_empty() && self.default != Some(Value::Text(String::new())) {
            return Err("is empty".to_owned());
        }
        if text.chars().count() > self.length() as usize {
            return Err(format!("has more than {} characters", self.length()));
        }
        if !is_line(text) {
            return Err(format!("{text:?} holds characters that are not part of a line of text"));
        }
        Ok(())
    }

    fn length(&self) -> u32 {
        self.max_length.unwrap_or(DEFAULT_MAX_LENGTH)
    }
}

/// One line that every YAML reader takes as it is: no control character, no line or paragraph separator, no byte order mark,
/// nothing that is no character, and nothing that turns the direction of writing, which would show another text.
pub(crate) fn is_line(text: &str) -> bool {
    !text.chars().any(|character| {
        character.is_control()
            || matches!(character,
                '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
                | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// What is wrong with the questions of a pack, one line each.
pub(crate) fn problems(pack: &PackDescriptor) -> Vec<String> {
    let mut problems = Vec::new();
    if pack.questions.len() > QUESTIONS_MOST {
        problems.push(format!("{} questions are more than {QUESTIONS_MOST}", pack.questions.len()));
    }
    if !pack.questions.is_empty() && pack.layer < Layer::Network {
        // Kubernetes is gone through version by version, by packs of other names: an answer could not follow.
        problems.push("questions belong to packs of the layers network, storage and addon".to_owned());
    }
    let mut names = HashSet::new();
    for question in &pack.questions {
        let mut say = |what: String| problems.push(format!("question {}: {what}", question.name));
        if !crate::definition::is_label(&question.name) {
            say("the name may hold lower-case letters, digits and dashes, at most 63".to_owned());
        }
        if VARIABLES.contains(&question.name.as_str()) {
            say("the name is that of a built-in variable".to_owned());
        }
        if !names.insert(&question.name) {
            say("the name is used twice".to_owned());
        }
        if question.text.trim().is_empty() || question.text.chars().count() > TEXT_MOST || !is_line(&question.text) {
            say(format!("the text is not one line of 1 to {TEXT_MOST} characters"));
        }
        bounds(question).into_iter().for_each(&mut say);
        if let Some(default) = &question.default
            && let Err(why) = question.check(default)
        {
            say(format!("default: {why}"));
        }
    }
    problems
}

/// What is wrong with what limits an answer.
fn bounds(question: &Question) -> Vec<String> {
    let mut problems = Vec::new();
    let is = |kind| question.kind == kind;
    if is(QuestionKind::Choice) {
        let mut known = HashSet::new();
        if question.choices.is_empty() || question.choices.len() > CHOICES_MOST {
            problems.push(format!("a choice has 1 to {CHOICES_MOST} choices"));
        }
        for choice in &question.choices {
            let is_good = is_line(choice) && (1..=DEFAULT_MAX_LENGTH as usize).contains(&choice.chars().count());
            if !is_good || choice.trim() != choice || !known.insert(choice) {
                problems.push(format!("choice {choice:?} is not one line, longer than 256 characters, or there twice"));
            }
        }
    } else if !question.choices.is_empty() {
        problems.push("choices belong to the kind choice".to_owned());
    }
    if question.max_length.is_some() && !is(QuestionKind::Text) {
        problems.push("max-length belongs to the kind text".to_owned());
    }
    if question.max_length.is_some_and(|most| !(1..=MAX_LENGTH_MOST).contains(&most)) {
        problems.push(format!("max-length must be 1 to {MAX_LENGTH_MOST}"));
    }
    if (question.min.is_some() || question.max.is_some()) && !is(QuestionKind::Integer) {
        problems.push("min and max belong to the kind integer".to_owned());
    }
    if let (Some(min), Some(max)) = (question.min, question.max)
        && min > max
    {
        problems.push(format!("min {min} is above max {max}"));
    }
    problems
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn question(yaml: &str) -> Question {
        serde_yaml::from_str(&format!("{{name: x, text: X, {yaml}}}")).expect(yaml)
    }

    #[test]
    fn answers_are_read_and_checked() {
        let text = |text: &str| Ok(Value::Text(text.to_owned()));
        for (yaml, typed, expected) in [
            ("kind: text", "Hi: \"you\" # {there}", text("Hi: \"you\" # {there}")),
            ("kind: text", "", Err("is empty")),
            ("kind: text, default: \"\"", "", text("")),
            ("kind: text, max-length: 3", "äöü", text("äöü")),
            ("kind: text, max-length: 3", "abcd", Err("more than 3 characters")),
            ("kind: text", "a\nb", Err("line of text")),
            ("kind: text", "a\tb", Err("line of text")),
            ("kind: text", "a\u{85}b", Err("line of text")),
            ("kind: text", "a\u{2028}b", Err("line of text")),
            ("kind: text", "a\u{feff}b", Err("line of text")),
            ("kind: text", "a\u{202e}b", Err("line of text")),
            ("kind: text", "a\0b", Err("line of text")),
            ("kind: integer", " -7 ", Ok(Value::Integer(-7))),
            ("kind: integer", "7.5", Err("a whole number")),
            ("kind: integer, min: 1, max: 9", "10", Err("10 is not a whole number from 1 to 9")),
            ("kind: integer, min: 1, max: 9", "0", Err("from 1 to 9")),
            ("kind: integer, min: 1", "many", Err("\"many\" is not a whole number from 1 on")),
            ("kind: boolean", "Yes", Ok(Value::Boolean(true))),
            ("kind: boolean", "false", Ok(Value::Boolean(false))),
            ("kind: boolean", "perhaps", Err("true or false")),
            ("kind: choice, choices: [a, b]", "b", text("b")),
            ("kind: choice, choices: [a, b]", "c", Err("\"c\" is not one of a, b")),
        ] {
            match (question(yaml).read(typed), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{yaml} {typed:?}"),
                (Err(why), Err(says)) => assert!(why.contains(says), "{yaml} {typed:?}: {why}"),
                (found, _) => panic!("{yaml} {typed:?}: {found:?}"),
            }
        }
        let wrong = |yaml: &str, value: Value| question(yaml).check(&value).unwrap_err();
        assert!(wrong("kind: text", Value::Integer(5)).contains("put it in quotes"));
        assert!(wrong("kind: integer", Value::Text("5".to_owned())).contains("\"5\" is not a whole number"));
        assert!(wrong("kind: boolean", Value::Integer(1)).contains("1 is not true or false"));
    }

    #[test]
    fn values_come_out_as_they_went_in() {
        let values: Vec<Value> = serde_yaml::from_str("[true, -3, three, \"3\", \"\"]").unwrap();
        assert_eq!(values[1], Value::Integer(-3));
        assert_eq!(values[3], Value::Text("3".to_owned()));
        assert_eq!(serde_json::to_string(&values).unwrap(), "[true,-3,\"three\",\"3\",\"\"]");
        assert_eq!(serde_yaml::from_str::<Vec<Value>>(&serde_yaml::to_string(&values).unwrap()).unwrap(), values);
        for bad in ["1.5", "null", "[1]", "{a: 1}", "18446744073709551615"] {
            assert!(serde_yaml::from_str::<Value>(bad).is_err(), "{bad}");
        }
    }
}
