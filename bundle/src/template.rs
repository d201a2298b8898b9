//! Variables in manifests and files that say `template: true`. Invariant: rendering replaces known variables and
//! nothing else; an unknown or unclosed one is an error, so that a typing mistake never reaches a cluster. Called by
//! `create` (which proves that every variable is known) and by the installer (which knows the values).
//!
//! `${name}` is replaced; `$${` stands for a literal `${`; any other `$` is itself.
//!
//! The answers to a pack's questions are a site's own words. Invariant: whatever they are, a Kubernetes manifest that passed
//! [`confined`] is the same tree of YAML with other texts at the same leaves. So what is proven of a manifest when a bundle
//! is created, such as the images that it names, is true of it on every site.

use serde::Deserialize;
use serde_yaml::Value as Yaml;

use crate::question::{Question, QuestionKind, Value};

/// The variables that the installer knows.
pub const VARIABLES: [&str; 7] = ["fqdn", "vip", "pod-cidr", "service-cidr", "node-name", "node-ip", "cluster-name"];

/// Why a template cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A variable that has no value.
    #[error("line {line}: ${{{name}}} is not a known variable")]
    Unknown {
        /// Counted from 1.
        line: usize,
        /// The name between the braces.
        name: String,
    },
    /// `${` without `}` on the same line.
    #[error("line {line}: ${{ is not closed")]
    Unclosed {
        /// Counted from 1.
        line: usize,
    },
}

/// Renders a template. `value` gives what a variable stands for, `None` if there is no such variable.
pub fn render(text: &str, value: &mut dyn FnMut(&str) -> Option<String>) -> Result<String, TemplateError> {
    let mut rendered = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(literal) = before.strip_suffix('$') {
                rendered.push_str(literal);
                rendered.push_str("${");
                rest = after;
                continue;
            }
            rendered.push_str(before);
            let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed { line: number + 1 })?;
            let value =
                value(name).ok_or_else(|| TemplateError::Unknown { line: number + 1, name: name.to_owned() })?;
            rendered.push_str(&value);
            rest = after;
        }
        rendered.push_str(rest);
    }
    Ok(rendered)
}

/// Whether a file, of a format that nobody knows here, may hold the answer: it is made of digits, or of the pack's own words.
pub fn may_stand_in_a_file(question: &Question) -> bool {
    question.kind != QuestionKind::Text
}

/// Names of the questions that a template uses and that may not stand in a file.
pub(crate) fn texts_of(text: &str, questions: &[Question]) -> Vec<String> {
    let mut found = Vec::new();
    let _ = render(text, &mut |name| {
        let asked = questions.iter().find(|question| question.name == name);
        found.extend(asked.filter(|question| !may_stand_in_a_file(question)).map(|question| question.name.clone()));
        Some(String::new())
    });
    found
}

/// Answers that would leave a place that does not confine them. Each one is a text that a site may give.
const HOSTILE: [&str; 4] =
    ["a\" b: [c, {d: 'e', #f - \\g & *h !i | > % @ `$${j} ~", "--- k", "... l: \"m", "\\\" n: '"];

/// The marks around a question's name where its answer stands; a private use of Unicode, part of no keyword of YAML.
const MARKS: [char; 2] = ['\u{e000}', '\u{e001}'];

/// Proves that no answer can leave its place in a Kubernetes manifest: a text or a choice stands within double quotes, and
/// none is part of a key. The error says which question does not, one line.
///
/// The proof: the manifest with hostile answers is the manifest with a mark at each of them, but for these texts. A place
/// in double quotes is the only one where that is so of escaped quotes, and what stands there never ends it.
pub(crate) fn confined(text: &str, questions: &[Question]) -> Result<(), String> {
    let used: Vec<&Question> =
        questions.iter().filter(|question| text.contains(&format!("${{{}}}", question.name))).collect();
    let marked = documents(&answered(text, questions, &[], "")?)?;
    marked.iter().try_for_each(refuse_keys)?;
    let texts: Vec<&Question> = used.into_iter().filter(|question| !may_stand_bare(question)).collect();
    for hostile in HOSTILE {
        let stays = |hostiles: &[&Question]| {
            let expected: Vec<Yaml> = marked.iter().map(|document| replaced(document, hostiles, hostile)).collect();
            let found = answered(text, questions, hostiles, hostile).and_then(|text| documents(&text));
            found.is_ok_and(|found| found == expected)
        };
        // All at once, since a manifest may be large; which one it is, is only asked when it matters.
        if !stays(&texts) {
            let loose = texts.iter().find(|question| !stays(std::slice::from_ref(question)));
            let name = loose.or(texts.first()).map_or("", |question| &question.name);
            return Err(format!(
                "the answer to the question {name} can leave its place: write \"${{{name}}}\", in double quotes"
            ));
        }
    }
    Ok(())
}

/// The mark that stands for a question.
fn mark(question: &Question) -> String {
    format!("{}{}{}", MARKS[0], question.name, MARKS[1])
}

/// The template with this answer to some questions, and marks for the others.
fn answered(text: &str, questions: &[Question], hostiles: &[&Question], answer: &str) -> Result<String, String> {
    let mut value = |name: &str| match questions.iter().find(|question| question.name == name) {
        Some(question) if hostiles.contains(&question) => Some(Value::Text(answer.to_owned()).in_manifest()),
        Some(question) => Some(mark(question)),
        None => VARIABLES.contains(&name).then(|| "built-in".to_owned()),
    };
    render(text, &mut value).map_err(|error| error.to_string())
}

/// Numbers and truth values hold nothing that means something in YAML.
fn may_stand_bare(question: &Question) -> bool {
    matches!(question.kind, QuestionKind::Integer | QuestionKind::Boolean)
}

fn documents(text: &str) -> Result<Vec<Yaml>, String> {
    let parsed = serde_yaml::Deserializer::from_str(text).map(Yaml::deserialize).collect::<Result<_, _>>();
    parsed.map_err(|error| error.to_string())
}

/// A key that an answer decides could be there twice, or be another one.
fn refuse_keys(value: &Yaml) -> Result<(), String> {
    match value {
        Yaml::Mapping(mapping) => mapping.iter().try_for_each(|(key, value)| {
            let is_marked = serde_yaml::to_string(key).is_ok_and(|key| key.contains(MARKS[0]));
            if is_marked { Err("the answer to a question is part of a key".to_owned()) } else { refuse_keys(value) }
        }),
        Yaml::Sequence(elements) => elements.iter().try_for_each(refuse_keys),
        Yaml::Tagged(tagged) if tagged.tag.to_string().contains(MARKS[0]) => {
            Err("the answer to a question is part of a tag".to_owned())
        }
        Yaml::Tagged(tagged) => refuse_keys(&tagged.value),
        _ => Ok(()),
    }
}

/// The same with another text for the marks of these questions.
fn replaced(value: &Yaml, questions: &[&Question], by: &str) -> Yaml {
    match value {
        Yaml::String(text) => {
            Yaml::String(questions.iter().fold(text.clone(), |text, question| text.replace(&mark(question), by)))
        }
        Yaml::Sequence(elements) => elements.iter().map(|element| replaced(element, questions, by)).collect(),
        Yaml::Mapping(mapping) => {
            Yaml::Mapping(mapping.iter().map(|(key, value)| (key.clone(), replaced(value, questions, by))).collect())
        }
        Yaml::Tagged(tagged) => {
            let mut tagged = tagged.clone();
            tagged.value = replaced(&tagged.value, questions, by);
            Yaml::Tagged(tagged)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn replaces_variables_and_nothing_else() {
        let unknown = |line, name: &str| Err(TemplateError::Unknown { line, name: name.to_owned() });
        for (text, expected) in [
            ("", Ok("")),
            ("host: ${fqdn}\n", Ok("host: a.example\n")),
            ("${fqdn}${fqdn}", Ok("a.examplea.example")),
            ("echo $HOME $$ $(x) $", Ok("echo $HOME $$ $(x) $")),
            ("echo $${HOME}", Ok("echo ${HOME}")),
            ("$$${fqdn}", Ok("$${fqdn}")),
            ("a\n${nope}", unknown(2, "nope")),
            ("${}", unknown(1, "")),
            ("${fqdn\n}", Err(TemplateError::Unclosed { line: 1 })),
        ] {
            let rendered = render(text, &mut |name| (name == "fqdn").then(|| "a.example".to_owned()));
            assert_eq!(rendered, expected.map(str::to_owned), "{text:?}");
        }
    }
    fn questions() -> Vec<Question> {
        let yaml = "[{name: word, text: A, kind: text}, {name: words, text: B, kind: text}, \
                     {name: size, text: C, kind: choice, choices: [s, m]}, {name: count, text: D, kind: integer}, \
                     {name: is-on, text: E, kind: boolean}]";
        serde_yaml::from_str(yaml).unwrap()
    }

    const CONFINED: &str = r#"
# ${word}
metadata: {name: "x-${words}", labels: {on: "${is-on}"}}
spec:
  replicas: ${count}
  on: ${is-on}
  size: "${size}"
  text: "${word}${words}, ${word}!"
  json: {"a": ["${word}", ${count}]}
  port: 1${count}
  fqdn: ${fqdn}
---
- "${word}"
"#;

    #[test]
    fn an_answer_stays_where_it_stands() {
        confined(CONFINED, &questions()).unwrap();
        for (why, yaml) in [
            ("bare", "a: ${word}"),
            ("bare choice", "a: ${size}"),
            ("part of a bare text", "a: b-${word}-c"),
            ("single quotes", "a: '${word}'"),
            ("a literal block", "a: |\n  b = \"${word}\"\n"),
            ("a folded block", "a: >\n  ${word}\n"),
            ("a flow sequence", "a: [b, ${word}]"),
            ("a document of its own", "${word}"),
            ("the beginning of a line", "a: \"b\n${word}\""),
            ("a key", "\"${word}\": b"),
            ("a key out of a number", "${count}: b"),
            ("a key in a key", "? {\"${word}\": b}\n: c"),
            ("a tag", "a: !${word} b"),
            ("a tag out of a number", "a: !t${count} b"),
            ("an anchor", "a: &${count} b"),
            ("a directive", "%YAML 1.${count}\n---\na: b"),
            ("once well and once not", "a: \"${word}\"\nb: ${word}"),
            ("unknown", "a: \"${other}\""),
        ] {
            let refused = confined(yaml, &questions());
            assert!(refused.is_err(), "{why}: {yaml}");
        }
        assert!(confined("a: ${word}", &questions()).unwrap_err().contains("write \"${word}\", in double quotes"));
    }

    /// What a site may answer, with the characters that mean something in YAML more often than others.
    fn answer() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let letter = prop_oneof![
            prop::sample::select("\"'\\:#-[]{}, &*!|>%@`~?$\u{a0}".chars().collect::<Vec<_>>()),
            any::<char>()
        ];
        let is_taken = |letter: &char| crate::question::is_line(&letter.to_string());
        prop::collection::vec(letter.prop_filter("part of a line", is_taken), 1..24).prop_map(String::from_iter)
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn no_answer_changes_a_manifest(word in answer(), words in answer(), count in proptest::prelude::any::<i32>()) {
            for text in [&word, &words] {
                proptest::prop_assert!(questions()[0].check(&Value::Text(text.clone())).is_ok());
            }
            let text = render(CONFINED, &mut |name| Some(match name {
                "word" => Value::Text(word.clone()).in_manifest(),
                "words" => Value::Text(words.clone()).in_manifest(),
                "size" => "m".to_owned(),
                "count" => Value::Integer(count.into()).in_manifest(),
                "is-on" => Value::Boolean(true).in_manifest(),
                _ => "a.example".to_owned(),
            }));
            let found = documents(&text.unwrap()).unwrap();
            proptest::prop_assert_eq!(found.len(), 2);
            let spec = &found[0]["spec"];
            proptest::prop_assert_eq!(spec["text"].as_str().unwrap(), format!("{word}{words}, {word}!"));
            proptest::prop_assert_eq!(spec["json"]["a"][0].as_str().unwrap(), word.as_str());
            proptest::prop_assert_eq!(spec["replicas"].as_i64().unwrap(), i64::from(count));
            proptest::prop_assert_eq!(spec.as_mapping().unwrap().len(), 7);
            proptest::prop_assert_eq!(found[1][0].as_str().unwrap(), word.as_str());
        }
    }
}
