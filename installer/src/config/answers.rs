//! Answers to the questions of packs: what stands in the configuration, judged by what a bundle asks. Pure.
//!
//! Called by the plan of an installation and of an upgrade, and by the pages.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bundle::index::{Index, Pack};
use bundle::question::{Question, Value};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::SIZE_LIMIT;

/// PACK → NAME → value.
pub type Answers = BTreeMap<String, BTreeMap<String, Value>>;

/// The answers to one pack, by name.
pub type PackAnswers = BTreeMap<String, Value>;

/// Something that is wrong with an answer, or missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerProblem {
    /// The pack.
    pub pack: String,
    /// The question; empty when the bundle has no such pack.
    pub name: String,
    /// Why.
    pub why: String,
    /// Nobody answered, and there is no default.
    pub is_open: bool,
}

impl fmt::Display for AnswerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answers.{}", self.pack)?;
        if !self.name.is_empty() {
            write!(f, ".{}", self.name)?;
        }
        write!(f, ": {}", self.why)
    }
}

/// How a file answers what is wrong or missing, on one line: `answers: {hello: {greeting: …}}`. `key` is the key above the
/// packs; empty where the packs are the top of the file.
pub fn form(key: &str, problems: &[AnswerProblem]) -> String {
    let mut packs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for problem in problems.iter().filter(|problem| !problem.name.is_empty()) {
        packs.entry(&problem.pack).or_default().push(format!("{}: …", problem.name));
    }
    let packs: Vec<String> = packs.iter().map(|(pack, names)| format!("{pack}: {{{}}}", names.join(", "))).collect();
    let packs = packs.join(", ");
    if key.is_empty() { format!("{{{packs}}}") } else { format!("{key}: {{{packs}}}") }
}

/// Reads a file of answers: YAML, PACK → NAME → value. The error is one line.
pub fn parse(text: &str) -> Result<Answers, String> {
    if text.len() > SIZE_LIMIT {
        return Err(format!("it has {} bytes, more than {SIZE_LIMIT}", text.len()));
    }
    match serde_yaml::from_str::<Option<Unique<Unique<Value>>>>(text) {
        Ok(all) => Ok(all.map(plain).unwrap_or_default()),
        Err(error) => Err(error.to_string()),
    }
}

/// As [`parse`], for a key of the configuration.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Answers, D::Error> {
    Unique::<Unique<Value>>::deserialize(deserializer).map(plain)
}

fn plain(all: Unique<Unique<Value>>) -> Answers {
    all.0.into_iter().map(|(pack, answers)| (pack, answers.0)).collect()
}

/// A mapping that says nothing twice: of two answers nobody knows which one was meant.
struct Unique<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("PACK, below it NAME: value")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Unique<V>, M::Error> {
                let mut all = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if all.contains_key(&name) {
                        return Err(M::Error::custom(format!("{name} is there twice")));
                    }
                    all.insert(name, value);
                }
                Ok(Unique(all))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// The question of a pack.
pub fn question<'a>(pack: &'a Pack, name: &str) -> Option<&'a Question> {
    pack.questions.iter().find(|question| question.name == name)
}

/// What is wrong with the answers that are given, whether their packs are installed or not.
pub fn wrong(given: &Answers, index: &Index) -> Vec<AnswerProblem> {
    let mut problems = Vec::new();
    for (name, answers) in given {
        let mut say = |question: &str, why: String| {
            problems.push(AnswerProblem { pack: name.clone(), name: question.to_owned(), why, is_open: false });
        };
        let Some(pack) = index.pack(name) else {
            let has: Vec<&str> = index.packs.iter().map(|pack| pack.name.as_str()).collect();
            say(
                "",
                format!("the bundle {} {} has no pack {name}; it has {}", index.name, index.version, has.join(", ")),
            );
            continue;
        };
        for (key, value) in answers {
            match question(pack, key).map(|question| question.check(value)) {
                Some(Ok(())) => {}
                Some(Err(why)) => say(key, why),
                None => say(key, asks(pack)),
            }
        }
    }
    problems
}

fn asks(pack: &Pack) -> String {
    let names: Vec<&str> = pack.questions.iter().map(|question| question.name.as_str()).collect();
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    format!("the pack does not ask that; it asks {names}")
}

/// The answers to all questions of these packs: what is given, else the default. What has none is a problem.
pub fn complete<'a>(given: &Answers, packs: impl IntoIterator<Item = &'a Pack>) -> (Answers, Vec<AnswerProblem>) {
    let (mut all, mut problems) = (Answers::new(), Vec::new());
    for pack in packs {
        for question in &pack.questions {
            let value = given.get(&pack.name).and_then(|answers| answers.get(&question.name));
            if let Some(value) = value.or(question.default.as_ref()) {
                all.entry(pack.name.clone()).or_default().insert(question.name.clone(), value.clone());
            } else {
                let why = format!("is not answered: {} ({})", question.text, question.wanted());
                problems.push(AnswerProblem {
                    pack: pack.name.clone(),
                    name: question.name.clone(),
                    why,
                    is_open: true,
                });
            }
        }
    }
    (all, problems)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{complete, form, parse, wrong};
    use bundle::index::Index;
    use serde_json::json;

    fn index() -> Index {
        let pack = |name: &str, questions: serde_json::Value| {
            json!({
                "digest": format!("sha256:{}", "0".repeat(64)), "size": 0, "name": name, "version": "1.0.0",
                "layer": "addon", "description": name, "images": [], "manifests": [], "files": [], "secrets": [],
                "gates": [], "optional-images": [], "questions": questions,
            })
        };
        let content = json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 0});
        let questions = json!([
            {"name": "greeting", "text": "What it says", "kind": "text"},
            {"name": "replicas", "text": "How many", "kind": "integer", "min": 1, "max": 9, "default": 1},
        ]);
        serde_json::from_value(json!({
            "schema-version": 1, "media-type": "", "name": "cofferdam", "version": "1.1.0", "architecture": "amd64",
            "packs": [pack("hello", questions), pack("plain", json!([]))], "images": [], "blobs": [],
            "oci-layout": content, "oci-index": content, "trust": {"next-keys": []},
        }))
        .unwrap()
    }

    #[test]
    fn answers_are_judged_by_what_the_bundle_asks() {
        let index = index();
        for (text, says) in [
            ("", vec![]),
            ("hello: {greeting: Hi, replicas: 3}", vec![]),
            ("hello: {replicas: 30}", vec!["answers.hello.replicas: 30 is not a whole number from 1 to 9"]),
            (
                "{hello: {greeting: 5, colour: red}, plain: {size: 1}, other: {}}",
                vec![
                    "answers.hello.colour: the pack does not ask that; it asks greeting, replicas",
                    "answers.hello.greeting: 5 is no text; put it in quotes",
                    "answers.other: the bundle cofferdam 1.1.0 has no pack other; it has hello, plain",
                    "answers.plain.size: the pack does not ask that; it asks nothing",
                ],
            ),
        ] {
            let problems = wrong(&parse(text).unwrap(), &index);
            assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), says, "{text}");
        }
        for bad in ["hello", "hello: [1]", "hello: {a: 1.5}", "hello: {a: {b: 1}}", "a: {}\na: {}", "a: {b: 1, b: 2}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let twice = format!("{}answers: {{a: {{b: 1, b: 2}}}}\n", crate::config::example::EXAMPLE);
        assert!(crate::config::parse(&twice).unwrap_err().to_string().contains("b is there twice"));
    }

    #[test]
    fn what_nobody_answered_is_the_default_or_open() {
        let index = index();
        let (all, open) = complete(&parse("hello: {greeting: Hi}").unwrap(), &index.packs);
        assert_eq!(serde_json::to_value(all).unwrap(), json!({"hello": {"greeting": "Hi", "replicas": 1}}));
        assert!(open.is_empty());
        let (all, open) = complete(&parse("").unwrap(), &index.packs);
        assert_eq!(serde_json::to_value(all).unwrap(), json!({"hello": {"replicas": 1}}));
        let expected = "answers.hello.greeting: is not answered: What it says (one line of at most 256 characters)";
        assert_eq!(open[0].to_string(), expected);
        assert_eq!(form("answers", &open), "answers: {hello: {greeting: …}}");
        assert_eq!(form("", &open), "{hello: {greeting: …}}");
    }
}
